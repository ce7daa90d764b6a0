"""A branch that stays a branch under `vmap`."""

import jax
import jax.numpy as jnp

from jaxrl.spaces import ActionSpace as ActionSpace
from jaxrl.spaces import Box as Box
from jaxrl.spaces import Discrete as Discrete
from jaxrl.spaces import Mixed as Mixed
from jaxrl.spaces import MultiDiscrete as MultiDiscrete
from jaxrl.spaces import into_bounds as into_bounds
from jaxrl.spaces import sample_action as sample_action
from jaxrl.types import Array


@jax.custom_batching.custom_vmap
def unvmap_any(flag: Array) -> Array:
    """`bool[]`: under `vmap`, whether the flag is true in any lane, so that a branch stays one."""
    return flag


@unvmap_any.def_vmap
def _(axis_size: int, in_batched: list[bool], flag: Array) -> tuple[Array, bool]:
    return unvmap_any(jnp.any(flag)), False
