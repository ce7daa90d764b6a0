"""Environments made of environments: each wrapper changes one thing and passes on the rest.

A wrapper is a pytree like what it wraps: its float parameters are leaves, its state is part of the
environment's, and a reset resets it. Action masks and the difference between termination and
truncation pass through. What does not fit together raises when `spec` is first read, which the
engine does before anything is compiled.
"""

import dataclasses
import itertools
import math
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.checks import check_whole
from jaxrl.environment import Timestep
from jaxrl.integers import whole_number
from jaxrl.types import (
    ActionSpace,
    Array,
    Box,
    Discrete,
    EnvSpec,
    Key,
    Masked,
    Mixed,
    MultiDiscrete,
    PyTree,
    Scalar,
    sample_action,
    split_mask,
    static,
    tree_where,
)


class Wrapper(struct.PyTreeNode):
    """Passes everything on; subclasses override what they change.

    Attributes:
      env: the environment inside.
    """

    env: Any

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        return self.env.reset(key)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        return self.env.step(key, state, action)

    def with_params(self, **params: Any) -> Self:
        """The same wrapper around the environment with other parameters."""
        return self.replace(env=self.env.with_params(**params))


def _with_observation(spec: EnvSpec, proper: PyTree) -> EnvSpec:
    """`spec` with another observation proper; its action mask stays."""
    masked = isinstance(spec.observation, Masked)
    observation = Masked(proper, spec.observation.action_mask) if masked else proper
    return dataclasses.replace(spec, observation=observation)


def _on_observation(f: Any, obs: PyTree) -> PyTree:
    """`f` of the observation proper; the action mask stays."""
    return Masked(f(obs.obs), obs.action_mask) if isinstance(obs, Masked) else f(obs)


class _ObservationWrapper(Wrapper):
    """Replaces each observation by a function of itself alone."""

    def observe(self, obs: PyTree) -> PyTree:
        """The new observation of the old one, without the action mask."""
        raise NotImplementedError

    @property
    def spec(self) -> EnvSpec:
        inner = self.env.spec
        return _with_observation(
            inner, jax.eval_shape(self.observe, split_mask(inner.observation)[0])
        )

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        state, obs = self.env.reset(key)
        return state, _on_observation(self.observe, obs)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        state, timestep = self.env.step(key, state, action)
        return state, timestep.replace(obs=_on_observation(self.observe, timestep.obs))


# Time ---------------------------------------------------------------------------------------------


class TimeLimit(Wrapper):
    """Truncates an episode after `max_steps` steps, unless it terminated there.

    `spec.truncates` stays what the environment inside declares: whether anything else truncates.

    Attributes:
      max_steps: the limit, in steps of this wrapper.
    """

    max_steps: int = static(default=1000)

    @property
    def spec(self) -> EnvSpec:
        whole_number("max_steps", self.max_steps, most=2**31 - 1)  # steps are counted in int32
        inner = self.env.spec
        return dataclasses.replace(
            inner, max_steps=min(self.max_steps, inner.max_steps or self.max_steps)
        )

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        state, obs = self.env.reset(key)
        return (state, jnp.int32(0)), obs

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        inner, time = state
        inner, timestep = self.env.step(key, inner, action)
        time = time + 1
        truncated = timestep.truncated | ((time >= self.max_steps) & ~timestep.terminated)
        return (inner, time), timestep.replace(truncated=truncated)


class ActionRepeat(Wrapper):
    """Takes each action `num_repeats` times and adds the rewards up; stops where the episode does.

    Attributes:
      num_repeats: steps of the environment inside for one of this wrapper.
    """

    num_repeats: int = static(default=4)

    @property
    def spec(self) -> EnvSpec:
        check_whole("num_repeats", self.num_repeats, 1)
        inner = self.env.spec
        limit = None if inner.max_steps is None else math.ceil(inner.max_steps / self.num_repeats)
        return dataclasses.replace(inner, max_steps=limit)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        def again(last, key):
            state, timestep = last
            next_state, following = self.env.step(key, state, action)
            over = timestep.terminated | timestep.truncated
            following = following.replace(reward=timestep.reward + following.reward)
            return tree_where(over, last, (next_state, following)), None

        first_key, *others = jax.random.split(key, self.num_repeats)
        first = self.env.step(first_key, state, action)
        return jax.lax.scan(again, first, jnp.stack(others))[0] if others else first


# Rewards ------------------------------------------------------------------------------------------


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
    """Moves the reward into [low, high].

    Attributes:
      low, high: the bounds.
    """

    low: Scalar = -1.0
    high: Scalar = 1.0

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        state, timestep = self.env.step(key, state, action)
        return state, timestep.replace(reward=jnp.clip(timestep.reward, self.low, self.high))


# Observations -------------------------------------------------------------------------------------


