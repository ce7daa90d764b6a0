"""Mixtures of Gaussians, for actions of an expert that acts in several ways."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.distributions.categorical import Categorical
from jaxrl.distributions.gaussian import DiagonalGaussian


@flax.struct.dataclass
class GaussianMixture:
    """One of K Gaussians, drawn for each action; Bishop, "Mixture density networks", 1994.

    Its entropy and divergences have no closed form, so it is for agents that need the likelihood
    alone.

    Attributes:
        logits: float [..., K], unnormalised log probabilities of the Gaussians.
        mean: float [..., K, *event].
        log_std: float [..., K, *event], log of the standard deviations.
        event_ndim: number of trailing axes of one action (static).
    """

    logits: Array
    mean: Array
    log_std: Array
    event_ndim: int = flax.struct.field(pytree_node=False, default=1)

    def sample(self, key: Array) -> Array:
        """Draws a Gaussian, then an action from it, float [..., *event]."""
        which_key, key = jax.random.split(key)
        return self._of(Categorical(self.logits).sample(which_key), self._gaussians.sample(key))

    def mode(self) -> Array:
        """Returns the mean with the largest density, float [..., *event].

        The mode itself, if the Gaussians lie apart.
        """
        axis = -1 - self.event_ndim
        means = jnp.moveaxis(self.mean, axis, 0)
        densities = jnp.stack([self.log_prob(x) for x in means], axis=-1)
        return self._of(jnp.argmax(densities, axis=-1), self.mean)

    def log_prob(self, action: Array) -> Array:
        """Returns log sum_k p(k) N(action; mean_k, std_k), float [...]."""
        each = self._gaussians.log_prob(jnp.expand_dims(action, -1 - self.event_ndim))
        return jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + each, axis=-1)

    @property
    def _gaussians(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.log_std, self.event_ndim)

    def _of(self, which: Array, values: Array) -> Array:
        """The entries of `values`, [..., K, *event], of the Gaussians `which`, int [...]."""
        axis = -1 - self.event_ndim
        which = which.reshape(*which.shape, *(1,) * (1 + self.event_ndim))
        return jnp.squeeze(jnp.take_along_axis(values, which, axis), axis)
