"""Defects of `xla`."""

from mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "columns-in-the-wrong-order",
        "The outputs of a narrow layer are reversed.",
        "jaxrl/xla/columns.py",
        "dimensions, **options) for column in kernel.T]",
        "dimensions, **options) for column in kernel.T[::-1]]",
        ("tests/networks/test_networks.py::test_dense_layers_match_the_formula_at_any_width[2]",),
    ),
    Mutant(
        "tiles-out-of-order",
        "A strided convolution multiplies the pixels of a tile by the wrong weights.",
        "jaxrl/xla/convolution.py",
        "kernel = _tiles(kernel, 0, strides)",
        "kernel = _tiles(kernel[::-1, ::-1], 0, strides)[::-1, ::-1]",
        ("tests/xla/test_convolution.py::test_values_and_gradients_match_lax",),
    ),
    Mutant(
        "dilation-in-padding-only",
        "A dilated kernel is padded correctly but applied without dilation.",
        "jaxrl/xla/convolution.py",
        "[(i * d, s, n) for i, d, s, n in axes]",
        "[(i, s, n) for i, d, s, n in axes]",
        ("tests/xla/test_convolution.py::test_values_and_gradients_match_lax",),
    ),
    Mutant(
        "updates-at-the-wrong-parameters",
        "Parameters come back from their vector in another order.",
        "jaxrl/xla/flatten.py",
        "return self.restore(self.vector)",
        "return self.restore(self.vector[::-1])",
        ("tests/xla/test_flatten.py::test_flattening_does_not_change_learning[ppo]",),
    ),
    Mutant(
        "accelerators-laid-out-as-cpus",
        "The program layout ignores the device.",
        "jaxrl/xla/layout.py",
        'return jax.default_backend() == "cpu"',
        'return jax.default_backend() != "cpu"',
        ("tests/xla/test_layout.py::test_is_cpu_follows_the_jax_device",),
    ),
    Mutant(
        "dtypes-left-to-the-setting",
        "Programs are traced with `jax_enable_x64` switched on.",
        "jaxrl/xla/precision.py",
        "with jax.enable_x64(False),",
        "with jax.enable_x64(True),",
        ("tests/xla/test_precision.py::test_environments_need_not_specify_dtypes",),
        error="jaxrl_envs.conformance.ConformanceError",
    ),
    Mutant(
        "tangent-of-the-kernel-alone",
        "The product forgets that its input varies, too: only the last layer learns.",
        "jaxrl/xla/weight_gradient.py",
        "terms.append(by(dx, kernel, dimensions, **dict(options)))",
        "terms.append(0 * by(dx, kernel, dimensions, **dict(options)))",
        (
            "tests/xla/test_weight_gradient.py::test_every_differentiation_mode_matches_the_plain_product[jvp]",
        ),
    ),
    Mutant(
        "longer-side-first",
        "The blocks are multiplied in the slow order: the same numbers, several times later.",
        "jaxrl/xla/weight_gradient.py",
        "is_narrow = kernel.shape[1] < kernel.shape[0]",
        "is_narrow = kernel.shape[1] > kernel.shape[0]",
        (
            "tests/xla/test_weight_gradient.py::test_the_shorter_side_of_the_kernel_comes_first[narrow]",
        ),
    ),
    Mutant(
        "blocks-in-half-precision",
        "The sum over the blocks is rounded to half precision after each of them.",
        "jaxrl/xla/weight_gradient.py",
        "jnp.result_type(x, kernel).itemsize < 4",
        "jnp.result_type(x, kernel).itemsize < 2",
        ("tests/xla/test_weight_gradient.py::test_half_precision_uses_the_lax_program[bfloat16]",),
    ),
)
