"""Initial parameters other than those of the layers themselves."""

from typing import Any, Literal

import flax.linen as nn
import jax

from jaxrl.types import Array, Key, PyTree

Initialization = Literal["orthogonal", "lecun"]


def initialize(
    kind: Initialization, module: nn.Module, key: Key, *args: Any, **options: Any
) -> PyTree:
    """The initial variables of a module.

    Args:
      kind: "orthogonal" for those of the layers, orthogonal with a gain for each layer; "lecun" for
        kernels of dense layers and convolutions with variance 1 / inputs, as in flax and PyTorch.
        Recurrent cells and noisy layers keep their own.
      module: the module.
      key: the key of `module.init`.
      args, options: its other arguments.
    """
    variables: PyTree = module.init(key, *args, **options)
    return variables if kind == "orthogonal" else _with_lecun_kernels(variables, key)


def _with_lecun_kernels(variables: PyTree, key: Key) -> PyTree:
    """The variables with new kernels; each depends on the key and its path."""
    found = jax.tree_util.tree_flatten_with_path(variables)[0]
    noisy = {path[:-1] for path, _ in found if getattr(path[-1], "key", None) == "kernel_std"}

    def one(path: Any, x: Array) -> Array:
        names = [str(getattr(part, "key", part)) for part in path]
        recurrent = any(name.endswith("_core") for name in names)
        if names[-1] != "kernel" or recurrent or path[:-1] in noisy:
            return x
        index = [p for p, _ in found].index(path)
        new = nn.initializers.lecun_normal()
        return new(jax.random.fold_in(key, index), x.shape, x.dtype)

    return jax.tree_util.tree_map_with_path(one, variables)
