"""A branch on a batched condition: kept as a branch, and turned into a select that computes both.

`jaxrl/xla/unvmap.py`.
"""

import jax
import jax.numpy as jnp

from benchmarks.workarounds.harness import compare_faults
from jaxrl.xla.deadlock import primitives
from jaxrl.xla.unvmap import unvmap_any


def program(is_applied: bool) -> str | None:
    any_lane = unvmap_any if is_applied else lambda flag: flag

    def values_at_cuts(cut, x):
        return jax.lax.cond(any_lane(jnp.any(cut)), jnp.tanh, jnp.zeros_like, x)

    jaxpr = jax.make_jaxpr(jax.vmap(values_at_cuts))(jnp.zeros((3, 5), bool), jnp.ones((3, 5)))
    return None if "cond" in set(primitives(jaxpr)) else "vmap computes both branches"


if __name__ == "__main__":
    compare_faults("a branch that no member takes", program)
