"""Layers and their initialisers."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import orthogonal, zeros_init

from jaxrl.errors import InvalidValue
from jaxrl.trees import num_values
from jaxrl.types import (
    Array,
    PyTree,
)
from jaxrl.xla.columns import FEW_COLUMNS, dot_general_by_columns
from jaxrl.xla.convolution import conv_general_dilated
from jaxrl.xla.weight_gradient import dot_general

Activation = Literal["tanh", "relu", "gelu", "silu", "elu"]


def activation(name: str) -> Callable[[Array], Array]:
    """Looks up an activation function by name; raises ValueError if unknown."""
    if name not in get_args(Activation):
        raise InvalidValue(f"activation is {name!r}: use one of {', '.join(get_args(Activation))}")
    return jnp.tanh if name == "tanh" else getattr(nn, name)


def dense(features: int, scale: float, name: str | None = None) -> nn.Dense:
    """A dense layer, orthogonal with gain `scale` (Saxe et al., 2014), bias zero."""
    return nn.Dense(
        features,
        kernel_init=orthogonal(scale),
        bias_init=zeros_init(),
        dot_general=dot_general_by_columns if features <= FEW_COLUMNS else dot_general,
        name=name,
    )


class MLP(nn.Module):
    """Dense layers, each followed by an activation; orthogonal initialisation with gain sqrt(2).

    With `layer_norm`, the input of each activation is normalised over the features.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    activation: str = "tanh"
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for size in self.hidden_sizes:
            x = dense(size, 2**0.5)(x)
            x = nn.LayerNorm()(x) if self.layer_norm else x
            x = activation(self.activation)(x)
        return x


class Conv(nn.Conv):
    """A drop-in replacement for `flax.linen.Conv` that trains fast on CPUs; use it in your torsos.

    Fields, parameters and names are those of `flax.linen.Conv`, and results agree up to rounding;
    see `jaxrl.xla.convolution`. On other devices it compiles to the same program.
    """

    conv_general_dilated: Any = conv_general_dilated


class Flatten(nn.Module):
    """Concatenates the leaves of an observation as float32 and applies `torso`.

    Attributes:
      shapes: unbatched shapes of the leaves, in tree order.
      torso: a module from `[..., F]` to features.
    """

    shapes: tuple[tuple[int, ...], ...]
    torso: nn.Module

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        def row(x, shape):
            batch = x.shape[: x.ndim - len(shape)]
            return x.reshape(*batch, num_values(shape)).astype(jnp.float32)

        rows = [row(x, s) for x, s in zip(jax.tree.leaves(obs), self.shapes, strict=True)]
        return self.torso(rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=-1))
