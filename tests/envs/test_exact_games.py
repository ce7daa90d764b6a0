"""The bandits and rock-paper-scissors, against enumeration, finite differences and simulation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.simulation import agrees, play, slope, tabular

from jaxrl_envs import check
from jaxrl_envs.exact import bandit, continuous_bandit, rock_paper_scissors
from jaxrl_envs.exact.values import softmax

UNIFORM = np.full(3, 1 / 3)
LOGITS = np.array([0.3, -0.5, 0.4])


@pytest.mark.parametrize(
    "env", [bandit.make(), continuous_bandit.make(), rock_paper_scissors.make()]
)
def test_satisfies_the_contract(env):
    check(env, num_steps=50)


def test_invalid_arguments_are_rejected():
    with pytest.raises(ValueError, match=r"means is \[\]"):
        bandit.make(1.0)
    with pytest.raises(ValueError, match="dimension is 0"):
        continuous_bandit.make(0)
    with pytest.raises(ValueError, match=r"eigenvalues is \[1.0, 0.0\]"):
        continuous_bandit.make(eigenvalues=(1.0, 0.0))
    with pytest.raises(ValueError, match="num_rounds is 0"):
        rock_paper_scissors.make(0)


# Bandit -------------------------------------------------------------------------------------------

ARMS = bandit.make(means=(0.0, 1.0, -0.5), std=0.5)
MEANS = np.array([0.0, 1.0, -0.5])


def test_bandit_gradient_matches_finite_differences():
    gradient = bandit.policy_gradient(ARMS, softmax(LOGITS))
    np.testing.assert_allclose(gradient, slope(lambda x: softmax(x) @ MEANS, LOGITS), atol=1e-9)


@pytest.mark.parametrize("baseline", [0.0, 0.7, np.array([0.1, -0.3, 2.0])])
def test_reinforce_mean_and_variance_match_simulation(baseline):
    policy = softmax(LOGITS)
    seen = play(ARMS, tabular(policy[None]), num_envs=40_000, num_steps=1)
    assert seen.terminated.all()
    score = np.eye(3)[seen.action[0]] - policy
    estimates = (seen.reward[0][:, None] - baseline) * score
    gradient = bandit.policy_gradient(ARMS, policy)
    variance = bandit.reinforce_variance(ARMS, policy, baseline)
    assert agrees(estimates, gradient)
    assert not agrees(estimates, -gradient)
    assert agrees((estimates - gradient) ** 2, variance)
    assert not agrees((estimates - gradient) ** 2, bandit.reinforce_variance(ARMS, policy, 0.4))


def test_best_baselines_minimise_the_variance():
    policy = softmax(LOGITS)
    best = bandit.best_baselines(ARMS, policy)
    for k in range(3):
        of_component = slope(
            lambda b, k=k: bandit.reinforce_variance(ARMS, policy, b[0])[k], best[k : k + 1]
        )
        np.testing.assert_allclose(of_component, 0.0, atol=1e-9)
    one = bandit.best_baseline(ARMS, policy)
    of_all = slope(lambda b: bandit.reinforce_variance(ARMS, policy, b[0]).sum(), [one])
    np.testing.assert_allclose(of_all, 0.0, atol=1e-9)
    least = bandit.reinforce_variance(ARMS, policy, best)
    for other in (0.0, policy @ MEANS, one, best + 0.1):
        assert (bandit.reinforce_variance(ARMS, policy, other) > least).all()
    # The mean reward, the usual baseline, is good but not optimal.
    total = [bandit.reinforce_variance(ARMS, policy, b).sum() for b in (one, policy @ MEANS, -1.0)]
    assert total == sorted(total)


# Continuous bandit --------------------------------------------------------------------------------


def test_continuous_bandit_matches_the_paper():
    """-r(a) = (a - a*)^T C (a - a*), with eigenvalues in {0.1, 1} and a* = (4, ..., 4)."""
    env = continuous_bandit.make(5)
    C = np.asarray(env.C, np.float64)
    np.testing.assert_allclose(np.linalg.eigvalsh(C), [0.1, 0.1, 0.1, 1, 1], rtol=1e-5)
    assert np.abs(C - np.diag(np.diag(C))).max() > 0.1
    action = np.random.default_rng(0).standard_normal(5)
    away = action - 4.0
    reward = env.step(jax.random.key(0), jnp.ones(1), jnp.asarray(action, jnp.float32))[1].reward
    np.testing.assert_allclose(reward, -away @ C @ away, rtol=1e-5)
    np.testing.assert_allclose(continuous_bandit.objective(env, action), -away @ C @ away)


def test_continuous_bandit_gradient_matches_finite_differences_and_simulation():
    env, rng = continuous_bandit.make(3, std=0.2), np.random.default_rng(1)
    mean, log_std = rng.standard_normal(3), rng.standard_normal(3)
    of_mean, of_log_std = continuous_bandit.policy_gradient(env, mean, log_std)
    np.testing.assert_allclose(
        of_mean, slope(lambda x: continuous_bandit.objective(env, x, log_std), mean), rtol=1e-5
    )
    found = slope(lambda x: continuous_bandit.objective(env, mean, x), log_std)
    np.testing.assert_allclose(of_log_std, found, rtol=1e-5)

    def act(key, obs):
        return jnp.asarray(mean) + jnp.exp(jnp.asarray(log_std)) * jax.random.normal(key, (3,))

    seen = play(env, act, num_envs=20_000, num_steps=1)
    assert seen.terminated.all()
    assert agrees(seen.reward[0], continuous_bandit.objective(env, mean, log_std))
    assert not agrees(seen.reward[0], continuous_bandit.objective(env, mean))


# Rock, paper, scissors ----------------------------------------------------------------------------


def expected_reward(history, action):
    """Against the best response to the most frequent move; ties are broken uniformly."""
    counts = np.bincount(history, minlength=3)
    answers = [(habit + 1) % 3 for habit in range(3) if counts[habit] == counts.max()]
    beats = {(1, 0), (2, 1), (0, 2)}
    won = sum(((action, a) in beats) - ((a, action) in beats) for a in answers)
    return won / len(answers)


def worth(moves):
    return sum(expected_reward(list(moves[:t]), move) for t, move in enumerate(moves))


@pytest.mark.parametrize("num_rounds", [1, 2, 5])
def test_expected_return_matches_enumeration(num_rounds):
    policy = softmax(LOGITS)
    env = rock_paper_scissors.make(num_rounds, stake=2.0)
    games = itertools.product(range(3), repeat=num_rounds)
    mean = sum(np.prod(policy[list(moves)]) * 2.0 * worth(moves) for moves in games)
    assert rock_paper_scissors.expected_return(env, policy) == pytest.approx(mean, abs=1e-12)


def test_game_gradient_matches_finite_differences():
    env = rock_paper_scissors.make(6)

    def objective(logits):
        return rock_paper_scissors.expected_return(env, softmax(logits))

    gradient = rock_paper_scissors.policy_gradient(env, softmax(LOGITS))
    np.testing.assert_allclose(gradient, slope(objective, LOGITS), atol=1e-8)
    at_rest = rock_paper_scissors.policy_gradient(env, UNIFORM)
    np.testing.assert_allclose(at_rest, 0.0, atol=1e-12)


@pytest.mark.parametrize("num_rounds", [2, 3, 6])
def test_only_the_uniform_memoryless_policy_breaks_even(num_rounds):
    env = rock_paper_scissors.make(num_rounds)
    assert rock_paper_scissors.expected_return(env, UNIFORM) == pytest.approx(0.0, abs=1e-12)
    for i, j in itertools.product(range(11), repeat=2):
        if i + j <= 10:
            policy = np.array([i, j, 10 - i - j]) / 10  # never the uniform one
            assert rock_paper_scissors.expected_return(env, policy) < -1e-3
    for pure in np.eye(3):
        assert rock_paper_scissors.expected_return(env, pure) == 1 - num_rounds


def test_the_first_round_is_worth_nothing_and_memory_wins():
    env = rock_paper_scissors.make(1)
    assert rock_paper_scissors.expected_return(env, softmax(LOGITS)) == pytest.approx(0.0)
    # A fixed sequence, which depends only on the round, exploits the opponent.
    assert max(map(worth, itertools.product(range(3), repeat=5))) > 1.0


def test_expected_return_is_the_simulated_mean():
    env, policy = rock_paper_scissors.make(6), np.array([0.6, 0.3, 0.1])
    seen = play(env, tabular(policy[None]), num_envs=20_000, num_steps=6)
    assert seen.terminated[-1].all()
    assert not seen.terminated[:-1].any()
    returns = seen.reward.sum(0)
    assert agrees(returns, rock_paper_scissors.expected_return(env, policy))
    assert not agrees(returns, rock_paper_scissors.expected_return(env, policy[::-1]))
