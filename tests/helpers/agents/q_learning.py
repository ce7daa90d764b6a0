"""Tabular Q-learning from replayed transitions, epsilon-greedy."""

import jax
import jax.numpy as jnp

from jaxrl.agent import Agent, Replay, Update
from jaxrl.types import Scalar, static


class QLearning(Agent):
    """Observations are one-hot; the state is the table Q `[states, actions]`."""

    learning_rate: Scalar = 0.1
    discount: Scalar = 0.9
    epsilon: Scalar = 0.5
    num_envs: int = static(default=8)
    num_steps: int = static(default=4)
    capacity: int = static(default=1024)
    warmup: int = static(default=128)

    @property
    def plan(self):
        return Replay(
            self.num_envs,
            self.num_steps,
            num_updates=8,
            batch_size=64,
            capacity=self.capacity,
            warmup=self.warmup,
        )

    def init(self, key):
        return jnp.zeros((self.spec.observation.shape[0], self.spec.action.num))

    def act(self, state, carry, obs, key, clock, *, explore):
        greedy = jnp.argmax(obs @ state, axis=-1)
        if not explore:
            return carry, greedy, ()
        key_whether, key_what = jax.random.split(key)
        other = jax.random.randint(key_what, greedy.shape, 0, state.shape[1])
        explores = jax.random.bernoulli(key_whether, self.epsilon, greedy.shape)
        return carry, jnp.where(explores, other, greedy), ()

    def update(self, state, batch, key, clock):
        next_value = jnp.max(batch.next_obs @ state, axis=-1)
        target = batch.reward + self.discount * jnp.where(batch.terminated, 0.0, next_value)
        value = jnp.take_along_axis(batch.obs @ state, batch.action[:, None], axis=1)[:, 0]
        chosen = jax.nn.one_hot(batch.action, state.shape[1])
        step = jnp.einsum("bs,ba,b->sa", batch.obs, chosen, target - value)
        new = state + self.learning_rate * step
        return Update(new, {"error": jnp.abs(target - value).mean()})
