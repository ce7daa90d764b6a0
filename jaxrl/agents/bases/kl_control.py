"""Coefficients and learning rates that follow the KL divergence between two policies."""

import jax.numpy as jnp

from jaxrl.errors import InvalidValue
from jaxrl.schedules import Schedule, Scheduled
from jaxrl.types import Array, Scalar
from jaxrl.validation import check_numbers

LARGEST_COEFFICIENT = 1e8
"""Limit of adaptive coefficients, far below the overflow of float32."""

SMALLEST_RATE, LARGEST_RATE = 1e-5, 1e-2
"""Limits of adaptive learning rates, as in rsl_rl."""


def adapted_coefficient(coefficient: Scalar, kl: Array, target: Scalar, smallest: Scalar) -> Array:
    """Halves a KL penalty if `kl < target / 1.5`, and doubles it if `kl > 1.5 target`.

    Args:
      coefficient: `float32[]`, weight of the penalty, beta.
      kl: `float32[]`, the divergence that an iteration reached, in nats; NaN changes nothing.
      target: the divergence wanted, d_targ, in nats.
      smallest: limit of halving, above 0. Without it, a policy that hardly moves for 150 iterations
        loses its penalty for good: float32 ends at 0, which no doubling changes.

    Returns:
      `float32[]` within `smallest` and `LARGEST_COEFFICIENT`.

    Source: Schulman, Wolski, Dhariwal, Radford and Klimov, 2017, section 4 (without limits).
    """
    halved = jnp.maximum(coefficient / 2, smallest)
    doubled = jnp.minimum(coefficient * 2, LARGEST_COEFFICIENT)
    kept = jnp.where(kl > 1.5 * target, doubled, coefficient)
    return jnp.where(kl < target / 1.5, halved, kept)


def check_adaptive_rate(learning_rate: Scheduled) -> None:
    """Raises ValueError unless an adaptive learning rate can start from this one."""
    if isinstance(learning_rate, Schedule):
        raise InvalidValue(
            f"learning_rate is {learning_rate!r} and desired_kl is set: both would change the "
            "learning rate. Give a number, or leave desired_kl as None"
        )
    what = f"learning_rate is {learning_rate!r}: with desired_kl, it"
    check_numbers(what, learning_rate, SMALLEST_RATE, LARGEST_RATE, False)


def adapted_rate(rate: Scalar, kl: Array, desired: Scalar) -> Array:
    """Divides a learning rate by 1.5 if `kl > 2 desired`, multiplies it if `0 < kl < desired / 2`.

    Args:
      rate: `float32[]`, the learning rate.
      kl: `float32[]`, the divergence of the current policy from the one that collected the data, in
        nats; 0 and NaN change nothing.
      desired: the divergence wanted, in nats.

    Returns:
      `float32[]` within `SMALLEST_RATE` and `LARGEST_RATE`.

    Source: the reference implementation, github.com/leggedrobotics/rsl_rl, algorithms/ppo.py, of
    Rudin, Hoeller, Reist and Hutter, "Learning to walk in minutes", 2022.
    """
    slower = jnp.maximum(rate / 1.5, SMALLEST_RATE)
    faster = jnp.minimum(rate * 1.5, LARGEST_RATE)
    kept = jnp.where((kl > 0) & (kl < desired / 2), faster, rate)
    return jnp.where(kl > 2 * desired, slower, kept)
