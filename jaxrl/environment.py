"""Environments: the contract, many copies at once, auto-reset and the statistics of episodes."""

from typing import Any, Literal, Protocol, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.types import (
    Array,
    EnvSpec,
    Key,
    EpisodeStats,
    PyTree,
    Stream,
    into_bounds,
    static,
    stream,
    tree_where,
)

ResetPolicy = Literal["fresh", "pool"]


class Timestep(struct.PyTreeNode):
    """What one step of one environment returns.

    Attributes:
      obs: the observation after the step, also when the episode ended with it.
      reward: `float32[]`.
      terminated: `bool[]`, the state after the step has no future.
      truncated: `bool[]`, the episode is cut here though the state has a future.
      info: anything else, a pytree; the library does not read it.
    """

    obs: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    info: PyTree = ()


class Environment(Protocol):
    """One copy of an environment: a pytree whose float parameters are leaves.

    `step` is raw: it never resets itself. Both methods are pure and unbatched; the same shapes and
    dtypes come out of `reset` and of `step`.
    """

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """Draws a start: (state, observation)."""
        ...

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        """Takes one step: (state, timestep)."""
        ...


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
        rollout and picks among them at random, which is cheaper where a reset is dear.
      pool_size: how many starts the pool holds; None for N.
      batched: whether each copy has parameters of its own.
    """

    env: Any
    num_envs: int = static()
    reset_policy: ResetPolicy = static(default="fresh")
    pool_size: int | None = static(default=None)
    batched: bool = static(default=False)

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def check(self) -> None:
        """Raises ValueError where the fields do not fit together."""
        if self.num_envs < 1:
            raise ValueError(f"num_envs is {self.num_envs}: it must be at least 1")
        if self.reset_policy not in get_args(ResetPolicy):
            raise ValueError(f"reset_policy is {self.reset_policy!r}: use 'fresh' or 'pool'")
        if self.pool_size is not None and self.pool_size < self.num_envs:
            raise ValueError(
                f"pool_size is {self.pool_size}, less than num_envs ({self.num_envs}): "
                "copies would share their starts"
            )
        if self.batched:
            for leaf in jax.tree.leaves(self.env):
                if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != self.num_envs:
                    raise ValueError(
                        f"batched environments need leaves of shape [num_envs = {self.num_envs}, "
                        f"...], one has {jnp.shape(leaf)}"
                    )

    def _starts(self, key: Key, num: int) -> tuple[PyTree, PyTree]:
        keys = jax.random.split(key, num)
        if self.batched:
            return jax.vmap(lambda env, k: env.reset(k))(self.env, keys)
        return jax.vmap(self.env.reset)(keys)

    def reset(self, key: Key) -> VectorState:
        """Starts an episode in every copy."""
        state, obs = self._starts(stream(key, Stream.RESET), self.num_envs)
        n = self.num_envs
        return VectorState(
            state, obs, jnp.ones(n, bool), jnp.zeros(n, jnp.float32), jnp.zeros(n, jnp.int32)
        )

    def pool(self, key: Key) -> PyTree | None:
        """Starts to draw resets from during one rollout; None under the policy "fresh"."""
        if self.reset_policy == "fresh":
            return None
        if self.batched:  # a start drawn under one copy's parameters is no start of another's
            rows = -(-(self.pool_size or self.num_envs) // self.num_envs)
            keys = jax.random.split(stream(key, Stream.POOL), rows)
            return jax.vmap(lambda k: self._starts(k, self.num_envs))(keys)
        return self._starts(stream(key, Stream.POOL), self.pool_size or self.num_envs)

    def _restarts(self, key: Key, pool: PyTree | None) -> tuple[PyTree, PyTree]:
        """A start for every copy, used where an episode ended: (state, obs)."""
        if pool is None:
            return self._starts(key, self.num_envs)
        num_starts = jax.tree.leaves(pool)[0].shape[0]
        index = jax.random.randint(key, (self.num_envs,), 0, num_starts)
        if self.batched:
            return jax.tree.map(lambda x: x[index, jnp.arange(self.num_envs)], pool)
        return jax.tree.map(lambda x: x[index], pool)

    def step(
        self, key: Key, state: VectorState, action: PyTree, pool: PyTree | None = None
    ) -> tuple[VectorState, Timestep, EpisodeStats]:
        """Steps every copy and resets those whose episode ended.

        Args:
          key: one key for all copies.
          state: leaves `[N, ...]`.
          action: `[N, ...]`; the parts in a box are clipped into it here, and only here.
          pool: what `pool` returned.

        Returns:
          The next state; the timestep `[N]`, whose `obs` is where the step really ended; and, a copy
          each (`[N]`), the statistics of the episodes that ended with it.
        """
        n, space = self.num_envs, self.spec.action
        keys = jax.random.split(stream(key, Stream.STEP), n)

        def one(env, key, state, action):
            return env.step(key, state, into_bounds(space, action))

        in_axes = (0 if self.batched else None, 0, 0, 0)
        stepped, timestep = jax.vmap(one, in_axes)(self.env, keys, state.state, action)

        done = timestep.terminated | timestep.truncated
        start_state, start_obs = self._restarts(stream(key, Stream.AUTO_RESET), pool)
        episode_return = state.episode_return + timestep.reward
        episode_length = state.episode_length + 1
        next_state = VectorState(
            state=tree_where(done, start_state, stepped),
            obs=tree_where(done, start_obs, timestep.obs),
            first=done,
            episode_return=jnp.where(done, 0.0, episode_return),
            episode_length=jnp.where(done, 0, episode_length),
        )
        return next_state, timestep, EpisodeStats.of(episode_return, episode_length, done)
