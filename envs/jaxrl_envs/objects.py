"""Adapts environment objects of other libraries. jax is imported lazily."""

import importlib
from typing import Any

from jaxrl.errors import InvalidValue
from jaxrl_envs.libraries import HOSTED, library_of


def adapt(env: Any, /, **params: Any) -> Any:
    """Adapts an environment of another library; a jaxrl environment is returned unchanged.

    Args:
      env: an environment of gymnax (alone or as (env, params)), brax, Jumanji, navix or Craftax,
        or of your own subclass.
      **params: parameters as for `make`, except for arguments of the library's class: parameters of
        gymnax and Craftax, and for brax `max_steps` (1,000 by default) and changes of the system.

    Raises:
      TypeError: it is not an environment, or it is a wrapper of the library that would be lost.
      ValueError: a parameter that can no longer be changed.
    """
    library = library_of(env)
    if library is not None:
        from jaxrl.xla.precision import in_float32  # lazy: listing ids does not need jax

        adapter = importlib.import_module(f"jaxrl_envs.{library}")
        return as_environment(in_float32(adapter.adapt)(env, **params))
    env = as_environment(env)
    if params:
        raise InvalidValue(
            f"{type(env).__name__} is already an environment and takes no parameters, but was "
            f"given {', '.join(params)}"
        )
    return env


def as_environment(env: Any) -> Any:
    """Returns a jaxrl environment unchanged, and adapts objects of known libraries.

    Args:
      env: an environment, or an object of gymnax (also with its parameters, as returned by
        `gymnax.make`), brax, Jumanji, navix or Craftax, possibly inside of jaxrl wrappers.

    Raises:
      NoEnvironment: it is neither; the error says what is missing.
    """
    from jaxrl.environment import Hosted, HostEnvironment, NoEnvironment, check_environment
    from jaxrl.validation import declares
    from jaxrl.wrappers import Wrapper

    if isinstance(env, str):
        raise NoEnvironment(f"env is the text {env!r}: pass jaxrl_envs.make({env!r})")
    if isinstance(env, type):
        raise NoEnvironment(f"env is the class {env.__name__}: pass {env.__name__}(...)")
    if isinstance(env, HostEnvironment):
        return Hosted(env)
    if not declares(env, "spec") or library_of(env) in HOSTED:
        if library_of(env):
            return adapt(env)
    elif isinstance(env, Wrapper):
        inner = as_environment(env.env)
        if isinstance(inner, Hosted):
            raise NoEnvironment(
                f"{type(env).__name__} wraps {inner.host.name}, which steps outside jax: use the "
                "wrappers of its own library"
            )
        env = env if inner is env.env else env.replace(env=inner)
    check_environment(env)
    return env
