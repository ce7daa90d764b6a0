"""Gaussian distributions over continuous actions."""

from __future__ import annotations

import math

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.distributions.base import at_least_float32
from jaxrl.xla.rounding import ordered_sum


@flax.struct.dataclass
class DiagonalGaussian:
    """Independent normal variables; actions are floats of mean's shape, [..., *event].

    Attributes:
        mean: float [..., *event].
        log_std: float, broadcastable to mean: log of the standard deviation; shape [*event] shares
            it across the batch.
        event_ndim: number of trailing axes of one action (static); 0 for scalar actions [...].
    """

    mean: Array
    log_std: Array
    event_ndim: int = flax.struct.field(pytree_node=False, default=1)

    def sample(self, key: Array) -> Array:
        """Draws actions, float [..., *event], as mean + std * noise; differentiable."""
        mean, log_std = self._parameters()
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)

    def mode(self) -> Array:
        """Returns the mean, float [..., *event]."""
        return self._parameters()[0]

    def log_prob(self, action: Array) -> Array:
        """Returns sum_i -(z_i^2 / 2 + log std_i + log(2 pi) / 2), z = (action - mean) / std."""
        mean, log_std = self._parameters()
        return self._log_prob_of((at_least_float32(action) - mean) * jnp.exp(-log_std))

    def _log_prob_of(self, z: Array) -> Array:  # z: the standardised action
        _, log_std = self._parameters()
        return self._sum_event(-0.5 * jnp.square(z) - (log_std + 0.5 * math.log(2 * math.pi)))

    def entropy(self) -> Array:
        """Returns sum_i log std_i + log(2 pi e) / 2, float [...]."""
        _, log_std = self._parameters()
        return self._sum_event(log_std + 0.5 * math.log(2 * math.pi * math.e))

    def kl(self, other: DiagonalGaussian) -> Array:
        """Returns sum_i ((std_i / std'_i)^2 - 1 - 2 log(std_i / std'_i) + d_i^2) / 2, float [...].

        Here d = (mean - mean') / std', and primes mark `other`.
        """
        mean, log_std = self._parameters()
        other_mean, other_log_std = other._parameters()
        log_ratio = log_std - other_log_std
        distance = (mean - other_mean) * jnp.exp(-other_log_std)
        # expm1, because trust regions need KLs near 0, where exp(x) - 1 loses precision.
        spread = jnp.expm1(2 * log_ratio) - 2 * log_ratio
        return self._sum_event(0.5 * (spread + jnp.square(distance)))

    @property
    def parameters(self) -> tuple[Array, Array]:
        """Mean and log_std, both float [..., *event]."""
        return self._parameters()

    def fisher(self, tangent: tuple[Array, Array]) -> tuple[Array, Array]:
        """Returns (v_mean / std^2, 2 v_log_std): F is diagonal in mean and log_std."""
        _, log_std = self._parameters()
        return tangent[0] * jnp.exp(-2 * log_std), 2 * tangent[1]

    def _parameters(self) -> tuple[Array, Array]:  # both [..., *event]
        mean = at_least_float32(self.mean)
        return mean, jnp.broadcast_to(at_least_float32(self.log_std), mean.shape)

    def _sum_event(self, x: Array) -> Array:  # [..., *event] -> [...]
        batch_shape = x.shape[: x.ndim - self.event_ndim]
        event_size = math.prod(x.shape[x.ndim - self.event_ndim :])
        return ordered_sum(x.reshape(*batch_shape, event_size))


@flax.struct.dataclass
class TanhGaussian:
    """tanh(u) for normal u: actions in (-1, 1), float [..., *event].

    `sample_and_log_prob` computes the likelihood from u itself, so it stays finite where tanh
    saturates. Entropy and KL have no closed form.

    Attributes:
        mean: float [..., *event], mean of u.
        log_std: float, broadcastable to mean: log of the standard deviation of u.
        event_ndim: number of trailing axes of one action (static).
    """

    mean: Array
    log_std: Array
    event_ndim: int = flax.struct.field(pytree_node=False, default=1)

    @property
    def _gaussian(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.log_std, self.event_ndim)

    def sample(self, key: Array) -> Array:
        """Draws actions, float [..., *event]; differentiable."""
        return jnp.tanh(self._gaussian.sample(key))

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        """Draws actions [..., *event] and returns their log p [...]; differentiable."""
        gaussian = self._gaussian
        mean, log_std = gaussian._parameters()
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        u = mean + jnp.exp(log_std) * noise
        # Use the noise itself: u - mean loses precision if std is small compared with the mean.
        return jnp.tanh(u), gaussian._log_prob_of(noise) - self._slope(u)

    def mode(self) -> Array:
        """Returns tanh(mean), float [..., *event]: the median."""
        return jnp.tanh(self._gaussian.mode())

    def log_prob(self, action: Array) -> Array:
        """Returns log p(action), float [...]; actions are clipped to just inside (-1, 1)."""
        inside = jnp.clip(at_least_float32(action), -1.0 + 2.0**-23, 1.0 - 2.0**-23)
        u = jnp.arctanh(inside)
        return self._gaussian.log_prob(u) - self._slope(u)

    def _slope(self, u: Array) -> Array:
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which is finite for every u.
        slope = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return self._gaussian._sum_event(slope)
