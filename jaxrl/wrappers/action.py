"""Action wrappers: discretised and sticky actions."""

import dataclasses
import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
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
    """Replaces a bounded `Box` by `num_bins` evenly spaced values per entry, bounds included.

    Attributes:
      num_bins: values per entry, at least 2.
      layout: "factored" gives a `MultiDiscrete` with one choice per entry; "joint" a `Discrete`
        over all `num_bins ** entries` combinations, the last entry varying fastest.
    """

    num_bins: int = static(default=3)
    layout: Literal["factored", "joint"] = static(default="factored")

    @property
    def spec(self) -> EnvSpec:
        check_whole("num_bins", self.num_bins, 2)
        if self.layout not in ("factored", "joint"):
            raise InvalidValue(f"layout is {self.layout!r}: use 'factored' or 'joint'")
        values = self._values()
        size = values.shape[1]
        joint = self.num_bins**size
        if self.layout == "joint" and joint > 2**16:
            raise InvalidValue(
                f"layout 'joint' would have {self.num_bins} ** {size} = {joint} actions: "
                "use 'factored'"
            )
        space = (
            Discrete(joint) if self.layout == "joint" else MultiDiscrete((self.num_bins,) * size)
        )
        return dataclasses.replace(self.env.spec, action=space)

    def _values(self) -> np.ndarray:
        """The values of each entry, `float32[num_bins, entries]`."""
        box = self.env.spec.action
        if not isinstance(box, Box):
            raise InvalidValue(f"DiscretizeActions needs a Box of actions, not {box!r}")
        low, high = (bound.ravel() for bound in box.bounds())
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise InvalidValue(f"DiscretizeActions needs finite bounds, not {box!r}")
        return np.linspace(low, high, self.num_bins, dtype=np.float32)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        values = self._values()
        size = values.shape[1]
        if self.layout == "joint":
            choices = np.asarray(list(itertools.product(range(self.num_bins), repeat=size)))
            action = jnp.asarray(choices)[action]
        chosen = jnp.asarray(values)[action, jnp.arange(size)]
        return self.env.step(key, state, chosen.reshape(self.env.spec.action.shape))


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
