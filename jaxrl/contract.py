"""What agents and environments have to be, checked early; objects of other libraries adapt."""

from typing import Any

import jax
import numpy as np

from jaxrl.types import EnvSpec

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


class NoEnvironment(TypeError):
    """Something is no environment, or does not return what an environment returns."""


def check_agent(agent: Any) -> None:
    """Raises TypeError unless this is an agent, and not its class or an environment."""
    if isinstance(agent, type):
        raise TypeError(f"agent is the class {agent.__name__}: build one, {agent.__name__}(...)")
    if missing := [part for part in ("bind", "plan", "update") if not _declares(agent, part)]:
        raise TypeError(
            f"{type(agent).__name__} is no agent, it has no {' and no '.join(missing)}: pass a "
            "jaxrl.Agent first, jaxrl.agents.PPO() for example, and the environment after it"
        )


def as_environment(env: Any) -> Any:
    """Returns `env` itself where it is an environment, and adapts the object of a known library.

    Args:
      env: an environment, or an object of gymnax (also with its parameters, as `gymnax.make`
        returns both), brax, Jumanji, navix or Craftax, also inside of wrappers of jaxrl.

    Raises:
      NoEnvironment: it is neither; the error says what is missing.
    """
    if isinstance(env, str):
        raise NoEnvironment(f"env is the text {env!r}: make it with jaxrl_envs.make({env!r})")
    if isinstance(env, type):
        raise NoEnvironment(f"env is the class {env.__name__}: build one, {env.__name__}(...)")
    if not _declares(env, "spec"):
        from jaxrl_envs import objects  # deferred: only what has no spec may be a library's

        if objects.library_of(env):
            return objects.adapt(env)
    elif _is_wrapper(env):
        inner = as_environment(env.env)
        env = env if inner is env.env else env.replace(env=inner)
    check_environment(env)
    return env


def check_environment(env: Any) -> None:
    """Raises NoEnvironment unless `env` is a pytree of data that has what is needed."""
    name = type(env).__name__
    if missing := [part for part in ("spec", "reset", "step") if not _declares(env, part)]:
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
        if _declares(leaf, "step"):  # an environment inside a wrapper
            raise NoEnvironment(f"{where} is a {kind}, which is no pytree: {AS_PYTREE}. {STATIC}")
        raise NoEnvironment(f"{where} is a {kind}, {leaf!r}: {STATIC}")


def _advice(env: Any) -> str:
    """What to do about something that is no environment."""
    from jaxrl_envs import objects  # deferred: only in an error

    library = objects.library_of(env)
    return f"adapt the object of {library}, jaxrl_envs.adapt(env)" if library else NEEDED


def is_data(leaf: Any) -> bool:
    """Whether a leaf of a pytree is a number, an array or the shape of one."""
    if isinstance(leaf, bool | int | float | complex | jax.Array | jax.ShapeDtypeStruct):
        return True
    return isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "biufcV"


def _declares(env: Any, name: str) -> bool:
    """Whether there is such an attribute; a property is not computed, for its errors are told."""
    if hasattr(type(env), name) or name in getattr(env, "__dict__", {}):
        return True
    return hasattr(type(env), "__getattr__") and hasattr(env, name)


def _is_wrapper(env: Any) -> bool:
    """Whether this is one of jaxrl's wrappers."""
    from jaxrl.wrappers import Wrapper  # deferred: it leads to this module

    return isinstance(env, Wrapper)
