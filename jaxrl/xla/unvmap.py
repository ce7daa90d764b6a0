"""A branch that stays a branch under `vmap`."""

import jax
import jax.numpy as jnp

from jaxrl.types import Array


@jax.custom_batching.custom_vmap
def unvmap_any(flag: Array) -> Array:
    """`bool[]`: under `vmap`, whether the flag is true in any lane, so that a branch stays one."""
    return flag


@unvmap_any.def_vmap
def _(axis_size: int, in_batched: list[bool], flag: Array) -> tuple[Array, bool]:
    return unvmap_any(jnp.any(flag)), False
