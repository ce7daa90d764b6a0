"""Hyper-parameters: their declaration and its checks."""

import math
from typing import Any

from jaxrl.schedules import Exponential, Linear, Scheduled, bounds
from jaxrl.validation import check_numbers


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
    check_numbers(f"{name} is {value!r}: it", start, low, high, open_low)
    for bound in end:
        check_numbers(f"{name} is {value!r}: it", bound, low, high, open_low and not may_end_low)
    match value:  # what would make a schedule NaN on its way between bounds that are fine
        case Linear(share=share):
            check_numbers(f"{name} is {value!r}: its share", share, 0.0, 1.0, open_low=True)
        case Exponential(start=start, end=end):
            for bound in (start, end):
                check_numbers(f"{name} is {value!r}: either end", bound, 0.0, math.inf, True)
