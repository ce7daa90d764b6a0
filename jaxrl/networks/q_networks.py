"""Q-networks: a value, or a return distribution, for each discrete action.

Dueling streams, noisy layers and quantile embeddings can be combined.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl.networks.layers import activation, dense
from jaxrl.networks.own_modules import call_directly
from jaxrl.types import Array, PyTree, split_mask
from jaxrl.xla.threefry import of_all
from jaxrl.xla.weight_gradient import product


class NoisyDense(nn.Module):
    """A dense layer whose weights have factorised Gaussian noise with learned scales.

    Without the random stream "noise", it uses the mean weights. Fortunato et al., "Noisy networks
    for exploration", 2018, section 3.

    Attributes:
      features: outputs.
      initial_noise: initial scale of the noise, in units of 1 / sqrt(inputs).
    """

    features: int
    initial_noise: float = 0.5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        bound = 1.0 / math.sqrt(inputs)

        def uniform(key: Any, shape: Any) -> Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        def deviation(_: Any, shape: Any) -> Array:
            return jnp.full(shape, self.initial_noise * bound, jnp.float32)

        kernel = self.param("kernel", uniform, (inputs, self.features))
        bias = self.param("bias", uniform, (self.features,))
        kernel_std = self.param("kernel_std", deviation, (inputs, self.features))
        bias_std = self.param("bias_std", deviation, (self.features,))
        if self.has_rng("noise"):
            into, out = (
                _signed_root(jax.random.normal(of_all(self.make_rng("noise")), (n,)))
                for n in (inputs, self.features)
            )
            kernel = kernel + kernel_std * into[:, None] * out[None]
            bias = bias + bias_std * out
        y = product(x, kernel)
        return y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def _signed_root(x: Array) -> Array:
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x))


class QNetwork(nn.Module):
    """Maps observations `[..., *obs]` to `[..., A, K]`: K outputs for each action.

    Attributes:
      torso: a module from observations to features.
      num_actions: A.
      num_outputs: K, 1 for a value; ignored with `levels`, where K is their number.
      hidden_size: width of the layer between torso and outputs.
      activation: activation function of that layer.
      dueling: separate streams for state value and advantages, whose mean is subtracted
        (Wang et al., "Dueling network architectures", 2016, eq. 9).
      noisy: use noisy layers after the torso.
      embedding_size: number of cosine features of a quantile level (Dabney et al., "Implicit
        quantile networks", 2018, eq. 4, without the constant one); 0 for outputs without levels.
      layer_norm: apply layer normalisation in each layer after the torso.
      call: how to call the torso, see `jaxrl.networks.own_modules`.
      noise_scale: see `NoisyDense.initial_noise`.
    """

    torso: nn.Module
    num_actions: int
    num_outputs: int = 1
    hidden_size: int = 64
    activation: str = "relu"
    dueling: bool = False
    noisy: bool = False
    embedding_size: int = 0
    layer_norm: bool = False
    call: Callable[..., Any] = call_directly
    noise_scale: float = 0.5

    @nn.compact
    def __call__(self, obs: PyTree, levels: Array | None = None) -> Array:
        x = self.call(self.torso, split_mask(obs)[0])  # [..., F]
        outputs = self.num_outputs
        if self.embedding_size:  # [..., K, F], one output per level
            assert levels is not None
            cosines = jnp.cos(jnp.pi * levels[..., None] * _counted(self.embedding_size, levels))
            x = x[..., None, :] * nn.relu(dense(x.shape[-1], 2**0.5, "levels")(cosines))
            outputs = 1
        per_action = self._stream(x, self.num_actions * outputs, "actions")
        per_action = per_action.reshape(*x.shape[:-1], self.num_actions, outputs)
        if self.dueling:
            value = self._stream(x, outputs, "state")[..., None, :]
            per_action = value + per_action - jnp.mean(per_action, axis=-2, keepdims=True)
        if self.embedding_size:  # [..., K, A, 1] to [..., A, K]
            per_action = jnp.swapaxes(per_action[..., 0], -1, -2)
        return per_action

    def _stream(self, x: Array, features: int, name: str) -> Array:
        def layer(size: int, scale: float, layer_name: str) -> Any:
            if self.noisy:
                return NoisyDense(size, self.noise_scale, name=layer_name)
            return dense(size, scale, layer_name)

        x = layer(self.hidden_size, 2**0.5, f"{name}_hidden")(x)
        if self.layer_norm:
            x = nn.LayerNorm(name=f"{name}_norm")(x)
        return layer(features, 1.0, f"{name}_out")(activation(self.activation)(x))


def of_actions(outputs: Array, action: Array) -> Array:
    """Selects the rows `[N, K]` of actions `int[N]` in `outputs[N, A, K]`; NaN if out of range.

    It is a masked sum, because the gradient of indexing is a slow scatter.
    """
    chosen = action[:, None] == jnp.arange(outputs.shape[1])[None]
    values = jnp.sum(jnp.where(chosen[:, :, None], outputs, 0.0), axis=1)
    known = (action >= 0) & (action < outputs.shape[1])
    return jnp.where(known[:, None], values, jnp.nan)


def available_only(q: Array, obs: PyTree) -> Array:
    """Sets Q of unavailable actions to -1e30, unless none is available (as in terminal states)."""
    mask = split_mask(obs)[1]
    if mask is None:
        return q
    return jnp.where(mask | ~jnp.any(mask, axis=-1, keepdims=True), q, -1e30)


def _counted(num: int, like: Array) -> Array:
    return jnp.arange(1, num + 1, dtype=jnp.float32).reshape((1,) * like.ndim + (-1,))
