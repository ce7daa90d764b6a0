"""Running statistics of observations and rewards, which the engine updates once per iteration."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.devices.shards import as_different, differs, num_shards, sum_over_shards
from jaxrl.losses import mean
from jaxrl.trees import named_leaves
from jaxrl.types import Array, EnvSpec, Masked, PyTree, Scalar, split_mask, static

Normalized = Literal["numbers", "floats"]
"""Which leaves of an observation are normalised: all numbers, or floats only, as in runs of older
versions."""


class RunningMoments(struct.PyTreeNode):
    """Running mean and variance (Chan, Golub and LeVeque, 1979; Welford for batches).

    Attributes:
      count: `float32[]`, number of rows.
      mean: `float32[*shape]`.
      variance: `float32[*shape]`, population variance; 1 before any data.
    """

    count: Array
    mean: Array
    variance: Array

    @classmethod
    def of_shape(cls, shape: tuple[int, ...]) -> "RunningMoments":
        """Moments before any data: mean 0, variance 1."""
        return cls(jnp.float32(0.0), jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32))

    def update(self, batch: Array, where: Array | None = None) -> "RunningMoments":
        """Adds `batch[..., *shape]`, or those of its rows for which `where[...]` is true."""
        num = math.prod(batch.shape[: batch.ndim - self.mean.ndim])
        rows = batch.astype(jnp.float32).reshape(num, *self.mean.shape)
        if where is None:
            chosen = None
            num_rows = jnp.float32(rows.shape[0] * (num_shards() if differs(rows) else 1))
            total = self.count + num_rows
        else:
            column = where.reshape(num, *(1,) * self.mean.ndim)
            chosen = jnp.broadcast_to(column, rows.shape)
            num_rows = sum_over_shards(jnp.sum(where, dtype=jnp.float32))
            total = jnp.maximum(self.count + num_rows, 1.0)
        batch_mean = mean(rows, chosen, axis=0)
        batch_variance = mean(jnp.square(rows - batch_mean[None]), chosen, axis=0)
        delta = batch_mean - self.mean
        weight = num_rows / total  # of the batch; where float32 stops counting it stays what it is
        between = weight * (1.0 - weight) * jnp.square(delta)
        return RunningMoments(
            count=self.count + num_rows,
            mean=self.mean + weight * delta,
            variance=(1.0 - weight) * self.variance + weight * batch_variance + between,
        )

    def normalize(self, x: Array, clip: float = 10.0) -> Array:
        """`(x - mean) / std` as a float, clipped to `[-clip, clip]`.

        Before any data it returns `x` as a float, with uint8 scaled to [0, 1].
        """
        is_bytes = x.dtype == jnp.uint8
        x = x if _is_float(x) else x.astype(jnp.float32)
        raw = x / 255.0 if is_bytes else x
        shape = (1,) * (x.ndim - self.mean.ndim) + self.mean.shape
        scale = jax.lax.rsqrt(self.variance + 1e-8)
        y = (x - self.mean.reshape(shape)) * scale.reshape(shape)
        return jnp.where(self.count > 0, jnp.clip(y, -clip, clip), raw)


class Normalizer(struct.PyTreeNode):
    """Statistics that normalise observations and rewards; parts that are off are `()`.

    All numbers of an observation are normalised, integers as float32. Booleans and the action mask
    are left alone.

    Attributes:
      obs: a `RunningMoments` for each normalised leaf of the observation, in order.
      reward: moments of the running discounted return (its variance scales the rewards).
      running_return: `float32[N]`, the running discounted return of each copy.
      normalized: which leaves are normalised.
    """

    obs: tuple[RunningMoments, ...] | tuple[()]
    reward: RunningMoments | tuple[()]
    running_return: Array | tuple[()]
    normalized: Normalized = static(default="numbers")

    @classmethod
    def create(
        cls,
        spec: EnvSpec,
        num_envs: int,
        *,
        observations: bool,
        rewards: bool,
        normalized: Normalized = "numbers",
    ) -> "Normalizer":
        """Statistics before any data."""
        leaves = normalized_leaves(spec, normalized).values() if observations else ()
        return cls(
            obs=tuple(RunningMoments.of_shape(x.shape) for x in leaves),
            reward=RunningMoments.of_shape(()) if rewards else (),
            running_return=as_different(jnp.zeros(num_envs, jnp.float32)) if rewards else (),
            normalized=normalized,
        )

    def continued(self, earlier: "Normalizer") -> "Normalizer":
        """These statistics with the moments of an earlier run, where both normalise.

        Running returns start again, as the episodes do.
        """
        both = isinstance(self.reward, RunningMoments) and isinstance(
            earlier.reward, RunningMoments
        )
        return self.replace(
            obs=self.obs if self.obs == () else earlier.obs,
            reward=earlier.reward if both else self.reward,
        )

    def normalize_obs(self, obs: PyTree) -> PyTree:
        """Normalises observations with any leading axes."""
        if self.obs == ():
            return obs
        moments = iter(self.obs)

        def scale(x: Array) -> Array:
            return next(moments).normalize(x) if _is_normalized(x, self.normalized) else x

        scaled = jax.tree.map(scale, split_mask(obs)[0])
        return obs._replace(obs=scaled) if isinstance(obs, Masked) else scaled

    def normalize_reward(self, reward: Array) -> Array:
        """Divides rewards by the discounted return's standard deviation and clips them to +-10.

        Before any data they are unchanged.
        """
        if not isinstance(self.reward, RunningMoments):
            return reward
        scaled = jnp.clip(reward * jax.lax.rsqrt(self.reward.variance + 1e-8), -10.0, 10.0)
        return jnp.where(self.reward.count > 0, scaled, reward)

    def update(self, obs: PyTree, reward: Array, first: Array, discount: Scalar) -> "Normalizer":
        """Adds the raw observations, rewards and episode starts `[T, N]` of a rollout."""
        new = self.observe(obs)
        if isinstance(self.reward, RunningMoments):

            def accumulate(running: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
                reward, first = step  # the return restarts with each episode
                running = discount * jnp.where(first, 0.0, running) + reward
                return running, running

            so_far: Any = self.running_return
            running, returns = jax.lax.scan(accumulate, so_far, (reward, first))
            new = new.replace(reward=self.reward.update(returns), running_return=running)
        return new

    def of_data(self, obs: PyTree) -> "Normalizer":
        """The statistics of a fixed data set, `[D, ...]`.

        Standard deviations are at least 0.001: what is constant in the data may change in an
        episode, and would be scaled beyond all bounds.
        """
        new = self.observe(obs)
        floored = [m.replace(variance=jnp.maximum(m.variance, 1e-6)) for m in new.obs]
        return new.replace(obs=tuple(floored))

    def observe(self, obs: PyTree, where: Array | None = None) -> "Normalizer":
        """Adds raw observations `[...]`, or those of them for which `where[...]` is true."""
        if self.obs == ():
            return self
        proper = jax.tree.leaves(split_mask(obs)[0])
        leaves = [x for x in proper if _is_normalized(x, self.normalized)]
        moments = zip(self.obs, leaves, strict=True)
        return self.replace(obs=tuple(m.update(x, where) for m, x in moments))


def normalized_leaves(spec: EnvSpec, normalized: Normalized = "numbers") -> dict[str, Any]:
    """The leaves of an observation that are normalised, by name."""
    leaves = named_leaves(split_mask(spec.observation)[0])
    return {name: x for name, x in leaves.items() if _is_normalized(x, normalized)}


def _is_normalized(x: Any, normalized: Normalized) -> bool:
    return _is_float(x) or (normalized == "numbers" and bool(jnp.issubdtype(x.dtype, jnp.integer)))


def _is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))
