"""jax's threefry generator as plain arithmetic: the same bits, faster to compile and run on CPUs.

Works around: on a CPU jax lowers each use of threefry to a loop over its rounds, a dozen small
kernels that are compiled one by one and launched five times; a training program has about sixty
uses. XLA fuses plain arithmetic into one kernel. A barrier keeps it from repeating the rounds of a
split in every kernel that uses one of its keys.

Versions: jaxlib 0.10.2 to 0.11.2 on CPUs. Applied on every device.

Measured: `python -m benchmarks.workarounds threefry`. Without the barrier SAC took 24 s to compile
instead of 8 (2 cores), and minutes on jax 0.11.

Delete when: the command says so for every supported jax; `fast(key)` becomes `key`, and `check_key`
moves to `jaxrl.validation`.
"""

import functools
import math
from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp

from jaxrl.devices.shards import as_different, num_shards, shard_index
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.types import Array, Key

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def fast(key: Key) -> Key:
    """The same key (or keys), but with the generator of this module.

    Draws, splits and folds have the same bits as jax's own threefry. Keys of other generators are
    returned unchanged, as are threefry keys under `jax_threefry_partitionable=False`. An
    environment with a key in its state must derive it from the keys that it is given: a key from
    `jax.random.key` has another dtype.
    """
    partitionable = getattr(jax.config, "jax_threefry_partitionable", False)
    if jax.random.key_impl(key) != "threefry2x32" or not partitionable:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPLEMENTATION)


def of_rows(key: Key) -> Key:
    """A key whose draws are this shard's rows of what one device would draw.

    Their leading axis is that of the copies of the environment, or of rows of data. `of_all(key)`
    draws the same on all shards. Keys of other generators are folded with the shard's index.
    Without several shards the key itself.
    """
    if num_shards() == 1:
        return key
    if jax.random.key_impl(key) != _IMPLEMENTATION:
        return jax.random.fold_in(as_different(key), shard_index())
    data = as_different(jax.random.key_data(key))
    return jax.random.wrap_key_data(data, impl=_OF_ROWS)


def of_all(key: Key) -> Key:
    """A key whose draws are the same on all shards, from one `of_rows`."""
    if jax.random.key_impl(key) != _OF_ROWS:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPLEMENTATION)


def check_key(key: Key) -> None:
    """Raises TypeError unless `key` is a typed key or an array of them."""
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise InvalidType(f"key is {key!r}: make a typed key, with jax.random.key(seed)")


def _hash(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror and Shaw, 2011) of the counts."""
    words = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    x, y = high + words[0], low + words[1]
    for i in range(5):
        for distance in ROTATIONS[i % 2]:
            x = x + y
            y = x ^ ((y << jnp.uint32(distance)) | (y >> jnp.uint32(32 - distance)))
        x = x + words[(i + 1) % 3]
        y = y + words[(i + 2) % 3] + jnp.uint32(i + 1)
    return x, y


def _bits_of_rows(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    first = shard_index() * math.prod(shape)
    return _random_bits(key, bit_width, shape, first)


def _hash_indices(key: Array, shape: tuple[int, ...], first: Any = None) -> tuple[Array, Array]:
    """Hashes of first (0 for None), first + 1, ... in an array of this shape."""
    size = math.prod(shape)
    if size >= 2**32:
        raise InvalidValue(
            f"an array of random numbers of shape {shape} has more than 2**32 entries"
        )
    low = jax.lax.iota(jnp.uint32, size).reshape(shape)
    if first is not None:
        low = low + jnp.asarray(first, jnp.uint32)
    return _hash(key, jnp.zeros_like(low), low)


def _once(keys: Array) -> Array:
    """The same keys, with a barrier so that they are computed only once."""
    return jax.lax.optimization_barrier(keys)


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return _once(jnp.stack(_hash_indices(key, shape), axis=-1))


def _fold_in(key: Array, data: int) -> Array:
    word = jnp.asarray(data).astype(jnp.uint32)
    return _once(jnp.stack(_hash(key, jnp.zeros_like(word), word)))


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...], first: Any = None) -> Array:
    high, low = _hash_indices(key, shape, first)
    if bit_width == 64:
        return (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)
    return (high ^ low).astype(f"uint{bit_width}")


_define = functools.partial(
    jax.extend.random.define_prng_impl, key_shape=(2,), seed=_seed, split=_split, fold_in=_fold_in
)
_IMPLEMENTATION = _define(random_bits=_random_bits, name="jaxrl_threefry2x32", tag="fry_fused")
_OF_ROWS = _define(random_bits=_bits_of_rows, name="jaxrl_threefry2x32_of_rows", tag="fry_rows")
