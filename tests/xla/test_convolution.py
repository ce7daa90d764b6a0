"""The convolution for CPUs: equality with lax, and the cases left to lax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrl import networks
from jaxrl.xla import layout
from jaxrl.xla.convolution import conv_general_dilated
from jaxrl.xla.deadlock import primitives

NHWC = ("NHWC", "HWIO", "NHWC")
CASES = {
    "minatar": ((2, 10, 10, 4), (3, 3, 4, 5), (1, 1), "SAME", {"dimension_numbers": NHWC}),
    "atari": ((2, 21, 20, 3), (8, 4, 3, 5), (4, 2), "VALID", {"dimension_numbers": NHWC}),
    "stride of no part": ((2, 9, 8, 3), (3, 4, 3, 5), (2, 3), "SAME", {"dimension_numbers": NHWC}),
    "stride beyond the kernel": ((2, 9, 9, 2), (2, 2, 2, 3), (3, 3), "VALID",
                                 {"dimension_numbers": NHWC}),
    "explicit padding": ((2, 7, 6, 2), (4, 2, 2, 3), (2, 1), [(3, 0), (-1, 2)],
                         {"dimension_numbers": NHWC}),
    "dilated": ((2, 9, 9, 2), (3, 2, 2, 3), (2, 2), "SAME",
                {"dimension_numbers": NHWC, "rhs_dilation": (2, 3)}),
    "one by one": ((2, 5, 5, 4), (1, 1, 4, 3), (2, 2), "SAME", {"dimension_numbers": NHWC}),
    "channels first": ((2, 3, 8, 7), (5, 3, 2, 3), (2, 1), "SAME_LOWER", {}),
    "1-d": ((2, 11, 3), (5, 3, 4), (2,), "SAME", {"dimension_numbers": ("NWC", "WIO", "NWC")}),
    "3-d": ((2, 5, 6, 4, 2), (2, 2, 2, 2, 3), (2, 2, 1), "SAME",
            {"dimension_numbers": ("NDHWC", "DHWIO", "NDHWC")}),
    "groups": ((2, 6, 6, 4), (3, 3, 2, 6), (1, 1), "SAME",
               {"dimension_numbers": NHWC, "feature_group_count": 2}),
    "dilated input": ((2, 5, 5, 2), (3, 3, 2, 3), (1, 1), [(1, 1), (0, 2)],
                      {"dimension_numbers": NHWC, "lhs_dilation": (2, 1)}),
    "nothing left": ((2, 3, 3, 2), (4, 4, 2, 3), (1, 1), "VALID", {"dimension_numbers": NHWC}),
}  # fmt: skip
BY_LAX = ("groups", "dilated input", "nothing left")


def arrays(name, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in CASES[name][:2]]


def convolve(function, name):
    _, _, strides, padding, options = CASES[name]
    return lambda x, kernel: function(x, kernel, strides, padding, **options)


def value_and_gradients(f):
    """The value and its gradients for a fixed cotangent."""

    def both(x, kernel):
        y, pull = jax.vjp(f, x, kernel)
        along = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return y, *pull(along.astype(y.dtype))

    return both


def test_values_and_gradients_match_lax():
    def everything(function, inputs):
        return {n: value_and_gradients(convolve(function, n))(*x) for n, x in inputs.items()}

    inputs = {name: arrays(name) for name in CASES}
    ours, theirs = (
        jax.jit(lambda x, f=f: everything(f, x))(inputs)
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    for name in CASES:
        for x, y in zip(ours[name], theirs[name], strict=True):
            assert x.shape == y.shape
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5, err_msg=name)
        used = set(primitives(jax.make_jaxpr(convolve(conv_general_dilated, name))(*inputs[name])))
        assert ("conv_general_dilated" in used) == (name in BY_LAX), name


def test_vmap_matches_lax():
    """Batched kernels, images or both, as in a vmap over seeds."""
    x, kernel = arrays("atari")
    xs, kernels = jnp.stack([x, 2 * x, -x]), jnp.stack([kernel, -kernel, 3 * kernel])
    f, one = convolve(conv_general_dilated, "atari"), convolve(lax.conv_general_dilated, "atari")
    for axes, factors in {
        (0, 0): (1, -2, -3),
        (None, 0): (1, -1, 3),
        (0, None): (1, 2, -1),
    }.items():
        inputs = xs if axes[0] == 0 else x, kernels if axes[1] == 0 else kernel
        expected = jnp.stack([c * one(x, kernel) for c in factors])
        np.testing.assert_allclose(jax.vmap(f, axes)(*inputs), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32, jnp.float64])
def test_the_dtype_is_kept(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x, kernel = arrays("minatar")
        x, kernel = (4 * x).astype(dtype), (4 * kernel).astype(dtype)
        f = convolve(conv_general_dilated, "minatar")
        y, expected = f(x, kernel), convolve(lax.conv_general_dilated, "minatar")(x, kernel)
        assert y.dtype == expected.dtype == dtype
        tolerance = {jnp.bfloat16: 1e-2, jnp.int32: 0, jnp.float64: 1e-13}[dtype]
        y, expected = np.asarray(y, np.float64), np.asarray(expected, np.float64)
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=40 * tolerance)


def test_preferred_element_type_is_honoured():
    x, kernel = (x.astype(jnp.bfloat16) for x in arrays("minatar"))
    y, expected = (
        f(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC, preferred_element_type=jnp.float32)
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_accelerators_use_the_lax_program(name, monkeypatch):
    monkeypatch.setattr(layout, "is_cpu", lambda: False)
    ours, theirs = (
        str(jax.make_jaxpr(value_and_gradients(convolve(f, name)))(*arrays(name)))
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert ours == theirs


def test_raises_where_lax_raises():
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 4, 5))
    for function in (conv_general_dilated, lax.conv_general_dilated):
        with pytest.raises(ValueError, match="feature_group_count"):
            function(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
        with pytest.raises(TypeError, match="same dtypes"):
            function(x[..., :2], kernel[:, :, :2].astype(jnp.bfloat16), (1, 1), "SAME",
                     dimension_numbers=NHWC)  # fmt: skip


# The flax layer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"features": 4, "kernel_size": (3, 3)},
        {"features": 4, "kernel_size": (4, 4), "strides": 2, "padding": "VALID", "use_bias": False},
        {"features": 4, "kernel_size": (3, 3), "padding": "CIRCULAR", "kernel_dilation": 2},
        {"features": 4, "kernel_size": (3, 3), "padding": ((1, 2), (0, 1)), "dtype": jnp.bfloat16},
        {"features": 4, "kernel_size": (3, 3), "feature_group_count": 2},
    ],
)
def test_layer_is_a_drop_in_for_flax(fields):
    class Torso(nn.Module):
        layer: type

        @nn.compact
        def __call__(self, x):
            return self.layer(**fields)(x)

    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 7, 6, 2)), jnp.float32)
    theirs, ours = Torso(nn.Conv), Torso(networks.Conv)
    params = theirs.init(jax.random.key(0), x)
    same = jax.tree.map(np.array_equal, params, ours.init(jax.random.key(0), x))
    assert all(jax.tree.leaves(same))  # including names
    y, expected = ours.apply(params, x), theirs.apply(params, x)
    assert y.dtype == expected.dtype
    rounding = 1e-5 if y.dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(
        np.asarray(y, np.float32), np.asarray(expected, np.float32), rtol=rounding, atol=rounding
    )


def gradient_steps(params, images):
    """Three gradient steps on a loss of `networks.CNN`, in a scan."""

    def step(params, _):
        gradient = jax.grad(lambda p: jnp.mean(networks.CNN().apply(p, images) ** 2))(params)
        return jax.tree.map(lambda x, dx: x - 0.1 * dx, params, gradient), None

    return lax.scan(step, params, length=3)[0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.uint8, jnp.bool_])
def test_cnn_has_no_lax_convolution_on_cpu(dtype, monkeypatch):
    images = jax.ShapeDtypeStruct((8, 10, 10, 4), dtype)
    params = jax.eval_shape(networks.CNN().init, jax.random.key(0), images)

    def program():
        return jax.jit(lambda *args: gradient_steps(*args)).lower(params, images).as_text()

    assert "stablehlo.convolution" not in program()
    monkeypatch.setattr(layout, "is_cpu", lambda: False)
    assert "stablehlo.convolution" in program()
