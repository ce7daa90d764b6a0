"""Losses and diagnostics shared by agents; every mean over data is `mean`.

All arrays of a call must have the same shape, with any axes; otherwise ValueError (`[N, 1]` and
`[N]` would silently broadcast to `[N, N]`). Losses are scalars to be minimised.
"""

import jax
import jax.numpy as jnp

from jaxrl.devices.shards import (
    as_different,
    differs,
    max_over_shards,
    mean_over_shards,
    moments_over_shards,
    sum_over_shards,
)
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.estimators import importance_ratio
from jaxrl.types import Array, Scalar


def mean(
    x: Array, where: Array | None = None, *, axis: int | tuple[int, ...] | None = None
) -> Array:
    """The mean over data.

    Every loss and statistic over transitions uses it: where devices share the environments, the
    mean is over the data of all. A loss that uses `jnp.mean` instead would have gradients that are
    too large by the number of devices.

    Args:
      x: numbers or booleans.
      where: `bool` of the same shape; false entries are ignored, even if NaN. If all are false, the
        mean is 0, with a zero gradient.
      axis: axes to average over; None for all. Axis 0 is that of the rows of data, and only a mean
        over it is over all devices: average `[T, N]` over both axes.
    """
    x = jnp.asarray(x)
    axes = axis if isinstance(axis, tuple) else (axis,)
    over_data = axis is None or 0 in [a % x.ndim for a in axes if a is not None]
    if where is None:
        local = jnp.mean(x, axis=axis)
        return mean_over_shards(local) if over_data else local
    _check_shapes(x=x, where=where)
    if where.dtype != jnp.bool_:
        raise InvalidType(f"where has dtype {where.dtype}: it must be bool")
    total, count = jnp.sum(jnp.where(where, x, 0), axis=axis), jnp.sum(where, axis=axis)
    if over_data and (differs(total) or differs(count)):
        total, count = (sum_over_shards(as_different(v)) for v in (total, count))
    return total / jnp.maximum(count, 1)


def largest(x: Array) -> Array:
    """The largest entry of the data; of all devices where they share the environments."""
    return max_over_shards(jnp.max(x))


def standardize(x: Array, where: Array | None = None) -> Array:
    """`(x - mean) / (std + 1e-8)`, with mean and standard deviation over the entries in `where`.

    Constant data become zeros.

    Args:
      x: numbers.
      where: `bool` of the same shape; None for all entries.
    """
    if differs(x):
        return _standardize_over_shards(x, where)
    centred = x - mean(x, where)
    # Centre twice: the mean of equal numbers has a rounding error, which 1 / 1e-8 would amplify.
    centred = centred - mean(centred, where)
    return centred / (jnp.sqrt(mean(jnp.square(centred), where)) + 1e-8)


def _standardize_over_shards(x: Array, where: Array | None) -> Array:
    """`standardize` over the data of all shards, with one exchange instead of three."""
    weight = jnp.ones_like(x) if where is None else where.astype(x.dtype)
    kept = x if where is None else jnp.where(where, x, 0)
    # Relative to an entry that counts: equal numbers become zeros, however a compiler rounds.
    first = kept.ravel()[0 if where is None else jnp.argmax(where)]
    count = jnp.sum(weight)
    centre = jnp.sum(weight * (kept - first)) / jnp.maximum(count, 1)
    squares = jnp.sum(weight * jnp.square(kept - first - centre))
    total, centre_of_all, square = moments_over_shards(count, first + centre, squares)
    centred = (x - first - centre) + (first + centre - centre_of_all)
    return centred / (jnp.sqrt(square / jnp.maximum(total, 1)) + 1e-8)


def policy_gradient_loss(log_prob: Array, advantages: Array) -> Array:
    """`-mean(log_prob * advantages)`; its gradient is the negative policy gradient.

    Args:
      log_prob: log pi(a | s) of the actions taken.
      advantages: advantages or returns; no gradient flows through them.

    Source: Williams, 1992; Sutton, McAllester, Singh and Mansour, 2000, theorem 1.
    """
    _check_shapes(log_prob=log_prob, advantages=advantages)
    return -mean(log_prob * jax.lax.stop_gradient(advantages))


