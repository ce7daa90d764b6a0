"""Sums whose rounding the compiler may not change.

Works around: XLA may simplify (x + y) - x to y, and may sum an axis in different orders in
different programs. The first removes the correction of a compensated sum; the second makes the
log-probability stored by a rollout differ from the one computed by an update, so that the first
importance ratio is not exactly 1.

Versions: the order of a sum differed between programs with jaxlib 0.10.2 and 0.11.2 on CPUs.

Measured: `python -m benchmarks.workarounds rounding` computes both without this file and looks for
the fault.

Delete when: the command says so for every supported jax, on CPUs and accelerators; `x + y` and
`jnp.sum(x, axis=-1)` replace the functions.
"""

import jax
import jax.numpy as jnp

from jaxrl.types import Array


def rounded_sum(x: Array, y: Array) -> Array:
    """`x + y` for floats of one dtype, rounded to that dtype before it is used.

    Rounding a float to its own precision changes nothing, but XLA does not simplify across it.
    """
    dtype = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(x + y, dtype.nexp, dtype.nmant)


@jax.custom_jvp
def ordered_sum(x: Array) -> Array:
    """Sum over the last axis of `float[..., A]`, in an order that the compiler may not change."""
    return jax.lax.reduce(x, jnp.zeros((), x.dtype), rounded_sum, (x.ndim - 1,))


@ordered_sum.defjvp
def _ordered_sum_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return ordered_sum(*primals), jnp.sum(tangents[0], axis=-1)
