"""Splits and draws inside a scan: rounds as plain arithmetic, and jax's own generator.

`jaxrl/xla/threefry.py`.
"""

import jax
import jax.numpy as jnp

from benchmarks.workarounds.harness import compare_compile_times, compare_times
from jaxrl.xla.threefry import fast


def draws(key):
    """Many uses of the generator, as in a rollout with resets and two networks with noise."""

    def step(total, i):
        keys = jax.random.split(jax.random.fold_in(key, i), 6)
        starts = jax.vmap(lambda k: jax.random.uniform(k, (4,)))(jax.random.split(keys[0], 64))
        action = jax.random.categorical(keys[1], jnp.zeros((64, 3)))
        noise = [jax.random.normal(k, (64, 2)).sum() for k in keys[2:]]
        return total + starts.sum() + action.sum() + sum(noise), None

    return jax.lax.scan(step, 0.0, jnp.arange(100))[0]


def main() -> None:
    key = jax.random.key(0)

    def ours(key):
        return draws(fast(key))

    compare_times("running 100 steps of 64 environments", ours, draws, key)
    compare_compile_times("compiling that", ours, draws, key)


if __name__ == "__main__":
    main()
