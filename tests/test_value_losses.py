"""Losses for action values, against rlax's published numbers and reference loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.losses import categorical_projection, cross_entropy, huber, quantile_huber


def test_huber_matches_optax():
    error = jnp.array([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 132.7 - 1.0])
    np.testing.assert_allclose(huber(error), [1.5, 0.5, 0, 0.125, 0.5, 1.5, 131.2], rtol=1e-6)
    np.testing.assert_allclose(huber(jnp.array([3.0]), 2.0), [4.0])


def test_projection_matches_rlax():
    """rlax's weights are not a distribution, and its two rows have different supports."""
    old = np.arange(-1, 1.0, 0.25)
    rows = np.stack([old, old + 1.0])
    weights = rows.copy()
    weights[0, ::2] = 0.0
    weights[1, 1::2] = 0.0
    new = np.arange(-1, 1.0, 0.5)
    found = [categorical_projection(jnp.asarray(rows[i]), jnp.asarray(weights[i]),
                                    jnp.asarray(new + i)) for i in range(2)]  # fmt: skip
    np.testing.assert_allclose(found, [[-0.375, -0.5, 0.0, 0.875], [0.0, 0.5, 1.0, 1.5]], atol=1e-6)


def test_categorical_losses_match_rlax():
    atoms = jnp.array([0.5, 1.0, 1.5])
    logits = jnp.array([[0, 9, 0], [9, 0, 9], [0, 9, 0], [9, 9, 0], [9, 0, 9]], jnp.float32)
    reward = jnp.array([0.5, 0.0, 0.5, 0.8, -0.1])
    discount = jnp.array([0.8, 1.0, 0.8, 0.0, 1.0])
    following = jnp.array([[0, 0, 9], [1, 1, 1], [0, 0, 9], [1, 1, 1], [0, 9, 9]], jnp.float32)
    moved = reward[:, None] + discount[:, None] * atoms[None]
    target = categorical_projection(moved, jax.nn.softmax(following), atoms)
    expected = [8.998915, 3.6932087, 8.998915, 0.69320893, 5.1929307]
    np.testing.assert_allclose(cross_entropy(logits, target), expected, rtol=1e-4)


def test_projection_conserves_mass_and_the_mean_within_the_support():
    rng = np.random.default_rng(0)
    support = jnp.linspace(-3.0, 5.0, 11)
    probabilities = rng.dirichlet(np.ones(7), size=(4, 50))
    inside = rng.uniform(-3, 5, (4, 50, 7))
    found = categorical_projection(jnp.asarray(inside), jnp.asarray(probabilities), support)
    assert found.shape == (4, 50, 11)
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-5)
    means = (inside * probabilities).sum(-1)
    np.testing.assert_allclose((found * support[None, None]).sum(-1), means, atol=1e-4)
    assert (found >= 0).all()
    wide = categorical_projection(jnp.asarray(20 * inside), jnp.asarray(probabilities), support)
    np.testing.assert_allclose(wide.sum(-1), 1.0, rtol=1e-5)  # mass outside moves to the ends
    below = (probabilities * (20 * inside < -3)).sum(-1)
    assert (wide[..., 0] >= below - 1e-6).all()


@pytest.mark.parametrize(("kappa", "expected"), [(0.0, [2.0, 2.2]), (2.0, [2.5, 8.5 / 3])])
def test_quantile_losses_match_rlax(kappa, expected):
    """rlax's Huber loss is not divided by kappa; ours, as in the paper, is."""
    quantiles = jnp.array([[-1.0, 3.0], [-1.0, 3.0]])
    levels = jnp.array([[0.2, 0.7], [0.0, 0.4]])
    targets = jnp.array([[-3.0, 4.0, 2.0], [-3.0, 4.0, 2.0]])
    found = quantile_huber(quantiles, levels, targets, kappa) * (kappa or 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_quantile_loss_is_minimal_at_the_quantiles():
    """Gradient descent on samples of a known distribution finds its quantiles."""
    samples = jnp.asarray(np.random.default_rng(0).exponential(size=4000), jnp.float32)
    levels = (jnp.arange(5) + 0.5) / 5
    loss = jax.grad(lambda q: quantile_huber(q, levels, samples, 0.0))

    @jax.jit
    def descend(q):
        return jax.lax.fori_loop(0, 3000, lambda i, q: q - 0.01 * loss(q), q)

    np.testing.assert_allclose(descend(jnp.zeros(5)), -np.log(1 - levels), atol=0.07)


def test_no_gradient_flows_through_targets():
    ones = jnp.ones((1, 2))
    through = [
        jax.grad(lambda t: jnp.sum(quantile_huber(ones, ones[0] / 2, t)))(ones * 3.0),
        jax.grad(lambda t: jnp.sum(cross_entropy(ones, t)))(ones / 2),
    ]
    assert all((x == 0).all() for x in through)
