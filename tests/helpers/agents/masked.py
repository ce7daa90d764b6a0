"""A masked actor-critic that learns after each step, during the episode."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Agent, OnPolicy, Update
from jaxrl.distributions import Categorical
from jaxrl.losses import mean
from jaxrl.types import Scalar, split_mask, static


class State(struct.PyTreeNode):
    policy: jax.Array  # [features, actions]
    value: jax.Array  # [features]


class MaskedActorCritic(Agent):
    """Linear in the observation (Sutton and Barto, 2018, section 13.5, without the factor I)."""

    learning_rate: Scalar = 0.2
    discount: Scalar = 0.9
    num_envs: int = static(default=64)

    @property
    def plan(self):
        return OnPolicy(self.num_envs, num_steps=1)

    def init(self, key):
        size = self.spec.observation.obs.shape[0]
        return State(jnp.zeros((size, self.spec.action.num)), jnp.zeros(size))

    def act(self, state, carry, obs, key, clock, *, explore):
        features, mask = split_mask(obs)
        policy = Categorical(features @ state.policy, mask)
        return carry, policy.sample(key) if explore else policy.mode(), ()

    def update(self, state, batch, key, clock):
        step = batch.steps

        def loss(state):
            features, mask = split_mask(step.obs)
            value = features @ state.value
            next_value = jax.lax.stop_gradient(split_mask(step.next_obs)[0] @ state.value)
            target = step.reward + self.discount * jnp.where(step.terminated, 0.0, next_value)
            error = jax.lax.stop_gradient(target - value)
            log_prob = Categorical(features @ state.policy, mask).log_prob(step.action)
            return -mean(error * (log_prob + value)), mean(jnp.square(error))

        gradient, squared_error = jax.grad(loss, has_aux=True)(state)
        state = jax.tree.map(lambda x, g: x - self.learning_rate * g, state, gradient)
        return Update(state, {"squared_error": squared_error})