class ScaleObservation(_ObservationWrapper):
    """Returns `obs * scale + offset` as float32, for every leaf of the observation.

    Attributes:
      scale: the factor, a number or an array that broadcasts to each leaf.
      offset: what is added.
    """

    scale: Scalar = 1.0
    offset: Scalar = 0.0

    def observe(self, obs: PyTree) -> PyTree:
        def like(value, x):
            if jnp.ndim(value) > x.ndim or any(
                n not in (1, m) for n, m in zip(jnp.shape(value)[::-1], x.shape[::-1], strict=False)
            ):
                raise ValueError(
                    f"scale {jnp.shape(self.scale)} and offset {jnp.shape(self.offset)} do not fit "
                    f"an observation of shape {x.shape}"
                )
            return jnp.broadcast_to(jnp.asarray(value, jnp.float32), x.shape)

        def one(x):
            return like(self.scale, x) * x.astype(jnp.float32) + like(self.offset, x)

        return jax.tree.map(one, obs)


class ClipObservation(_ObservationWrapper):
    """Moves the float leaves of the observation into [low, high].

    Attributes:
      low, high: the bounds.
    """

    low: Scalar = -10.0
    high: Scalar = 10.0

    def observe(self, obs: PyTree) -> PyTree:
        def one(x):
            is_float = jnp.issubdtype(x.dtype, jnp.floating)
            return jnp.clip(x, self.low, self.high).astype(x.dtype) if is_float else x

        return jax.tree.map(one, obs)


class FlattenObservation(_ObservationWrapper):
    """Lays all leaves of the observation (a dictionary's, by sorted key) side by side as floats."""

    def observe(self, obs: PyTree) -> Array:
        leaves = [jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(obs)]
        if not leaves:
            raise ValueError("FlattenObservation needs an observation with at least one leaf")
        return jnp.concatenate(leaves)


class MaskVelocity(_ObservationWrapper):
    """Sets entries of a vector observation to zero, so that the agent needs memory.

    Attributes:
      indices: which. The velocities of CartPole are (1, 3), of Pendulum (2,), of MountainCar (1,),
        of Acrobot (4, 5).
    """

    indices: tuple[int, ...] = static(default=())

    def observe(self, obs: PyTree) -> Array:
        if getattr(obs, "ndim", None) != 1:
            raise ValueError(
                "MaskVelocity needs a vector observation: put FlattenObservation inside it"
            )
        size = obs.shape[0]
        if not self.indices or not all(0 <= i < size for i in self.indices):
            raise ValueError(
                f"indices is {self.indices}: give at least one, each from 0 to {size - 1}"
            )
        seen = np.ones(size, bool)
        seen[list(self.indices)] = False
        return jnp.where(jnp.asarray(seen), obs, jnp.zeros_like(obs))


class FrameStack(Wrapper):
    """Shows the last `num_frames` observations, side by side along the last axis, the newest last.

    Vectors `[D]` become `[num_frames * D]`, images `[H, W, C]` become `[H, W, num_frames * C]`, for
    each leaf of the observation. An episode begins with copies of its first observation. An action
    mask is that of the newest observation.

    Attributes:
      num_frames: how many.
    """

    num_frames: int = static(default=4)

    @property
    def spec(self) -> EnvSpec:
        check_whole("num_frames", self.num_frames, 1)
        inner = self.env.spec
        proper, _ = split_mask(inner.observation)
        return _with_observation(inner, jax.eval_shape(lambda x: self._side_by_side([x]), proper))

    def _side_by_side(self, frames: list[PyTree]) -> PyTree:
        frames = frames * (self.num_frames // len(frames))
        return jax.tree.map(
            lambda *xs: jnp.concatenate([jnp.atleast_1d(x) for x in xs], axis=-1), *frames
        )

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        state, obs = self.env.reset(key)
        stacked = _on_observation(lambda x: self._side_by_side([x]), obs)
        return (state, split_mask(stacked)[0]), stacked

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        inner, seen = state
        inner, timestep = self.env.step(key, inner, action)

        def shifted(old, new):
            new = jnp.atleast_1d(new)
            return jnp.concatenate([old[..., new.shape[-1] :], new], axis=-1)

        stacked = _on_observation(lambda x: jax.tree.map(shifted, seen, x), timestep.obs)
        return (inner, split_mask(stacked)[0]), timestep.replace(obs=stacked)


# Actions ------------------------------------------------------------------------------------------


class DiscretizeActions(Wrapper):
    """Replaces a bounded box by `num_bins` evenly spaced values of each entry, both ends included.

    Attributes:
      num_bins: how many values, at least 2.
      layout: "factored" is a `MultiDiscrete`, a choice for each entry; "joint" a `Discrete` over
        all `num_bins ** entries` combinations, the last entry varying fastest.
    """

    num_bins: int = static(default=3)
    layout: Literal["factored", "joint"] = static(default="factored")

    @property
    def spec(self) -> EnvSpec:
        check_whole("num_bins", self.num_bins, 2)
        if self.layout not in ("factored", "joint"):
            raise ValueError(f"layout is {self.layout!r}: use 'factored' or 'joint'")
        values = self._values()
        size = values.shape[1]
        joint = self.num_bins**size
        if self.layout == "joint" and joint > 2**16:
            raise ValueError(
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
            raise ValueError(f"DiscretizeActions needs a Box of actions, not {box!r}")
        low, high = (bound.ravel() for bound in box.bounds())
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(f"DiscretizeActions needs finite bounds, not {box!r}")
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
    """Repeats the previous action instead of the chosen one now and then (Machado et al., 2018).

    The first action of an episode is always the chosen one, and an action that is not available
    any more is not repeated.

    Attributes:
      probability: of a repetition, in [0, 1].
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
