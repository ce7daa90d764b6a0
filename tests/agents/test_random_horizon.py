"""Samples (s, a, y) at geometric times, and the gradients made of them, against exact values."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import BestActionByObservation, BestMixedAction, Endless, MaskedChoice
from helpers.geometric import (
    DISCOUNT,
    EXACT,
    LOGITS,
    MDP,
    POLICY,
    VALUE,
    Q,
    batch_gradients,
    endless,
    experience,
    limited,
    paid,
    visits,
)
from helpers.gradients import tabular_params
from helpers.probes import learned, mode, value
from helpers.simulation import agrees

from jaxrl.agents import RPG
from jaxrl.agents.bases import random_horizon
from jaxrl.types import Transition
from jaxrl_envs.exact import gradients, values

WRONG_VALUE = VALUE + np.array([1.0, -1.0, 0.5, 2.0, 0.0, -2.0])


def gradients_of(mdp_of=endless, value=VALUE, baseline="learned", **options):
    agent, trajectory = experience(mdp_of, RPG, **options)
    agent = agent.replace(baseline=baseline)
    return batch_gradients(agent, tabular_params(LOGITS, value), trajectory)


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
    visit, state = visits(*experience(endless, RPG))
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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
