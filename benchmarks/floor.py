"""A lower bound on the time of P1, P2, P3, P7 and P8, from their matrix products alone.

    python -m benchmarks.floor          all rows
    python -m benchmarks.floor P3 P7    only these

Each matrix product of an algorithm is timed separately, in a compiled loop and at its own shape,
and multiplied by its count per iteration. The sum bounds any program with these products. XLA runs
a product of up to a few thousand rows on one core, so two cores at most halve the bound, if
independent products overlap. "The rest" is the elementwise work: activations, their gradients, sums
for bias gradients, Adam, and the update of target networks. The last columns show jaxrl's own time,
and the fraction of it that is explained by the products and by all of these.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.throughput import measure
from benchmarks.workloads import WORKLOADS, Workload

HIDDEN = (64, 64)
Product = tuple[str, int, int, int]
"""The name of one of `KINDS`, and rows, inputs and outputs of the layer."""
KINDS = {
    "forward": lambda x, w, y: x @ w,
    "inputs": lambda x, w, y: y @ w.T,
    "weights": lambda x, w, y: x.T @ y,
}
"""The three products of a layer: output `y`, gradient of the inputs, gradient of the weights."""
TANH, RELU = (jnp.tanh, lambda y: 1 - y * y), (jax.nn.relu, lambda y: y > 0)
"""An activation, and its derivative as a function of its value."""


def layers(rows: int, inputs: int, outputs: int) -> list[tuple[int, int, int]]:
    """Rows, inputs and outputs of each layer of a network."""
    sizes = (inputs, *HIDDEN, outputs)
    return [(rows, *pair) for pair in itertools.pairwise(sizes)]


def ppo(work: Workload) -> Counter[Product]:
    """Products of actor and critic in a rollout, and in 4 epochs of 4 minibatches."""
    products: Counter[Product] = Counter()
    for outputs in (2, 1):
        for layer in layers(work.num_envs, 4, outputs):
            products["forward", *layer] += work.num_steps
        for i, layer in enumerate(layers(work.num_envs * work.num_steps // 4, 4, outputs)):
            for kind in KINDS if i else ("forward", "weights"):
                products[kind, *layer] += 16
    return products


def off_policy(work: Workload, actor_every: int, actor_outputs: int) -> Counter[Product]:
    """Products of an update of SAC or TD3: twin critics on (observation, action), and an actor."""
    products: Counter[Product] = Counter()
    actor = layers(work.batch_size, 3, actor_outputs)
    critic = layers(work.batch_size, 4, 1)
    for i, layer in enumerate(actor):
        products["forward", *layer] += 1 + 1 / actor_every  # in the target and the actor's loss
        products["weights", *layer] += 1 / actor_every
        products["inputs", *layer] += (i > 0) / actor_every
    critics_of_the_actor = (2 if actor_outputs > 1 else 1) / actor_every  # TD3 uses only the first
    for i, layer in enumerate(critic):
        products["forward", *layer] += 4 + critics_of_the_actor  # target, online; the actor's loss
        products["weights", *layer] += 2
        products["inputs", *layer] += 2 * (i > 0) + critics_of_the_actor
    return products


def products_of(work: Workload) -> Counter[Product]:
    """The count of each product per iteration."""
    if work.algorithm == "ppo":
        return ppo(work)
    sac = work.algorithm == "sac"
    return off_policy(work, actor_every=1 if sac else 2, actor_outputs=2 if sac else 1)


def seconds_of(product: Product) -> float:
    """Time of one product, in seconds."""
    kind, rows, inputs, outputs = product
    x, w = jnp.ones((rows, inputs)), jnp.full((inputs, outputs), 1e-3)

    def once(operands):
        x, w, y, _ = operands
        product = KINDS[kind](x, w, y)
        # An entry of each operand depends on the previous product, so none can be optimised away.
        return x.at[0, 0].set(product[0, 0]), w.at[0, 0].set(product[0, 0]), y, product

    y = x @ w
    return seconds(once, (x, w, y, KINDS[kind](x, w, y)), 2 * rows * inputs * outputs)


def seconds_beside(product: Product, algorithm: str) -> float:
    """Time of the elementwise work with a product: activation, its gradient, or bias gradient."""
    kind, rows, inputs, outputs = product
    function, slope = TANH if algorithm == "ppo" else RELU
    if kind == "weights":
        g = jnp.ones((rows, outputs))
        return seconds(lambda c: (c[0] + 1e-9 * c[1], jnp.sum(c[0], 0)), (g, g[0]), 2 * g.size)
    width = outputs if kind == "forward" else inputs
    if width not in HIDDEN:
        return 0.0
    y, bias = jnp.ones((rows, width)), jnp.full(width, 1e-3)
    if kind == "forward":
        return seconds(lambda c: (function(c[0] + c[1]), c[1]), (y, bias[None]), 4 * y.size)
    return seconds(lambda c: (c[0] * slope(c[1]), c[1]), (y, y), 2 * y.size)


def seconds_of_learning(work: Workload, products: Counter[Product]) -> float:
    """Time per iteration of Adam and of the Polyak updates of twin target critics."""
    num_updates = 16 if work.algorithm == "ppo" else 1
    learned = sum(n * (i + 1) * o for (kind, _, i, o), n in products.items() if kind == "weights")
    values = jnp.ones(int(learned / num_updates))

    def adam(c):
        p, m, v, g = c
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return p - 1e-3 * m / (jnp.sqrt(v) + 1e-8), m, v, g

    found = num_updates * seconds(adam, (values, values, values, values), 12 * values.size)
    if work.algorithm == "ppo":
        return found
    target = jnp.ones(2 * sum((i + 1) * o for _, i, o in layers(1, 4, 1)))
    polyak = seconds(
        lambda c: (c[0] + 5e-3 * (c[1] - c[0]), c[1]), (target, 2 * target), 3 * target.size
    )
    return found + polyak / (1 if work.algorithm == "sac" else 2)  # TD3's are delayed


def seconds(once: Callable, carry: Any, operations: int) -> float:
    """Time of one iteration of a loop, the median of five measurements."""
    length = max(20, min(2_000, int(2e9 / operations)))
    loop = jax.jit(lambda carry: jax.lax.fori_loop(0, length, lambda _, c: once(c), carry))
    jax.block_until_ready(loop(carry))
    return statistics.median(_seconds(loop, carry) for _ in range(5)) / length


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
    print(
        f"{'row':4} {'MFLOP':>8} {'GFLOP/s':>8} {'products':>12} {'+ the rest':>12} {'jaxrl':>12} "
        f"{'products':>8} {'all':>5}"
    )
    for row in options.rows or rows:
        work = WORKLOADS[row]
        products = products_of(work)
        flop = sum(n * 2 * r * i * o for (_, r, i, o), n in products.items())
        floor = sum(n * seconds_of(product) for product, n in products.items())
        rest = sum(n * seconds_beside(p, work.algorithm) for p, n in products.items())
        rest += seconds_of_learning(work, products)
        (measured,) = measure(row, {"jaxrl": (sys.executable, "")}, rounds=3)
        whole = work.num_envs * work.num_steps / measured["steps_per_second"]
        print(
            f"{row:4} {flop / 1e6:8.1f} {flop / floor / 1e9:8.0f} {floor * 1e6:9,.0f} us "
            f"{rest * 1e6:9,.0f} us {whole * 1e6:9,.0f} us {floor / whole:8.0%} "
            f"{(floor + rest) / whole:5.0%}"
        )


if __name__ == "__main__":
    main()
