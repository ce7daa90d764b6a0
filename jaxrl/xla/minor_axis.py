"""Reductions over a short last axis, as arithmetic on separate arrays.

Works around: XLA's CPU backend is slow at reducing a short last axis, such as the logits of
discrete actions, and at the gradient. Sums and maxima of whole arrays `[...]` are fast.

Versions: jaxlib 0.10.2 to 0.11.2 on CPUs. Applied on every device.

Measured: `python -m benchmarks.workarounds minor_axis`, `log_prob` and `entropy` with their
gradient: for logits [16384, A] 9 times faster at A = 2 and 3.5 times at A = 6; in a scan over
[2048, A] 2.4 times at A = 2 and even at A = 6 (2 CPU cores).

Delete when: the command says so for every supported jax; reductions over `axis=-1` and
`rounding.ordered_sum` replace it in `distributions.categorical`.
"""

import functools
import operator
from collections.abc import Sequence

import jax.numpy as jnp

from jaxrl.types import Array
from jaxrl.xla.rounding import ordered_sum

MAX_UNROLLED = 7
"""Up to this many entries an axis is split. At 8 the split is half as fast as a reduction in a
scan; at 7 a reduction rounds differently in the gradient of an update on jax 0.11.2."""


def split(x: Array) -> list[Array]:
    """Splits `[..., A]` into A blocks `[...]` if A is small, or else into one block `[..., A]`."""
    return list(jnp.unstack(x, axis=-1)) if 1 < x.shape[-1] <= MAX_UNROLLED else [x]


def maximum(blocks: Sequence[Array]) -> Array:
    """The maximum over the split axis, `[...]`."""
    whole = len(blocks) == 1
    return jnp.max(blocks[0], axis=-1) if whole else functools.reduce(jnp.maximum, blocks)


def total(blocks: Sequence[Array]) -> Array:
    """The sum over the split axis, `[...]`, in a fixed order."""
    return ordered_sum(blocks[0]) if len(blocks) == 1 else functools.reduce(operator.add, blocks)


def subtract(blocks: Sequence[Array], x: Array) -> list[Array]:
    """Subtracts `x`, `[...]`, from each block."""
    return [blocks[0] - x[..., None]] if len(blocks) == 1 else [block - x for block in blocks]
