"""A planar arm that reaches for targets: kinematics in closed form, so that the optimum is known.

The best return is 0, since each target is drawn within reach. If only a grid of angles is allowed,
the best return is minus the distance of the nearest grid point. Exact solutions are NumPy float64.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.types import Array, Box, EnvSpec, Key, static
from jaxrl.validation import check_whole

Floats = np.ndarray


class Arm(struct.PyTreeNode):
    """An action sets the joint angles; the reward is minus the distance of the hand to the target.

    Joint i turns link i against the link before it. The base is at the origin, and the stretched
    arm points along x. The target `float32[2]` is observed and stays for the episode. It is the
    hand's position at angles drawn uniformly from the box of actions. Steps do not depend on
    earlier ones, so with discount 0 this is a contextual bandit.

    Attributes:
      lengths: `float32[J]`, lengths of the links.
      limit: actions are J angles from -limit to limit, in radians.
      max_steps: the time limit, which truncates.
    """

    lengths: Any
    limit: float = static(default=float(np.pi / 4))
    max_steps: int = static(default=1)

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            jax.ShapeDtypeStruct((2,), jnp.float32),
            Box.of(-self.limit, self.limit, self.lengths.shape[-1:]),
            self.max_steps,
            truncates="at_max_steps",
        )

    def hand(self, angles: Array) -> Array:
        """The position of the hand, `[2]`, for joint angles `[J]` in radians."""
        heading = jnp.cumsum(angles)
        x, y = self.lengths * jnp.cos(heading), self.lengths * jnp.sin(heading)
        return jnp.stack([jnp.sum(x), jnp.sum(y)])

    def reset(self, key: Key) -> tuple[tuple[Array, Array], Array]:
        shape = self.lengths.shape
        angles = jax.random.uniform(key, shape, minval=-self.limit, maxval=self.limit)
        target = self.hand(angles)
        return (target, jnp.int32(0)), target

    def step(
        self, key: Key, state: tuple[Array, Array], action: Array
    ) -> tuple[tuple[Array, Array], Timestep]:
        target, time = state[0], state[1] + 1
        distance = jnp.sqrt(jnp.sum((self.hand(action) - target) ** 2))
        over = time >= self.max_steps
        return (target, time), Timestep(target, -distance, jnp.bool_(False), over)


def make(
    lengths: ArrayLike = (1.0, 1.0, 1.0), max_degrees: float = 45.0, max_steps: int = 1
) -> Arm:
    """Builds an arm.

    Args:
      lengths: positive lengths of the links, `[J]`; one joint for each.
      max_degrees: joint angles are from -max_degrees to max_degrees, at most 180.
      max_steps: attempts at each target.

    Raises:
      ValueError: `lengths` is not a list of positive numbers, or another value is out of range.
    """
    lengths = np.asarray(lengths, np.float32)
    if lengths.ndim != 1 or not lengths.size or not ((lengths > 0) & np.isfinite(lengths)).all():
        raise InvalidValue(f"lengths is {lengths.tolist()}: give a positive number for each link")
    if not 0 < max_degrees <= 180:
        raise InvalidValue(f"max_degrees is {max_degrees}: it must be above 0 and at most 180")
    check_whole("max_steps", max_steps)
    return Arm(jnp.asarray(lengths), float(np.radians(max_degrees)), max_steps)


# Exact solutions ----------------------------------------------------------------------------------


def inverse(env: Arm, target: Floats) -> Floats:
    """The angles `[3]` with which an arm of three joints reaches `target[2]`.

    Of all solutions, the one whose largest angle is smallest.

    For each heading of the last link, the other two are a triangle with known sides (law of
    cosines). The heading is found by a search on a grid that becomes finer around the best one.

    Raises:
      ValueError: the arm does not have three joints, or the target is out of reach.
    """
    lengths = np.asarray(env.lengths, np.float64)
    if lengths.size != 3:
        raise InvalidValue(f"the arm has {lengths.size} joints: inverse needs 3")
    goal = complex(*np.asarray(target, np.float64))
    centre, width, best = np.angle(goal), np.pi, np.zeros(3)
    for _ in range(6):
        angles = _two_links(lengths, goal, centre + width * np.linspace(-1.0, 1.0, 1001))
        best = angles[np.argmin(np.abs(angles).max(-1))]
        if not np.isfinite(best).all():
            break
        centre, width = best.sum(), width / 50
    if not np.abs(best).max() <= env.limit + 1e-5:  # targets are float32
        raise InvalidValue(f"the target {np.asarray(target).tolist()} is out of reach")
    return best


def _two_links(lengths: Floats, goal: complex, heading: Floats) -> Floats:
    """Angles `[2 N, 3]` for headings `[N]` of the last link and both elbows; inf if none."""
    first, second, third = lengths
    wrist = goal - third * np.exp(1j * heading)
    cosine = (np.abs(wrist) ** 2 - first**2 - second**2) / (2 * first * second)
    possible = np.abs(cosine) <= 1 + 1e-6  # targets are float32
    found = []
    for sign in (-1, 1):
        elbow = sign * np.arccos(np.clip(cosine, -1.0, 1.0))
        shoulder = np.angle(wrist / (first + second * np.exp(1j * elbow)))
        last = np.angle(np.exp(1j * (heading - shoulder - elbow)))
        angles = np.stack([shoulder, elbow, last], axis=-1)
        found.append(np.where(possible[:, None], angles, np.inf))
    return np.concatenate(found)


def nearest_on_grid(env: Arm, target: Floats, num_bins: int) -> tuple[float, Floats]:
    """The smallest distance to `target[2]` with evenly spaced angles, and those angles `[J]`.

    All `num_bins ** J` combinations are tried.
    """
    grid, lengths = np.linspace(-env.limit, env.limit, num_bins), np.asarray(env.lengths)
    hand, heading = np.zeros(1, complex), np.ones(1, complex)  # of all combinations so far
    for length in lengths.astype(np.float64):
        heading = np.outer(heading, np.exp(1j * grid)).ravel()
        hand = np.repeat(hand, num_bins) + length * heading
    distance = np.abs(hand - complex(*np.asarray(target, np.float64)))
    index = np.unravel_index(np.argmin(distance), (num_bins,) * len(lengths))
    return float(distance.min()), grid[np.asarray(index)]
