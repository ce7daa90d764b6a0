"""Compensated float32 sums of millions of terms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.engine.sums import CompensatedSum


@pytest.mark.optimized
def test_sums_of_millions_of_terms_are_accurate():
    """With full XLA optimisation, as in a user's program; a plain sum stops at 2**24."""
    num = 2**24 + 2**20
    terms = jnp.array([0.1, 1.0, -1e-3], jnp.float32)

    @jax.jit
    def run(terms):
        start = (CompensatedSum.zeros_like(terms), jnp.zeros_like(terms))
        total, plain = jax.lax.fori_loop(
            0, num, lambda i, sums: (sums[0] + terms, sums[1] + terms), start
        )
        return total.value, plain

    value, plain = run(terms)
    expected = np.asarray(terms, np.float64) * num
    np.testing.assert_allclose(value, expected, rtol=1e-7)
    assert plain[1] == 2**24


def test_small_terms_between_large_ones_are_not_lost():
    total = CompensatedSum.zeros_like(jnp.zeros(1))
    for x in (1.0, 1e8, 1.0, -1e8):
        total = total + jnp.array([x])
    assert total.value == 2.0


@pytest.mark.parametrize(
    "terms", [[1.0, np.inf, 2.0], [1.0, np.nan], [3e38, 3e38], [np.inf, -np.inf]]
)
def test_non_finite_sums_match_plain_sums(terms):
    total = CompensatedSum.zeros_like(jnp.zeros(()))
    for x in terms:
        total = total + jnp.float32(x)
    np.testing.assert_array_equal(total.value, jnp.cumsum(jnp.array(terms))[-1])
