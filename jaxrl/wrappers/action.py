"""Action wrappers: discretised and sticky actions."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.spaces import MOST
from jaxrl.trees import num_values
from jaxrl.types import (
    ActionSpace,
    Array,
    Box,
    Discrete,
    EnvSpec,
    Key,
    Mixed,
    MultiDiscrete,
    PyTree,
    Scalar,
    sample_action,
    split_mask,
    static,
)
from jaxrl.validation import check_whole
from jaxrl.wrappers.base import Wrapper


class DiscretizeActions(Wrapper):
    """Replaces a bounded `Box` by evenly spaced values of each entry, bounds included.

    With B values for each of E entries, a network has B * E outputs if factored, and B ** E if
    joint: 273 or 753,571 for three joints with 91 angles (`python -m benchmarks.discretised_arm`).

    Attributes:
      num_bins: values per entry, at least 2; a tuple has one number for each entry, in the order of
        the flattened action.
      layout: "factored" gives a `MultiDiscrete` with one choice per entry; "joint" a `Discrete`
        over all combinations, the last entry varying fastest.
    """

    num_bins: int | tuple[int, ...] = static(default=3)
    layout: Literal["factored", "joint"] = static(default="factored")

    @property
    def spec(self) -> EnvSpec:
        bins = self._bins()
        if self.layout not in ("factored", "joint"):
            raise InvalidValue(f"layout is {self.layout!r}: use 'factored' or 'joint'")
        joint = math.prod(bins)
        if self.layout == "joint" and joint > MOST:
            raise InvalidValue(
                f"layout 'joint' would have {' * '.join(map(str, bins))} = {joint} actions, more "
                "than fit into int32: use 'factored'"
            )
        space = Discrete(joint) if self.layout == "joint" else MultiDiscrete(bins)
        return dataclasses.replace(self.env.spec, action=space)

    def _bins(self) -> tuple[int, ...]:
        """The number of values of each entry."""
        box = self.env.spec.action
        if not isinstance(box, Box):
            raise InvalidValue(f"DiscretizeActions needs a Box of actions, not {box!r}")
        if not all(np.isfinite(bound).all() for bound in box.bounds()):
            raise InvalidValue(f"DiscretizeActions needs finite bounds, not {box!r}")
        size = num_values(box.shape)
        if not isinstance(self.num_bins, tuple):
            check_whole("num_bins", self.num_bins, 2)
            return (self.num_bins,) * size
        if len(self.num_bins) != size:
            raise InvalidValue(
                f"num_bins is {self.num_bins}, but an action has {size} entries: give one number "
                "for each, or one for all"
            )
        for i, num in enumerate(self.num_bins):
            check_whole(f"num_bins[{i}]", num, 2)
        return self.num_bins

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        bins, box = self._bins(), self.env.spec.action
        if self.layout == "joint":  # the digits of a number in mixed radix
            strides = [math.prod(bins[i + 1 :]) for i in range(len(bins))]
            action = (action // jnp.asarray(strides, jnp.int32)) % jnp.asarray(bins, jnp.int32)
        low, high = box.bounds()
        values = _evenly_spaced(low.ravel(), high.ravel(), np.asarray(bins))
        chosen = jnp.asarray(values)[jnp.arange(len(bins)), action]
        return self.env.step(key, state, chosen.reshape(box.shape))


def _evenly_spaced(low: np.ndarray, high: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """The values of each entry, `float32[entries, most bins]`; shorter rows repeat the last one.

    Weights that are whole numbers keep the bounds and the centre exact.
    """
    last = bins[:, None] - 1
    index = np.minimum(np.arange(bins.max(initial=0)), last)
    low, high = (bound.astype(np.float64)[:, None] for bound in (low, high))
    return ((low * (last - index) + high * index) / last).astype(np.float32)


class RescaleActions(Wrapper):
    """Replaces a bounded `Box` by one from `low` to `high`, scaled linearly to the bounds.

    For policies without bounds of their own, whose first actions have a standard deviation of
    about 1.

    Attributes:
      low, high: the new bounds of every entry.
    """

    low: float = static(default=-1.0)
    high: float = static(default=1.0)

    @property
    def spec(self) -> EnvSpec:
        box = self.env.spec.action
        if not isinstance(box, Box):
            raise InvalidValue(f"RescaleActions needs a Box of actions, not {box!r}")
        if not np.isfinite(np.subtract(*box.bounds())).all():
            raise InvalidValue(f"RescaleActions needs finite bounds, not {box!r}")
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise InvalidValue(
                f"low is {self.low} and high is {self.high}: give finite bounds, low below high"
            )
        return dataclasses.replace(self.env.spec, action=Box.of(self.low, self.high, box.shape))

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        low, high = (jnp.asarray(bound) for bound in self.env.spec.action.bounds())
        share = (action - self.low) / (self.high - self.low)
        return self.env.step(key, state, low * (1.0 - share) + high * share)


class StickyActions(Wrapper):
    """Repeats the previous action with some probability (Machado et al., 2018).

    The first action of an episode is never replaced, and an action that is now masked is not
    repeated.

    Attributes:
      probability: probability of a repetition, in [0, 1].
    """

    probability: Scalar = 0.25

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        state, obs = self.env.reset(key)
        nothing = _no_action(self.env.spec.action)
        return (state, nothing, jnp.bool_(False), split_mask(obs)[1]), obs

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        inner, previous, acted, mask = state
        stick_key, step_key = jax.random.split(key)
        sticks = jax.random.bernoulli(stick_key, self.probability) & acted
        sticks = sticks & is_available(self.env.spec.action, mask, previous)
        action = jax.tree.map(
            lambda old, new: jnp.where(sticks, old, jnp.asarray(new, old.dtype)), previous, action
        )
        inner, timestep = self.env.step(step_key, inner, action)
        return (inner, action, jnp.bool_(True), split_mask(timestep.obs)[1]), timestep


def is_available(space: Any, mask: PyTree, action: PyTree) -> Array:
    """Whether `mask` allows the unbatched `action` of `space`, `bool[]`."""
    if mask is None or isinstance(space, Box):
        return jnp.bool_(True)
    if isinstance(space, Mixed):
        parts = zip(space.spaces, mask, action, strict=True)
        return jnp.all(jnp.stack([is_available(*part) for part in parts]))
    if isinstance(space, MultiDiscrete):
        offsets = np.cumsum([0, *space.nums[:-1]])
        return jnp.all(mask[jnp.asarray(offsets) + action])
    return mask[action]


def _no_action(space: ActionSpace) -> PyTree:
    """Zeros of the shape and dtype of an action."""
    like = jax.eval_shape(lambda key: sample_action(space, key), jax.random.key(0))
    return jax.tree.map(jnp.zeros_like, like)
