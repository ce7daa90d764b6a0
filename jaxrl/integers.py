"""Whole numbers from a user: checked, and turned into Python's `int`."""

from typing import Any

import numpy as np


def whole_number(
    name: str, value: Any, least: int = 1, *, most: int | None = None, also: str = ""
) -> int:
    """Returns `value`, called `name` in errors, as an `int`.

    Args:
      name: the field.
      value: an integer of Python's or NumPy's; booleans and floats are refused.
      least: the smallest value allowed.
      most: the largest value allowed; None for any.
      also: what else the field takes, for the error: ", or None".

    Raises:
      ValueError: it is no whole number, or less than `least`, or more than `most`.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"{name} is {value!r}: it must be a whole number, at least {least}{also}")
    if most is not None and value > most:
        raise ValueError(f"{name} is {value!r}: it must be at most {most}{also}")
    return int(value)
