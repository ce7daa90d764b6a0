"""The distribution interface."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array

from jaxrl.xla.rounding import ordered_sum


@runtime_checkable
class Distribution(Protocol):
    """A distribution over actions.

    Keys are typed (`jax.random.key`). An action is one array, or a tuple of them for `Product`.
    """

    def sample(self, key: Array) -> Any:
        """Draws one action for each batch entry."""

    def mode(self) -> Any:
        """Returns the most probable action of each batch entry."""

    def log_prob(self, action: Any) -> Array:
        """Returns log p(action), a float of shape [...]."""

    def entropy(self) -> Array:
        """Returns H(p) = -E[log p(action)] in nats, a float of shape [...]."""

    def kl(self, other: Any) -> Array:
        """Returns KL(self || other) in nats, closed form, a float of shape [...]."""

    @property
    def parameters(self) -> Any:
        """The float arrays that define it, a pytree of [..., *]; without the mask."""

    def fisher(self, tangent: Any) -> Any:
        """Returns F v for each batch entry, F = E[grad log p grad log p^T] in `parameters`.

        F is the Hessian of the KL divergence: KL(p || p + v) = v^T F v / 2 + o(|v|^2). Argument and
        result have the structure of `parameters`.
        """


def at_least_float32(x: Array) -> Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def sum_event(x: Array, event_ndim: int) -> Array:
    """The sum over the last `event_ndim` axes, in a fixed order: [..., *event] to [...]."""
    batch_shape = x.shape[: x.ndim - event_ndim]
    return ordered_sum(x.reshape(*batch_shape, math.prod(x.shape[x.ndim - event_ndim :])))


def _add(terms: Sequence[Array]) -> Array:
    return functools.reduce(operator.add, terms)
