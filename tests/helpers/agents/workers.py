"""A3C-style workers: each acts with a stale copy of the shared parameters that all update."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Agent, OnPolicy, Update
from jaxrl.distributions import Categorical
from jaxrl.estimators import discounted_returns
from jaxrl.losses import mean
from jaxrl.types import Scalar, static


class State(struct.PyTreeNode):
    shared: jax.Array  # [features, actions]
    own: jax.Array  # [workers, features, actions]


class Workers(Agent):
    learning_rate: Scalar = 0.3
    discount: Scalar = 0.9
    num_workers: int = static(default=4)
    envs_per_worker: int = static(default=8)

    @property
    def plan(self):
        return OnPolicy(self.num_workers * self.envs_per_worker, num_steps=4, layout="env")

    def init(self, key):
        shape = (self.spec.observation.shape[0], self.spec.action.num)
        return State(jnp.zeros(shape), jnp.zeros((self.num_workers, *shape)))

    def act(self, state, carry, obs, key, clock, *, explore):
        if not explore:
            return carry, jnp.argmax(obs @ state.shared, axis=-1), ()
        own = obs.reshape(self.num_workers, self.envs_per_worker, -1)
        logits = jnp.einsum("wni,wia->wna", own, state.own).reshape(obs.shape[0], -1)
        return carry, Categorical(logits).sample(key), ()

    def update(self, state, batch, key, clock):
        steps = batch.steps
        returns = discounted_returns(
            steps.reward,
            jnp.zeros_like(steps.reward),
            steps.terminated,
            steps.truncated,
            self.discount,
        )

        def loss(weights, obs, action, returns):
            return -mean(Categorical(obs @ weights).log_prob(action) * returns)

        def of_worker(x):  # [T, N, ...] -> [W, T, N / W, ...]
            x = x.reshape(x.shape[0], self.num_workers, self.envs_per_worker, *x.shape[2:])
            return jnp.moveaxis(x, 1, 0)

        data = jax.tree.map(of_worker, (steps.obs, steps.action, returns))
        gradients = jax.vmap(jax.grad(loss))(state.own, *data)
        shared = state.shared - self.learning_rate * gradients.mean(0)
        turn = jnp.arange(self.num_workers) == clock.iteration % self.num_workers
        own = jnp.where(turn[:, None, None], shared[None], state.own)
        staleness = jnp.abs(own - shared[None]).max()
        return Update(State(shared, own), {"staleness": staleness})
