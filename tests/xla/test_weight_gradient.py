"""Weight gradients in blocks of rows match the plain product in every differentiation mode."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.networks.layers import dense
from jaxrl.networks.q_networks import NoisyDense
from jaxrl.xla import columns, layout, weight_gradient
from jaxrl.xla.deadlock import jaxprs_inside
from jaxrl.xla.weight_gradient import dot_general, rows_of_a_block

SHAPES = {
    "square": ((512,), 6, 6, 64),
    "narrow": ((96,), 9, 5, 48),
    "no multiple of the block": ((330,), 9, 5, 165),
    "time steps and environments": ((4, 3, 32), 9, 5, 192),
    "rows without a divisor": ((97,), 9, 5, None),
    "fewer rows than two blocks": ((62,), 9, 5, None),
    "few rows of a square kernel": ((256,), 6, 6, None),
    "more outputs": ((512,), 5, 9, None),
    "one row": ((), 9, 5, None),
    "no row": ((0,), 9, 5, None),
    "no input": ((96,), 0, 5, None),
}
"""Leading axes, inputs, outputs, rows per block (at most 256, 64 for the square kernel)."""


def last_axis(x):
    return ((x.ndim - 1,), (0,)), ((), ())


def arrays(name, dtype=np.float64):
    leading, inputs, outputs, _ = SHAPES[name]
    rng = np.random.default_rng(0)
    shapes = (*leading, inputs), (inputs, outputs), (*leading, outputs)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def value_and_gradients(f):
    """`f(x, kernel)` and its gradients for the cotangent `dy`."""

    def run(x, kernel, dy):
        y, pull = jax.vjp(lambda *both: f(*both, last_axis(x)), x, kernel)
        return y, *pull(dy)

    return run


def batched_products(f, *args):
    """Result shapes of all matrix products with a batch axis in a program."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            is_product = equation.primitive.name == "dot_general"
            if is_product and equation.params["dimension_numbers"][1][0]:
                yield equation.outvars[0].aval.shape
            for inner in jaxprs_inside(equation):
                yield from walk(inner)

    return list(walk(jax.make_jaxpr(f)(*args).jaxpr))


@pytest.mark.optimized
def test_gradients_match_float64():
    """NumPy's, up to float32 rounding of the sum; the value is bit-identical to lax."""
    inputs = {name: [np.float32(x) for x in arrays(name)] for name in SHAPES}
    ours, lax = (
        jax.jit(lambda args, f=f: {n: value_and_gradients(f)(*x) for n, x in args.items()})(inputs)
        for f in (dot_general, jax.lax.dot_general)
    )
    for name, float32 in inputs.items():
        x, kernel, dy = (np.float64(a) for a in float32)
        axes = [range(x.ndim - 1)] * 2
        expected, size = np.tensordot(x, dy, axes), np.tensordot(np.abs(x), np.abs(dy), axes)
        rounding = 2e-7 * np.prod(x.shape[:-1]) ** 0.5
        np.testing.assert_array_equal(ours[name][0], lax[name][0], err_msg=name)
        np.testing.assert_allclose(ours[name][1], dy @ kernel.T, rtol=0, atol=1e-5, err_msg=name)
        assert np.all(np.abs(ours[name][2] - expected) <= rounding * size), name


