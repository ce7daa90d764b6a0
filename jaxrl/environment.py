"""The environment contract and its checks."""

import abc
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.errors import InvalidType
from jaxrl.types import Array, EnvSpec, Key, PyTree, static
from jaxrl.validation import declares


class Timestep(struct.PyTreeNode):
    """The result of one environment step.

    Attributes:
      obs: the observation after the step, even if the episode ended with it.
      reward: `float32[]`.
      terminated: `bool[]`, whether a terminal state was reached.
      truncated: `bool[]`, whether the episode was cut off in a non-terminal state.
      info: a pytree of anything else. The scalars (floats, integers, booleans) of an episode's last
        step are averaged over episodes and reported by name: {"success": x} becomes `info/success`
        and `training_info/success`. To report a sum or mean over an episode, accumulate it in the
        state. Agents get the leaves that they name in `Agent.info`; other leaves are ignored.
    """

    obs: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    info: PyTree = ()


def scalars(info: PyTree, batch_ndim: int = 0) -> dict[str, Any]:
    """Scalars of a `Timestep.info`, or of a batch of them, by name: {"a": {"b": x}} has `a/b`."""

    def is_scalar(x: Any) -> bool:
        kinds = (jnp.bool_, jnp.integer, jnp.floating)
        return x.ndim == batch_ndim and any(jnp.issubdtype(x.dtype, kind) for kind in kinds)

    return {name: x for name, x in named_info(info).items() if is_scalar(x)}


