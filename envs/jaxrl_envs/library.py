"""Helpers for adapters of other libraries."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.types import PyTree


@contextlib.contextmanager
def library_code() -> Iterator[None]:
    """Settings for library code: rank promotion is allowed, and its warnings are suppressed."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("ignore")
        yield


def like(old: PyTree, new: PyTree) -> PyTree:
    """`new` with the dtypes of `old`, strongly typed: libraries mix Python numbers with arrays."""
    return jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype), old, new)


def is_part_of(libraries: Iterable[str], x: Any) -> bool:
    """Whether the class of `x` comes from one of these libraries, whose truncation is known."""
    return type(x).__module__.partition(".")[0] in libraries


def check_kind(
    env: Any, library: str, kinds: tuple[type, ...], wrappers: tuple[type, ...] = ()
) -> None:
    """Raises TypeError unless an object is an environment of its library.

    Args:
      env: the object.
      library: name of the library.
      kinds: the library's environment classes.
      wrappers: the library's wrappers, which would be bypassed or would auto-reset.
    """
    name = type(env).__name__
    if isinstance(env, wrappers):
        raise InvalidType(
            f"{name} is a wrapper of {library}: pass the environment inside, and wrap the result "
            "with jaxrl.wrappers"
        )
    if not isinstance(env, kinds):
        raise InvalidType(f"{name} is from {library}, but is not one of its environments")


def check_none(env: Any, params: Iterable[str]) -> None:
    """Raises ValueError if there are parameters, for objects that are already built."""
    if params := list(params):
        raise InvalidValue(
            f"{type(env).__name__} is already built, so {', '.join(params)} cannot be changed: "
            "pass it to its class"
        )


def check_known(name: str, params: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError for a parameter that the environment called `name` does not have."""
    known = tuple(known)
    for param in params:
        if param not in known:
            raise InvalidValue(f"{name} has no parameter {param!r}; it has: {', '.join(known)}")


def check_limit(name: str, param: str, limit: Any) -> None:
    """Raises ValueError unless a time limit is a whole number of steps, at least 1."""
    if not isinstance(limit, int | np.integer) or limit < 1:
        raise InvalidValue(f"{name}'s {param} is {limit!r}: it must be a whole number, at least 1")


@contextlib.contextmanager
def making(name: str, params: dict[str, Any]) -> Iterator[None]:
    """Turns a library's errors about invalid parameters into a one-line ValueError.

    Errors of files and of the network are not changed.
    """
    try:
        yield
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        if not params or isinstance(error, OSError):
            raise
        given = ", ".join(f"{param}={value!r}" for param, value in params.items())
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidValue(f"{name} cannot be made with {given}: {reason}") from error
