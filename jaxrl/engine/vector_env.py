"""Many copies of an environment, reset where their episodes end."""

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import struct

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

SMALL_STARTS = 2**24  # bytes


class VectorState(struct.PyTreeNode):
    """The copies between two steps; every leaf has the leading axis `[N]`.

    Attributes:
      state: the environments' own states.
      obs: the observations the next actions answer to.
      first: `bool[N]`, that observation opens an episode.
      episode_return: `float32[N]`, the undiscounted return of the running episode so far.
      episode_length: `int32[N]`, its steps so far.
    """

    state: PyTree
    obs: PyTree
    first: Array
    episode_return: Array
    episode_length: Array


class VectorEnv(struct.PyTreeNode):
    """`num_envs` independent copies of one environment, reset as soon as their episode ends.

    Attributes:
      env: the environment; with `batched` its leaves have a leading axis `[N]`, one a copy.
      num_envs: N.
      reset_policy: "fresh" draws a new start for every reset; "pool" draws at least N starts once a
        rollout and picks among them at random, which is cheaper where a reset is expensive.
      pool_size: how many starts the pool holds, at least N; with `batched`, how many each copy's
        own pool holds. None for N or 64, whichever is more (16 for each copy with `batched`).
      batched: whether each copy has parameters of its own.
      scan_unroll: steps that a rollout takes in each turn of its loop; see `jaxrl.xla.layout`.
      info: names of the environment's scalars, see `Timestep`; None where nobody has looked yet.
    """

    env: Any
    num_envs: int = static()
    reset_policy: ResetPolicy = static(default="fresh")
    pool_size: int | None = static(default=None)
    batched: bool = static(default=False)
    scan_unroll: int = static(default=1)
    info: tuple[str, ...] | None = static(default=None)

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def check(self) -> None:
        """Raises ValueError or TypeError where the fields do not fit together."""
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
                        f"...], one has {jnp.shape(leaf)}"
                    )

    def _starts(self, keys: Key) -> tuple[PyTree, PyTree]:
        """A start for each key: (state, obs); with `batched` the n-th is the n-th copy's."""
        if self.batched:
            return jax.vmap(lambda env, k: env.reset(k))(self.env, keys)
        return jax.vmap(self.env.reset)(keys)

    @in_float32
    def reset(self, key: Key) -> VectorState:
        """Starts an episode in every copy; TypeError where `env` is no environment."""
        check_environment(self.env)
        keys = jax.random.split(stream(key, Stream.RESET), self.num_envs)
        state, obs = self._starts(keys)
        n = self.num_envs
        return VectorState(
            state, obs, jnp.ones(n, bool), jnp.zeros(n, jnp.float32), jnp.zeros(n, jnp.int32)
        )

    def restarts(
        self, key: Key, num_steps: int
    ) -> tuple[PyTree, Callable[[PyTree], tuple[PyTree, PyTree]]]:
        """Starts for every step of a rollout, to be used where an episode ends.

        Returns:
          Draws, leaves `[T, N, ...]`, and the function from one step's draws to (state, obs)
          `[N, ...]`. Small starts are all drawn here, at once, which is faster than in the loop.
        """
        if self.reset_policy == "pool":
            pool, num_starts = self._pool(stream(key, Stream.POOL))
            key = stream(key, Stream.SAMPLE)
            index = jax.random.randint(key, (num_steps, self.num_envs), 0, num_starts)
            if self.batched:
                copies = jnp.arange(self.num_envs)
                return index, lambda i: jax.tree.map(lambda x: x[i, copies], pool)
            return index, lambda i: jax.tree.map(lambda x: x[i], pool)
        keys = jax.random.split(key, (num_steps, self.num_envs))
        one_step = jax.ShapeDtypeStruct(keys.shape[1:], keys.dtype)
        if num_steps * num_bytes(jax.eval_shape(self._starts, one_step)) <= SMALL_STARTS:
            return jax.vmap(self._starts)(keys), lambda starts: starts
        return keys, self._starts

    def _pool(self, key: Key) -> tuple[PyTree, int]:
        """The starts of the pool, and how many a copy can choose among."""
        if not self.batched:
            size = self.pool_size or max(self.num_envs, 64)
            return self._starts(jax.random.split(key, size)), size
        # A start drawn under one copy's parameters is no start of another's: a pool for each.
        size = self.pool_size or 16
        return jax.vmap(self._starts)(jax.random.split(key, (size, self.num_envs))), size

    def step(
        self, keys: Key, state: VectorState, action: PyTree, start: tuple[PyTree, PyTree]
    ) -> tuple[VectorState, Timestep, tuple[Array, Array]]:
        """Steps every copy and resets those whose episode ended.

        Args:
          keys: `[N]`.
          state: leaves `[N, ...]`.
          action: `[N, ...]`; the parts in a box are clipped into it here, and only here.
          start: (state, obs) `[N, ...]` where the next episode begins.

        Returns:
          The next state; the timestep `[N]`, whose `obs` is where the step really ended; and, with
          this step, the return `float32[N]` and the length `int32[N]` of the running episodes.
        """
        space = self.spec.action

        def one(env, key, state, action):
            return env.step(key, state, into_bounds(space, action))

        in_axes = (0 if self.batched else None, 0, 0, 0)
        stepped, timestep = jax.vmap(one, in_axes)(self.env, keys, state.state, action)

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
