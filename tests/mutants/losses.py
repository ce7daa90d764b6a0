"""Defects of losses."""

from mutants.mutant import Mutant
from mutants.tests import SURROGATE

MUTANTS = (
    Mutant(
        "kl-multiplied",
        "The approximate KL is (r - 1) log r instead of (r - 1) - log r (EvoRL).",
        "jaxrl/losses.py",
        "mean(jnp.expm1(log_ratio) - log_ratio)",
        "mean(jnp.expm1(log_ratio) * log_ratio)",
        ("tests/test_losses.py::TestStatistics::test_approximate_kl_is_r_minus_one_minus_log_r",),
    ),
    Mutant(
        "ratio-without-its-lower-bound",
        "The probability ratio is clipped only from above.",
        "jaxrl/losses.py",
        "jnp.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon)",
        "jnp.minimum(ratio, 1.0 + clip_epsilon)",
        (f"{SURROGATE}[0.5--2.0--1.6-0.0]",),
    ),
    Mutant(
        "surrogate-takes-the-larger",
        "The surrogate takes the maximum of the two terms instead of the minimum, which disables "
        "clipping.",
        "jaxrl/losses.py",
        "jnp.minimum(ratio * advantages, clipped * advantages)",
        "jnp.maximum(ratio * advantages, clipped * advantages)",
        (f"{SURROGATE}[1.5-2.0-2.4-0.0]",),
    ),
    Mutant(
        "value-clipping-takes-the-smaller",
        "The clipped value loss takes the smaller error, which lets values drift without bound.",
        "jaxrl/losses.py",
        "jnp.maximum(jnp.square(values - targets), jnp.square(clipped - targets))",
        "jnp.minimum(jnp.square(values - targets), jnp.square(clipped - targets))",
        ("tests/test_losses.py::TestValueLosses::test_clipping_never_lowers_the_loss",),
    ),
    Mutant(
        "targets-are-learned",
        "Gradients flow into the value targets, because stop_gradient is missing.",
        "jaxrl/losses.py",
        "jnp.square(values - jax.lax.stop_gradient(targets))",
        "jnp.square(values - targets)",
        ("tests/test_losses.py::TestValueLosses::test_gradients_reach_the_values_only[None]",),
    ),
    Mutant(
        "a-column-against-a-row",
        "[N, 1] against [N] silently broadcasts to [N, N].",
        "jaxrl/losses.py",
        "if jnp.shape(y) != jnp.shape(x):",
        "if jnp.size(y) != jnp.size(x):",
        ("tests/test_losses.py::TestShapes::test_columns_do_not_broadcast_against_rows",),
    ),
    Mutant(
        "masked-mean-over-everything",
        "Masked entries count as zeros in the mean.",
        "jaxrl/losses.py",
        "total / jnp.maximum(count, 1)",
        "total / jnp.maximum(where.size if axis is None else where.shape[axis], 1)",
        ("tests/test_losses.py::TestMean::test_where_excludes_entries",),
    ),
    Mutant(
        "mass-lost-beyond-the-support",
        "C51's projection drops probability mass outside the support.",
        "jaxrl/losses.py",
        "inside = jnp.clip(atoms, support[0], support[-1])[..., None, :]",
        "inside = atoms[..., None, :]",
        (
            "tests/test_value_losses.py"
            "::test_projection_conserves_mass_and_the_mean_within_the_support",
        ),
    ),
    Mutant(
        "quantiles-upside-down",
        "The levels of quantile regression are reversed.",
        "jaxrl/losses.py",
        "(jax.lax.stop_gradient(error) < 0)",
        "(jax.lax.stop_gradient(error) > 0)",
        ("tests/test_value_losses.py::test_quantile_losses_match_rlax",),
    ),
)
