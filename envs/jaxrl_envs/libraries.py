"""Which library an environment comes from.

Decided by the modules of its class and of that class's bases, so that nothing needs to be imported.
"""

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


def _alone(env: Any) -> Any:
    """The environment of a pair (environment, parameters)."""
    return env[0] if type(env) is tuple and len(env) == 2 else env
