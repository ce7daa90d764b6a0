"""Many copies of an environment with auto-reset."""

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.devices import shards
from jaxrl.devices.as_data import as_data
from jaxrl.environment import Timestep, check_environment
from jaxrl.errors import InvalidValue
from jaxrl.trees import num_bytes, tree_where
from jaxrl.types import (
    Array,
    EnvSpec,
    Key,
    PyTree,
    ResetPolicy,
    Stream,
    into_bounds,
    static,
    stream,
)
from jaxrl.validation import check_whole
from jaxrl.xla.precision import in_float32
from jaxrl.xla.threefry import of_rows

SMALL_STARTS = 2**24  # bytes


class VectorState(struct.PyTreeNode):
    """State of all copies between two steps; every leaf has a leading axis `[N]`.

    Attributes:
      state: the environments' own states.
      obs: the current observations.
      first: `bool[N]`, whether `obs` starts an episode.
      episode_return: `float32[N]`, undiscounted return of the running episode so far.
      episode_length: `int32[N]`, steps of the running episode so far.
    """

    state: PyTree
    obs: PyTree
    first: Array
    episode_return: Array
    episode_length: Array


class VectorEnv(struct.PyTreeNode):
    """`num_envs` independent copies of one environment, each reset as soon as its episode ends.

    Attributes:
      env: the environment; with `batched`, its leaves have a leading axis `[N]`, one per copy.
      num_envs: N.
      reset_policy: "fresh" draws a new start state for every reset; "pool" draws at least N start
        states per rollout and picks among them at random, which is cheaper if resets are expensive.
      pool_size: number of start states in the pool, at least N; with `batched`, the size of each
        copy's own pool. None means max(N, 64), or 16 per copy with `batched`.
      batched: whether each copy has its own parameters.
      scan_unroll: environment steps per iteration of the rollout's loop; see `jaxrl.xla.layout`.
      info: names of the environment's scalars, see `Timestep`; None if not yet known.
      kept_info: names of the leaves of `Timestep.info` that a rollout keeps for the agent.
      num_shards: how many devices have that many copies each; see `shard`.
      num_parts: how many parts of that many copies each device has, one after the other; see
        `part_of`.
      part: which of these parts this is, `int32[]`; None without parts.
      num_distinct: copies whose indices are equal modulo this number have the same random numbers;
        None if no two have.
    """

    env: Any
    num_envs: int = static()
    reset_policy: ResetPolicy = static(default="fresh")
    pool_size: int | None = static(default=None)
    batched: bool = static(default=False)
    scan_unroll: int = static(default=1)
    info: tuple[str, ...] | None = static(default=None)
    kept_info: tuple[str, ...] = static(default=())
    num_shards: int = static(default=1)
    num_parts: int = static(default=1)
    part: Array | None = None
    num_distinct: int | None = static(default=None)

    def shard(self) -> "VectorEnv":
        """This device's copies, where a program spreads them over devices (`devices.shards`)."""
        number = shards.num_shards()
        return self.replace(num_envs=self.num_envs // number, num_shards=number)

    def part_of(self, num_parts: int, part: Array) -> "VectorEnv":
        """Part number `part` of `num_parts` equal parts of these copies."""
        num, env = self.num_envs // num_parts, self.env
        if self.batched:
            env = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, part * num, num), env)
        return self.replace(env=env, num_envs=num, num_parts=num_parts, part=part)

    @property
    def num_all(self) -> int:
        """Copies of all parts on all devices."""
        return self.num_envs * self.num_parts * self.num_shards

    def _shard_of(self, x: Array, axis: int = 0) -> Array:
        return x if self.num_shards == 1 else shards.shard_of(x, axis)

    @property
    def indices(self) -> Array:
        """The index of each copy among all, `int32[N]`."""
        mine = self._shard_of(jnp.arange(self.num_all, dtype=jnp.int32))
        if self.part is None:
            return mine
        return jax.lax.dynamic_slice_in_dim(mine, self.part * self.num_envs, self.num_envs)

    def act_key(self, key: Key) -> Key:
        """The key from which a policy draws the actions of these copies."""
        return key if self.num_shards == 1 else of_rows(key)

    def step_keys(self, key: Key, num_steps: int) -> Key:
        """Keys `[T, N]`, of which a copy has the same on any number of devices, in any parts."""
        if self.num_distinct is not None:
            keys = jax.random.split(key, (num_steps, self.num_distinct))
            return keys[:, self.indices % self.num_distinct]
        if self.part is None:
            return self._shard_of(jax.random.split(key, (num_steps, self.num_all)), axis=1)
        # The keys that `split` gives to these copies, without those of the other parts.
        places = self.num_all * jnp.arange(num_steps)[:, None] + self.indices[None]
        fold_in = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (None, 0))
        return fold_in(key, places)

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def check(self) -> None:
        """Raises ValueError or TypeError if the fields are invalid or inconsistent."""
        check_environment(self.env)
        if self.num_envs < 1:
            raise InvalidValue(f"num_envs is {self.num_envs}: it must be at least 1")
        if self.reset_policy not in get_args(ResetPolicy):
            raise InvalidValue(f"reset_policy is {self.reset_policy!r}: use 'fresh' or 'pool'")
        check_whole("scan_unroll", self.scan_unroll)
        if self.pool_size is not None and self.pool_size < (1 if self.batched else self.num_envs):
            raise InvalidValue(
                f"pool_size is {self.pool_size}, less than num_envs ({self.num_envs}): "
                "copies would share their starts"
            )
        if self.batched:
            for leaf in jax.tree.leaves(self.env):
                if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != self.num_envs:
                    raise InvalidValue(
                        f"batched environments need leaves of shape [num_envs = {self.num_envs}, "
                        f"...], but one has {jnp.shape(leaf)}"
                    )

    def _starts(self, keys: Key) -> tuple[PyTree, PyTree]:
        """(state, obs) of a reset for each key; with `batched`, the n-th is for the n-th copy."""
        in_axes = (0 if self.batched else None, 0)
        return as_data(jax.vmap(lambda env, k: env.reset(k), in_axes))(self.env, keys)

    @in_float32
    def reset(self, key: Key) -> VectorState:
        """Starts an episode in every copy; raises TypeError if `env` is not an environment."""
        check_environment(self.env)
        keys = self.step_keys(stream(key, Stream.RESET), 1)[0]
        state, obs = self._starts(keys)
        n = self.num_envs
        counters = jnp.ones(n, bool), jnp.zeros(n, jnp.float32), jnp.zeros(n, jnp.int32)
        start = VectorState(state, obs, *counters)
        return start if self.num_shards == 1 else shards.as_different(start)

    def restarts(
        self, key: Key, num_steps: int
    ) -> tuple[PyTree, Callable[[PyTree], tuple[PyTree, PyTree]]]:
        """Start states for every step of a rollout, used where an episode ends.

        Returns:
          Draws, leaves `[T, N, ...]`, and a function from one step's draws to (state, obs)
          `[N, ...]`. Small start states are all drawn here, which is faster than in the loop.
        """
        if self.reset_policy == "pool":
            pool, num_starts = self._pool(stream(key, Stream.POOL))
            if num_starts == 1:
                every = jax.tree.map(lambda x: x[0], pool)
                if not self.batched:
                    every = jax.tree.map(
                        lambda x: jnp.broadcast_to(x, (self.num_envs, *x.shape)), every
                    )
                return (), lambda nothing: every
            key = stream(key, Stream.SAMPLE)
            index = jax.random.randint(key, (num_steps, self.num_all), 0, num_starts)
            index = self._shard_of(index, axis=1)
            if self.batched:
                copies = jnp.arange(self.num_envs)
                return index, lambda i: jax.tree.map(lambda x: x[i, copies], pool)
            return index, lambda i: jax.tree.map(lambda x: x[i], pool)
        keys = self.step_keys(key, num_steps)
        one_step = jax.ShapeDtypeStruct(keys.shape[1:], keys.dtype)
        if num_steps * num_bytes(jax.eval_shape(self._starts, one_step)) <= SMALL_STARTS:
            return jax.vmap(self._starts)(keys), lambda starts: starts
        return keys, self._starts

    def _pool(self, key: Key) -> tuple[PyTree, int]:
        """The pooled start states and how many each copy can choose from."""
        if not self.batched:
            size = self.pool_size or max(self.num_all, 64)
            keys = jax.random.split(key, size)
            if self.num_shards == 1 or size % self.num_shards:
                return self._starts(keys), size
            return shards.joined(self._starts(self._shard_of(keys))), size
        # A start state depends on the copy's parameters, so every copy needs its own pool.
        size = self.pool_size or 16
        return jax.vmap(self._starts)(jax.random.split(key, (size, self.num_envs))), size

    def step(
        self, keys: Key, state: VectorState, action: PyTree, start: tuple[PyTree, PyTree]
    ) -> tuple[VectorState, Timestep, tuple[Array, Array]]:
        """Steps every copy and resets those whose episode ended.

        Args:
          keys: `[N]`.
          state: leaves `[N, ...]`.
          action: `[N, ...]`; values for a `Box` are clipped to its bounds here, and only here.
          start: (state, obs) `[N, ...]` for the next episode.

        Returns:
          The next state; the timestep `[N]`, whose `obs` is the observation before any reset; and
          return `float32[N]` and length `int32[N]` of the running episodes, this step included.
        """
        space = self.spec.action

        def one(env, key, state, action):
            return env.step(key, state, into_bounds(space, action))

        in_axes = (0 if self.batched else None, 0, 0, 0)
        stepped, timestep = as_data(jax.vmap(one, in_axes))(self.env, keys, state.state, action)

        done = timestep.terminated | timestep.truncated
        start_state, start_obs = start
        episode_return = state.episode_return + timestep.reward
        episode_length = state.episode_length + 1
        next_state = VectorState(
            state=tree_where(done, start_state, stepped),
            obs=tree_where(done, start_obs, timestep.obs),
            first=done,
            episode_return=jnp.where(done, 0.0, episode_return),
            episode_length=jnp.where(done, 0, episode_length),
        )
        return next_state, timestep, (episode_return, episode_length)
