"""Gradient steps of a layer with two outputs: by columns, and as one product.

`jaxrl/xla/columns.py`.
"""

import jax
import jax.numpy as jnp

from benchmarks.workarounds.harness import compare_times
from jaxrl.xla.columns import dot_general_by_columns


def steps(dot_general):
    def run(kernel, x):
        def step(kernel, _):
            def loss(kernel):
                return jnp.mean(jnp.square(dot_general(x, kernel, (((1,), (0,)), ((), ())))))

            return kernel - 1e-3 * jax.grad(loss)(kernel), None

        return jax.lax.scan(step, kernel, length=200)[0]

    return run


def main() -> None:
    for rows in (128, 2048):
        x = jax.random.normal(jax.random.key(0), (rows, 64))
        kernel = jax.random.normal(jax.random.key(1), (64, 2))
        ours, whole = steps(dot_general_by_columns), steps(jax.lax.dot_general)
        compare_times(f"200 steps on {rows:,} rows", ours, whole, kernel, x)


if __name__ == "__main__":
    main()
