"""Row-wise functions over blocks of rows that fit into a CPU's cache.

Works around: XLA's CPU backend computes a network layer by layer over all rows, so that each layer
reads and writes main memory. A block stays in the cache from one layer to the next.

Versions: jaxlib 0.10.2 to 0.11.2 on CPUs. Accelerators get all rows at once: each block would need
its own kernels, which took a seventh of an iteration with 65,536 rows.

Measured: `python -m benchmarks.workarounds blocks`. 65,536 rows took 13.5 ms whole and 3.3 ms in
blocks; 8,192 rows are faster whole (2 cores).

Delete when: the command says so for every supported jax; `map_blocks(f, xs)` becomes `f(xs)`.
"""

from collections.abc import Callable

import jax

from jaxrl.types import Array, PyTree
from jaxrl.xla import layout

ROWS_OF_A_BLOCK = 2048


def map_blocks(f: Callable[[PyTree], Array], xs: PyTree) -> Array:
    """Computes `f(xs)` for a row-wise `f`; on a CPU, in blocks of whole time steps.

    Args:
      f: leaves `[B, N, ...]` -> `[B, N]`, each entry computed from its own row.
      xs: leaves `[T, N, ...]`.

    Returns:
      `[T, N]`.
    """
    num_steps, num_envs = jax.tree.leaves(xs)[0].shape[:2]
    if num_steps * num_envs <= 8 * ROWS_OF_A_BLOCK or not layout.is_cpu():
        return f(xs)
    length = next(
        n for n in range(1, num_steps + 1) if num_steps % n == 0 and n * num_envs >= ROWS_OF_A_BLOCK
    )
    blocks = jax.tree.map(lambda x: x.reshape(-1, length, *x.shape[1:]), xs)
    return jax.lax.map(f, blocks).reshape(num_steps, num_envs)
