"""Distributions over bounded intervals."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import betaln, digamma, polygamma

from jaxrl.distributions.base import at_least_float32, sum_event


@flax.struct.dataclass
class Beta:
    """Independent Beta variables in (0, 1); actions are float [..., *event].

    p(x) = x^(alpha - 1) (1 - x)^(beta - 1) / B(alpha, beta). With alpha and beta above 1, it has
    one peak and is 0 at the bounds.

    Source: Chou, Maturana and Scherer, "Improving stochastic policy gradients in continuous control
    with deep reinforcement learning using the Beta distribution", 2017.

    Attributes:
        alpha, beta: float [..., *event], at least 1.
        event_ndim: number of trailing axes of one action (static).
    """

    alpha: Array
    beta: Array
    event_ndim: int = flax.struct.field(pytree_node=False, default=1)

    def sample(self, key: Array) -> Array:
        """Draws actions, float [..., *event]; differentiable (implicit reparameterisation)."""
        alpha, beta = self.parameters
        return _inside(jax.random.beta(key, alpha, beta, alpha.shape, alpha.dtype))

    def mode(self) -> Array:
        """Returns the mean, float [..., *event]: the peak lies at a bound if alpha or beta is 1."""
        alpha, beta = self.parameters
        return alpha / (alpha + beta)

    def log_prob(self, action: Array) -> Array:
        """Returns log p(action), float [...]; actions are clipped to just inside (0, 1)."""
        alpha, beta = self.parameters
        x = _inside(at_least_float32(action))
        each = (alpha - 1.0) * jnp.log(x) + (beta - 1.0) * jnp.log1p(-x) - betaln(alpha, beta)
        return sum_event(each, self.event_ndim)

    def entropy(self) -> Array:
        """Returns the entropy in nats, float [...], from digamma functions."""
        alpha, beta = self.parameters
        each = (
            betaln(alpha, beta)
            - (alpha - 1.0) * digamma(alpha)
            - (beta - 1.0) * digamma(beta)
            + (alpha + beta - 2.0) * digamma(alpha + beta)
        )
        return sum_event(each, self.event_ndim)

    def kl(self, other: Beta) -> Array:
        """Returns KL(self || other) in nats, float [...]."""
        (alpha, beta), (other_alpha, other_beta) = self.parameters, other.parameters
        more_alpha, more_beta = alpha - other_alpha, beta - other_beta
        each = (
            betaln(other_alpha, other_beta)
            - betaln(alpha, beta)
            + more_alpha * digamma(alpha)
            + more_beta * digamma(beta)
            - (more_alpha + more_beta) * digamma(alpha + beta)
        )
        return sum_event(each, self.event_ndim)

    @property
    def parameters(self) -> tuple[Array, Array]:
        """alpha and beta, both float [..., *event]."""
        return at_least_float32(self.alpha), at_least_float32(self.beta)

    def fisher(self, tangent: tuple[Array, Array]) -> tuple[Array, Array]:
        """Returns F v, F = diag(psi'(alpha), psi'(beta)) - psi'(alpha + beta), of each entry."""
        alpha, beta = self.parameters
        shared = polygamma(1, alpha + beta) * (tangent[0] + tangent[1])
        return (
            polygamma(1, alpha) * tangent[0] - shared,
            polygamma(1, beta) * tangent[1] - shared,
        )


@flax.struct.dataclass
class Scaled:
    """offset + scale * x for x of another distribution: actions in an interval, [..., *event].

    Attributes:
        distribution: of x; one of float actions [..., *event].
        offset, scale: float [..., *event]; the scale is positive.
        event_ndim: number of trailing axes of one action (static).
    """

    distribution: Any
    offset: Array
    scale: Array
    event_ndim: int = flax.struct.field(pytree_node=False, default=1)

    def sample(self, key: Array) -> Array:
        """Draws actions, float [..., *event]; differentiable."""
        return self._scaled(self.distribution.sample(key))

    def mode(self) -> Array:
        """Returns the scaled mode, float [..., *event]."""
        return self._scaled(self.distribution.mode())

    def log_prob(self, action: Array) -> Array:
        """Returns log p(action), float [...]."""
        x = (at_least_float32(action) - self.offset) / self.scale
        return self.distribution.log_prob(x) - self._log_volume()

    def entropy(self) -> Array:
        """Returns the entropy, float [...]."""
        return self.distribution.entropy() + self._log_volume()

    def kl(self, other: Scaled) -> Array:
        """Returns KL(self || other), float [...], for one of the same interval."""
        return self.distribution.kl(other.distribution)

    @property
    def parameters(self) -> Any:
        """Those of the distribution of x."""
        return self.distribution.parameters

    def fisher(self, tangent: Any) -> Any:
        """F v of the distribution of x."""
        return self.distribution.fisher(tangent)

    def _scaled(self, x: Array) -> Array:
        return self.offset + self.scale * x

    def _log_volume(self) -> Array:
        return sum_event(jnp.log(self.scale), self.event_ndim)


def _inside(x: Array) -> Array:
    """Clipped to just inside (0, 1), where densities are finite."""
    return jnp.clip(x, 2.0**-24, 1.0 - 2.0**-24)
