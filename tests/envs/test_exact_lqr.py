"""The linear-quadratic regulator, against SciPy, finite differences and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers.simulation import agrees, play, slope

from jaxrl_envs import check
from jaxrl_envs.exact import lqr

DISCOUNT = 0.9
CART = lqr.make()
K = np.array([[1.0, 1.5]])
LOG_STD = np.array([-0.5])


def random_regulator(seed, num_states=3, num_actions=2):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(num_states, num_states)), rng.normal(size=(num_states, num_actions))
    Q, R = (x @ x.T + np.eye(len(x)) for x in (A, B.T))
    A /= 0.9 * np.abs(np.linalg.eigvals(A)).max()  # unstable without control
    env = lqr.make(A, B, Q, R, noise_std=0.3, start_std=0.7)
    K = lqr.optimum(env, DISCOUNT)[0] + 0.02 * rng.normal(size=(num_actions, num_states))
    return env, K, rng.normal(size=num_actions)


def test_satisfies_the_contract():
    check(lqr.make(max_steps=20), num_steps=50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": [[1.0]]}, r"A is \[1, 1\]"),
        ({"R": [[1.0, 0.0], [0.0, 1.0]]}, r"R is \[2, 2\]"),
        ({"Q": [[1.0, 1.0], [0.0, 1.0]]}, "Q is not symmetric"),
        ({"R": [[0.0]]}, "positive definite"),
        ({"max_steps": 0}, "max_steps is 0"),
    ],
)
def test_invalid_regulators_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        lqr.make(**change)


def test_infinite_cost_is_rejected():
    with pytest.raises(ValueError, match="cost is infinite"):
        lqr.policy_value(CART, -K, LOG_STD, DISCOUNT)
    hopeless = lqr.make([[2.0, 0.0], [0.0, 1.0]], [[0.0], [1.0]])
    with pytest.raises(ValueError, match="no gain"):
        lqr.optimum(hopeless, DISCOUNT)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("discount", [0.9, 0.99, 1.0])
def test_optimum_matches_scipy(seed, discount):
    env, *_ = random_regulator(seed)
    A, B, Q, R = (np.asarray(x, np.float64) for x in (env.A, env.B, env.Q, env.R))
    gain, cost = lqr.optimum(env, discount)
    root = np.sqrt(discount)
    expected = scipy.linalg.solve_discrete_are(root * A, root * B, Q, R)
    np.testing.assert_allclose(cost, expected, rtol=1e-8)
    curvature = R + discount * B.T @ expected @ B
    np.testing.assert_allclose(
        gain, discount * np.linalg.solve(curvature, B.T @ expected @ A), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("seed", range(3))
def test_value_matches_scipy_and_the_bellman_equation(seed):
    env, gain, log_std = random_regulator(seed)
    A, B, Q, R = (np.asarray(x, np.float64) for x in (env.A, env.B, env.Q, env.R))
    value = lqr.policy_value(env, gain, log_std, DISCOUNT)
    closed = np.sqrt(DISCOUNT) * (A - B @ gain)
    expected = scipy.linalg.solve_discrete_lyapunov(closed.T, Q + gain.T @ R @ gain)
    np.testing.assert_allclose(value.P, expected, rtol=1e-9)
    # A quadratic has the same mean over normal actions as over the corners at one standard
    # deviation.
    x = np.random.default_rng(seed).normal(size=(5, 3))
    corners = np.array([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    actions = -x @ gain.T + (np.exp(log_std) * corners)[:, None]  # [4, 5, 2]
    states = np.broadcast_to(x, (4, 5, 3))
    bellman_target = lqr.action_value(env, value, states, actions, DISCOUNT).mean(0)
    np.testing.assert_allclose(bellman_target, value(x), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_optimal_gain_has_zero_gradient_and_the_best_objective(seed):
    env, gain, log_std = random_regulator(seed)
    best, cost = lqr.optimum(env, DISCOUNT)
    np.testing.assert_allclose(lqr.policy_value(env, best, log_std, DISCOUNT).P, cost, rtol=1e-9)
    of_gain, of_log_std = lqr.policy_gradient(env, best, log_std, DISCOUNT)
    np.testing.assert_allclose(of_gain, 0.0, atol=1e-8)
    assert (of_log_std < 0).all()  # exploration only costs
    assert lqr.objective(env, best, log_std, DISCOUNT) > lqr.objective(env, gain, log_std, DISCOUNT)


@pytest.mark.parametrize("seed", range(3))
def test_policy_gradient_matches_finite_differences(seed):
    env, gain, log_std = random_regulator(seed)
    of_gain, of_log_std = lqr.policy_gradient(env, gain, log_std, DISCOUNT)
    expected = slope(lambda x: lqr.objective(env, x, log_std, DISCOUNT), gain)
    np.testing.assert_allclose(of_gain, expected, rtol=1e-6, atol=1e-5)
    expected = slope(lambda x: lqr.objective(env, gain, x, DISCOUNT), log_std)
    np.testing.assert_allclose(of_log_std, expected, rtol=1e-7)


def act(key, obs):
    noise = jnp.exp(jnp.asarray(LOG_STD, jnp.float32)) * jax.random.normal(key, (1,))
    return -jnp.asarray(K, jnp.float32) @ obs + noise


def test_objective_is_the_mean_simulated_return():
    seen = play(CART, act, num_envs=10_000, num_steps=120)
    returns = (DISCOUNT ** np.arange(120)) @ seen.reward
    assert agrees(returns, lqr.objective(CART, K, LOG_STD, DISCOUNT))
    assert not agrees(returns, lqr.objective(CART, K, LOG_STD, 0.89))
    still = CART.replace(noise_std=0.0)
    assert not agrees(returns, lqr.objective(still, K, LOG_STD, DISCOUNT))
    powers = DISCOUNT ** np.arange(120)
    moments = np.einsum("t,tni,tnj->nij", powers, seen.obs, seen.obs)
    assert agrees(moments, lqr.discounted_moment(CART, K, LOG_STD, DISCOUNT))


def test_actor_critic_gradient_is_weighted_by_rollout_states():
    env = lqr.make(max_steps=8)
    num_steps = 20  # two and a half time limits
    seen = play(env, act, num_envs=20_000, num_steps=num_steps)
    assert (seen.truncated.sum(0) == 2).all()
    moments = np.einsum("tni,tnj->nij", seen.obs, seen.obs) / num_steps
    assert agrees(moments, lqr.rollout_moment(env, K, LOG_STD, num_steps))
    assert not agrees(moments, lqr.rollout_moment(CART, K, LOG_STD, num_steps))

    value = lqr.policy_value(env, K, LOG_STD, DISCOUNT)
    obs = seen.obs.astype(np.float64)
    advantages = lqr.action_value(env, value, obs, seen.action, DISCOUNT) - value(obs)
    z = (seen.action + obs @ K.T) / np.exp(LOG_STD)
    of_mean = (advantages[..., None] * z / np.exp(LOG_STD))[..., None]
    of_gain = (of_mean * -obs[..., None, :]).mean(0)
    of_log_std = (advantages[..., None] * (z**2 - 1.0)).mean(0)
    truth = lqr.policy_gradient(env, K, LOG_STD, DISCOUNT, num_steps)
    assert agrees(of_gain, truth[0])
    assert agrees(of_log_std, truth[1])
    discounted = (1 - DISCOUNT) * lqr.policy_gradient(env, K, LOG_STD, DISCOUNT)[0]
    assert not agrees(of_gain, discounted)
