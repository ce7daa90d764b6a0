"""An agent that learns nothing and compiles quickly, for tests of the engine and of runs."""

import jax
import jax.numpy as jnp

from jaxrl.agent import Agent, OnPolicy, Update
from jaxrl.types import static


class Idle(Agent):
    """Always takes action 0. Its state is three random numbers."""

    num_envs: int = static(default=2)

    @property
    def plan(self):
        return OnPolicy(self.num_envs, 5, 1, 1)

    def init(self, key):
        return jax.random.uniform(key, (3,))

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.zeros(obs.shape[0], jnp.int32), ()

    def update(self, state, batch, key, clock):
        return Update(state, {"fraction": clock.fraction})
