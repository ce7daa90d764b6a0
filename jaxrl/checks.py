"""Checks of hyper-parameters before anything is compiled: errors name the field and the mend."""

import math
from typing import Any

import jax
import numpy as np

from jaxrl.schedules import Scheduled, bounds


def check_range(
    owner: Any, name: str, low: float = 0.0, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Raises ValueError unless the hyper-parameter `owner.name` lies within `[low, high]`.

    Numbers, arrays of them and schedules are checked; None and traced values pass. NaN never does.
    """
    value: Scheduled = getattr(owner, name)
    for bound in bounds(value):
        if bound is None or isinstance(bound, jax.core.Tracer):
            continue
        numbers = np.asarray(bound)
        if not np.issubdtype(numbers.dtype, np.number):
            raise TypeError(f"{name} is {value!r}: it must be a number or a schedule")
        above = numbers > low if open_low else numbers >= low
        if not (above & (numbers <= high) & np.isfinite(numbers)).all():
            interval = f"{'above' if open_low else 'at least'} {low:g}"
            interval += "" if math.isinf(high) else f" and at most {high:g}"
            raise ValueError(f"{name} is {value}: it must be finite, {interval}")
