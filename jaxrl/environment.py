"""Environments: the contract, many copies at once, auto-reset and the statistics of episodes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.checks import check_whole
from jaxrl.contract import NoEnvironment, check_environment, is_data
from jaxrl.precision import in_float32
from jaxrl.types import (
    Array,
    EnvSpec,
    Key,
    PyTree,
    ResetPolicy,
    Stream,
    into_bounds,
    num_bytes,
    sample_action,
    static,
    stream,
    tree_where,
)

SMALL_STARTS = 2**24  # bytes


class Timestep(struct.PyTreeNode):
    """What one step of one environment returns.

    Attributes:
      obs: the observation after the step, also when the episode ended with it.
      reward: `float32[]`.
      terminated: `bool[]`, the state after the step has no future.
      truncated: `bool[]`, the episode is cut here though the state has a future.
      info: anything else, a pytree. Its scalars (floats, integers, booleans) are averaged over
        episodes and reported by name, as they are in the step that ends an episode: `success` of
        {"success": x} becomes `info/success` and `training_info/success`. For a sum or a mean over
        an episode keep it in the state. Other leaves are not read.
    """

    obs: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    info: PyTree = ()


def scalars(info: PyTree, batch_ndim: int = 0) -> dict[str, Any]:
    """The scalars of a `Timestep.info`, or of `[N]` of them, by name: `a/b` of {"a": {"b": x}}."""

    def is_scalar(x: Any) -> bool:
        kinds = (jnp.bool_, jnp.integer, jnp.floating)
        return x.ndim == batch_ndim and any(jnp.issubdtype(x.dtype, kind) for kind in kinds)

    named = {
        jax.tree_util.keystr(path, simple=True, separator="/") or "value": x
        for path, x in jax.tree_util.tree_leaves_with_path(info)
    }
    return {name: x for name, x in named.items() if is_scalar(x)}


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
        rollout and picks among them at random, which is cheaper where a reset is expensive.
      pool_size: how many starts the pool holds, at least N; with `batched`, how many each copy's
        own pool holds. None for N or 64, whichever is more (16 for each copy with `batched`).
      batched: whether each copy has parameters of its own.
      steps_a_turn: steps that a rollout takes in each turn of its loop; see `jaxrl.device`.
      info: names of the environment's scalars, see `Timestep`; None where nobody has looked yet.
    """

    env: Any
    num_envs: int = static()
    reset_policy: ResetPolicy = static(default="fresh")
    pool_size: int | None = static(default=None)
    batched: bool = static(default=False)
    steps_a_turn: int = static(default=1)
    info: tuple[str, ...] | None = static(default=None)

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def check(self) -> None:
        """Raises ValueError or TypeError where the fields do not fit together."""
        check_environment(self.env)
        if self.num_envs < 1:
            raise ValueError(f"num_envs is {self.num_envs}: it must be at least 1")
        if self.reset_policy not in get_args(ResetPolicy):
            raise ValueError(f"reset_policy is {self.reset_policy!r}: use 'fresh' or 'pool'")
        check_whole("steps_a_turn", self.steps_a_turn)
        if self.pool_size is not None and self.pool_size < (1 if self.batched else self.num_envs):
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


class FirstStep(NamedTuple):
    """A start and a random step of one copy, traced: shapes and dtypes, nothing computed.

    Attributes:
      jaxpr: the program.
      state: after the start.
      obs: the first observation.
      next_state: after the step.
      timestep: of the step.
    """

    jaxpr: Any
    state: PyTree
    obs: PyTree
    next_state: PyTree
    timestep: Timestep

    @classmethod
    def of(cls, env: Environment, batched: bool = False) -> "FirstStep":
        """Traces one copy, or with `batched` one of the copies in the leaves' leading axis.

        Raises:
          NoEnvironment: `reset` or `step` returns something else than it should.
        """

        def one(x: Any) -> jax.ShapeDtypeStruct:
            shape = jnp.shape(x)[1:] if batched else jnp.shape(x)
            return jax.ShapeDtypeStruct(shape, jnp.result_type(x))

        def program(env: Environment, key: Key) -> Any:
            reset_key, act_key, step_key = jax.random.split(key, 3)
            state, obs = _returned("reset", env.reset(reset_key))
            action = sample_action(env.spec.action, act_key)
            ends = ("obs", "reward", "terminated", "truncated")
            return state, obs, *_returned("step", env.step(step_key, state, action), ends)

        key = jax.eval_shape(lambda: jax.random.key(0))  # a real one would start the backend
        jaxpr, shapes = jax.make_jaxpr(program, return_shape=True)(jax.tree.map(one, env), key)
        return cls(jaxpr, *shapes)

    def problems(self, spec: EnvSpec) -> Iterator[str]:
        """A line for each shape or dtype that is not as the spec and the contract have it."""
        reward, end = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.bool_)
        step, contract = self.timestep, "but must be"
        yield from differences(
            "the observation of reset", self.obs, "spec.observation", spec.observation
        )
        yield from differences("the observation of step", step.obs, "that of reset", self.obs)
        yield from differences("the state after step", self.next_state, "that of reset", self.state)
        yield from differences("reward", step.reward, contract, reward)
        yield from differences("terminated", step.terminated, contract, end)
        yield from differences("truncated", step.truncated, contract, end)


def _returned(name: str, result: Any, fields: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """What `reset` or `step` returned; NoEnvironment unless it is a pair of data.

    The second has the `fields` of a timestep, or is an observation where there are none.
    """
    entries = result if isinstance(result, tuple | list) else (result,)
    if len(entries) != 2 or not all(hasattr(entries[1], field) for field in fields):
        kinds = ", ".join(type(x).__name__ for x in entries)
        wanted = "(state, jaxrl.Timestep)" if fields else "(state, observation)"
        raise NoEnvironment(f"{name} returned ({kinds}), and must return {wanted}")
    parts = ("state", "timestep" if fields else "observation")
    for part, tree in zip(parts, entries, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not is_data(leaf):
                raise NoEnvironment(
                    f"{name} returned {leaf!r} in {part}{jax.tree_util.keystr(path)}: only numbers "
                    "and arrays can be in it"
                )
    return entries[0], entries[1]


def acting_differences(name: str, spec: EnvSpec, wanted: EnvSpec) -> Iterator[str]:
    """Lines on why a policy for `wanted` cannot act where the spec, that of `name`, is `spec`.

    Time limits, reset policies and what a truncation promises may differ.
    """
    yield from differences(
        f"the observation of {name}", spec.observation, "that of env", wanted.observation
    )
    if spec.action != wanted.action:
        yield f"- the action space of {name} is {spec.action!r}, that of env {wanted.action!r}"


def differences(what: str, found: PyTree, like: str, wanted: PyTree) -> Iterator[str]:
    """Lines on where two trees of arrays or shapes differ in structure, shapes or dtypes."""
    structures: list[Any] = [jax.tree.structure(found), jax.tree.structure(wanted)]
    if structures[0] != structures[1]:
        yield f"- {what} has the structure {structures[0]}, {like} {structures[1]}"
        return
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(found)]
    for path, x, y in zip(paths, jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            is_wide = jax.dtypes.canonicalize_dtype(y.dtype) != y.dtype
            why = " (jaxrl computes in 32 bits)" if is_wide else ""
            yield (
                f"- {what}{path} is {x.dtype}{list(x.shape)}, {like} {y.dtype}{list(y.shape)}{why}"
            )
