"""Adapts the environments of other libraries that are given as objects. Imports jax late."""

import importlib
from typing import Any

from jaxrl.errors import InvalidValue
from jaxrl_envs.libraries import library_of


def adapt(env: Any, **params: Any) -> Any:
    """Makes the object of another library an environment of jaxrl; one of jaxrl stays what it is.

    Args:
      env: an environment of gymnax (alone or as (env, params)), brax, Jumanji, navix or Craftax,
        the library's own or a subclass of yours.
      **params: what `make` takes besides arguments of the library's class: parameters of gymnax and
        Craftax, and for brax `max_steps` (1,000 unless given) and changes of the system.

    Raises:
      TypeError: it is no environment; or a wrapper of the library that would be lost.
      ValueError: a parameter that cannot be changed any more.
    """
    library = library_of(env)
    if library is not None:
        from jaxrl.xla.precision import in_float32  # deferred: a list of ids needs no jax

        return in_float32(importlib.import_module(f"jaxrl_envs.{library}").adapt)(env, **params)
    env = as_environment(env)
    if params:
        raise InvalidValue(
            f"{type(env).__name__} is an environment already and takes no parameters: "
            f"it was given {', '.join(params)}"
        )
    return env


def as_environment(env: Any) -> Any:
    """Returns `env` itself where it is an environment, and adapts the object of a known library.

    Args:
      env: an environment, or an object of gymnax (also with its parameters, as `gymnax.make`
        returns both), brax, Jumanji, navix or Craftax, also inside of wrappers of jaxrl.

    Raises:
      NoEnvironment: it is neither; the error says what is missing.
    """
    from jaxrl.environment import NoEnvironment, check_environment
    from jaxrl.validation import declares
    from jaxrl.wrappers import Wrapper

    if isinstance(env, str):
        raise NoEnvironment(f"env is the text {env!r}: make it with jaxrl_envs.make({env!r})")
    if isinstance(env, type):
        raise NoEnvironment(f"env is the class {env.__name__}: build one, {env.__name__}(...)")
    if not declares(env, "spec"):
        if library_of(env):
            return adapt(env)
    elif isinstance(env, Wrapper):
        inner = as_environment(env.env)
        env = env if inner is env.env else env.replace(env=inner)
    check_environment(env)
    return env
