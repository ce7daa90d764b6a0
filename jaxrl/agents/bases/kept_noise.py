"""Noise of exploration that is kept for several steps (Raffin, Kober and Stulp, 2021)."""

from typing import Self

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.errors import InvalidValue
from jaxrl.trees import tree_where
from jaxrl.types import Array, Key


class KeptNoise(struct.PyTreeNode):
    """The carry of agents whose noise is linear in features.

    Attributes:
      noise: `float32[N, F, *shape]`, standard normal weights.
      age: `int32[N]`, steps since they were drawn; 0 if they are still to be drawn.
    """

    noise: Array
    age: Array

    @classmethod
    def start(cls, num_envs: int, shape: tuple[int, ...]) -> Self:
        """The carry as an episode starts; weights have this shape."""
        return cls(jnp.zeros((num_envs, *shape)), jnp.zeros(num_envs, jnp.int32))

    def next(self, key: Key, every: int | None) -> Self:
        """The noise of a step, drawn again every so many steps; None keeps it for the episode."""
        drawn = jax.random.normal(key, self.noise.shape)
        noise = tree_where(self.age == 0, drawn, self.noise)
        age = jnp.ones_like(self.age) if every is None else (self.age + 1) % every
        return self.replace(noise=noise, age=age)


def check_kept(std_from: str, noise_every: int | None) -> None:
    """Raises ValueError if `noise_every` is set for noise that is not kept."""
    if noise_every is not None and std_from != "features":
        raise InvalidValue(
            f"noise_every is {noise_every}, but std_from is {std_from!r}: only 'features' keeps "
            "its noise"
        )
