"""Sums of many small numbers that keep their digits in float32."""

from typing import Self

import jax.numpy as jnp
from flax import struct

from jaxrl.types import Array
from jaxrl.xla.rounding import rounded_sum


class CompensatedSum(struct.PyTreeNode):
    """A running sum of twice the digits, entry by entry: the float32 sum and what it lacks.

    A plain float32 sum of 0.1 is off by 4% after four million terms, and counting stops at 2**24.
    Kahan's sum in the form of Dekker (1971) and Knuth (1969): both parts are renewed with each
    term, so that the error does not grow with their number.

    Attributes:
      value: `float[...]`, the sum.
      lost: of the same shape, less than half of value's last digit.
    """

    value: Array
    lost: Array

    @classmethod
    def zeros_like(cls, x: Array) -> Self:
        """The sum of nothing, for terms like `x`."""
        return cls(jnp.zeros_like(x), jnp.zeros_like(x))

    def __add__(self, x: Array) -> Self:
        """The sum with one more term; where that is not finite as a plain sum has it."""
        total = rounded_sum(self.value, x)
        larger = jnp.abs(self.value) >= jnp.abs(x)
        lost = jnp.where(larger, (self.value - total) + x, (x - total) + self.value) + self.lost
        lost = jnp.where(jnp.isfinite(lost), lost, 0.0)
        value = rounded_sum(total, lost)
        lost = jnp.where(jnp.isfinite(value), lost - (value - total), 0.0)
        return self.replace(value=value, lost=lost)
