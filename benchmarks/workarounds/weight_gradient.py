"""Weight gradients of dense layers: sums over blocks of rows, and one product.

`jaxrl/xla/weight_gradient.py`. For each kernel and number of rows: blocks of several sizes, of
which the one that the rule chooses is marked; only its verdict says whether the file pays. Where
the rule chooses no blocks, "could be deleted" or "unclear" for all of them confirms it. The last
rows are gradients of a whole network, with the rule.
"""

import itertools
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.workarounds.harness import compare_times, used_on
from jaxrl.networks.layers import MLP
from jaxrl.xla import columns, weight_gradient

KERNELS = ((4, 64), (64, 2), (64, 6), (64, 64), (128, 128), (256, 256))
ROWS = (128, 512, 2048, 16_384, 65_536)
BLOCKS = (64, 128, 256, 512)
OPERATIONS = 5e7
"""Of one timed run."""


def gradients(product, turns):
    """The gradient of a kernel along `dy`, some times in turn."""

    def once(x, kernel, dy):
        def f(kernel):
            return product(x, kernel, (((1,), (0,)), ((), ())))

        return jax.linear_transpose(lambda dk: jax.jvp(f, (kernel,), (dk,))[1], kernel)(dy)[0]

    def run(x, kernel, dy):
        def turn(_, carry):
            found = once(carry[0], kernel, dy)
            # One entry of an operand depends on the last gradient: none can be left out. It is
            # written after the product, or XLA would copy the operand first.
            return carry[0].at[0, 0].set(1e-3 * found[0, 0]), found

        return jax.lax.fori_loop(0, turns, turn, (x, kernel))[1]

    return run


def in_blocks_of(size):
    """Our product, whose rule chooses `size` rows wherever they divide the input."""

    def product(x, kernel, dimensions):
        with mock.patch.object(weight_gradient, "rows_of_a_block", return_value=size):
            return weight_gradient.dot_general(x, kernel, dimensions, by=value_by(kernel))

    return product


def value_by(kernel):
    is_narrow = kernel.shape[1] <= columns.FEW_COLUMNS
    return columns.by_columns if is_narrow else jax.lax.dot_general


def without(x, kernel, dimensions):
    return value_by(kernel)(x, kernel, dimensions)


def chosen(rows, inputs, outputs):
    if outputs <= columns.FEW_COLUMNS and rows * inputs < columns.BEYOND_CACHE:
        return None
    return weight_gradient.rows_of_a_block(rows, inputs, outputs)


def network_steps(network):
    def run(params, x):
        def step(params, _):
            gradient = jax.grad(lambda p: jnp.mean(jnp.square(network.apply(p, x))))(params)
            return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), None

        return jax.lax.scan(step, params, length=10)[0]

    return run


def without_blocks(function):
    def run(*args):
        with mock.patch.object(weight_gradient, "rows_of_a_block", return_value=None):
            return function(*args)

    return run


def main() -> None:
    if not used_on("CPU"):
        return
    keys = jax.random.split(jax.random.key(0), 3)
    for (inputs, outputs), rows in itertools.product(KERNELS, ROWS):
        x = jax.random.normal(keys[0], (rows, inputs))
        kernel = jax.random.normal(keys[1], (inputs, outputs))
        dy = jax.random.normal(keys[2], (rows, outputs))
        turns = max(2, int(OPERATIONS / (2 * rows * inputs * outputs)))
        rule = chosen(rows, inputs, outputs)
        for size in sorted({*BLOCKS, rule or BLOCKS[0]}):
            if size > rows // 2:
                continue
            mark = " (the rule)" if size == rule else ""
            case = f"{turns} x kernel {inputs} x {outputs}, {rows:,} rows, blocks of {size}{mark}"
            ours, plain = (gradients(f, turns) for f in (in_blocks_of(size), without))
            compare_times(case, ours, plain, x, kernel, dy, seconds=0.5)
    for rows, outputs in ((2048, 2), (16_384, 2), (2048, 6), (16_384, 6)):
        network, x = MLP((64, 64, outputs)), jax.random.normal(keys[0], (rows, 4))
        params, steps = network.init(keys[1], x), network_steps(network)
        case = f"10 steps of a network 4-64-64-{outputs}, {rows:,} rows (the rule)"
        compare_times(case, steps, without_blocks(steps), params, x)


if __name__ == "__main__":
    main()
