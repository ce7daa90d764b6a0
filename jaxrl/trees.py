"""Pytree utilities."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.spaces import ActionSpace as ActionSpace
from jaxrl.spaces import Box as Box
from jaxrl.spaces import Discrete as Discrete
from jaxrl.spaces import Mixed as Mixed
from jaxrl.spaces import MultiDiscrete as MultiDiscrete
from jaxrl.spaces import into_bounds as into_bounds
from jaxrl.spaces import sample_action as sample_action
from jaxrl.types import Array, PyTree

# Small tools --------------------------------------------------------------------------------------


def tree_where(condition: Array, x: PyTree, y: PyTree) -> PyTree:
    """`x` where `condition[N]` else `y`, for leaves `[N, ...]`."""

    def select(a, b):
        a, b = jnp.asarray(a), jnp.asarray(b)
        shape = condition.shape + (1,) * (max(a.ndim, b.ndim) - condition.ndim)
        return jnp.where(condition.reshape(shape), a, b)

    return jax.tree.map(select, x, y)


def strong(tree: PyTree) -> PyTree:
    """Converts every leaf to a strongly typed array, so that scan carries keep their dtypes."""

    def one(x):
        x = jnp.asarray(x)
        if jnp.issubdtype(x.dtype, jax.dtypes.extended):
            return x
        return x.astype(jax.dtypes.canonicalize_dtype(x.dtype))  # 32 bits of 64, inside in_float32

    return jax.tree.map(one, tree)


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Leaves by name, such as `params.Dense_0.kernel`; the name of a single leaf is empty."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}


def shapes_text(tree: PyTree) -> str:
    """`obs float32[4], reward float32[]`: names, dtypes and shapes of the leaves."""
    return ", ".join(
        f"{name} {x.dtype}{list(x.shape)}".strip() for name, x in named_leaves(tree).items()
    )


def num_values(shape: tuple[int, ...]) -> int:
    """The number of entries of an array of this shape."""
    return math.prod(shape)


def num_bytes(tree: PyTree) -> int:
    """Total bytes of arrays or shapes; a key counts as 16 bytes."""

    def one(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return x.size * (16 if is_key else x.dtype.itemsize)

    return sum(one(x) for x in jax.tree.leaves(tree))
