"""Environments of other libraries that are given as objects: which library, and its adapter.

A library is recognised by the module of a class that the object is an instance of, so that nothing
needs to be imported to look.
"""

import importlib
from typing import Any

LIBRARIES = ("gymnax", "brax", "jumanji", "navix", "craftax")


def library_of(env: Any) -> str | None:
    """The library whose object this is, or a subclass of one of its classes; None for none.

    Args:
      env: anything; a pair (environment, parameters), as `gymnax.make` returns it, counts as its
        first entry.
    """
    for kind in type(_alone(env)).__mro__:
        library = kind.__module__.partition(".")[0]
        if library in LIBRARIES:
            return library
    return None


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
        from jaxrl.precision import in_float32  # deferred: a list of ids needs no jax

        return in_float32(importlib.import_module(f"jaxrl_envs.{library}").adapt)(env, **params)
    from jaxrl.contract import as_environment  # deferred, too

    env = as_environment(env)
    if params:
        raise ValueError(
            f"{type(env).__name__} is an environment already and takes no parameters: "
            f"it was given {', '.join(params)}"
        )
    return env


def _alone(env: Any) -> Any:
    """The environment of a pair (environment, parameters)."""
    return env[0] if type(env) is tuple and len(env) == 2 else env