@pytest.mark.parametrize("name", SHAPES)
def test_gradient_is_one_batched_product_over_blocks(name):
    leading, inputs, outputs, block = SHAPES[name]
    x, kernel, dy = arrays(name, np.float32)
    found = batched_products(value_and_gradients(dot_general), x, kernel, dy)
    if block is None:
        assert found == []
    else:
        assert found == [(np.prod(leading) // block, outputs, inputs)]
    assert batched_products(lambda x, k: dot_general(x, k, last_axis(x)), x, kernel) == []


@pytest.mark.optimized
@pytest.mark.parametrize("name", ["narrow", "time steps and environments"])
def test_the_shorter_side_of_the_kernel_comes_first(name):
    """In the compiled program, which copies and transposes no operand."""
    x, kernel, dy = arrays(name, np.float32)

    def gradient(x, dy):
        return jax.vjp(lambda k: dot_general(x, k, last_axis(x)), kernel)[1](dy)

    program = jax.jit(gradient).lower(x, dy).compile().as_text()
    blocks = x.size // x.shape[-1] // SHAPES[name][-1]
    assert re.findall(r"f32\[(\S+)\]\S* dot\(", program) == [f"{blocks},5,9"]
    moved = re.findall(r"f32\[(\S+)\]\S* (?:copy|transpose)\(", program)
    assert set(moved) <= {"9,5", "5,9"}  # the result


def test_a_block_divides_the_rows():
    for rows in range(700):
        for inputs, outputs in ((64, 64), (64, 6), (6, 64)):
            block = rows_of_a_block(rows, inputs, outputs)
            assert block is None or (rows % block == 0 and 32 <= block <= min(256, rows // 2))


@pytest.mark.parametrize("rows", [2048, 3 * 2**10, 37 * 2**6, 65_536])
def test_block_sums_use_no_more_memory_than_the_operands(rows):
    sizes = [2**k for k in range(14)]
    for inputs, outputs in ((i, o) for i in sizes for o in sizes):
        block = rows_of_a_block(rows, inputs, outputs)
        if block is not None:
            assert rows // block * inputs * outputs <= rows * (inputs + outputs)


# A two-layer network with the product as an argument ----------------------------------------------


def network(product, params, x):
    hidden = jnp.tanh(product(x, params[0], last_axis(x)))
    return product(hidden, params[1], last_axis(x))


def gradient(f):
    return jax.grad(lambda params, x: jnp.mean(jnp.sin(f(params, x))))


def fisher_product(f, params, x, direction):
    """Gauss-Newton product J^T J v, linearised once, as in TRPO."""
    _, push = jax.linearize(lambda p: f(p, x), params)
    pull = jax.linear_transpose(push, params)
    return pull(push(direction))[0]


def along(f, params, x, direction):
    return sum(jnp.vdot(a, b) for a, b in zip(gradient(f)(params, x), direction, strict=True))


def side_by_side(f, params, x, direction):
    """As in a vmap over seeds: batched parameters, then batched inputs as well."""
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), params, direction)
    xs = jnp.stack([x, 2 * x])
    return jax.vmap(gradient(f), (0, None))(both, x), jax.vmap(gradient(f))(both, xs)


def descended(f, params, x, direction):
    def step(params, _):
        new = gradient(jax.checkpoint(f))(params, x)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, new), None

    return jax.lax.scan(step, params, length=2)[0]


MODES = {
    "value and gradients": lambda f, p, x, d: (f(p, x), jax.grad(gradient_sum(f), (0, 1))(p, x)),
    "jvp": lambda f, p, x, d: jax.jvp(f, (p, x), (d, jnp.cos(x))),
    "jvp of the input only": lambda f, p, x, d: jax.jvp(lambda x: f(p, x), (x,), (jnp.cos(x),)),
    "fisher product": fisher_product,
    "jvp of the gradient": lambda f, p, x, d: jax.jvp(lambda p: gradient(f)(p, x), (p,), (d,)),
    "gradient of the gradient": lambda f, p, x, d: jax.grad(along, (1, 2))(f, p, x, d),
    "gradient of the jvp": lambda f, p, x, d: jax.grad(
        lambda p, d: jnp.sum(jnp.sin(jax.jvp(lambda p: f(p, x), (p,), (d,))[1])), (0, 1)
    )(p, d),
    "vmap": side_by_side,
    "scan and remat": descended,
}


def gradient_sum(f):
    return lambda params, x: jnp.sum(jnp.sin(f(params, x)))


@pytest.mark.parametrize("mode", MODES)
def test_every_differentiation_mode_matches_the_plain_product(mode):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2, 256, 6)), jnp.float32)
    params, direction = (
        [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((6, 6), (6, 5))]
        for _ in range(2)
    )
    found, expected = (
        jax.jit(functools.partial(MODES[mode], functools.partial(network, product)))(
            params, x, direction
        )
        for product in (dot_general, jax.lax.dot_general)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())


