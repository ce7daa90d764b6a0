"""Narrow matrix products, column by column.

Works around: XLA's CPU backend is slow at the matrix product in the gradient of a kernel with few
columns, such as the output layer of a value function or of a policy over two actions. Its product
with a vector is fast.

Versions: jaxlib 0.10.2 to 0.11.2 on CPUs. Applied on every device; a GPU is as fast either way.

Measured: `python -m benchmarks.workarounds columns`. The gradient of a kernel of two columns on
2,048 rows took 150 us whole and 20 us by columns (2 CPU cores).

Delete when: the command says so for every supported jax; `dot_general=None`, flax's default,
replaces it in `networks.layers.dense`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.types import Array

FEW_COLUMNS = 4
"""Up to this many columns a product is computed column by column."""


def dot_general_by_columns(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    """`jax.lax.dot_general(x, kernel, dimensions)`, one product for each column of the kernel.

    Args:
      x: `[..., I]`.
      kernel: `[I, O]`.
      dimensions: contracts the last axis of `x` with the first of `kernel`.
      options: of `jax.lax.dot_general`.

    Returns:
      `[..., O]`.
    """
    columns = [jax.lax.dot_general(x, column, dimensions, **options) for column in kernel.T]
    return jnp.stack(columns, axis=-1)
