"""Linear policies of a box and quadratic values, as flax modules."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxrl.distributions import DiagonalGaussian


class Gain(nn.Module):
    """N(-K x, exp(log_std)^2) for actions of `size` entries; K and log_std start at zero."""

    size: int

    @nn.compact
    def __call__(self, x, mask=None):
        gain = self.param("K", nn.initializers.zeros, (self.size, x.shape[-1]))
        log_std = self.param("log_std", nn.initializers.zeros, (self.size,))
        mode = -x @ gain.T
        return DiagonalGaussian(mode, jnp.broadcast_to(log_std, mode.shape))


class Squares(nn.Module):
    """The torso whose features are all products x_i x_j."""

    @nn.compact
    def __call__(self, x):
        return (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], x.shape[-1] ** 2)


def gain_params(gain, log_std=None):
    """Parameters of `Gain`, or critic weights of their structure."""
    gain = jnp.asarray(gain, jnp.float32)
    log_std = jnp.zeros(len(gain)) if log_std is None else jnp.asarray(log_std, jnp.float32)
    return {"params": {"actor": {"K": gain, "log_std": log_std}}}


def linear_value(weights, bias):
    """Parameters of a value that is linear in the torso's features."""
    kernel = jnp.asarray(np.ravel(weights), jnp.float32)[:, None]
    bias = jnp.full(1, bias, jnp.float32)
    return {"params": {"critic_head": {"kernel": kernel, "bias": bias}}}
