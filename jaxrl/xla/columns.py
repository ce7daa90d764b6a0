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
from jaxrl.xla import weight_gradient

FEW_COLUMNS = 4
"""Up to this many columns a product is computed column by column."""
BEYOND_CACHE = 2**20
"""Entries of the input, 4 MiB, from which on a core reads them from main memory each time."""


def dot_general_by_columns(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    """`jax.lax.dot_general(x, kernel, dimensions)`, one product for each column of the kernel.

    The gradient of the kernel would read `x` once for each column; beyond the cache, it does not.

    Args:
      x: `[..., I]`.
      kernel: `[I, O]`.
      dimensions: contracts the last axis of `x` with the first of `kernel`.
      options: of `jax.lax.dot_general`.

    Returns:
      `[..., O]`.
    """
    size: Any = x.size
    if isinstance(size, int) and size >= BEYOND_CACHE:  # in an export it may be unknown
        return weight_gradient.dot_general(x, kernel, dimensions, by=by_columns, **options)
    return by_columns(x, kernel, dimensions, **options)


def by_columns(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    columns = [jax.lax.dot_general(x, column, dimensions, **options) for column in kernel.T]
    return jnp.stack(columns, axis=-1)
