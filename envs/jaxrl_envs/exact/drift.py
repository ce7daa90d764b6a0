"""A drifting corridor, in which a pupil that never saw the way back is lost after one mistake.

A problem of the kind with which Ross, Gordon and Bagnell ("A reduction of imitation learning and
structured prediction to no-regret online learning", 2011) separate cloning from DAgger: with T
steps and a chance of a mistake of epsilon per step, the cost of cloning grows as epsilon T^2 / 2,
that of DAgger as epsilon T.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.types import Array, Discrete, EnvSpec, Key, static
from jaxrl_envs.exact.values import Floats

MOVES = (0, -1, 1, -2, 2)
"""The lateral move of each action."""


class DriftingCorridor(struct.PyTreeNode):
    """A walk along a corridor, with a cost of 1 for each step that ends off its middle.

    Off the middle the floor drifts outward by 1 per step. In the middle a gust of wind moves the
    walker to one side, which only who sees the wind can counter. The observation is a one-hot
    vector of the offset, -width to width, and then the wind: -1, 0 or 1.

    Attributes:
      gust: probability of wind in a step.
      width: the largest offset.
      horizon: T, the steps of an episode.
    """

    gust: Any = 0.002
    width: int = static(default=4)
    horizon: int = static(default=32)

    @property
    def spec(self) -> EnvSpec:
        size = 2 * self.width + 2
        return EnvSpec(
            jax.ShapeDtypeStruct((size,), jnp.float32),
            Discrete(len(MOVES)),
            max_steps=self.horizon,
            truncates="at_max_steps",
        )

    def _observed(self, offset: Array, wind: Array) -> Array:
        place = jax.nn.one_hot(offset + self.width, 2 * self.width + 1, dtype=jnp.float32)
        return jnp.append(place, wind.astype(jnp.float32))

    def _wind(self, key: Key) -> Array:
        x = jax.random.uniform(key)
        return jnp.where(x < self.gust, jnp.where(x < 0.5 * self.gust, -1, 1), 0)

    def reset(self, key: Key) -> tuple[Any, Array]:
        """Starts in the middle."""
        offset, wind = jnp.int32(0), self._wind(key)
        return (offset, wind, jnp.int32(0)), self._observed(offset, wind)

    def step(self, key: Key, state: Any, action: Array) -> tuple[Any, Timestep]:
        """Moves, then drifts."""
        offset, wind, time = state
        move = jnp.asarray(MOVES)[action]
        offset = offset + move + jnp.where(offset == 0, wind, jnp.sign(offset))
        offset, time = jnp.clip(offset, -self.width, self.width), time + 1
        wind = self._wind(key)
        timestep = Timestep(
            obs=self._observed(offset, wind),
            reward=-(offset != 0).astype(jnp.float32),
            terminated=jnp.bool_(False),
            truncated=time >= self.horizon,
        )
        return (offset, wind, time), timestep

    def expert(self, obs: Array) -> Array:
        """Actions `[N]` without a cost, for observations `[N, ...]`: against the wind, and back."""
        offset = jnp.argmax(obs[:, :-1], axis=-1) - self.width
        move = jnp.where(offset == 0, -obs[:, -1].astype(jnp.int32), -2 * jnp.sign(offset))
        return jnp.argmax(jnp.asarray(MOVES)[None] == move[:, None], axis=-1)

    def blind_cost(self, moves: Floats) -> float:
        """The expected cost of an episode without seeing the wind.

        Args:
          moves: the move at each offset, `[2 width + 1]`.
        """
        offsets = np.arange(-self.width, self.width + 1)
        chance, cost = (offsets == 0).astype(float), 0.0
        gust = float(self.gust)
        for _ in range(self.horizon):
            after = np.zeros_like(chance)
            for wind, share in ((0, 1.0 - gust), (-1, 0.5 * gust), (1, 0.5 * gust)):
                drift = np.where(offsets == 0, wind, np.sign(offsets))
                to = np.clip(offsets + moves + drift, -self.width, self.width).astype(int)
                np.add.at(after, to + self.width, share * chance)
            chance = after
            cost += 1.0 - chance[self.width]
        return cost


def make(gust: float = 0.002, width: int = 4, horizon: int = 32) -> DriftingCorridor:
    """Builds the corridor.

    Raises:
      ValueError: `gust` is no probability, or a size is too small.
    """
    if not 0.0 <= gust <= 1.0:
        raise InvalidValue(f"gust is {gust}: it must be a probability, from 0 to 1")
    if width < 2 or horizon < 1:
        raise InvalidValue(
            f"width is {width} and horizon {horizon}: give at least 2 and at least 1"
        )
    return DriftingCorridor(gust, width, horizon)
