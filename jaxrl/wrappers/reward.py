"""Reward wrappers: scale and clip."""

import jax.numpy as jnp

from jaxrl.environment import Timestep
from jaxrl.types import Key, PyTree, Scalar
from jaxrl.wrappers.base import Wrapper


class ScaleReward(Wrapper):
    """Multiplies the reward.

    Attributes:
      scale: the factor.
    """

    scale: Scalar = 1.0

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        state, timestep = self.env.step(key, state, action)
        return state, timestep.replace(reward=timestep.reward * self.scale)


class ClipReward(Wrapper):
    """Clips the reward to [low, high].

    Attributes:
      low, high: the bounds.
    """

    low: Scalar = -1.0
    high: Scalar = 1.0

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        state, timestep = self.env.step(key, state, action)
        return state, timestep.replace(reward=jnp.clip(timestep.reward, self.low, self.high))
