"""Environments: the contract, many copies at once, auto-reset and the statistics of episodes."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.errors import InvalidType
from jaxrl.types import Array, EnvSpec, Key, PyTree
from jaxrl.validation import declares


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


NEEDED = (
    "an environment is a pytree with `spec`, a jaxrl.EnvSpec; `reset(key)`, which returns "
    "(state, observation); and `step(key, state, action)`, which returns (state, jaxrl.Timestep)"
)


AS_PYTREE = (
    "make its class a pytree with fields: subclass flax.struct.PyTreeNode, or decorate a dataclass "
    "with jax.tree_util.register_dataclass"
)


STATIC = (
    "what is no number or array is a static field: `= flax.struct.field(pytree_node=False)` in a "
    "PyTreeNode, metadata=dict(static=True) in a registered dataclass"
)


class NoEnvironment(InvalidType):
    """Something is no environment, or does not return what an environment returns."""


def check_environment(env: Any) -> None:
    """Raises NoEnvironment unless `env` is a pytree of data that has what is needed."""
    name = type(env).__name__
    if missing := [part for part in ("spec", "reset", "step") if not declares(env, part)]:
        without = " and no ".join(missing)
        raise NoEnvironment(f"{name} is no environment, it has no {without}: {_advice(env)}")
    check_pytree(env)
    if not isinstance(env.spec, EnvSpec):
        kind = type(env.spec)
        hint = ""
        if kind.__module__.partition(".")[0] in ("gymnasium", "gym"):
            hint = "; Gymnasium steps in Python, and jaxrl compiles environments written in JAX"
        raise NoEnvironment(f"{name}.spec is a {kind.__name__}: {NEEDED}{hint}")


def check_pytree(env: Any) -> None:
    """Raises NoEnvironment unless all leaves of `env` are numbers or arrays."""
    name = type(env).__name__
    for path, leaf in jax.tree_util.tree_leaves_with_path(env):
        if leaf is env:
            raise NoEnvironment(f"{name} is no pytree: {AS_PYTREE}. {STATIC}")
        if is_data(leaf):
            continue
        where, kind = f"{name}{jax.tree_util.keystr(path)}", type(leaf).__name__
        if _advice(leaf) != NEEDED:
            raise NoEnvironment(f"{where} is a {kind}: {_advice(leaf)}")
        if declares(leaf, "step"):  # an environment inside a wrapper
            raise NoEnvironment(f"{where} is a {kind}, which is no pytree: {AS_PYTREE}. {STATIC}")
        raise NoEnvironment(f"{where} is a {kind}, {leaf!r}: {STATIC}")


def _advice(env: Any) -> str:
    """What to do about something that is no environment."""
    from jaxrl_envs import libraries  # deferred: only in an error

    library = libraries.library_of(env)
    return f"adapt the object of {library}, jaxrl_envs.adapt(env)" if library else NEEDED


def is_data(leaf: Any) -> bool:
    """Whether a leaf of a pytree is a number, an array or the shape of one."""
    if isinstance(leaf, bool | int | float | complex | jax.Array | jax.ShapeDtypeStruct):
        return True
    return isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "biufcV"
