"""Hyper-parameters that change over training: read off the clock, never off the state.

Any float hyper-parameter marked `Scheduled` takes a number or one of these. Their own fields are
leaves, so they can be swept like the numbers they stand for.
"""

from typing import Any

import jax.numpy as jnp
from flax import struct

from jaxrl.types import Array, Clock, Scalar


class Linear(struct.PyTreeNode):
    """From `start` to `end` in a straight line over the first `share` of training, then `end`.

    The share is above 0 and at most 1.
    """

    start: Scalar
    end: Scalar = 0.0
    share: Scalar = 1.0

    def __call__(self, fraction: Array) -> Array:
        done = jnp.clip(fraction / self.share, 0.0, 1.0)
        return self.start + (self.end - self.start) * done


class Exponential(struct.PyTreeNode):
    """From `start` to `end`, both above 0, by a constant factor: `start (end / start)^fraction`."""

    start: Scalar
    end: Scalar

    def __call__(self, fraction: Array) -> Array:
        return self.start * (self.end / self.start) ** fraction


class Cosine(struct.PyTreeNode):
    """From `start` to `end` along half a cosine (Loshchilov and Hutter, 2017, without restarts)."""

    start: Scalar
    end: Scalar = 0.0

    def __call__(self, fraction: Array) -> Array:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + jnp.cos(jnp.pi * fraction))


Schedule = Linear | Exponential | Cosine
Scheduled = Any
"""A float hyper-parameter or a schedule of it."""


def at(value: Scheduled, clock: Clock) -> Any:
    """The hyper-parameter's value now."""
    return value(clock.fraction) if isinstance(value, Schedule) else value


def bounds(value: Scheduled) -> tuple[Any, ...]:
    """The numbers between which the value moves; for checking them."""
    return (value.start, value.end) if isinstance(value, Schedule) else (value,)
