"""The time that the matrix products of P1, P2, P3, P7 and P8 take here: the floor of each.

    python -m benchmarks.floor          all rows
    python -m benchmarks.floor P3 P7    these

Each product of the algorithm is timed by itself, in a compiled loop, at its own shape; times how
often an iteration needs it, that is a bound for any program of these products. XLA computes a
product of up to some thousand rows on one core, so two cores halve the bound at best, where
independent products meet. The last columns are jaxrl's own time and what part of it the bound is.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections import Counter

import jax
import jax.numpy as jnp

from benchmarks.throughput import measure
from benchmarks.workloads import WORKLOADS, Workload

HIDDEN = (64, 64)
Product = tuple[str, int, int, int]
"""Which of `KINDS`, rows, inputs and outputs of the layer."""
KINDS = {
    "forward": lambda x, w, y: x @ w,
    "inputs": lambda x, w, y: y @ w.T,
    "weights": lambda x, w, y: x.T @ y,
}
"""A layer's three products: its output `y`, the gradient of its inputs and that of its weights."""


def layers(rows: int, inputs: int, outputs: int) -> list[tuple[int, int, int]]:
    """Rows, inputs and outputs of each layer of a network."""
    sizes = (inputs, *HIDDEN, outputs)
    return [(rows, *pair) for pair in itertools.pairwise(sizes)]


def ppo(work: Workload) -> Counter[Product]:
    """Actor and critic once over the rollout, and their gradients in 4 epochs of 4 minibatches."""
    products: Counter[Product] = Counter()
    for outputs in (2, 1):
        for layer in layers(work.num_envs, 4, outputs):
            products["forward", *layer] += work.num_steps
        for i, layer in enumerate(layers(work.num_envs * work.num_steps // 4, 4, outputs)):
            for kind in KINDS if i else ("forward", "weights"):
                products[kind, *layer] += 16
    return products


def off_policy(work: Workload, actor_every: int, actor_outputs: int) -> Counter[Product]:
    """One update of SAC or TD3: twin critics on observation and action (3 + 1), one actor."""
    products: Counter[Product] = Counter()
    actor = layers(work.batch_size, 3, actor_outputs)
    critic = layers(work.batch_size, 4, 1)
    for i, layer in enumerate(actor):
        products["forward", *layer] += 1 + 1 / actor_every  # for the target; for the actor's loss
        products["weights", *layer] += 1 / actor_every
        products["inputs", *layer] += (i > 0) / actor_every
    critics_of_the_actor = (2 if actor_outputs > 1 else 1) / actor_every  # TD3 asks the first only
    for i, layer in enumerate(critic):
        products["forward", *layer] += 4 + critics_of_the_actor  # target, online; the actor's loss
        products["weights", *layer] += 2
        products["inputs", *layer] += 2 * (i > 0) + critics_of_the_actor
    return products


def products_of(work: Workload) -> Counter[Product]:
    """How often an iteration needs each product."""
    if work.algorithm == "ppo":
        return ppo(work)
    sac = work.algorithm == "sac"
    return off_policy(work, actor_every=1 if sac else 2, actor_outputs=2 if sac else 1)


def seconds_of(product: Product) -> float:
    """Of one product, the median of five loops of it."""
    kind, rows, inputs, outputs = product
    x, w = jnp.ones((rows, inputs)), jnp.full((inputs, outputs), 1e-3)
    length = max(20, int(2e9 / (2 * rows * inputs * outputs + 1e4)))

    def once(_, operands):
        x, w, y, _ = operands
        product = KINDS[kind](x, w, y)
        # One entry of an operand depends on the last product: no product can be left out.
        return x.at[0, 0].set(product[0, 0]), w.at[0, 0].set(product[0, 0]), y, product

    @jax.jit
    def loop(x, w, y):
        return jax.lax.fori_loop(0, length, once, (x, w, y, KINDS[kind](x, w, y)))

    operands = (x, w, x @ w)
    jax.block_until_ready(loop(*operands))
    return statistics.median(_seconds(loop, *operands) for _ in range(5)) / length


def _seconds(function, *arguments) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def main() -> None:
    rows = ("P1", "P2", "P3", "P7", "P8")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(rows)}; or all")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(rows):
        parser.error(f"no row is called {unknown.pop()!r}: choose from {', '.join(rows)}")
    print(f"{'row':4} {'MFLOP':>8} {'GFLOP/s':>8} {'products':>12} {'jaxrl':>12} {'part':>5}")
    for row in options.rows or rows:
        work = WORKLOADS[row]
        products = products_of(work)
        flop = sum(n * 2 * r * i * o for (_, r, i, o), n in products.items())
        floor = sum(n * seconds_of(product) for product, n in products.items())
        (measured,) = measure(row, {"jaxrl": (sys.executable, "")}, rounds=3)
        whole = work.num_envs * work.num_steps / measured["steps_per_second"]
        print(
            f"{row:4} {flop / 1e6:8.1f} {flop / floor / 1e9:8.0f} {floor * 1e6:9,.0f} us "
            f"{whole * 1e6:9,.0f} us {floor / whole:5.0%}"
        )


if __name__ == "__main__":
    main()
