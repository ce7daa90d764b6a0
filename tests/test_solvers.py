"""Conjugate gradient, Gauss-Newton products and line search, against dense linear algebra."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.distributions import Categorical, DiagonalGaussian, MultiCategorical, Product
from jaxrl.losses import mean
from jaxrl.networks.policies import PolicyHead
from jaxrl.solvers import backtracking_line_search, conjugate_gradient, gauss_newton_product
from jaxrl.types import Box, Discrete, Mixed, MultiDiscrete

KEY = jax.random.key(0)


def positive_definite(size, condition=100.0, seed=0):
    """A symmetric matrix with eigenvalues from 1 / condition to 1, and a right-hand side."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    matrix = basis @ np.diag(np.geomspace(1 / condition, 1.0, size)) @ basis.T
    return matrix.astype(np.float32), rng.standard_normal(size).astype(np.float32)


def solve(matrix, b, num_iterations, **options):
    return conjugate_gradient(lambda v: jnp.asarray(matrix) @ v, b, num_iterations, **options)


# Conjugate gradient -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_conjugate_gradient_equals_a_dense_solve(size):
    matrix, b = positive_definite(size)
    found = solve(matrix, b, 3 * size)
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix.astype(np.float64), b), rtol=2e-3)
    np.testing.assert_allclose(found.residual, b - matrix @ np.asarray(found.x), atol=1e-4)
    assert found.relative_residual < 1e-4


def test_iterates_minimise_the_energy_over_krylov_spaces():
    """After k steps x minimises the energy x A x / 2 - b x over span(b, A b, ..., A^(k-1) b)."""
    matrix, b = positive_definite(8, condition=20.0)
    exact = matrix.astype(np.float64)
    for k in range(1, 6):
        krylov = np.stack([np.linalg.matrix_power(exact, i) @ b for i in range(k)], axis=1)
        krylov = np.linalg.qr(krylov)[0]
        best = krylov @ np.linalg.solve(krylov.T @ exact @ krylov, krylov.T @ b)
        found = solve(matrix, b, k)
        np.testing.assert_allclose(found.x, best, rtol=1e-3, atol=1e-4)
        assert found.num_steps == k


def test_a_pytree_is_solved_as_one_vector():
    matrix, b = positive_definite(6)
    split = {"w": b[:4].reshape(2, 2), "z": b[4:]}

    def matvec(tree):
        y = jnp.asarray(matrix) @ jnp.concatenate([tree["w"].reshape(-1), tree["z"]])
        return {"w": y[:4].reshape(2, 2), "z": y[4:]}

    found = conjugate_gradient(matvec, split, 20).x
    assert found["w"].shape == (2, 2)
    x = np.concatenate([found["w"].reshape(-1), found["z"]])
    np.testing.assert_allclose(x, solve(matrix, b, 20).x, rtol=1e-5)


def test_preconditioner_saves_steps_without_changing_the_solution():
    rng = np.random.default_rng(1)
    scales = np.geomspace(1e-3, 1e3, 20)
    inner, b = positive_definite(20, condition=3.0)
    matrix = (np.sqrt(scales)[:, None] * inner * np.sqrt(scales)[None]).astype(np.float32)
    b = (matrix @ rng.standard_normal(20)).astype(np.float32)
    diagonal = np.diag(matrix)
    plain = solve(matrix, b, 200, tolerance=1e-5)
    better = solve(matrix, b, 200, tolerance=1e-5, preconditioner=lambda v: v / diagonal)
    assert better.num_steps < 20 < plain.num_steps
    exact = np.linalg.solve(matrix.astype(np.float64), b)
    np.testing.assert_allclose(better.x, exact, rtol=1e-2, atol=1e-3 * np.abs(exact).max())


def test_conjugate_gradient_stops_at_the_tolerance():
    matrix, b = positive_definite(20, condition=10.0)
    found = solve(matrix, b, 40, tolerance=1e-2)
    assert 1 < found.num_steps < 15
    assert found.relative_residual <= 1e-2
    same = solve(matrix, b, int(found.num_steps))
    np.testing.assert_array_equal(found.x, same.x)
    assert solve(matrix, b, int(found.num_steps) - 1).relative_residual > 1e-2


