"""Torsos: modules from observations `[..., *obs]` to features `[..., F]`, for any leading axes.

Images are `[..., height, width, channels]`; those of bytes are scaled to [0, 1].
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import orthogonal

from jaxrl.networks.layers import MLP, Conv, Flatten, dense
from jaxrl.networks.own_modules import leaf_shapes
from jaxrl.types import Array, EnvSpec, split_mask

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Convolutions (features, kernel, stride) for Atari's images (Mnih et al., 2015)."""
SMALLEST = 36
"""Smallest height and width of an image for which `NATURE` leaves anything."""


def on_images(x: Array, function: Callable[[Array], Array]) -> Array:
    """Applies a function of images `float32[B, ...]` and flattens its result, `[..., F]`."""
    scale = 255.0 if x.dtype == jnp.uint8 else 1.0
    batch = x.shape[:-3]
    x = function(x.reshape(-1, *x.shape[-3:]).astype(jnp.float32) / scale)
    return x.reshape(*batch, x[0].size)


def convolved(x: Array, layers: Sequence[tuple[int, int, int]], padding: str) -> Array:
    """Convolutions (features, kernel, stride), each followed by a ReLU, in a compact module."""
    for features, kernel, stride in layers:
        size, strides, start = (kernel, kernel), (stride, stride), orthogonal(2**0.5)
        x = nn.relu(Conv(features, size, strides, padding, kernel_init=start)(x))
    return x


class Convolutions(nn.Module):
    """Convolutions without padding, each followed by a ReLU; then a torso on their outputs.

    Attributes:
      layers: (features, kernel, stride) of each convolution.
      torso: a module from `[..., F]` to features.
    """

    layers: Sequence[tuple[int, int, int]] = NATURE
    torso: nn.Module = MLP((512,), "relu")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return self.torso(on_images(x, lambda x: convolved(x, self.layers, "VALID")))


class ImpalaCNN(nn.Module):
    """The residual network of IMPALA (Espeholt et al., 2018, figure 3), then a dense layer.

    Attributes:
      channels: of each section: a convolution, a maximum over 3 x 3 with stride 2, two residual
        blocks of two convolutions.
      features: outputs.
    """

    channels: Sequence[int] = (16, 32, 32)
    features: int = 256

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def conv(x: Array, channels: int) -> Array:
            return Conv(channels, (3, 3), kernel_init=orthogonal(2**0.5))(x)

        def sections(x: Array) -> Array:
            for channels in self.channels:
                x = nn.max_pool(conv(x, channels), (3, 3), (2, 2), "SAME")
                for _ in range(2):
                    x = x + conv(nn.relu(conv(nn.relu(x), channels)), channels)
            return nn.relu(x)

        return nn.relu(dense(self.features, 2**0.5)(on_images(x, sections)))


class CNN(nn.Module):
    """Convolutions that keep height and width, each followed by a ReLU, then a dense layer.

    Each of `layers` is (features, kernel, stride).
    """

    layers: Sequence[tuple[int, int, int]] = ((16, 3, 1), (32, 3, 1))
    features: int = 128

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = on_images(x, lambda x: convolved(x, self.layers, "SAME"))
        return nn.relu(dense(self.features, 2**0.5)(x))


def default_torso(
    spec: EnvSpec, hidden_sizes: Sequence[int], activation: str, layer_norm: bool = False
) -> nn.Module:
    """An MLP on the flattened observation, for observations of any structure.

    An image of bytes that is large enough goes through the convolutions of `NATURE` first.
    """
    obs, _ = split_mask(spec.observation)
    mlp = MLP(tuple(hidden_sizes), activation, layer_norm)
    is_array = isinstance(obs, jax.ShapeDtypeStruct)
    is_image = is_array and obs.dtype == jnp.uint8 and len(obs.shape) == 3
    if is_image and min(obs.shape[:2]) >= SMALLEST:
        return Convolutions(torso=mlp)
    return Flatten(leaf_shapes(spec), mlp)
