"""Compensated float32 sums of millions of terms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.engine.sums import CompensatedSum


@pytest.mark.optimized
def test_millions_of_terms_keep_their_digits():
    """As a user's program is compiled; a plain sum beside it shows what is lost."""
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
def test_what_is_not_finite_is_as_in_a_plain_sum(terms):
    total = CompensatedSum.zeros_like(jnp.zeros(()))
    for x in terms:
        total = total + jnp.float32(x)
    np.testing.assert_array_equal(total.value, jnp.cumsum(jnp.array(terms))[-1])
