"""Schedules: hyper-parameters that change over training, as functions of the clock.

A float hyper-parameter annotated `Scheduled` takes a number or a schedule. The fields of a schedule
are leaves, so they can be swept like numbers.
"""

from typing import Any

import jax.numpy as jnp
from flax import struct

from jaxrl.types import Array, Clock, Scalar


class Linear(struct.PyTreeNode):
    """Linear from `start` to `end` over the first `share` of training, then constant.

    `share` is in (0, 1].
    """

    start: Scalar
    end: Scalar = 0.0
    share: Scalar = 1.0

    def __call__(self, fraction: Array) -> Array:
        done = jnp.clip(fraction / self.share, 0.0, 1.0)
        return self.start + (self.end - self.start) * done


class Exponential(struct.PyTreeNode):
    """Exponential from `start` to `end`, both positive: `start (end / start)^fraction`."""

    start: Scalar
    end: Scalar

    def __call__(self, fraction: Array) -> Array:
        return self.start * (self.end / self.start) ** fraction


class Cosine(struct.PyTreeNode):
    """Cosine annealing from `start` to `end` (Loshchilov and Hutter, 2017, without restarts)."""

    start: Scalar
    end: Scalar = 0.0

    def __call__(self, fraction: Array) -> Array:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + jnp.cos(jnp.pi * fraction))


Schedule = Linear | Exponential | Cosine
Scheduled = Any
"""A float hyper-parameter, or a schedule for it."""


def at(value: Scheduled, clock: Clock) -> Any:
    """The hyper-parameter's current value."""
    return value(clock.fraction) if isinstance(value, Schedule) else value


def bounds(value: Scheduled) -> tuple[Any, ...]:
    """The extreme values of a hyper-parameter, for validation."""
    return (value.start, value.end) if isinstance(value, Schedule) else (value,)
