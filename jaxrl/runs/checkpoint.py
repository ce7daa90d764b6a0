"""Saving and loading the state of training, with orbax; no pickle."""

from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp  # type: ignore[import-untyped]

from jaxrl.types import PyTree


def save(state: PyTree, path: Path | str) -> None:
    """Writes the arrays of `state` into the new directory `path`; whole or not at all."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(path).absolute(), jax.tree.map(_storable, state))


def load(path: Path | str, like: PyTree) -> PyTree:
    """Reads what `save` wrote, onto the first device.

    Args:
      path: the directory.
      like: the structure, shapes and dtypes of what was saved: arrays, or what `jax.eval_shape`
        makes of them.

    Raises:
      ValueError: shapes or structure differ from what was saved.
    """
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    stored = jax.eval_shape(lambda x: jax.tree.map(_storable, x), like)
    stored = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), stored)
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(Path(path).absolute(), stored)
    return jax.tree.map(_restored, state, like)


def _is_key(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _storable(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if _is_key(x) else x


def _restored(x: jax.Array, like: jax.Array) -> jax.Array:
    if not _is_key(like):
        return x
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(jnp.empty((), like.dtype)))