def test_a_hessian_by_both_orders():
    """Forward-over-reverse and reverse-over-reverse, with every product in blocks."""
    x, kernel, _ = arrays("narrow", np.float32)

    def f(product):
        return lambda kernel: jnp.mean(jnp.cosh(0.1 * product(x, kernel, last_axis(x))))

    expected = jax.jit(jax.hessian(f(jax.lax.dot_general)))(kernel)
    for second in (jax.jacfwd, jax.jacrev):
        hessian = jax.jit(second(jax.grad(f(dot_general))))(kernel)
        np.testing.assert_allclose(hessian, expected, rtol=1e-4, atol=1e-6)


# Devices, dtypes and layers -----------------------------------------------------------------------


def test_accelerators_use_the_lax_program(monkeypatch):
    monkeypatch.setattr(layout, "is_cpu", lambda: False)
    args = arrays("narrow", np.float32)
    ours, lax = (
        str(jax.make_jaxpr(value_and_gradients(f))(*args))
        for f in (dot_general, jax.lax.dot_general)
    )
    assert ours == lax


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_uses_the_lax_program(dtype):
    """The sum over blocks would be rounded after each block."""
    args = arrays("narrow", dtype)
    ours, lax = (
        str(jax.make_jaxpr(value_and_gradients(f))(*args))
        for f in (dot_general, jax.lax.dot_general)
    )
    assert ours == lax


def test_float64_is_kept():
    with jax.enable_x64(True):
        x, kernel, dy = arrays("square")
        found = value_and_gradients(dot_general)(x, kernel, dy)
        for a, b in zip(found, (x @ kernel, dy @ kernel.T, x.T @ dy), strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_options_reach_every_product():
    x, kernel, dy = arrays("narrow", np.float32)
    f = functools.partial(dot_general, precision=jax.lax.Precision.HIGHEST)
    program = str(jax.make_jaxpr(value_and_gradients(f))(x, kernel, dy))
    assert program.count("Precision.HIGHEST") >= 2 * program.count("dot_general[") > 0


@pytest.mark.parametrize("layer", [dense(5, 1.0), NoisyDense(5)], ids=["dense", "noisy"])
def test_layers_use_block_gradients(layer):
    x = arrays("narrow", np.float32)[0]
    params = layer.init(jax.random.key(0), x)
    loss = jax.grad(lambda params: jnp.sum(layer.apply(params, x)))
    assert batched_products(loss, params) == [(2, 5, 9)]


def test_columns_use_block_gradients_beyond_the_cache(monkeypatch):
    """The value is still computed by columns; the gradient reads the input once."""
    x, kernel, dy = (a[..., :9][..., : (2 if i else 9)] for i, a in enumerate(arrays("narrow")))
    x, kernel, dy = (np.float32(a) for a in (x, kernel, dy))
    f = value_and_gradients(columns.dot_general_by_columns)
    y, dx, dkernel = f(x, kernel, dy)
    assert batched_products(f, x, kernel, dy) == []
    monkeypatch.setattr(columns, "BEYOND_CACHE", x.size)
    f = value_and_gradients(columns.dot_general_by_columns)
    assert batched_products(f, x, kernel, dy) == [(2, 2, 9)]
    np.testing.assert_array_equal(f(x, kernel, dy)[0], y)
    np.testing.assert_array_equal(f(x, kernel, dy)[1], dx)
    np.testing.assert_allclose(f(x, kernel, dy)[2], dkernel, rtol=1e-5, atol=1e-5)
    assert weight_gradient.product(x, kernel).shape == y.shape
