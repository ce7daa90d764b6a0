"""A branch that stays a branch under `vmap`.

Works around: `vmap` turns a `lax.cond` on a batched condition into a select, which computes both
branches for every member. A condition on whether it holds in any member is not batched.

Versions: all of jax; it is how `vmap` of `lax.cond` is meant to work.

Measured: `python -m benchmarks.workarounds unvmap` looks for the branch in the program.

Delete when: the command says so for every supported jax; `unvmap_any(flag)` becomes `flag`.
"""

import jax
import jax.numpy as jnp

from jaxrl.types import Array


@jax.custom_batching.custom_vmap
def unvmap_any(flag: Array) -> Array:
    """`bool[]`: the flag; under `vmap`, whether it is true in any member."""
    return flag


@unvmap_any.def_vmap
def _(axis_size: int, in_batched: list[bool], flag: Array) -> tuple[Array, bool]:
    return unvmap_any(jnp.any(flag)), False
