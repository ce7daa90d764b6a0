"""Errors of action values, as numbers and as distributions; a row each, nothing averaged.

Leading axes `[...]` are any; the last axis holds the atoms or quantiles of a distribution.
"""

import jax
import jax.numpy as jnp

from jaxrl.types import Array, Scalar


def huber(error: Array, delta: Scalar = 1.0) -> Array:
    """`error^2 / 2` up to `delta`, linear beyond: `delta (|error| - delta / 2)` (Huber, 1964)."""
    size = jnp.abs(error)
    square = jnp.minimum(size, delta)
    return 0.5 * jnp.square(square) + delta * (size - square)


def categorical_projection(atoms: Array, probabilities: Array, support: Array) -> Array:
    """A distribution on any atoms, moved onto an even `support`: each atom's mass is shared by the
    two neighbours in proportion to how near they are; beyond the ends it goes to the end.

    Mass is conserved, and for atoms within the support so is the mean.

    Args:
      atoms: `float[..., K]`.
      probabilities: `float[..., K]`.
      support: `float[M]`, rising in equal steps.

    Returns:
      `float[..., M]`.

    Source: Bellemare, Dabney and Munos, "A distributional perspective on reinforcement learning",
    2017, eq. 7.
    """
    step = (support[-1] - support[0]) / (support.shape[0] - 1)
    inside = jnp.clip(atoms, support[0], support[-1])[..., None, :]  # [..., 1, K]
    distance = jnp.abs(inside - support.reshape((1,) * (atoms.ndim - 1) + (-1, 1)))
    share = jnp.clip(1.0 - distance / step, 0.0, 1.0)  # [..., M, K]
    return jnp.sum(share * probabilities[..., None, :], axis=-1)


def cross_entropy(logits: Array, target: Array) -> Array:
    """`-sum_i target_i log softmax(logits)_i`, `float[...]`; no gradient through the target."""
    return -jnp.sum(jax.lax.stop_gradient(target) * jax.nn.log_softmax(logits), axis=-1)


def quantile_huber(quantiles: Array, levels: Array, targets: Array, kappa: Scalar = 1.0) -> Array:
    """The quantile regression loss: summed over the quantiles, averaged over the targets.

    `rho(u) = |level - 1(u < 0)| huber(u) / kappa` for `u = target - quantile`; with kappa 0,
    `|level - 1(u < 0)| |u|`.

    Args:
      quantiles: `float[..., N]`.
      levels: `float[..., N]` or `float[N]`, in (0, 1), of these quantiles.
      targets: `float[..., M]`; no gradient flows through them.
      kappa: where the loss of an error becomes linear; the Python number 0 for nowhere else.

    Source: Dabney, Rowland, Bellemare and Munos, "Distributional reinforcement learning with
    quantile regression", 2018, eq. 10; the division by kappa is that of Dabney, Ostrovski, Silver
    and Munos, "Implicit quantile networks", 2018, eq. 3.
    """
    error = jax.lax.stop_gradient(targets)[..., None, :] - quantiles[..., :, None]  # [..., N, M]
    levels = jnp.broadcast_to(levels.reshape((1,) * (quantiles.ndim - levels.ndim) + levels.shape),
                              quantiles.shape)  # fmt: skip
    weight = jnp.abs(levels[..., :, None] - (jax.lax.stop_gradient(error) < 0))
    plain = isinstance(kappa, int | float) and kappa == 0
    loss = jnp.abs(error) if plain else huber(error, kappa) / kappa
    return jnp.sum(jnp.mean(weight * loss, axis=-1), axis=-1)
