"""Checks of hyper-parameters before anything is compiled: errors name the field and the mend."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.integers import whole_number
from jaxrl.schedules import Exponential, Linear, Scheduled, bounds


def check_range(
    owner: Any,
    name: str,
    low: float = 0.0,
    high: float = math.inf,
    *,
    open_low: bool = False,
    may_end_low: bool = False,
) -> None:
    """Raises ValueError unless the hyper-parameter `owner.name` lies within `[low, high]`.

    Numbers, arrays of them and schedules are checked; None and traced values pass. NaN never does.

    Args:
      owner, name: the hyper-parameter.
      low, high: its range.
      open_low: whether `low` itself is excluded.
      may_end_low: whether a schedule may end at `low` nevertheless.
    """
    value: Scheduled = getattr(owner, name)
    start, *end = bounds(value)
    _check_numbers(f"{name} is {value!r}: it", start, low, high, open_low)
    for bound in end:
        _check_numbers(f"{name} is {value!r}: it", bound, low, high, open_low and not may_end_low)
    match value:  # what would make a schedule NaN on its way between bounds that are fine
        case Linear(share=share):
            _check_numbers(f"{name} is {value!r}: its share", share, 0.0, 1.0, open_low=True)
        case Exponential(start=start, end=end):
            for bound in (start, end):
                _check_numbers(f"{name} is {value!r}: either end", bound, 0.0, math.inf, True)


def _check_numbers(what: str, numbers: Any, low: float, high: float, open_low: bool) -> None:
    if numbers is None or isinstance(numbers, jax.core.Tracer):
        return
    numbers = np.asarray(numbers)
    if not jnp.issubdtype(numbers.dtype, jnp.number):
        raise TypeError(f"{what} must be a number or a schedule")
    above = numbers > low if open_low else numbers >= low
    if not (above & (numbers <= high) & np.isfinite(numbers)).all():
        interval = f"{'above' if open_low else 'at least'} {low:g}"
        interval += "" if math.isinf(high) else f" and at most {high:g}"
        raise ValueError(f"{what} must be finite, {interval}")


UNROLLED = 1000
"""The most of something that a program repeats instead of looping over it: compiling that many
takes hours."""


def check_whole(
    name: str, value: Any, least: int = 1, *, most: int | None = None, or_none: bool = False
) -> None:
    """Raises ValueError unless `value`, called `name`, is a whole number from `least` to `most`."""
    if or_none and value is None:
        return
    whole_number(name, value, least, most=most, also=", or None" if or_none else "")
