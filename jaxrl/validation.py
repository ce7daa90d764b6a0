"""Checks of single values that users pass, before anything is compiled.

Ranges of hyper-parameters are checked by `hyper.py`, fields that must fit together by `check` of
the plan (`agent.py`) and of the agent, an agent against its environment by `engine/checks.py`, and
memory by `engine/sizes.py`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.errors import InvalidType, InvalidValue


def whole_number(
    name: str, value: Any, least: int = 1, *, most: int | None = None, also: str = ""
) -> int:
    """Returns `value`, called `name` in errors, as an `int`.

    Args:
      name: the field.
      value: a Python or NumPy integer; booleans and floats are rejected.
      least: the smallest value allowed.
      most: the largest value allowed; None for no limit.
      also: other accepted values, for the error message: ", or None".

    Raises:
      ValueError: it is not a whole number, or outside [least, most].
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise InvalidValue(
            f"{name} is {value!r}: it must be a whole number, at least {least}{also}"
        )
    if most is not None and value > most:
        raise InvalidValue(f"{name} is {value!r}: it must be at most {most}{also}")
    return int(value)


def check_numbers(what: str, numbers: Any, low: float, high: float, open_low: bool) -> None:
    if numbers is None or isinstance(numbers, jax.core.Tracer):
        return
    numbers = np.asarray(numbers)
    if not jnp.issubdtype(numbers.dtype, jnp.number):
        raise InvalidType(f"{what} must be a number or a schedule")
    above = numbers > low if open_low else numbers >= low
    if not (above & (numbers <= high) & np.isfinite(numbers)).all():
        interval = f"{'above' if open_low else 'at least'} {low:g}"
        interval += "" if math.isinf(high) else f" and at most {high:g}"
        raise InvalidValue(f"{what} must be finite, {interval}")


def holds_anywhere(condition: Callable[..., Any], *values: Any) -> bool:
    """Whether `condition(*values)` is true of any entry; False while one of them is traced."""
    known = not any(isinstance(x, jax.core.Tracer) for x in values)
    return known and bool(np.any(condition(*map(np.asarray, values))))


UNROLLED = 1000
"""Upper limit for counts that a program unrolls instead of looping: compiling more takes hours."""


def check_whole(
    name: str, value: Any, least: int = 1, *, most: int | None = None, or_none: bool = False
) -> None:
    """Raises ValueError unless `value` is a whole number in [least, most]; `name` is its field."""
    if or_none and value is None:
        return
    whole_number(name, value, least, most=most, also=", or None" if or_none else "")


def declares(env: Any, name: str) -> bool:
    """Whether `env` has the attribute; properties are not evaluated, since hasattr hides errors."""
    if hasattr(type(env), name) or name in getattr(env, "__dict__", {}):
        return True
    return hasattr(type(env), "__getattr__") and hasattr(env, name)
