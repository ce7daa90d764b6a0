"""Saving and loading the state of training, with orbax; no pickle."""

from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxrl.types import PyTree


def save(state: PyTree, path: Path) -> None:
    """Writes the arrays of `state` into the new directory `path`; whole or not at all."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), jax.tree.map(_storable, state))


def load(path: Path, like: PyTree) -> PyTree:
    """Reads what `save` wrote, into the structure, shapes and dtypes of `like` (arrays or structs)."""
    template = jax.eval_shape(lambda: jax.tree.map(_storable, like)) if _is_concrete(like) else like
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.restore(path.absolute(), template)
    return jax.tree.map(_restored, stored, like)


def _is_key(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _storable(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if _is_key(x) else x


def _restored(x: jax.Array, like: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like)) if _is_key(like) else x


def _is_concrete(tree: PyTree) -> bool:
    return all(isinstance(x, jax.Array) for x in jax.tree.leaves(tree))
