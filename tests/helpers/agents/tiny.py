"""A small agent that learns from what it sees and compiles quickly, for tests of whole runs."""

import jax
import jax.numpy as jnp

from helpers.agents.idle import Idle
from jaxrl.agent import OnPolicy, Update
from jaxrl.losses import mean
from jaxrl.types import Scalar, static


class Tiny(Idle):
    """Its state moves at random, by as much as the mean of rewards and observations."""

    discount: Scalar = 1.0
    num_envs: int = static(default=4)

    @property
    def plan(self):
        return OnPolicy(self.num_envs, 8, 1, 1)

    def act(self, state, carry, obs, key, clock, *, explore):
        noise = jax.random.normal(key, (len(obs),))
        return carry, (noise > state[0]).astype(jnp.int32), ()

    def update(self, state, batch, key, clock):
        size = mean(batch.steps.reward + batch.steps.obs.sum(-1))
        move = size * jax.random.normal(key, (3,))
        return Update(0.9 * state + 0.1 * move, {"moved": move.sum()})
