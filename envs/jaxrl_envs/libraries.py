"""Detects the library of an environment from the modules of its class and base classes.

Nothing needs to be imported for that.
"""

from typing import Any

EXTRAS = {
    "brax": "brax",
    "craftax": "craftax",
    "jumanji": "jumanji",
    "navix": "navix",
    "gymnasium": "gymnasium",
    "envpool": "envpool",
    "ale": "ale-py",
}
"""The package of each family of environments that is optional."""
HOSTED = ("gymnasium", "envpool", "ale")
"""Families whose environments step outside jax."""
LIBRARIES = ("gymnax", "brax", "craftax", "jumanji", "navix", "gymnasium")
"""Libraries whose objects are adapted."""


def extra_of(family: str) -> str:
    """The extra of jaxrl that installs the package of an optional family."""
    return "atari" if family == "ale" else family


def library_of(env: Any) -> str | None:
    """The library of an environment, or of a base class of it; None if unknown.

    Args:
      env: any object; for a pair (environment, parameters), as returned by `gymnax.make`, the first
        entry is used.
    """
    for kind in type(_alone(env)).__mro__:
        library = kind.__module__.partition(".")[0]
        if library in LIBRARIES:
            return library
    return None


def _alone(env: Any) -> Any:
    """The environment, without gymnax's parameters."""
    return env[0] if type(env) is tuple and len(env) == 2 else env
