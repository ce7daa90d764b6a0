"""Row-wise functions over blocks that fit into a CPU's cache."""

from collections.abc import Callable

import jax

from jaxrl.types import Array, PyTree
from jaxrl.xla import layout

ROWS_OF_A_BLOCK = 2048


def map_blocks(f: Callable[[PyTree], Array], xs: PyTree) -> Array:
    """`f(xs)` for a row-wise `f` on leaves `[T, N, ...]`, in blocks of time.

    A block stays in a CPU's cache between the layers of a network: 65,536 rows took 13.5 ms whole
    and 3.3 ms in blocks on two cores; 8,192 rows are faster whole. On an accelerator each block is
    kernels of its own: there all rows are one (65,536 were faster so by a seventh of an iteration).
    """
    num_steps, num_envs = jax.tree.leaves(xs)[0].shape[:2]
    if num_steps * num_envs <= 8 * ROWS_OF_A_BLOCK or not layout.is_cpu():
        return f(xs)
    length = next(
        n for n in range(1, num_steps + 1) if num_steps % n == 0 and n * num_envs >= ROWS_OF_A_BLOCK
    )
    blocks = jax.tree.map(lambda x: x.reshape(-1, length, *x.shape[1:]), xs)
    return jax.lax.map(f, blocks).reshape(num_steps, num_envs)
