"""Samples (s, a, y) at geometric times, and the gradients made of them, against exact values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import BestActionByObservation, BestMixedAction, Endless, MaskedChoice
from helpers.gradients import State, tabular_agent, tabular_params
from helpers.probes import KEY, learned, mode, value
from helpers.simulation import agrees

from jaxrl.agents import RPG
from jaxrl.agents.bases import random_horizon
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.types import Clock, Transition
from jaxrl_envs.exact import garnet, gradients, values

BATCHES = 4096
DISCOUNT = 0.6
LONG = 40
"""Steps after which next to nothing of the discounted return is missing: 0.6^40 is below 1e-8."""


def endless(max_steps=None):
    """A random MDP in which the discounted and the undiscounted return disagree."""
    return garnet.make(6, 3, branching=2, termination=0.1, seed=16, max_steps=max_steps)


def limited():
    return endless(max_steps=3)


def paid():
    """With rewards far from 0."""
    return endless().replace(reward=endless().reward + 2.0)


MDP = endless()
LOGITS = np.random.default_rng(0).standard_normal((6, 3))
POLICY = values.softmax(LOGITS)
VALUE = values.policy_value(MDP, POLICY, DISCOUNT)
Q = values.action_value(MDP, POLICY, DISCOUNT)
EXACT = gradients.policy_gradient(MDP, POLICY, DISCOUNT).reshape(-1)
WRONG_VALUE = VALUE + np.array([1.0, -1.0, 0.5, 2.0, 0.0, -2.0])


PER_BATCH = 4


@functools.cache
def experience(mdp_of, num_envs=BATCHES * PER_BATCH, kind=RPG, **options):
    """A rollout of many copies from fresh starts, `[T, num_envs]`, by an agent and its state."""
    mdp = mdp_of()
    options = {"num_envs": num_envs, "num_steps": LONG, "discount": DISCOUNT} | options
    agent = tabular_agent(kind, mdp, **options)
    envs, state = VectorEnv(mdp, num_envs), State(tabular_params(LOGITS, np.zeros(6)))

    def policy(carry, obs, key):
        return agent.act(state, carry, obs, key, Clock.start(), explore=True)

    @jax.jit
    def run(start, key):
        carry = agent.initial_carry(num_envs)
        return rollout(policy, envs, envs.reset(start), carry, carry, key, agent.num_steps)[2]

    return agent, run(*jax.random.split(KEY))


def gradients_of(mdp_of=endless, value=VALUE, **options):
    """Gradients that the agent ascends, `[BATCHES, 18]`, from `PER_BATCH` episodes each."""
    baseline = options.pop("baseline", "learned")
    agent, trajectory = experience(mdp_of, **options)
    agent, params = agent.replace(baseline=baseline), tabular_params(LOGITS, value)
    batch = agent.evaluate(params, agent.prepare(None, trajectory, Clock.start()), KEY)

    def parts(x):  # [K, N] to [BATCHES, K, PER_BATCH]
        return jnp.moveaxis(x.reshape(x.shape[0], BATCHES, PER_BATCH, *x.shape[2:]), 1, 0)

    def one(batch):
        return agent.gradient(params.actor, batch, Clock.start())[0]

    (found,) = jax.tree.leaves(jax.jit(jax.vmap(one))(jax.tree.map(parts, batch)))
    return found


# The two stops ------------------------------------------------------------------------------------


def sample_by_loops(stop, reward, terminated, truncated):
    """(start, y, valid, cut) of one copy, in the order of the definition."""
    time, num_steps = 0, len(reward)
    while not stop[time]:  # roll in
        if terminated[time] or truncated[time] or time == num_steps - 1:
            return 0, 0.0, False, False
        time += 1
    start, y = time, 0.0
    while True:  # act, and roll out
        y += reward[time]
        if terminated[time]:
            return start, y, True, False
        if truncated[time] or time == num_steps - 1:
            return start, y, True, True
        time += 1
        if stop[time]:
            return start, y, True, False


def test_samples_equal_a_step_by_step_reference():
    """On random stops and ends of episodes."""
    rng = np.random.default_rng(0)
    stop, terminated, truncated = rng.uniform(size=(3, 12, 500)) < [[[0.2]], [[0.05]], [[0.05]]]
    reward = rng.standard_normal((12, 500)).astype(np.float32)
    steps = Transition((), (), *map(jnp.asarray, (reward, terminated, truncated)), ())
    found = random_horizon.roll_out(jnp.asarray(stop), steps)
    columns = zip(*(x.T for x in (stop, reward, terminated, truncated)), strict=True)
    start, y, valid, cut = map(np.array, zip(*(sample_by_loops(*c) for c in columns), strict=True))
    np.testing.assert_array_equal(found.start, start)
    np.testing.assert_allclose(found.y, y, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.valid, valid)
    np.testing.assert_array_equal(found.cut, cut)
    assert 0 < cut.sum() < valid.sum() < 500


def test_states_are_discounted_and_y_is_unbiased_for_q():
    agent, trajectory = experience(endless)
    visit = jax.tree.map(np.ravel, agent.prepare(None, trajectory, Clock.start()).steps)
    state = np.asarray(visit.obs).reshape(-1, 6).argmax(-1)
    visited = np.stack([visit.valid & (state == s) for s in range(6)], -1)
    states = values.discounted_states(MDP, POLICY, DISCOUNT)
    assert agrees(visited, states)
    for s, a in np.ndindex(6, 3):
        here = visit.valid & (state == s) & (visit.action == a)
        assert here.sum() > 50
        assert agrees(visit.target[here], Q[s, a])


# The gradient -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"baseline": "none"},
        {"value": WRONG_VALUE},
        pytest.param({"num_pairs": 4}, marks=pytest.mark.thorough),
    ],
    ids=["no baseline", "wrong values", "several pairs"],
)
def test_gradient_is_unbiased_for_the_discounted_return(options):
    assert agrees(gradients_of(**options), EXACT)


ROLL_OUT, MEAN = random_horizon.roll_out, random_horizon.mean


def forgets_the_first(stop, steps):
    """Rolls out from the start of the episode."""
    return ROLL_OUT(stop.at[0].set(True), steps)


def forgets_the_second(stop, steps):
    """Rolls out to the end of the episode."""
    first = stop & (jnp.cumsum(stop, axis=0) == 1)
    return ROLL_OUT(first, steps)


@pytest.mark.parametrize("mistaken", [forgets_the_first, forgets_the_second])
def test_forgetting_either_stop_is_detected(mistaken, monkeypatch):
    monkeypatch.setattr(random_horizon, "roll_out", mistaken)
    assert not agrees(gradients_of(baseline="none"), EXACT)


def test_episodes_that_end_before_the_first_stop_count_as_zero(monkeypatch):
    """A mean over those that reach it would be too large by 1 / P(reach)."""

    def only_valid(x, where=None, **options):
        return MEAN(x, jnp.broadcast_to(x != 0.0, x.shape) if where is None else where, **options)

    monkeypatch.setattr(random_horizon, "mean", only_valid)
    assert not agrees(gradients_of(baseline="none"), EXACT)


@pytest.mark.thorough
def test_state_baseline_changes_the_variance_and_not_the_mean():
    value = values.policy_value(paid(), POLICY, DISCOUNT)
    exact = gradients.policy_gradient(paid(), POLICY, DISCOUNT).reshape(-1)
    plain = gradients_of(paid, baseline="none")
    based = gradients_of(paid, value=value)
    assert agrees(plain, exact)
    assert agrees(based, exact)
    assert plain.var(0).sum() > 1.5 * based.var(0).sum()


# Truncation ---------------------------------------------------------------------------------------


def test_cut_episodes_give_the_gradient_of_the_return_within_them():
    """Without values; a time limit and the end of the rollout are the same."""
    exact = gradients.finite_horizon_gradient(MDP, POLICY, DISCOUNT, 3).reshape(-1)
    assert not np.allclose(exact, EXACT, rtol=0.1)
    assert agrees(gradients_of(limited, baseline="none", num_steps=5), exact)
    assert agrees(gradients_of(baseline="none", num_steps=3), exact)


def test_values_stand_for_the_rewards_after_a_cut():
    """With exact values the action values are exact; only later states are missing."""
    states = (DISCOUNT ** np.arange(3)) @ values.episode_states(MDP, POLICY, 3)
    exact = gradients.policy_gradient(MDP, POLICY, DISCOUNT, states).reshape(-1)
    found = gradients_of(limited, num_steps=5)
    assert agrees(found, exact)
    within = gradients.finite_horizon_gradient(MDP, POLICY, DISCOUNT, 3).reshape(-1)
    assert not agrees(found, within)


# Probes -------------------------------------------------------------------------------------------

FAST = {
    "num_envs": 64, "num_steps": 8, "hidden_sizes": (16,), "learning_rate": 2e-2,
    "critic_learning_rate": 1e-2, "discount": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"baseline": "none", "num_pairs": 2}, marks=pytest.mark.thorough)]
)
def test_probe_action_by_observation(options):
    agent, state, _ = learned(RPG(**FAST | options), BestActionByObservation(), 60)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


@pytest.mark.thorough
def test_probe_masks():
    _, _, metrics = learned(RPG(**FAST), MaskedChoice(), 100)
    assert metrics.evaluation.returns.mean() >= 3.5


@pytest.mark.thorough
def test_probe_mixed_action():
    agent, state, _ = learned(RPG(**FAST), BestMixedAction(), 300)
    choice, position, pair = mode(agent, state, [[-1.0], [1.0]])
    np.testing.assert_array_equal(choice, [0, 1])
    np.testing.assert_allclose(position[:, 0], [-0.5, 0.5], atol=0.2)
    np.testing.assert_array_equal(pair, [[0, 2], [1, 2]])


def test_probe_truncation_is_not_termination():
    """One endless state truncated every 5 steps: the value is 1 / (1 - 0.8) = 5."""
    agent = RPG(**FAST | {"discount": 0.8, "num_steps": 10})
    agent, state, metrics = learned(agent, Endless(limit=5), 150)
    np.testing.assert_allclose(value(agent, state, [[1.0]]), [5.0], atol=0.5)
    assert 0.2 < metrics.training.updates["cut"].value[-1] < 0.8


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"core": "gru"}, "core is 'gru': RPG learns from single states"),
        ({"discount": 1.0}, "discount is 1.0: RPG stops with probability 1 - discount"),
        ({"shared_torso": True}, "shared_torso is True: RPG"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        RPG(**options).bind(MDP.spec)
