"""Initial parameters other than those of the layers themselves."""

import math
import zlib
from typing import Any, Literal

import flax.linen as nn
import jax

from jaxrl.types import Array, Key, PyTree, Stream, stream

Initialization = Literal["orthogonal", "lecun", "pytorch"]


def initialize(
    kind: Initialization, module: nn.Module, key: Key, *args: Any, **options: Any
) -> PyTree:
    """The initial variables of a module.

    Args:
      kind: "orthogonal" for those of the layers, orthogonal with a gain for each layer. "lecun",
        as in flax, for normal kernels with variance 1 / n in dense layers and 2-D convolutions of
        n inputs; "pytorch" for uniform kernels and biases within 1 / sqrt(n). Recurrent cells and
        noisy layers keep their own.
      module: the module.
      key: the key of `module.init`.
      args, options: its other arguments.
    """
    variables: PyTree = module.init(key, *args, **options)
    if kind == "orthogonal":
        return variables
    return _redrawn(kind, variables, stream(key, Stream.INIT))


def _redrawn(kind: Initialization, variables: PyTree, key: Key) -> PyTree:
    """The variables with new kernels (and biases); each depends on the key and its path."""
    found = {_names(path): x for path, x in jax.tree_util.tree_flatten_with_path(variables)[0]}

    def one(path: Any, x: Array) -> Array:
        names = _names(path)
        *layer, name = names
        kernel = found.get((*layer, "kernel"))
        is_cell = any(part.endswith("_core") or "Cell" in part for part in layer)
        if kernel is None or kernel.ndim not in (2, 4) or is_cell:
            return x
        if (*layer, "kernel_std") in found or name not in ("kernel", "bias"):
            return x
        own_key = jax.random.fold_in(key, zlib.crc32("/".join(names).encode()))
        if kind == "lecun":
            new = nn.initializers.lecun_normal()
            return new(own_key, x.shape, x.dtype) if name == "kernel" else x
        bound = 1.0 / math.sqrt(math.prod(kernel.shape[:-1]))
        return jax.random.uniform(own_key, x.shape, x.dtype, -bound, bound)

    return jax.tree_util.tree_map_with_path(one, variables)


def _names(path: Any) -> tuple[str, ...]:
    return tuple(str(getattr(part, "key", part)) for part in path)
