"""Critics and plain feed-forward outputs for off-policy agents."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.initializers import zeros_init

from jaxrl.distributions import Categorical, DiagonalGaussian, Distribution, FeatureGaussian
from jaxrl.networks.layers import MLP, dense
from jaxrl.networks.own_modules import call_directly
from jaxrl.networks.policies import noise_log_std
from jaxrl.types import Array, PyTree, split_mask


class Critics(nn.Module):
    """An ensemble of `num` independent critics Q(s, a): `float32[num, ...]`.

    Attributes:
      torso: builds a module from observations to features, one per critic.
      hidden_sizes: widths of the hidden layers after the torso.
      activation: their activation function.
      num: number of critics.
      num_outputs: outputs per critic: 1 if called with an action (the axis is dropped), or the
        number of actions A if called with observations only, `[num, ..., A]`.
      call: how to call a torso, see `jaxrl.networks.own_modules`.
      layer_norm: apply layer normalisation in each hidden layer after the torso.
    """

    torso: Callable[[], nn.Module]
    hidden_sizes: tuple[int, ...]
    activation: str
    num: int = 1
    num_outputs: int = 1
    call: Callable[..., Any] = call_directly
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: PyTree, action: Array | None = None) -> Array:
        obs = split_mask(obs)[0]
        found = []
        for i in range(self.num):
            x = self.call(self.torso().clone(parent=self, name=f"torso_{i}"), obs)
            if action is not None:
                x = jnp.concatenate([x, action], axis=-1)
            x = MLP(self.hidden_sizes, self.activation, self.layer_norm, name=f"hidden_{i}")(x)
            found.append(dense(self.num_outputs, 1.0, f"out_{i}")(x))
        values = jnp.stack(found)
        return values if action is None else jnp.squeeze(values, -1)


class Outputs(nn.Module):
    """A torso, hidden layers and a last layer with small weights: `[..., num]`."""

    torso: Callable[[], nn.Module]
    hidden_sizes: tuple[int, ...]
    activation: str
    num: int
    call: Callable[..., Any] = call_directly

    @nn.compact
    def __call__(self, obs: PyTree) -> Any:
        return dense(self.num, 0.01)(self.features(obs))

    def features(self, obs: PyTree) -> Array:
        """The last hidden layer."""
        x = self.call(self.torso().clone(parent=self, name="torso"), split_mask(obs)[0])
        return MLP(self.hidden_sizes, self.activation)(x)


class ExploringOutputs(Outputs):
    """The same layers, to a Gaussian whose noise is linear in the features.

    Its mean, the `num` outputs, is clipped to [-2, 2], beyond which tanh hardly changes.

    Attributes:
      initial_log_std: initial log standard deviation of the noise's weights.
    """

    initial_log_std: float = -3.0

    @nn.compact
    def __call__(self, obs: PyTree) -> FeatureGaussian:
        x = self.features(obs)
        mean = jnp.clip(dense(self.num, 0.01)(x), -2.0, 2.0)
        log_std = noise_log_std(self, (x.shape[-1], self.num), self.initial_log_std)
        return FeatureGaussian.of(mean, x, log_std, 1)


class PolicyOutputs(Outputs):
    """The same layers, to a `Categorical` over `num` actions or to a Gaussian.

    The Gaussian's mean is tanh of the `num` outputs; its standard deviation, a parameter, is 1 at
    first, and stays between exp(-5) and exp(2).

    Attributes:
      discrete: whether the outputs are logits.
    """

    discrete: bool = False

    @nn.compact
    def __call__(self, obs: PyTree) -> Distribution:
        outputs = dense(self.num, 0.01)(self.features(obs))
        if self.discrete:
            return Categorical(outputs, split_mask(obs)[1])
        log_std = self.param("log_std", zeros_init(), (self.num,))
        log_std = jnp.broadcast_to(jnp.clip(log_std, -5.0, 2.0), outputs.shape)
        return DiagonalGaussian(jnp.tanh(outputs), log_std, 1)
