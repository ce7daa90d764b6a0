"""Shuffled minibatches without sorting."""

import math

import jax
import jax.numpy as jnp

from jaxrl.types import Array, Key, Trajectory

NUM_ROUNDS = 3
SMALLEST_SIDE = 8


def permutation(key: Key, num_rows: int) -> Array:
    """A random permutation of rows, `int32[num_rows]`, without sorting.

    The rows form a grid as square as `num_rows` allows. Three Feistel rounds are applied to its
    coordinates, i <- (i + a[j]) mod I and then j <- (j + b[i]) mod J with fresh a and b. Each is a
    bijection, so every row appears once. The distribution of rows over minibatches then has the
    same variance as with sorting (see the tests); two rounds or a narrow grid are not enough. If
    `num_rows` has no such grid (a prime, for example), it falls back to sorting, which is slower:
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
    """Row indices of each minibatch, `int32[num_epochs * M, num_rows / M]`, M = num_minibatches.

    Each epoch is a pass over all rows in a new order. With one minibatch the order does not matter,
    and the result is `int32[num_epochs, 0]`, which `minibatch` treats as all rows.
    """
    if num_minibatches == 1:
        return jnp.zeros((num_epochs, 0), jnp.int32)
    orders = jax.vmap(lambda k: permutation(k, num_rows))(jax.random.split(key, num_epochs))
    return orders.reshape(num_epochs * num_minibatches, num_rows // num_minibatches)


def minibatch(trajectory: Trajectory, index: Array, axis: int) -> Trajectory:
    """Selects the rows `index` of a trajectory; all of them for an empty index.

    Args:
      trajectory: single steps, leaves `[B, ...]` (axis 0), or sequences `[T, N, ...]` (axis 1).
      index: `int32[rows]`, without duplicates.
      axis: 0 or 1; recurrent states are `[N, ...]` in both cases.
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
        env_index=jax.tree.map(lambda x: take(x, axis), trajectory.env_index),
    )
