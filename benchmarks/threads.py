"""When XLA runs small operations on a second thread, and how much that gains.

    python -m benchmarks.threads

The loop's body has one operation on which K others depend, each on 64 x 64 numbers. Prints
microseconds per iteration, and processor time over wall-clock time, which is above 1 if several
threads are used.
"""

import time

import jax
import jax.numpy as jnp

TURNS = 2_000


def turn(i, carry):
    first, others = carry
    scale = jnp.sum(jnp.tanh(first))  # all others depend on it
    others = [jnp.tanh(x * scale + k) for k, x in enumerate(others)]
    return first + 1e-9 * others[0][:1, :1], others


def main() -> None:
    print(f"jax {jax.__version__}\n{'K':>3} {'us a turn':>10} {'processor / wall':>17}")
    for width in (2, 4, 6, 8, 9, 10, 12, 16, 32):
        run = jax.jit(lambda carry: jax.lax.fori_loop(0, TURNS, turn, carry))
        carry = jnp.full((64, 64), 0.1), [jnp.full((64, 64), 0.1 * k) for k in range(width)]
        jax.block_until_ready(run(carry))
        wall, processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(run(carry))
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(f"{width:3} {wall / TURNS * 1e6:10.1f} {processor / wall:17.2f}")


if __name__ == "__main__":
    main()
