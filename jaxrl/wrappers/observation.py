"""Observation wrappers: scale, clip, flatten, mask and stack."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.types import Array, EnvSpec, Key, PyTree, Scalar, split_mask, static
from jaxrl.validation import check_whole
from jaxrl.wrappers.base import ObservationWrapper, Wrapper, on_observation, with_observation


class ScaleObservation(ObservationWrapper):
    """Returns `obs * scale + offset` as float32, for every leaf of the observation.

    Attributes:
      scale: factor, a number or an array that broadcasts to each leaf.
      offset: added afterwards; same shapes.
    """

    scale: Scalar = 1.0
    offset: Scalar = 0.0

    def observe(self, obs: PyTree) -> PyTree:
        def like(value, x):
            if jnp.ndim(value) > x.ndim or any(
                n not in (1, m) for n, m in zip(jnp.shape(value)[::-1], x.shape[::-1], strict=False)
            ):
                raise InvalidValue(
                    f"scale {jnp.shape(self.scale)} and offset {jnp.shape(self.offset)} do not fit "
                    f"an observation of shape {x.shape}"
                )
            return jnp.broadcast_to(jnp.asarray(value, jnp.float32), x.shape)

        def one(x):
            return like(self.scale, x) * x.astype(jnp.float32) + like(self.offset, x)

        return jax.tree.map(one, obs)


class ClipObservation(ObservationWrapper):
    """Clips the float leaves of the observation to [low, high].

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


class FlattenObservation(ObservationWrapper):
    """Concatenates all leaves of the observation (dictionaries by sorted key) as float32."""

    def observe(self, obs: PyTree) -> Array:
        leaves = [jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(obs)]
        if not leaves:
            raise InvalidValue("FlattenObservation needs an observation with at least one leaf")
        return jnp.concatenate(leaves)


class MaskVelocity(ObservationWrapper):
    """Sets entries of a vector observation to zero, so that the agent needs memory.

    Attributes:
      indices: entries to hide. The velocities are (1, 3) in CartPole, (2,) in Pendulum, (1,) in
        MountainCar and (4, 5) in Acrobot.
    """

    indices: tuple[int, ...] = static(default=())

    def observe(self, obs: PyTree) -> Array:
        if getattr(obs, "ndim", None) != 1:
            raise InvalidValue(
                "MaskVelocity needs a vector observation: apply FlattenObservation first"
            )
        size = obs.shape[0]
        if not self.indices or not all(0 <= i < size for i in self.indices):
            raise InvalidValue(
                f"indices is {self.indices}: give at least one, each from 0 to {size - 1}"
            )
        seen = np.ones(size, bool)
        seen[list(self.indices)] = False
        return jnp.where(jnp.asarray(seen), obs, jnp.zeros_like(obs))


class TimeAwareObservation(Wrapper):
    """Appends the share of the episode that is left, from 1 to 0, to a vector observation.

    For tasks whose time limit is part of the task, `TimeLimit(env, max_steps, terminates=True)`:
    values then depend on the time that is left. With a limit that truncates, agents bootstrap from
    the value of a state with no time left, which they never learn.

    The limit is `spec.max_steps` of the wrapped environment, the longest one if copies differ.

    Source: Pardo, Tavakoli, Levdik and Kormushev, "Time limits in reinforcement learning", 2018.
    """

    @property
    def spec(self) -> EnvSpec:
        inner = self.env.spec
        if inner.max_steps is None:
            raise InvalidValue(
                "TimeAwareObservation needs a time limit: wrap the environment in TimeLimit first"
            )
        proper, _ = split_mask(inner.observation)
        if getattr(proper, "ndim", None) != 1:
            raise InvalidValue(
                "TimeAwareObservation needs a vector observation: apply FlattenObservation first"
            )
        return with_observation(inner, jax.eval_shape(_with_entry, proper, jnp.float32(0)))

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        state, obs = self.env.reset(key)
        return (state, jnp.int32(0)), self._observe(obs, jnp.int32(0))

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        inner, time = state
        inner, timestep = self.env.step(key, inner, action)
        return (inner, time + 1), timestep.replace(obs=self._observe(timestep.obs, time + 1))

    def _observe(self, obs: PyTree, time: Array) -> PyTree:
        left = 1.0 - time.astype(jnp.float32) / self.env.spec.max_steps
        return on_observation(lambda x: _with_entry(x, left), obs)


def _with_entry(x: Array, entry: Array) -> Array:
    return jnp.append(x.astype(jnp.float32), entry)


class FrameStack(Wrapper):
    """Concatenates the last `num_frames` observations along the last axis, newest last.

    In each leaf of the observation, vectors `[D]` become `[num_frames * D]` and images `[H, W, C]`
    become `[H, W, num_frames * C]`. At the start of an episode, the first observation is repeated.
    The action mask is that of the newest observation.

    Attributes:
      num_frames: number of observations.
    """

    num_frames: int = static(default=4)

    @property
    def spec(self) -> EnvSpec:
        check_whole("num_frames", self.num_frames, 1)
        inner = self.env.spec
        proper, _ = split_mask(inner.observation)
        return with_observation(inner, jax.eval_shape(lambda x: self._side_by_side([x]), proper))

    def _side_by_side(self, frames: list[PyTree]) -> PyTree:
        frames = frames * (self.num_frames // len(frames))
        return jax.tree.map(
            lambda *xs: jnp.concatenate([jnp.atleast_1d(x) for x in xs], axis=-1), *frames
        )

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        state, obs = self.env.reset(key)
        stacked = on_observation(lambda x: self._side_by_side([x]), obs)
        return (state, split_mask(stacked)[0]), stacked

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        inner, seen = state
        inner, timestep = self.env.step(key, inner, action)

        def shifted(old, new):
            new = jnp.atleast_1d(new)
            return jnp.concatenate([old[..., new.shape[-1] :], new], axis=-1)

        stacked = on_observation(lambda x: jax.tree.map(shifted, seen, x), timestep.obs)
        return (inner, split_mask(stacked)[0]), timestep.replace(obs=stacked)
