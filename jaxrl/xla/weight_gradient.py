"""Dense layers whose weight gradient is a sum over blocks of rows.

Works around: XLA's CPU backend is slow at the gradient X^T dY of a dense kernel. YNNPACK, which
computes the other two products of a layer, takes no product whose left side is transposed. Eigen
does, and is slow where a long sum over rows ends in a small matrix, several times so with fewer
outputs than inputs. Here it multiplies blocks of rows, the shorter side of the kernel first, as one
batched product, whose blocks XLA can spread over cores, and sums the results.

Versions: jaxlib 0.10.2 and 0.11.2 on CPUs. Accelerators get one product.

Measured: `python -m benchmarks.workarounds weight_gradient`, for many rows, widths and blocks.

Delete when: the command says so for every supported jax; `dot_general=None`, flax's default,
replaces it in `networks.layers.dense`, and `@` in `networks.q_networks`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxrl.devices.shards import as_different, differs
from jaxrl.types import Array
from jaxrl.xla import layout

MANY_ROWS = 16_384
LARGE_BLOCK, SMALL_BLOCK, LEAST_BLOCK = 256, 64, 32
FEW_ROWS = 512
"""Below, a square kernel does not gain from blocks."""
WIDE, LARGE = 128, 2**17
"""Outputs of a kernel, and its entries, beyond which the products of blocks leave the cache."""


def rows_of_a_block(rows: int, inputs: int, outputs: int) -> int | None:
    """How many rows of a layer's input to multiply at a time for the gradient of its kernel.

    Args:
      rows: of the input.
      inputs, outputs: of the kernel.

    Returns:
      A divisor of `rows`, at most half of it; None for all rows at once.
    """
    if outputs > min(inputs, WIDE) or inputs * outputs > LARGE:
        return None
    if outputs == inputs and rows < FEW_ROWS:
        return None
    wanted = LARGE_BLOCK if outputs < inputs or rows >= MANY_ROWS else SMALL_BLOCK
    least = max(LEAST_BLOCK, inputs * outputs // (inputs + outputs))  # memory: that of the operands
    sizes = range(min(wanted, rows // 2), least - 1, -1)
    return next((size for size in sizes if rows % size == 0), None)


def dot_general(
    x: Array,
    kernel: Array,
    dimensions: Any,
    *,
    by: Callable[..., Array] = jax.lax.dot_general,
    **options: Any,
) -> Array:
    """`by(x, kernel, dimensions)`, whose derivative by the kernel is computed in blocks of rows.

    The value has the same bits; derivatives of any order and mode differ by rounding. Half
    precision gets no blocks, because the product of each would be rounded to it.

    Args:
      x: `[..., I]`.
      kernel: `[I, O]`.
      dimensions: contracts the last axis of `x` with the first of `kernel`.
      by: computes the product.
      options: of `jax.lax.dot_general`.

    Returns:
      `[..., O]`.
    """
    rows: Any = math.prod(x.shape[:-1])  # in an export it may be unknown
    block = rows_of_a_block(rows, *kernel.shape) if isinstance(rows, int) else None
    is_half = jnp.result_type(x, kernel).itemsize < 4
    if block is None or is_half or not layout.is_cpu():
        return by(x, kernel, dimensions, **options)
    return _product(x, kernel, dimensions, by, tuple(options.items()), block)


def product(x: Array, kernel: Array) -> Array:
    """`x @ kernel` by `dot_general`, for `[..., I]` and `[I, O]`."""
    return dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4, 5))
def _product(x: Array, kernel: Array, dimensions: Any, by: Any, options: Any, block: int) -> Array:
    return by(x, kernel, dimensions, **dict(options))


@functools.partial(_product.defjvp, symbolic_zeros=True)
def _product_jvp(
    dimensions: Any, by: Any, options: Any, block: int, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    """d(x W) = dx W + x dW, of which the second term is computed in blocks."""
    (x, kernel), (dx, dkernel) = primals, tangents
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(by(dx, kernel, dimensions, **dict(options)))
    if not isinstance(dkernel, SymbolicZero):
        terms.append(_in_blocks(x, dkernel, options, block))
    y = _product(x, kernel, dimensions, by, options, block)
    return y, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(y)


def _in_blocks(x: Array, kernel: Array, options: Any, block: int) -> Array:
    """The product, with a copy of the kernel for each block of rows.

    Its transpose is a product for each block, summed over the copies. The first axis of a copy is
    the first of that product, and XLA is faster where that is the shorter one.
    """
    blocks = x.reshape(-1, block, x.shape[-1])
    if differs(x):  # before the copies, so that shards exchange their sum and not each
        kernel = as_different(kernel)
    is_narrow = kernel.shape[1] < kernel.shape[0]
    kernel = kernel.T if is_narrow else kernel
    copies = jnp.broadcast_to(kernel, (blocks.shape[0], *kernel.shape))
    last = 2 if is_narrow else 1
    y = jax.lax.dot_general(blocks, copies, (((2,), (last,)), ((0,), (0,))), **dict(options))
    return y.reshape(*x.shape[:-1], y.shape[-1])
