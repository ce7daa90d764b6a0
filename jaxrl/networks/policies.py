"""Policies: modules that map features or observations to action distributions."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.initializers import zeros_init

from jaxrl.distributions import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    Product,
)
from jaxrl.errors import InvalidType
from jaxrl.networks.layers import MLP, dense
from jaxrl.trees import num_values
from jaxrl.types import (
    ActionSpace,
    Array,
    Box,
    Discrete,
    Mixed,
    MultiDiscrete,
    PyTree,
)


class PolicyHead(nn.Module):
    """Maps features to a distribution over the actions of `space`.

    The last layer has gain 0.01, so that training starts near the uniform policy; for a `Box`, a
    learned `log_std` does not depend on the state.
    """

    space: ActionSpace
    initial_log_std: float = 0.0

    @nn.compact
    def __call__(self, x: Array, mask: PyTree = None) -> Distribution:
        match self.space:
            case Discrete(num):
                return Categorical(dense(num, 0.01)(x), mask)
            case MultiDiscrete(nums):
                return MultiCategorical(dense(sum(nums), 0.01)(x), nums, mask)
            case Box(shape=shape):
                mean = dense(num_values(shape), 0.01)(x).reshape(*x.shape[:-1], *shape)
                log_std = self.param(
                    "log_std", lambda _, s: jnp.full(s, self.initial_log_std, jnp.float32), shape
                )
                return DiagonalGaussian(mean, jnp.broadcast_to(log_std, mean.shape), len(shape))
            case Mixed(spaces):
                masks = (None,) * len(spaces) if mask is None else mask
                return Product(
                    tuple(
                        PolicyHead(space, self.initial_log_std)(x, m)
                        for space, m in zip(spaces, masks, strict=True)
                    )
                )
        raise InvalidType(f"{self.space!r} is not an action space")


class SoftmaxLinear(nn.Module):
    """pi(a | s) proportional to exp(theta^T phi(s, a)), with theta initialised to zero: uniform.

    Attributes:
      features: phi, from observations `[..., *obs]` to `[..., A, K]`.
    """

    features: Callable[[PyTree], Array]

    @nn.compact
    def __call__(self, obs: PyTree, mask: PyTree = None) -> Distribution:
        phi = self.features(obs)
        theta = self.param("theta", zeros_init(), (phi.shape[-1],))
        return Categorical(phi @ theta, mask)


class Scorer(nn.Module):
    """pi(a | s) proportional to exp(f(s, a)): one network scores each pair of state and action.

    Attributes:
      num_actions: A.
      torso: f's hidden layers, from `[B, F + A]` (observation and one-hot action) to features;
        None for an MLP.
    """

    num_actions: int
    torso: nn.Module | None = None

    @nn.compact
    def __call__(self, obs: Array, mask: PyTree = None) -> Distribution:
        actions = jnp.eye(self.num_actions, dtype=jnp.float32)
        shape = (*obs.shape[:-1], self.num_actions)
        pairs = jnp.concatenate(
            [
                jnp.broadcast_to(obs[..., None, :].astype(jnp.float32), (*shape, obs.shape[-1])),
                jnp.broadcast_to(actions, (*shape, self.num_actions)),
            ],
            axis=-1,
        )
        if self.torso is None:
            x = MLP()(pairs)
        else:  # user-defined modules see one batch axis
            x = self.torso(pairs.reshape(-1, pairs.shape[-1])).reshape(*shape, -1)
        return Categorical(jnp.squeeze(dense(1, 0.01)(x), -1), mask)
