"""Torsos: modules from observations `[..., *obs]` to features `[..., F]`, for any leading axes."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.initializers import orthogonal

from jaxrl.networks.layers import MLP, Conv, Flatten, dense
from jaxrl.networks.own_modules import leaf_shapes
from jaxrl.types import Array, EnvSpec


class CNN(nn.Module):
    """Convolutions over images `[..., height, width, channels]`, then a dense layer.

    uint8 inputs are scaled to [0, 1]. Each of `layers` is (features, kernel, stride), followed by
    a ReLU.
    """

    layers: Sequence[tuple[int, int, int]] = ((16, 3, 1), (32, 3, 1))
    features: int = 128

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = 255.0 if x.dtype == jnp.uint8 else 1.0
        batch, x = x.shape[:-3], x.reshape(-1, *x.shape[-3:]).astype(jnp.float32) / scale
        for features, kernel, stride in self.layers:
            conv = Conv(
                features, (kernel, kernel), (stride, stride), kernel_init=orthogonal(2**0.5)
            )
            x = nn.relu(conv(x))
        x = nn.relu(dense(self.features, 2**0.5)(x.reshape(x.shape[0], -1)))
        return x.reshape(*batch, self.features)


def default_torso(
    spec: EnvSpec, hidden_sizes: Sequence[int], activation: str, layer_norm: bool = False
) -> nn.Module:
    """An MLP on the flattened observation, for observations of any structure."""
    return Flatten(leaf_shapes(spec), MLP(tuple(hidden_sizes), activation, layer_norm))
