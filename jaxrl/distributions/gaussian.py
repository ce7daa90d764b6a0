"""Gaussian distributions over continuous actions."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrl.distributions.base import at_least_float32, sum_event


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
        each = -0.5 * jnp.square(z) - (log_std + 0.5 * math.log(2 * math.pi))
        return sum_event(each, self.event_ndim)

    def entropy(self) -> Array:
        """Returns sum_i log std_i + log(2 pi e) / 2, float [...]."""
        _, log_std = self._parameters()
        return sum_event(log_std + 0.5 * math.log(2 * math.pi * math.e), self.event_ndim)

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
        return sum_event(0.5 * (spread + jnp.square(distance)), self.event_ndim)

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


@flax.struct.dataclass
class FeatureGaussian(DiagonalGaussian):
    """A Gaussian whose noise is linear in features of the state, with weights kept for a while.

    The noise is sum_f features_f W_f, where each weight W_f is normal with mean 0: in one state it
    is normal with the variance sum_f features_f^2 std_f^2. Made by `of`, which computes `log_std`.
    `sample` draws new weights for each action; `sample_with` uses given ones.

    Attributes:
        features: float [..., F].
        weight_log_std: float [..., F, *event], log standard deviations of the weights.

    Source: Raffin, Kober and Stulp, "Smooth exploration for robotic reinforcement learning", 2021.
    """

    features: Any = None
    weight_log_std: Any = None

    @classmethod
    def of(cls, mean: Array, features: Array, weight_log_std: Array, event_ndim: int) -> Self:
        """The distribution for weights whose log standard deviations are float [F, *event]."""
        num = weight_log_std.shape[0]
        squares = jnp.square(features) @ jnp.exp(2.0 * weight_log_std).reshape(num, -1)
        log_std = 0.5 * jnp.log(squares + 1e-6).reshape(mean.shape)
        shape = (*features.shape, *mean.shape[mean.ndim - event_ndim :])
        log_stds = jnp.broadcast_to(weight_log_std, shape)
        return cls(mean, log_std, event_ndim, features, log_stds)

    def sample_with(self, noise: Array) -> Array:
        """Actions, float [..., *event], for weights that are `noise` times their std.

        Args:
            noise: float [..., F, *event], standard normal numbers.
        """
        weights = jnp.exp(self.weight_log_std) * noise
        axes = tuple(range(self.features.ndim, weights.ndim))
        return self.mean + jnp.sum(
            jnp.expand_dims(self.features, axes) * weights, axis=self.features.ndim - 1
        )


@flax.struct.dataclass
class TanhGaussian:
    """tanh(u) for normal u: actions in (-1, 1), float [..., *event].

    `sample_and_log_prob` computes the likelihood from u itself, so it stays finite where tanh
    saturates. KL and Fisher matrix are those of u: a bijection changes neither. The entropy has no
    closed form; Gauss-Hermite quadrature of 32 nodes has an error below 1e-3 nats for each entry
    with a standard deviation of at most 2.

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
        return jnp.tanh(u), gaussian._log_prob_of(noise) - self._log_slope(u)

    def mode(self) -> Array:
        """Returns tanh(mean), float [..., *event]: the median."""
        return jnp.tanh(self._gaussian.mode())

    def log_prob(self, action: Array) -> Array:
        """Returns log p(action), float [...]; actions are clipped to just inside (-1, 1)."""
        inside = jnp.clip(at_least_float32(action), -1.0 + 2.0**-23, 1.0 - 2.0**-23)
        u = jnp.arctanh(inside)
        return self._gaussian.log_prob(u) - self._log_slope(u)

    def entropy(self) -> Array:
        """Returns the entropy of u plus E[log(1 - tanh(u)^2)], float [...]."""
        gaussian = self._gaussian
        mean, log_std = gaussian._parameters()
        nodes, weights = np.polynomial.hermite_e.hermegauss(32)
        slopes = [
            float(weight) * self._log_slope(mean + float(node) * jnp.exp(log_std))
            for node, weight in zip(nodes, weights / weights.sum(), strict=True)
        ]
        return gaussian.entropy() + functools.reduce(operator.add, slopes)

    def kl(self, other: TanhGaussian) -> Array:
        """Returns KL(self || other), float [...]: that of the normal variables."""
        return self._gaussian.kl(other._gaussian)

    @property
    def parameters(self) -> tuple[Array, Array]:
        """Mean and log_std of u, both float [..., *event]."""
        return self._gaussian.parameters

    def fisher(self, tangent: tuple[Array, Array]) -> tuple[Array, Array]:
        """Returns F v for u's mean and log_std, see `DiagonalGaussian.fisher`."""
        return self._gaussian.fisher(tangent)

    def _log_slope(self, u: Array) -> Array:
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which is finite for every u.
        slope = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return sum_event(slope, self.event_ndim)