def surrogate_loss(log_ratio: Array, advantages: Array) -> Array:
    """`-mean(r A)`, -L^CPI: the importance-weighted surrogate without clipping.

    Args:
      log_ratio: log r = log pi(a | s) - log pi_old(a | s).
      advantages: A; no gradient flows through them.

    Source: Schulman, Levine, Moritz, Jordan and Abbeel, 2015, eq. 14.
    """
    _check_shapes(log_ratio=log_ratio, advantages=advantages)
    return -mean(importance_ratio(log_ratio) * jax.lax.stop_gradient(advantages))


def clipped_surrogate(log_ratio: Array, advantages: Array, clip_epsilon: Scalar) -> Array:
    """`-mean(min(r A, clip(r, 1 - epsilon, 1 + epsilon) A))`, -L^CLIP of PPO.

    Args:
      log_ratio: log r = log pi(a | s) - log pi_old(a | s).
      advantages: A; no gradient flows through them.
      clip_epsilon: clipping range of r; beyond it the gradient is zero.

    Source: Schulman, Wolski, Dhariwal, Radford and Klimov, 2017, eq. 7.
    """
    _check_shapes(log_ratio=log_ratio, advantages=advantages)
    advantages = jax.lax.stop_gradient(advantages)
    ratio = importance_ratio(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon)
    return -mean(jnp.minimum(ratio * advantages, clipped * advantages))


def entropy_loss(entropy: Array) -> Array:
    """`-mean(entropy)`, an exploration bonus as a loss.

    Args:
      entropy: entropy of the policy in each state, in nats.

    Source: Williams and Peng, 1991; Mnih et al., 2016, section 4.
    """
    return -mean(entropy)


def value_loss(values: Array, targets: Array, where: Array | None = None) -> Array:
    """`0.5 mean((values - targets)^2)` over the entries in `where` (None for all).

    No gradient flows through the targets.
    """
    _check_shapes(values=values, targets=targets)
    return 0.5 * mean(jnp.square(values - jax.lax.stop_gradient(targets)), where)


def clipped_value_loss(
    values: Array, old_values: Array, targets: Array, clip_epsilon: Scalar | None
) -> Array:
    """`0.5 mean(max((v - target)^2, (v_clip - target)^2))`, PPO's value loss.

    v_clip = old + clip(v - old, -epsilon, epsilon): a value that has moved by more than epsilon
    towards its target has no gradient.

    Args:
      values: v, the predictions.
      old_values: v when the data were collected; no gradient flows through them.
      targets: value targets; no gradient flows through them.
      clip_epsilon: epsilon, in units of the value; None for plain `value_loss`.

    Source: the reference implementation, github.com/openai/baselines, ppo2/model.py (the paper does
    not clip values).
    """
    _check_shapes(values=values, old_values=old_values, targets=targets)
    if clip_epsilon is None:
        return value_loss(values, targets)
    old_values, targets = jax.lax.stop_gradient((old_values, targets))
    clipped = old_values + jnp.clip(values - old_values, -clip_epsilon, clip_epsilon)
    return 0.5 * mean(jnp.maximum(jnp.square(values - targets), jnp.square(clipped - targets)))


def approximate_kl(log_ratio: Array) -> Array:
    """`mean((r - 1) - log r)`: estimates KL(pi_old || pi) from actions of pi_old, in nats.

    Unbiased, never negative, and with lower variance than `mean(-log r)`.

    Args:
      log_ratio: log r = log pi(a | s) - log pi_old(a | s).

    Source: Schulman, "Approximating KL divergence", 2020, estimator k3.
    """
    return mean(jnp.expm1(log_ratio) - log_ratio)