def named_info(info: PyTree) -> dict[str, Any]:
    """All leaves of a `Timestep.info` by name: {"a": {"b": x}} has `a/b`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/") or "value": x
        for path, x in jax.tree_util.tree_leaves_with_path(info)
    }


class Environment(Protocol):
    """A single environment: a pytree whose float parameters are leaves.

    `step` never resets. Both methods are pure and unbatched, and `reset` and `step` return the same
    shapes and dtypes.
    """

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """Draws a start state; returns (state, observation)."""
        ...

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        """Takes one step; returns (state, timestep)."""
        ...


class HostStep(NamedTuple):
    """One step of all copies of a host environment: NumPy arrays with a leading axis `[N]`.

    Attributes:
      obs: the observations to act on next: where an episode ended, the first of the next one.
      next_obs: the observations after the step, before any reset.
      reward: `float32[N]`.
      terminated: `bool[N]`, whether a terminal state was reached.
      truncated: `bool[N]`, whether the episode was cut off in a non-terminal state.
      valid: `bool[N]`, false for copies that were only reset, after an episode that ended in the
        step before; the rest of their entries is ignored, except `obs`. None if all took a step.
    """

    obs: PyTree
    next_obs: PyTree
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray | None = None


class HostVector(Protocol):
    """N copies of a host environment; each starts a new episode when one ends, or a step later."""

    def reset(self, seeds: np.ndarray | None = None) -> PyTree:
        """Starts an episode in every copy; returns the observations, leaves `[N, ...]`.

        Args:
          seeds: `int[N]`, non-negative, from which each copy draws everything from now on; None to
            go on with the random numbers that it has.
        """
        ...

    def step(self, action: PyTree) -> HostStep:
        """Takes a step in every copy; `action` has leaves `[N, ...]`, within bounds."""
        ...

    def close(self) -> None:
        """Frees everything, processes and windows included."""
        ...


class HostEnvironment(abc.ABC):
    """An environment that steps outside JAX, in Python or C++.

    Attributes:
      name: its name in messages.
      spec: its spec.
    """

    name: str
    spec: EnvSpec

    @abc.abstractmethod
    def vector(self, num_envs: int) -> HostVector:
        """Starts `num_envs` copies."""

    def evaluation(self) -> Self:
        """The environment of evaluations, where it differs: whole games and the real score."""
        return self


class Hosted(struct.PyTreeNode):
    """A host environment in place of a JAX environment.

    It has the spec, and observations of zeros at the start, but it cannot be stepped by a program.

    Attributes:
      host: the environment.
    """

    host: HostEnvironment = static()

    @property
    def spec(self) -> EnvSpec:
        return self.host.spec

    @property
    def shapes(self) -> "Shapes":
        """An environment with the same shapes, which can be traced."""
        return Shapes(self.spec)

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        return (), self.spec.dummy_observation()

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        raise InvalidType(
            f"{self.host.name} steps outside jax, so no program can contain it: train it with "
            "jaxrl.fit or the command, and wrap it with its own library's wrappers"
        )


class Shapes(struct.PyTreeNode):
    """An environment with this spec that does nothing; its observations are zeros."""

    spec: EnvSpec = static()

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        return (), self.spec.dummy_observation()

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        no = jnp.zeros((), bool)
        return (), Timestep(self.spec.dummy_observation(), jnp.float32(0), no, no)


def traceable(env: Any) -> Any:
    """The environment itself or, for a host environment, one with the same shapes."""
    return env.shapes if isinstance(env, Hosted) else env


NEEDED = (
    "an environment is a pytree with `spec`, a jaxrl.EnvSpec; `reset(key)`, which returns "
    "(state, observation); and `step(key, state, action)`, which returns (state, jaxrl.Timestep)"
)


AS_PYTREE = (
    "make its class a pytree with fields: subclass flax.struct.PyTreeNode, or decorate a dataclass "
    "with jax.tree_util.register_dataclass"
)


STATIC = (
    "declare anything but numbers and arrays as a static field: "
    "`= flax.struct.field(pytree_node=False)` in a PyTreeNode, metadata=dict(static=True) in a "
    "registered dataclass"
)


class NoEnvironment(InvalidType):
    """An object is not an environment, or returns values of the wrong type."""


def check_environment(env: Any) -> None:
    """Raises NoEnvironment unless `env` is a pytree of data with `spec`, `reset` and `step`."""
    name = type(env).__name__
    if missing := [part for part in ("spec", "reset", "step") if not declares(env, part)]:
        without = " and no ".join(missing)
        raise NoEnvironment(f"{name} is not an environment, it has no {without}: {_advice(env)}")
    check_pytree(env)
    if not isinstance(env.spec, EnvSpec):
        kind = type(env.spec)
        hint = ""
        if kind.__module__.partition(".")[0] in ("gymnasium", "gym"):
            hint = "; Gymnasium steps in Python, but jaxrl compiles environments written in JAX"
        raise NoEnvironment(f"{name}.spec is a {kind.__name__}: {NEEDED}{hint}")


def check_pytree(env: Any) -> None:
    """Raises NoEnvironment unless all leaves of `env` are numbers or arrays."""
    name = type(env).__name__
    for path, leaf in jax.tree_util.tree_leaves_with_path(env):
        if leaf is env:
            raise NoEnvironment(f"{name} is not a pytree: {AS_PYTREE}. {STATIC}")
        if is_data(leaf):
            continue
        where, kind = f"{name}{jax.tree_util.keystr(path)}", type(leaf).__name__
        if _advice(leaf) != NEEDED:
            raise NoEnvironment(f"{where} is a {kind}: {_advice(leaf)}")
        if declares(leaf, "step"):  # an environment inside a wrapper
            raise NoEnvironment(
                f"{where} is a {kind}, which is not a pytree: {AS_PYTREE}. {STATIC}"
            )
        raise NoEnvironment(f"{where} is a {kind}, {leaf!r}: {STATIC}")


def _advice(env: Any) -> str:
    """How to turn an object that is not an environment into one."""
    from jaxrl_envs import libraries  # deferred: only in an error

    library = libraries.library_of(env)
    return f"adapt this {library} object: jaxrl_envs.adapt(env)" if library else NEEDED


def is_data(leaf: Any) -> bool:
    """Whether a leaf of a pytree is a number, an array or a shape."""
    if isinstance(leaf, bool | int | float | complex | jax.Array | jax.ShapeDtypeStruct):
        return True
    return isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "biufcV"
