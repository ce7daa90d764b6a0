"""Passes over data in minibatches: a random order without sorting, and the rows of a part."""

import math

import jax
import jax.numpy as jnp

from jaxrl.types import Array, Key, Trajectory

NUM_ROUNDS = 3
SMALLEST_SIDE = 8


def permutation(key: Key, num_rows: int) -> Array:
    """A random order of rows, `int32[num_rows]`.

    The rows are laid out in a grid as square as `num_rows` allows. Three Feistel rounds on its
    coordinates, i <- (i + a[j]) mod I and then j <- (j + b[i]) mod J with fresh a, b, are each a
    bijection, so every row appears once; how rows fall into minibatches then varies as it does
    after a sort (a test compares the variances), which two rounds or a narrow grid do not reach.
    Numbers of rows without such a grid, primes for instance, are sorted, which takes longer:
    `python -m benchmarks.workarounds shuffle`.
    """
    side = max(d for d in range(1, math.isqrt(num_rows) + 1) if num_rows % d == 0)
    if side < SMALLEST_SIDE:
        return jax.random.permutation(key, num_rows)
    other = num_rows // side
    j, i = jnp.meshgrid(jnp.arange(side), jnp.arange(other), indexing="ij")
    below = jnp.asarray([[other] * side + [side] * other])
    for shifts in jax.random.randint(key, (NUM_ROUNDS, side + other), 0, below):
        i = (i + shifts[:side][j]) % other
        j = (j + shifts[side:][i]) % side
    return (j * other + i).reshape(-1)


def minibatch_indices(key: Key, num_rows: int, num_epochs: int, num_minibatches: int) -> Array:
    """Which rows each minibatch takes, `int32[num_epochs * M, num_rows / M]`, M = num_minibatches.

    Each epoch is a pass over all rows in an order of its own. With one minibatch the order does not
    matter and none is drawn: `int32[num_epochs, 0]`, which `minibatch` takes for all rows.
    """
    if num_minibatches == 1:
        return jnp.zeros((num_epochs, 0), jnp.int32)
    orders = jax.vmap(lambda k: permutation(k, num_rows))(jax.random.split(key, num_epochs))
    return orders.reshape(num_epochs * num_minibatches, num_rows // num_minibatches)


def minibatch(trajectory: Trajectory, index: Array, axis: int) -> Trajectory:
    """The rows `index` of a trajectory; all of them for an empty index.

    Args:
      trajectory: single steps, leaves `[B, ...]` (axis 0), or sequences `[T, N, ...]` (axis 1).
      index: `int32[rows]`, none twice.
      axis: 0 or 1; recurrent states are `[N, ...]` either way.
    """
    if index.size == 0:
        return trajectory

    def take(x, axis):
        where = (slice(None),) * axis + (index,)
        return x.at[where].get(mode="promise_in_bounds", unique_indices=True)

    return Trajectory(
        steps=jax.tree.map(lambda x: take(x, axis), trajectory.steps),
        first=take(trajectory.first, axis),
        carry=jax.tree.map(lambda x: take(x, 0), trajectory.carry),
    )