def test_conjugate_gradient_stops_at_nonpositive_curvature():
    """diag(1, -1): from b = (2, 1) the first curvature is positive, the second is not."""
    matrix = np.diag([1.0, -1.0]).astype(np.float32)
    b = np.array([2.0, 1.0], np.float32)
    found = solve(matrix, b, 10)
    assert found.num_steps == 1
    np.testing.assert_allclose(found.x, b * (b @ b) / (b @ matrix @ b), rtol=1e-6)
    nowhere = solve(-np.eye(2, dtype=np.float32), b, 10)
    assert nowhere.num_steps == 0
    np.testing.assert_array_equal(nowhere.x, [0.0, 0.0])


def test_singular_systems_give_the_minimum_norm_solution():
    matrix = np.diag([1.0, 0.5, 0.0]).astype(np.float32)
    found = solve(matrix, np.array([1.0, 1.0, 0.0], np.float32), 10)
    np.testing.assert_allclose(found.x, [1.0, 2.0, 0.0], rtol=1e-5)
    hopeless = solve(matrix, np.array([1.0, 1.0, 1.0], np.float32), 10)
    assert np.isfinite(hopeless.x).all()
    zero = solve(np.zeros((3, 3), np.float32), np.ones(3, np.float32), 10)
    np.testing.assert_array_equal(zero.x, np.zeros(3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_input_gives_zero_and_leaves_other_lanes_alone(bad):
    matrix, b = positive_definite(5)
    alone = jax.jit(lambda b: solve(matrix, b, 10))(b)
    both = jax.jit(jax.vmap(lambda b: solve(matrix, b, 10)))(np.stack([np.full(5, bad), b]))
    np.testing.assert_array_equal(both.x[0], np.zeros(5))
    np.testing.assert_allclose(both.x[1], alone.x, rtol=1e-4)
    assert both.num_steps.tolist() == [0, 10]
    poisoned = conjugate_gradient(lambda v: v * bad, jnp.asarray(b), 10)
    np.testing.assert_array_equal(poisoned.x, np.zeros(5))


def test_zero_right_hand_side_gives_zero():
    found = solve(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), 5)
    np.testing.assert_array_equal(found.x, np.zeros(3))
    assert (found.num_steps, found.relative_residual) == (0, 0.0)


# Fisher products ----------------------------------------------------------------------------------

SPACES = {
    "discrete": Discrete(3),
    "wide": Discrete(9),
    "multi": MultiDiscrete((2, 3)),
    "box": Box.of(-1.0, 1.0, (2,)),
    "matrix": Box.of(-1.0, 1.0, (2, 1)),
    "mixed": Mixed((Discrete(2), Box.of(-1.0, 1.0, (1,)), MultiDiscrete((2, 2)))),
}


def every_action(policy):
    """A quadrature rule (weights, actions) for one row, exact for products of two scores.

    For discrete distributions, all actions with their probabilities; for Gaussians, the nodes of a
    five-point Gauss-Hermite rule, exact for polynomials up to degree nine.
    """
    match policy:
        case Categorical():
            num = policy.logits.shape[-1]
            actions = jnp.arange(num)
            return jax.nn.softmax(policy._masked_logits()), actions
        case DiagonalGaussian():
            nodes, weights = np.polynomial.hermite_e.hermegauss(5)
            size = policy.mean.size
            z = np.array(list(itertools.product(nodes, repeat=size))).reshape(
                -1, *policy.mean.shape
            )
            w = np.array([np.prod(c) for c in itertools.product(weights, repeat=size)])
            std = jnp.exp(jnp.broadcast_to(policy.log_std, policy.mean.shape))
            return jnp.asarray(w / w.sum()), policy.mean[None] + std[None] * z
        case MultiCategorical():
            weights, actions = every_action(Product(policy.components))
            return weights, jnp.stack(actions, axis=-1)
        case Product():
            parts = [every_action(c) for c in policy.components]
            grid = list(itertools.product(*(range(len(w)) for w, _ in parts)))
            index = np.array(grid).T
            weight = functools.reduce(
                jnp.multiply, [w[i] for (w, _), i in zip(parts, index, strict=True)]
            )
            return weight, tuple(a[i] for (_, a), i in zip(parts, index, strict=True))
    raise TypeError(policy)


class Policy(nn.Module):
    space: object

    @nn.compact
    def __call__(self, x, mask=None):
        x = nn.tanh(nn.Dense(4)(x))
        return PolicyHead(self.space)(x, mask)


def a_policy(space, rows=3, masked=False):
    """A policy as a function of its parameters, and perturbed initial parameters."""
    module, obs = Policy(space), jax.random.normal(KEY, (rows, 2))
    mask = None
    if masked:
        num = space.num if isinstance(space, Discrete) else sum(space.nums)
        mask = jnp.asarray(np.random.default_rng(0).random((rows, num)) < 0.6).at[:, 0].set(True)
        mask = mask.at[:, -1].set(True)
    params = module.init(KEY, obs, mask)
    params = jax.tree.map(
        lambda x: x + 0.5 * jax.random.normal(jax.random.key(x.size), x.shape), params
    )
    return (lambda p: module.apply(p, obs, mask)), params


def explicit_fisher(policy_of, params):
    """The mean over rows of E[score score^T], summed over actions."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    policies = policy_of(params)
    rows = jax.tree.leaves(policies)[0].shape[0]
    total = 0.0
    for row in range(rows):
        one = jax.tree.map(lambda x, row=row: x[row], policies)
        weights, actions = every_action(one)

        def scores(v, actions=actions, row=row):
            policy = jax.tree.map(lambda x: x[row], policy_of(unravel(v)))
            return jax.vmap(policy.log_prob)(actions)

        jacobian = np.asarray(jax.jacrev(scores)(flat), np.float64)
        total = total + jacobian.T @ (np.asarray(weights, np.float64)[:, None] * jacobian)
    return total / rows


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("space", "masked"),
    [(name, False) for name in SPACES] + [("discrete", True), ("wide", True), ("multi", True)],
)
def test_fisher_product_matches_the_explicit_matrix(space, masked):
    policy_of, params = a_policy(SPACES[space], masked=masked)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    product = gauss_newton_product(
        lambda p: policy_of(p).parameters, params, policy_of(params).fisher
    )
    matrix = explicit_fisher(policy_of, params)
    for seed in range(3):
        v = jax.random.normal(jax.random.key(seed), flat.shape)
        found = jax.flatten_util.ravel_pytree(product(unravel(v)))[0]
        expected = matrix @ np.asarray(v, np.float64)
        assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.thorough
@pytest.mark.parametrize("space", ["discrete", "multi", "box", "mixed"])
def test_fisher_product_matches_the_hessian_of_the_kl(space):
    policy_of, params = a_policy(SPACES[space])
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    old = policy_of(params)
    product = gauss_newton_product(lambda p: policy_of(p).parameters, params, old.fisher)
    hessian = jax.hessian(lambda v: mean(old.kl(policy_of(unravel(v)))))(flat)
    v = jax.random.normal(KEY, flat.shape)
    found = jax.flatten_util.ravel_pytree(product(unravel(v)))[0]
    assert np.linalg.norm(found - hessian @ v) < 1e-4 * np.linalg.norm(hessian @ v)


def test_the_empirical_fisher_is_the_mean_of_outer_products():
    policy_of, params = a_policy(SPACES["discrete"], rows=6)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    actions = jnp.array([0, 1, 2, 0, 1, 0])

    def log_probs(p):
        return policy_of(p).log_prob(actions)

    scores = np.asarray(jax.jacrev(lambda v: log_probs(unravel(v)))(flat), np.float64)
    product = gauss_newton_product(log_probs, params, lambda tangent: tangent)
    v = jax.random.normal(KEY, flat.shape)
    found = jax.flatten_util.ravel_pytree(product(unravel(v)))[0]
    expected = scores.T @ scores @ np.asarray(v, np.float64) / 6
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


def test_batches_may_have_several_axes():
    policy_of, params = a_policy(SPACES["mixed"], rows=6)

    def stacked(p):
        return jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), policy_of(p))

    v = jax.tree.map(jnp.ones_like, params)
    flat = gauss_newton_product(
        lambda p: policy_of(p).parameters, params, policy_of(params).fisher
    )(v)
    deep = gauss_newton_product(
        lambda p: stacked(p).parameters, params, stacked(params).fisher, batch_ndim=2
    )(v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), flat, deep)


# Natural steps are independent of the parameterisation --------------------------------------------


def natural_step(logits_of, params, weights, natural=True):
    """The first-order change of the logits along F^-1 g (or g).

    The policy has three actions; the objective is the expectation of `weights`.
    """

    def policy_of(p):
        return Categorical(logits_of(p)[None])

    def objective(p):
        return jnp.sum(jax.nn.softmax(logits_of(p)) * weights)

    gradient = jax.grad(objective)(params)
    if natural:
        product = gauss_newton_product(
            lambda p: policy_of(p).parameters, params, policy_of(params).fisher
        )
        gradient = conjugate_gradient(product, gradient, 30, tolerance=1e-6).x
    return jax.jvp(logits_of, (params,), (gradient,))[1]


WEIGHTS = jnp.array([1.0, -0.5, 0.3])
THETA = jnp.array([0.7, 1.3])


def two_parameters(theta):
    return jnp.array([theta[0], theta[1], 0.0])


@pytest.mark.parametrize(
    ("coordinates", "phi"),
    [
        (lambda phi: jnp.array([[2.0, 1.0], [0.5, -3.0]]) @ phi, None),
        (lambda phi: jnp.array([jnp.sqrt(phi[0]), 1.0 / phi[1]]), [0.7**2, 1 / 1.3]),
    ],
    ids=["linear", "phi1 = theta1^2, phi2 = 1 / theta2"],
)
def test_natural_step_is_invariant_to_reparameterisation(coordinates, phi):
    if phi is None:
        phi = jnp.linalg.solve(jnp.array([[2.0, 1.0], [0.5, -3.0]]), THETA)
    phi = jnp.asarray(phi)
    np.testing.assert_allclose(coordinates(phi), THETA, rtol=1e-5)

    def other(phi):
        return two_parameters(coordinates(phi))

    here = natural_step(two_parameters, THETA, WEIGHTS)
    there = natural_step(other, phi, WEIGHTS)
    np.testing.assert_allclose(there, here, rtol=1e-3)
    vanilla = natural_step(two_parameters, THETA, WEIGHTS, natural=False)
    vanilla_there = natural_step(other, phi, WEIGHTS, natural=False)
    assert np.abs(vanilla_there - vanilla).max() > 0.1 * np.abs(vanilla).max()


# The line search ----------------------------------------------------------------------------------


def judge_by(limit):
    return lambda x: (jnp.abs(x) <= limit, {"where": x})


def test_line_search_takes_the_first_acceptable_point():
    found = backtracking_line_search(
        judge_by(1.0), jnp.float32(0.0), jnp.float32(3.0), shrink=0.5, max_tries=10
    )
    assert found.accepted
    assert (found.x, found.num_tries, found.scale) == (0.75, 3, 0.25)
    assert found.report["where"] == 0.75


def test_failed_line_search_keeps_every_bit():
    x = {"a": jnp.array([0.1, -0.0, 3e-40])}
    step = jax.tree.map(jnp.ones_like, x)
    found = backtracking_line_search(lambda _: (jnp.bool_(False), jnp.float32(7)), x, step)
    np.testing.assert_array_equal(
        np.asarray(found.x["a"]).view(np.int32), np.asarray(x["a"]).view(np.int32)
    )
    assert not found.accepted
    assert (found.num_tries, found.scale, found.report) == (10, 0.0, 0.0)


def test_vmap_lanes_search_independently():
    def search(limit):
        judge = judge_by(limit)
        return backtracking_line_search(judge, jnp.float32(0), jnp.float32(3), shrink=0.5)

    found = jax.jit(jax.vmap(search))(jnp.array([5.0, 1.0, -1.0, np.nan]))
    np.testing.assert_array_equal(found.x, [3.0, 0.75, 0.0, 0.0])
    np.testing.assert_array_equal(found.accepted, [True, True, False, False])
    np.testing.assert_array_equal(found.num_tries, [1, 3, 10, 10])


def test_loops_need_at_least_one_iteration():
    with pytest.raises(ValueError, match="num_iterations is 0"):
        conjugate_gradient(lambda v: v, jnp.ones(2), 0)
    with pytest.raises(ValueError, match="max_tries is 0"):
        backtracking_line_search(judge_by(1.0), jnp.float32(0), jnp.float32(1), max_tries=0)


def test_overflow_and_nan_leave_the_solution_finite():
    tiny = conjugate_gradient(lambda v: 2e-38 * v, jnp.array([100.0, 1.0]), 3)
    assert np.isfinite(tiny.x).all()
    broken = conjugate_gradient(lambda v: v, jnp.array([jnp.nan, 1.0]), 3)
    np.testing.assert_array_equal(broken.x, [0.0, 0.0])
    assert broken.relative_residual == 1.0  # not 0, which would mean solved


def test_rounding_is_not_taken_for_curvature():
    """Products along the last axis are pure rounding noise, so no step is taken along it."""
    noise = jnp.array([0.0, 0.0, 1e-8])
    b = jnp.array([1.0, 2.0, 0.5])
    found = conjugate_gradient(lambda v: jnp.array([2.0, 5.0, 0.0]) * v + noise * v, b, 10)
    assert np.abs(found.x).max() < 10.0
