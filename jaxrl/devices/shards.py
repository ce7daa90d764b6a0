"""Sums over the shards of a run whose environments are spread over devices.

Under a `jax.shard_map` with an axis named `ENVS`, each device steps its own copies of the
environment (its shard), and all devices compute the same update. Arrays of data differ between
shards, while parameters and means over all data are equal. JAX tracks which, and the gradient by
equal parameters is a sum over shards. Without such an axis there is one shard, and arrays stay as
they are.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl.errors import Unable
from jaxrl.types import Array, PyTree

ENVS = "envs"
"""Axis of the mesh over which copies of the environment are spread."""


def num_shards() -> int:
    """Number of shards of the program that is being traced."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[ENVS] if ENVS in mesh.manual_axes else 1


def shard_index() -> Any:
    """Index of the shard, `int32[]`; 0 if there is only one."""
    return jax.lax.axis_index(ENVS) if num_shards() > 1 else 0


def differs(x: Any) -> bool:
    """Whether an array, or one of this abstract value, may differ between shards."""
    aval = x if isinstance(x, jax.core.ShapedArray) else jax.typeof(x)
    varying = aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying
    return ENVS in varying


def check_tracked() -> None:
    """Raises `Unable` under `jax.shard_map(check_vma=False)`, where no array is known to differ."""
    if not differs(shard_index()):
        raise Unable(
            f"the mesh has an axis {ENVS!r}, over which jaxrl spreads environments, and "
            "check_vma is False: leave it True, or give the axis another name"
        )


def as_different(tree: PyTree) -> PyTree:
    """The same arrays, of the type of those that differ between shards."""
    if num_shards() == 1:
        return tree
    return jax.tree.map(lambda x: x if differs(x) else jax.lax.pcast(x, ENVS, to="varying"), tree)


def sum_over_shards(x: Array) -> Array:
    """The sum of what the shards have, equal on all; `x` itself if it is equal already."""
    return jax.lax.psum(x, ENVS) if differs(x) else x


def sum_of_tree(tree: PyTree) -> PyTree:
    """The sums over shards of all arrays, exchanged as one vector.

    On CPUs XLA takes about 70 us for each array of an exchange, and 20 us for one of 9,000 numbers.
    """
    if num_shards() == 1:
        return tree
    vector, restore = ravel_pytree(as_different(tree))
    return restore(sum_over_shards(vector))


def mean_over_shards(x: Array) -> Array:
    """The mean of what the shards have, equal on all; `x` itself if it is equal already."""
    return jax.lax.pmean(x, ENVS) if differs(x) else x


def max_over_shards(x: Array) -> Array:
    """The largest of what the shards have, equal on all; `x` itself if it is equal already.

    The gradient goes to the shards that have the largest, in equal parts.
    """
    return _largest(x) if differs(x) else x


@jax.custom_jvp
def _largest(x: Array) -> Array:
    return jax.lax.pmax(x, ENVS)


@_largest.defjvp
def _largest_and_tangent(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    largest = _largest(x)
    has_largest = (x == largest).astype(x.dtype)
    share = has_largest / jax.lax.psum(has_largest, ENVS)
    return largest, jax.lax.psum(share * tangent, ENVS)


def moments_over_shards(count: Array, mean: Array, square: Array) -> tuple[Array, Array, Array]:
    """Count, mean and sum of squared deviations of all shards' numbers, in one exchange.

    Args:
      count: `float32[]`, how many numbers this shard has.
      mean: `float32[]`, their mean; finite without any.
      square: `float32[]`, the sum of their squared deviations from it.

    Source: Chan, Golub and LeVeque, 1979, eq. 1.5.
    """
    own = jnp.stack([count, mean, square])
    rows = jnp.zeros((num_shards(), 3), own.dtype)
    counts, means, squares = sum_over_shards(as_different(rows).at[shard_index()].set(own)).T
    total = jnp.sum(counts)
    weights = counts / jnp.maximum(total, 1)
    # Relative to one of them: equal means have exactly their own value as mean.
    centre = means[0] + jnp.sum(weights * (means - means[0]))
    return total, centre, jnp.sum(squares + counts * jnp.square(means - centre))


def shard_of(x: Array, axis: int = 0) -> Array:
    """This shard's part of an array that has an axis of all copies.

    Args:
      x: equal on all shards.
      axis: the axis of copies, which the number of shards divides.
    """
    if num_shards() == 1:
        return x
    size = x.shape[axis] // num_shards()
    return jax.lax.dynamic_slice_in_dim(x, shard_index() * size, size, axis)


def joined(tree: PyTree) -> PyTree:
    """Arrays `[N, ...]` of all shards' copies, from those of each shard."""
    if num_shards() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(as_different(x), ENVS, tiled=True), tree)
