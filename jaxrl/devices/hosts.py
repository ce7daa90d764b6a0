"""The processes of a run on several hosts: what they agree on, and what the first does for all.

All processes call the same programs in the same order, so what the host loop decides must be the
same in all of them. Only JAX's runtime connects them (`jax.distributed.initialize`). Without it
there is one process, and nothing here communicates.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from jaxrl.errors import InvalidValue, JaxrlError, Unable
from jaxrl.types import PyTree

T = TypeVar("T")

ROOM = 256
"""Bytes of the first message of an exchange, which is usually the only one."""
ABOUT_A_PEER = ("Gloo", "NCCL", "coordination service", "heartbeat", "Connection reset")
"""Words in JAX's errors about processes that no longer answer."""


class PeerLost(Unable):
    """Another process of the run has ended."""


def count() -> int:
    """Number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes files and speaks for all."""
    return count() == 1 or jax.process_index() == 0


def of_all(value: Any) -> list[Any]:
    """The values of all processes, in order; each is plain JSON."""
    if count() == 1:
        return [value]
    data = json.dumps(value).encode()
    found = _exchange(data, ROOM)
    longest = max(size for size, _ in found)
    if longest > ROOM - 4:
        found = _exchange(data, 4 + 2 ** (longest - 1).bit_length())  # few shapes to compile
    return [json.loads(content) for _, content in found]


def of_first(value: T) -> T:
    """The first process's value, in all processes."""
    return of_all(value if is_first() else None)[0]


def by_first(function: Callable[[], T]) -> T:
    """Calls a function in the first process; all get its result, plain JSON, or raise its error."""
    if count() == 1:
        return function()
    result: Any = None
    error: JaxrlError | None = None
    if is_first():
        try:
            result = function()
        except JaxrlError as raised:
            error = raised
    result, text = of_first((result, error and str(error)))
    if error is not None:
        raise error
    if text is not None:
        raise InvalidValue(text)
    return result


def together(problem: str | None) -> None:
    """Raises ValueError in all processes if one of them has a problem."""
    if said := next((text for text in of_all(problem) if text is not None), None):
        raise InvalidValue(said)


def everywhere(function: Callable[[], T]) -> T:
    """Calls a function in every process; an error in one of them is raised in all."""
    result: Any = None
    problem: str | None = None
    try:
        result = function()
    except JaxrlError as error:
        if count() == 1:
            raise
        problem = f"{error} (process {jax.process_index()})"
    together(problem)
    return result


@contextlib.contextmanager
def losses_explained(remedy: str) -> Iterator[None]:
    """Turns JAX's error about a process that no longer answers into `PeerLost`."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # JAX raises either
        is_ours = isinstance(error, JaxrlError)
        if is_ours or count() == 1 or not any(word in str(error) for word in ABOUT_A_PEER):
            raise
        raise PeerLost(f"another process of this run has ended; {remedy}") from error


def put(x: Any, sharding: NamedSharding) -> jax.Array:
    """An array that all processes have, on the devices of all of them."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = put(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    content = np.asarray(x)
    return jax.make_array_from_callback(content.shape, sharding, lambda index: content[index])


def whole(tree: PyTree) -> PyTree:
    """Arrays on the devices of all processes, as NumPy arrays; keys as local arrays."""

    def one(x: Any) -> Any:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = jnp.asarray(np.asarray(jax.random.key_data(x)))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return np.asarray(x)

    mesh = next((x.sharding.mesh for x in jax.tree.leaves(tree)), None)
    if mesh is None:
        return tree
    return jax.tree.map(
        one, jax.jit(_same, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)
    )


def _same(tree: PyTree) -> PyTree:
    return tree


def row(tree: PyTree, index: Any, axis: str) -> PyTree:
    """Row `index` of arrays whose first axis is spread over a mesh axis, under `jax.shard_map`.

    Only this row is sent, so that no device needs memory for all rows. Bits are summed, because a
    sum of floats would turn -0.0 into 0.0.
    """

    def one(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                one(jax.random.key_data(x)), impl=jax.random.key_impl(x)
            )
        own, mine = x.shape[0], index // x.shape[0] == jax.lax.axis_index(axis)
        bits = _bits(x[index % own])
        return _of_bits(jax.lax.psum(jnp.where(mine, bits, 0), axis), x.dtype)

    return jax.tree.map(one, tree)


def _bits(x: jax.Array) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.bool_):
        return x.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(x, _unsigned(x.dtype)).astype(jnp.uint32)


def _of_bits(bits: jax.Array, dtype: Any) -> jax.Array:
    if jnp.issubdtype(dtype, jnp.bool_):
        return bits.astype(bool)
    return jax.lax.bitcast_convert_type(bits.astype(_unsigned(dtype)), dtype)


def _unsigned(dtype: Any) -> Any:
    return jnp.dtype(f"uint{8 * min(dtype.itemsize, 4)}")  # two words for 64 bits


def _exchange(data: bytes, room: int) -> list[tuple[int, bytes]]:
    """Sizes and contents of the data of all processes, cut to `room - 4` bytes."""
    message = len(data).to_bytes(4, "little") + data[: room - 4]
    sent = np.frombuffer(message.ljust(room, b" "), np.uint8)
    rows = [bytes(x) for x in np.asarray(multihost_utils.process_allgather(sent))]
    sizes = [int.from_bytes(x[:4], "little") for x in rows]
    return [(size, x[4 : 4 + size]) for size, x in zip(sizes, rows, strict=True)]