def clip_fraction(log_ratio: Array, clip_epsilon: Scalar) -> Array:
    """The fraction of samples with `|r - 1| > clip_epsilon`, in [0, 1]."""
    return mean(jnp.abs(jnp.expm1(log_ratio)) > clip_epsilon)


def explained_variance(values: Array, targets: Array) -> Array:
    """`1 - Var(targets - values) / Var(targets)`: 1 is perfect, 0 no better than a constant.

    It is 0 if the targets do not vary by more than rounding.
    """
    _check_shapes(values=values, targets=targets)
    variance, residual = _variance(targets), _variance(targets - values)
    varies = variance > 1e-12 * mean(jnp.square(targets))
    return jnp.where(varies, 1.0 - residual / jnp.where(varies, variance, 1.0), 0.0)


def _variance(x: Array) -> Array:
    return mean(jnp.square(x - mean(x)))


def _check_shapes(**arrays: Array) -> None:
    (first, x), *others = arrays.items()
    for name, y in others:
        if jnp.shape(y) != jnp.shape(x):
            raise InvalidValue(
                f"{name} has shape {jnp.shape(y)}, {first} {jnp.shape(x)}: they must be equal"
            )


def huber(error: Array, delta: Scalar = 1.0) -> Array:
    """`error^2 / 2` up to `delta`, linear beyond: `delta (|error| - delta / 2)` (Huber, 1964)."""
    size = jnp.abs(error)
    square = jnp.minimum(size, delta)
    return 0.5 * jnp.square(square) + delta * (size - square)


def expectile_loss(error: Array, expectile: Scalar) -> Array:
    """The mean of |tau - 1(error < 0)| error^2, which the tau-expectile minimises.

    Newey and Powell, "Asymmetric least squares estimation and testing", 1987; eq. 4 of Kostrikov et
    al., "Offline reinforcement learning with implicit Q-learning", 2022.

    Args:
      error: targets minus predictions, `[B]`.
      expectile: tau, in (0, 1).

    Returns:
      `float32[]`.
    """
    return mean(jnp.where(error < 0, 1.0 - expectile, expectile) * jnp.square(error))


def categorical_projection(atoms: Array, probabilities: Array, support: Array) -> Array:
    """Projects a distribution onto an evenly spaced `support`.

    Each atom's mass is split between its two neighbours by linear interpolation; mass beyond the
    ends goes to the end points. Total mass is conserved, and so is the mean if all atoms are within
    the support.

    Args:
      atoms: `float[..., K]`.
      probabilities: `float[..., K]`.
      support: `float[M]`, increasing in equal steps.

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
    """The quantile regression loss, summed over quantiles and averaged over targets.

    `rho(u) = |level - 1(u < 0)| huber(u) / kappa` for `u = target - quantile`; with kappa 0,
    `|level - 1(u < 0)| |u|`.

    Args:
      quantiles: `float[..., N]`.
      levels: `float[..., N]` or `float[N]`, the quantiles' levels in (0, 1).
      targets: `float[..., M]`; no gradient flows through them.
      kappa: error beyond which the loss is linear; the Python number 0 for linear everywhere.

    Source: Dabney, Rowland, Bellemare and Munos, "Distributional reinforcement learning with
    quantile regression", 2018, eq. 10; division by kappa as in Dabney, Ostrovski, Silver and Munos,
    "Implicit quantile networks", 2018, eq. 3.
    """
    error = jax.lax.stop_gradient(targets)[..., None, :] - quantiles[..., :, None]  # [..., N, M]
    levels = jnp.broadcast_to(levels.reshape((1,) * (quantiles.ndim - levels.ndim) + levels.shape),
                              quantiles.shape)  # fmt: skip
    weight = jnp.abs(levels[..., :, None] - (jax.lax.stop_gradient(error) < 0))
    plain = isinstance(kappa, int | float) and kappa == 0
    loss = jnp.abs(error) if plain else huber(error, kappa) / kappa
    return jnp.sum(jnp.mean(weight * loss, axis=-1), axis=-1)
