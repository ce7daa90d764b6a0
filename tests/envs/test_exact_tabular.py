"""Finite MDPs, against enumeration, finite differences and simulation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.simulation import agrees, play, slope, tabular

from jaxrl.engine.vector_env import VectorEnv
from jaxrl_envs import check
from jaxrl_envs.exact import corridor, garnet
from jaxrl_envs.exact.gradients import (
    finite_horizon_gradient,
    fisher,
    natural_gradient,
    performance_difference,
    policy_gradient,
    surrogate,
    through,
    trust_region_bound,
)
from jaxrl_envs.exact.tabular import TabularMDP
from jaxrl_envs.exact.values import (
    action_value,
    advantage,
    chain,
    discounted_states,
    episode_states,
    finite_horizon_values,
    gae_advantage,
    lookahead,
    model,
    objective,
    optimal_action_value,
    policy_value,
    rollout_states,
    softmax,
    stationary,
)

DISCOUNT = 0.9
MORTAL = garnet.make(5, 3, 2, seed=1, reward_std=0.3, termination=[0.0, 0.3, 0.0, 0.1, 0.0])
ENDLESS = garnet.make(6, 2, 3, seed=2)


def random_logits(mdp, seed=0):
    return np.random.default_rng(seed).normal(size=mdp.reward.shape)


def random_policy(mdp, seed=0):
    return softmax(random_logits(mdp, seed))


# The environments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env", [garnet.make(reward_std=0.5), corridor.make(num_cells=4, terminal_goal=True)]
)
def test_satisfies_the_contract(env):
    check(env, num_steps=50)


def test_garnet_is_determined_by_its_arguments():
    env = garnet.make(7, 2, 3, seed=4)
    again, other = garnet.make(7, 2, 3, seed=4), garnet.make(7, 2, 3, seed=5)
    assert jax.tree.structure(env) == jax.tree.structure(again)
    jax.tree.map(np.testing.assert_array_equal, env, again)
    env, other = jax.device_get((env, other))
    assert (env.transition != other.transition).any()
    assert ((env.transition > 0).sum(-1) == 3).all()
    assert (env.start > 0).sum() == 3
    np.testing.assert_allclose(env.transition.sum(-1), 1.0, rtol=1e-6)


def test_garnets_can_be_batched():
    garnets = [garnet.make(seed=seed) for seed in range(3)]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *garnets)
    vector = VectorEnv(batch, 3, batched=True)
    vector.check()

    @jax.jit
    def one_step(vector, key):
        state = vector.reset(key)
        start = state.state, state.obs
        step = vector.step(jax.random.split(key, 3), state, jnp.zeros(3, jnp.int32), start)[1]
        return state.obs, step.reward

    obs, rewards = one_step(vector, jax.random.key(0))
    expected = [env.reward[np.argmax(o), 0] for env, o in zip(garnets, obs, strict=True)]
    np.testing.assert_allclose(rewards, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": np.ones((2, 2, 2))}, "transition does not hold probabilities"),
        ({"transition": np.ones((2, 2))}, r"must be \[2, 2, 2\]"),
        ({"start": [1.0]}, r"start is \[1\]"),
        ({"termination": 1.5}, "termination does not hold probabilities"),
        ({"max_steps": 0}, "max_steps is 0"),
    ],
)
def test_invalid_mdps_are_rejected(change, message):
    good = dict(transition=np.full((2, 2, 2), 0.5), reward=np.zeros((2, 2)), start=[0.5, 0.5])
    TabularMDP.of(**good)
    with pytest.raises(ValueError, match=message):
        TabularMDP.of(**good | change)


def test_invalid_arguments_are_rejected():
    with pytest.raises(ValueError, match="branching is 4"):
        garnet.make(3, branching=4)
    with pytest.raises(ValueError, match="num_cells is 1"):
        corridor.make(1)
    with pytest.raises(ValueError, match="set max_steps"):
        corridor.mistaken_value(ENDLESS, random_policy(ENDLESS), DISCOUNT)


# Values and gradients -----------------------------------------------------------------------------


def enumerate_paths(mdp, policy, horizon):
    """Yield (probability, states, actions) of every episode of at most `horizon` steps."""
    survive, _, start = model(mdp)
    num_states, num_actions = policy.shape

    def extend(probability, states, actions):
        if probability == 0.0:
            return
        for action in range(num_actions):
            chance = probability * policy[states[-1], action]
            so_far = [*actions, action]
            if len(states) == horizon:
                yield chance, states, so_far
                continue
            onwards = survive[states[-1], action]
            yield chance * (1.0 - onwards.sum()), states, so_far
            for following in range(num_states):
                yield from extend(chance * onwards[following], [*states, following], so_far)

    for state in range(num_states):
        yield from extend(start[state], [state], [])


@pytest.mark.parametrize("state_discount", [None, 1.0])
def test_finite_horizon_matches_enumeration(state_discount):
    mdp, horizon = garnet.make(3, 2, 2, seed=5, termination=[0.0, 0.2, 0.5]), 4
    policy = random_policy(mdp)
    base = DISCOUNT if state_discount is None else state_discount
    total, mean, gradient = 0.0, 0.0, np.zeros_like(policy)
    for probability, states, actions in enumerate_paths(mdp, policy, horizon):
        rewards = np.asarray(mdp.reward, np.float64)[states, actions]
        powers = DISCOUNT ** np.arange(len(rewards))
        total += probability
        mean += probability * rewards @ powers
        for t, (s, a) in enumerate(zip(states, actions, strict=True)):
            score = np.eye(policy.shape[1])[a] - policy[s]
            to_go = rewards[t:] @ powers[: len(rewards) - t]
            gradient[s] += probability * base**t * score * to_go
    assert total == pytest.approx(1.0)
    _, values = finite_horizon_values(mdp, policy, DISCOUNT, horizon)
    assert model(mdp).start @ values[0] == pytest.approx(mean, abs=1e-12)
    truth = finite_horizon_gradient(mdp, policy, DISCOUNT, horizon, state_discount)
    np.testing.assert_allclose(truth, gradient, atol=1e-12)


@pytest.mark.parametrize("mdp", [MORTAL, ENDLESS])
def test_values_solve_bellman_and_match_a_long_horizon(mdp):
    policy = random_policy(mdp)
    value = policy_value(mdp, policy, DISCOUNT)
    action_values = action_value(mdp, policy, DISCOUNT)
    np.testing.assert_allclose((policy * action_values).sum(-1), value, atol=1e-12)
    np.testing.assert_allclose(lookahead(mdp, value, DISCOUNT), action_values, atol=1e-12)
    long_q, long_v = finite_horizon_values(mdp, policy, DISCOUNT, 300)
    np.testing.assert_allclose(long_v[0], value, atol=1e-11)
    np.testing.assert_allclose(long_q[0], action_values, atol=1e-11)
    np.testing.assert_allclose(
        finite_horizon_gradient(mdp, policy, DISCOUNT, 300),
        policy_gradient(mdp, policy, DISCOUNT),
        atol=1e-10,
    )


def test_undiscounted_values_when_all_episodes_end():
    mdp = garnet.make(4, 2, 2, termination=0.5)
    policy = random_policy(mdp)
    long = finite_horizon_values(mdp, policy, 1.0, 200)[1][0]
    np.testing.assert_allclose(policy_value(mdp, policy, 1.0), long, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_optimum_is_the_best_deterministic_policy(seed):
    mdp = garnet.make(4, 2, 2, seed=seed, termination=[0.0, 0.0, 0.0, 0.3])
    policies = [np.eye(2)[list(actions)] for actions in itertools.product(range(2), repeat=4)]
    best = np.max([policy_value(mdp, policy, DISCOUNT) for policy in policies], axis=0)
    optimal = optimal_action_value(mdp, DISCOUNT)
    np.testing.assert_allclose(optimal.max(-1), best, atol=1e-11)
    np.testing.assert_allclose(lookahead(mdp, best, DISCOUNT), optimal, atol=1e-11)


@pytest.mark.parametrize("mdp", [MORTAL, ENDLESS])
def test_policy_gradient_matches_finite_differences(mdp):
    logits = random_logits(mdp)
    gradient = policy_gradient(mdp, softmax(logits), DISCOUNT)
    expected = slope(lambda x: objective(mdp, softmax(x), DISCOUNT), logits)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)

    features = np.random.default_rng(3).normal(size=(*logits.shape, 4))
    weights = np.array([0.5, -1.0, 0.3, 0.0])
    policy = softmax(features @ weights)
    expected = slope(lambda x: objective(mdp, softmax(features @ x), DISCOUNT), weights)
    gradient = policy_gradient(mdp, policy, DISCOUNT)
    np.testing.assert_allclose(through(gradient, features), expected, atol=1e-8)
    score = features - np.einsum("sa,sak->sk", policy, features)[:, None]
    np.testing.assert_allclose(through(gradient, score), expected, atol=1e-8)


def test_the_weighted_gradient_holds_the_action_values_fixed():
    logits = random_logits(ENDLESS)
    policy = softmax(logits)
    weights = stationary(ENDLESS, policy)
    values = action_value(ENDLESS, policy, 0.5)
    expected = slope(lambda x: weights @ (softmax(x) * values).sum(-1), logits)
    actual = policy_gradient(ENDLESS, policy, 0.5, weights)
    np.testing.assert_allclose(actual, expected, atol=1e-8)
    true = policy_gradient(ENDLESS, policy, 0.5)
    cosine = (actual * true).sum() / np.linalg.norm(actual) / np.linalg.norm(true)
    assert cosine < 0.99  # not a multiple of the objective's gradient


def test_gae_is_exact_with_exact_values_and_biased_without():
    policy = random_policy(MORTAL)
    value, truth = policy_value(MORTAL, policy, DISCOUNT), advantage(MORTAL, policy, DISCOUNT)
    wrong = value + np.random.default_rng(0).normal(size=value.shape)
    for gae_lambda in (0.0, 0.5, 1.0):
        exact = gae_advantage(MORTAL, policy, DISCOUNT, gae_lambda, value)
        np.testing.assert_allclose(exact, truth, atol=1e-11)

    def centred(gae_lambda):
        gae = gae_advantage(MORTAL, policy, DISCOUNT, gae_lambda, wrong)
        return gae - (policy * gae).sum(-1, keepdims=True)

    np.testing.assert_allclose(centred(1.0), truth, atol=1e-11)
    assert np.abs(centred(0.5) - truth).max() > 0.05
    # The series of equation 16, term by term.
    error = lookahead(MORTAL, wrong, DISCOUNT) - wrong[:, None]
    onwards, series = model(MORTAL).survive, error.copy()
    for k in range(1, 100):
        series += (0.5 * DISCOUNT) ** k * onwards @ (policy * error).sum(-1)
        onwards = onwards @ chain(MORTAL, policy)[0]
    np.testing.assert_allclose(gae_advantage(MORTAL, policy, DISCOUNT, 0.5, wrong), series)


# State distributions ------------------------------------------------------------------------------


@pytest.mark.parametrize("mdp", [MORTAL, ENDLESS])
def test_discounted_state_distribution_equals_its_series(mdp):
    policy = random_policy(mdp)
    powers = DISCOUNT ** np.arange(400)
    series = (1 - DISCOUNT) * powers @ episode_states(mdp, policy, 400)
    states = discounted_states(mdp, policy, DISCOUNT)
    np.testing.assert_allclose(states, series, atol=1e-12)
    assert states.sum() == pytest.approx(1.0) if mdp is ENDLESS else states.sum() < 0.99
    reward = chain(mdp, policy)[1]
    assert states @ reward / (1 - DISCOUNT) == pytest.approx(objective(mdp, policy, DISCOUNT))


@pytest.mark.parametrize(
    "mdp",
    [
        MORTAL,
        ENDLESS,
        MORTAL.replace(spec=garnet.make(5, 3, max_steps=6).spec),
        corridor.make(5, max_steps=None),
    ],
)
def test_rollout_states_converge_to_stationary(mdp):
    policy = random_policy(mdp)
    states = rollout_states(mdp, policy, 20_000)
    np.testing.assert_allclose(states.sum(-1), 1.0)
    np.testing.assert_allclose(stationary(mdp, policy), states.mean(0), atol=1e-3)


def test_stationary_handles_periodic_and_reducible_chains():
    to = [1, 0, 2, 0]  # two states alternate, one loops, one leads to 0
    mdp = TabularMDP.of(np.eye(4)[to][:, None], np.zeros((4, 1)), [0.25] * 4)
    np.testing.assert_allclose(stationary(mdp, np.ones((4, 1))), [0.375, 0.375, 0.25, 0.0])


# Trust regions ------------------------------------------------------------------------------------


def test_trust_region_bound_matches_the_paper():
    """By hand: two states with self-loops, actions that pay 1 and 0, discount 1/2.

    The old policy is uniform: V = 1, A = +-1/2, so epsilon = 1/2. The new one plays (3/4, 1/4):
    alpha = 1/4, L = 1 + (3/4 - 1/4) / 2 / (1 - 1/2) = 3/2, and the penalty is 1/4, which is
    4 (1/2) (1/2) / (1/4) / 16. KL(old || new) = log(2 / sqrt 3) in the one state that changes.
    """
    stay = np.broadcast_to(np.eye(2)[:, None], (2, 2, 2))
    mdp = TabularMDP.of(stay, [[1.0, 0.0], [1.0, 0.0]], [1.0, 0.0])
    old, new = np.full((2, 2), 0.5), np.array([[0.75, 0.25], [0.5, 0.5]])
    assert trust_region_bound(mdp, new, old, 0.5) == pytest.approx(1.5 - 0.25)
    kl = trust_region_bound(mdp, new, old, 0.5, kl=True)
    assert kl == pytest.approx(1.5 - 4.0 * np.log(2.0 / np.sqrt(3.0)))


@pytest.mark.parametrize("mdp", [MORTAL, ENDLESS])
def test_natural_gradient_is_the_pseudo_inverse_times_the_gradient(mdp):
    policy = random_policy(mdp)
    states = discounted_states(mdp, policy, DISCOUNT)
    blocks = fisher(policy, states)
    score = np.eye(policy.shape[1]) - policy[:, None]  # [S, action, logit]
    second_moment = np.einsum("s,sa,sai,saj->sij", states, policy, score, score)
    np.testing.assert_allclose(blocks, second_moment, atol=1e-14)
    gradient = policy_gradient(mdp, policy, DISCOUNT)
    inverse = np.linalg.pinv(blocks, rcond=1e-10)
    expected = np.einsum("sij,sj->si", inverse, gradient)
    np.testing.assert_allclose(natural_gradient(mdp, policy, DISCOUNT), expected, atol=1e-8)


@pytest.mark.parametrize("mdp", [MORTAL, ENDLESS])
def test_performance_difference_and_lower_bounds(mdp):
    above = 0
    for seed in range(40):
        logits = random_logits(mdp, seed)
        change = 10.0 ** -(seed % 4) * random_logits(mdp, seed + 100)
        old, new = softmax(logits), softmax(logits + change)
        truth = objective(mdp, new, DISCOUNT)
        difference = truth - objective(mdp, old, DISCOUNT)
        lemma = performance_difference(mdp, new, old, DISCOUNT)
        assert lemma == pytest.approx(difference, abs=1e-11)
        assert trust_region_bound(mdp, new, old, DISCOUNT) <= truth
        assert trust_region_bound(mdp, new, old, DISCOUNT, kl=True) <= truth
        above += surrogate(mdp, new, old, DISCOUNT) > truth
    assert above > 0  # without the penalty the surrogate is not a lower bound
    old = random_policy(mdp)
    assert trust_region_bound(mdp, old, old, DISCOUNT) == pytest.approx(
        objective(mdp, old, DISCOUNT)
    )


# Against simulation -------------------------------------------------------------------------------


def test_objective_is_the_mean_simulated_return():
    policy = random_policy(MORTAL)
    seen = play(MORTAL, tabular(policy), num_envs=10_000, num_steps=80)
    returns = (DISCOUNT ** np.arange(80)) @ (seen.reward * seen.alive)
    assert agrees(returns, objective(MORTAL, policy, DISCOUNT))
    assert not agrees(returns, objective(MORTAL, policy, 0.88))
    immortal = MORTAL.replace(termination=np.zeros(5))
    assert not agrees(returns, objective(immortal, policy, DISCOUNT))


def test_mean_simulated_reinforce_is_the_gradient():
    horizon, discount = 8, 0.7
    policy = random_policy(MORTAL)
    seen = play(MORTAL, tabular(policy), num_envs=40_000, num_steps=horizon)
    rewards = seen.reward * seen.alive
    to_go = np.zeros_like(rewards)
    for t in reversed(range(horizon)):
        to_go[t] = rewards[t] + (discount * to_go[t + 1] if t + 1 < horizon else 0.0)
    score = np.eye(3)[seen.action] - seen.obs @ policy  # [T, N, A]
    terms = seen.obs[..., None] * (score * (to_go * seen.alive)[..., None])[..., None, :]
    weighted = np.einsum("t,tnsa->nsa", discount ** np.arange(horizon), terms)
    unweighted = terms.sum(0)
    truth = finite_horizon_gradient(MORTAL, policy, discount, horizon)
    other = finite_horizon_gradient(MORTAL, policy, discount, horizon, state_discount=1.0)
    assert agrees(weighted, truth)
    assert agrees(unweighted, other)
    assert not agrees(weighted, other)
    assert not agrees(unweighted, truth)


def test_actor_critic_gradient_is_weighted_by_rollout_states():
    mdp = garnet.make(5, 3, 2, seed=1, termination=[0.0, 0.3, 0.0, 0.1, 0.0], max_steps=4)
    policy = random_policy(mdp)
    num_steps = 10  # two and a half time limits
    seen = play(mdp, tabular(policy), num_envs=20_000, num_steps=num_steps)
    assert seen.terminated.any()
    assert seen.truncated.any()
    visits = np.moveaxis(seen.obs, 1, 0)  # [N, T, S]
    states = rollout_states(mdp, policy, num_steps)
    assert agrees(visits, states)
    assert not agrees(visits, episode_states(mdp, policy, num_steps))

    states = states.mean(0)
    values = action_value(mdp, policy, DISCOUNT)
    score = np.eye(3)[seen.action] - seen.obs @ policy
    step = score * (seen.obs @ values * np.eye(3)[seen.action]).sum(-1, keepdims=True)
    estimates = np.einsum("tns,tna->nsa", seen.obs, step) / num_steps
    assert agrees(estimates, policy_gradient(mdp, policy, DISCOUNT, states))
    discounted = discounted_states(mdp, policy, DISCOUNT)
    discounted /= discounted.sum()
    assert not agrees(estimates, policy_gradient(mdp, policy, DISCOUNT, discounted))


# The time limit -----------------------------------------------------------------------------------


def test_corridor_cells_have_equal_value():
    mdp = corridor.make(step_reward=2.0)
    for seed in range(3):
        value = policy_value(mdp, random_policy(mdp, seed), DISCOUNT)
        np.testing.assert_allclose(value, 2.0 / (1 - DISCOUNT))


def test_optimal_corridor_policy_moves_to_the_goal():
    mdp = corridor.make(5, step_reward=-1.0, terminal_goal=True)
    values = optimal_action_value(mdp, DISCOUNT)
    steps = np.array([4, 3, 2, 1])
    np.testing.assert_allclose(values[:4].max(-1), -(1 - DISCOUNT**steps) / (1 - DISCOUNT))
    assert (values[:4].argmax(-1) == 1).all()


def lambda_targets(seen, value, ended, gae_lambda):
    """lambda-returns [T, N] that bootstrap from `value` except after `ended`."""
    target = np.zeros(seen.reward.shape)
    following = seen.next_obs @ value
    for t in reversed(range(len(target))):
        later = following[t]
        if t + 1 < len(target):
            later = (1 - gae_lambda) * later + gae_lambda * target[t + 1]
        target[t] = seen.reward[t] + DISCOUNT * np.where(ended[t], 0.0, later)
    return target


def test_mistaken_value_treats_truncation_as_termination():
    mdp = corridor.make(4, max_steps=6, goal_reward=1.0)
    policy = random_policy(mdp)
    truth = policy_value(mdp, policy, DISCOUNT)
    seen = play(mdp, tabular(policy), num_envs=20_000, num_steps=6)

    def errors(value, ended, gae_lambda):
        error = lambda_targets(seen, value, ended, gae_lambda) - seen.obs @ value
        return np.einsum("tn,tns->ns", error, seen.obs)

    for gae_lambda in (0.0, 0.5, 1.0):
        mistaken = corridor.mistaken_value(mdp, policy, DISCOUNT, gae_lambda)
        done = seen.terminated | seen.truncated
        assert agrees(errors(mistaken, done, gae_lambda), 0.0)
        assert not agrees(errors(truth, done, gae_lambda), 0.0)
        assert (mistaken < truth - 1.0).all()
    assert agrees(errors(truth, seen.terminated, 0.0), 0.0)
    assert not agrees(errors(mistaken, seen.terminated, 0.0), 0.0)


def test_mistaken_value_averages_truncated_returns():
    mdp = corridor.make(3, max_steps=5)  # reward 1 per step
    right = np.eye(2)[[1, 1, 1]]  # in cells 0, 1, 2, 2, 2
    left = np.eye(2)[[0, 0, 0]]
    to_limit = (1 - DISCOUNT ** np.arange(5, 0, -1)) / (1 - DISCOUNT)
    value = corridor.mistaken_value(mdp, right, DISCOUNT, gae_lambda=1.0)
    np.testing.assert_allclose(value, [to_limit[0], to_limit[1], to_limit[2:].mean()])
    value = corridor.mistaken_value(mdp, left, DISCOUNT, gae_lambda=1.0)
    np.testing.assert_allclose(value, [to_limit.mean(), np.nan, np.nan])
    value = corridor.mistaken_value(mdp, left, DISCOUNT)  # one of five steps is the last
    np.testing.assert_allclose(value[0], 1 / (1 - DISCOUNT * 4 / 5))
