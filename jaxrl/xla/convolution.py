"""Convolutions as matrix products on a CPU.

Works around: inside a `while` loop or a `scan`, XLA's CPU backend computes the gradient of a
convolution without its fast kernels, and all of training is a loop. Here a convolution is one
matrix product with the shifted slices of its input, whose gradient by the kernel is computed in
blocks of rows (`jaxrl.xla.weight_gradient`).

Versions: jaxlib 0.10.2 to 0.11.2 on CPUs. Other devices get `jax.lax`'s convolution.

Measured: `python -m benchmarks.workarounds convolution`, and `python -m benchmarks.convolution` for
more networks and training. The gradient of `networks.CNN` on 128 images of MinAtar took 9.5 ms by
itself and 233 ms inside a scan with `jax.lax`, and 10 ms in both by this file (jaxlib 0.11.2, 2
cores).

Delete when: the command says so for every supported jax; `jax.lax.conv_general_dilated` replaces
it, and `networks.Conv` becomes `flax.linen.Conv`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl.types import Array
from jaxrl.xla import layout
from jaxrl.xla.weight_gradient import dot_general


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Array:
    """`jax.lax.conv_general_dilated`, as a matrix product on a CPU; equal but for rounding.

    Arguments, result and errors are those of `jax.lax.conv_general_dilated`, which is used for
    dilated inputs, for groups, and on other devices.
    """

    def by_lax(lhs: Array, rhs: Array) -> Array:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            batch_group_count=batch_group_count,
            precision=precision,
            preferred_element_type=preferred_element_type,
        )

    if not layout.is_cpu():
        return by_lax(lhs, rhs)
    out = jax.eval_shape(by_lax, lhs, rhs)  # raises what lax raises
    is_plain = feature_group_count == batch_group_count == 1 and set(lhs_dilation or ()) <= {1}
    if not is_plain or 0 in out.shape:
        return by_lax(lhs, rhs)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    x = lhs.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    kernel = rhs.transpose(*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
    dilation = tuple(rhs_dilation or [1] * len(window_strides))
    if isinstance(padding, str):
        window = [d * (n - 1) + 1 for n, d in zip(kernel.shape, dilation, strict=False)]
        padding = lax.padtype_to_pads(x.shape[1:-1], window, window_strides, padding)
    pads = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    y = _product(
        lax.pad(x, jnp.zeros((), x.dtype), pads),
        kernel,
        tuple(window_strides),
        dilation,
        [out.shape[axis] for axis in numbers.out_spec[2:]],
        {"precision": precision, "preferred_element_type": preferred_element_type},
    )
    where = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    return y.transpose([where.index(axis) for axis in range(y.ndim)])


def _product(
    x: Array,
    kernel: Array,
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    out: list[int],
    options: dict[str, Any],
) -> Array:
    """The convolution of a padded `x[B, *spatial, C]` with `kernel[*window, C, F]`.

    Args:
      strides, dilation: of the kernel, an entry for each spatial axis.
      out: the spatial shape of the result.
      options: of the matrix product.

    Returns:
      `[B, *out, F]`.
    """
    window = kernel.shape[:-2]
    is_tiled = set(dilation) == {1} and not any(n % s for n, s in zip(window, strides, strict=True))
    if is_tiled and max(strides) > 1:  # the same convolution with stride 1: fewer and larger slices
        ends = [(n + w // s - 1) * s for n, w, s in zip(out, window, strides, strict=True)]
        x = _tiles(x[(slice(None), *map(slice, ends))], 1, strides)
        kernel = _tiles(kernel, 0, strides)
        window, strides = kernel.shape[:-2], (1,) * len(strides)

    def shifted(offsets: tuple[int, ...]) -> Array:
        axes = zip(offsets, dilation, strides, out, strict=True)
        starts_and_steps = [(i * d, s, n) for i, d, s, n in axes]
        slices = [slice(start, start + (n - 1) * s + 1, s) for start, s, n in starts_and_steps]
        return x[(slice(None), *slices)]

    slices = [shifted(offsets) for offsets in itertools.product(*map(range, window))]
    kernel = kernel.reshape(-1, kernel.shape[-1])
    last = ((slices[0].ndim - 1,), (0,))
    return dot_general(jnp.concatenate(slices, -1), kernel, (last, ((), ())), **options)


def _tiles(x: Array, first: int, sizes: tuple[int, ...]) -> Array:
    """Moves tiles of `sizes` of the axes from `first` on into the channels, the axis after them."""
    last = first + len(sizes)
    tiled = [(n // size, size) for n, size in zip(x.shape[first:last], sizes, strict=True)]
    channels = math.prod(sizes) * x.shape[last]
    shape = (*x.shape[:first], *(n for n, _ in tiled), channels, *x.shape[last + 1 :])
    x = x.reshape(*x.shape[:first], *itertools.chain(*tiled), *x.shape[last:])
    outer, inner = (range(first + i, first + i + 2 * len(sizes), 2) for i in (0, 1))
    rest = range(first + 2 * len(sizes), x.ndim)
    return x.transpose(*range(first), *outer, *inner, *rest).reshape(shape)
