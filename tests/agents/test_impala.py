"""IMPALA: equal to A2C without a lag, actors exactly as far behind as asked, V-trace's targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import BestActionByObservation, Recall
from helpers.probes import KEY, cases, learned, mode

from jaxrl.agents import A2C, IMPALA
from jaxrl.estimators import vtrace
from jaxrl.types import Clock, Trajectory, Transition

SMALL = {"num_envs": 16, "num_steps": 5, "hidden_sizes": (8,), "learning_rate": 1e-2}
SPEC = BestActionByObservation().spec


@pytest.mark.parametrize("core", cases(["none", "gru"], "none"))
def test_without_a_lag_it_is_a2c(core):
    options = SMALL | {"core": core, "core_size": 4}
    env = Recall(delay=2)
    _, plain, _ = learned(A2C(**options), env, 12)
    _, state, _ = learned(IMPALA(**options, lag=0), env, 12)
    for a, b in zip(*(jax.tree.leaves(x.agent.params) for x in (plain, state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def a_rollout(agent, state, num_steps=5, num_envs=4):
    """Random observations and rewards, with the actions and probabilities of the actors."""
    rng = np.random.default_rng(0)
    shape = (num_steps, num_envs)
    obs, next_obs = (jnp.asarray(rng.standard_normal((*shape, 1)), jnp.float32) for _ in range(2))
    flat = obs.reshape(-1, 1)
    _, action, extras = agent.act(state, (), flat, KEY, Clock.start(), explore=True)
    action, extras = jax.tree.map(lambda x: x.reshape(shape), (action, extras))
    reward = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    ends = [jnp.asarray(rng.random(shape) < 0.2) for _ in range(2)]
    ends[1] &= ~ends[0]
    steps = Transition(obs, action, reward, *ends, next_obs, extras)
    return Trajectory(steps, jnp.zeros(shape, bool), ())


@pytest.mark.parametrize("lag", [1, 3])
def test_actors_are_behind_by_the_lag(lag):
    """They act with the parameters of `lag` updates ago, at first with the initial ones."""
    agent = IMPALA(**SMALL, lag=lag).bind(SPEC)
    state = agent.init(KEY)
    obs, history = jnp.ones((2, 1)), [state.params]
    for _ in range(5):
        acting, _ = agent.acting_policy(state, (), obs, explore=True)
        old = history[max(0, len(history) - 1 - lag)]
        behind, _ = agent.network.apply(old, obs, method="policy")
        np.testing.assert_array_equal(acting.logits, behind.logits)
        greedy, _ = agent.acting_policy(state, (), obs, explore=False)
        latest, _ = agent.network.apply(state.params, obs, method="policy")
        np.testing.assert_array_equal(greedy.logits, latest.logits)
        batch = agent.prepare(state, a_rollout(agent, state), Clock.start())
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        state = agent.update(state, batch, KEY, Clock.start()).state
        history.append(state.params)


def test_targets_are_those_of_vtrace():
    """With the ratio of the latest policy to that of the actors, which differ."""
    agent = IMPALA(**SMALL, lag=1, gae_lambda=0.9, clip_rho=1.1, clip_c=0.9).bind(SPEC)
    state = agent.init(KEY)
    moved = jax.tree.map(
        lambda x: x + 0.3 * jnp.cos(70.0 * x + jnp.arange(x.size).reshape(x.shape)), state.params
    )
    state = state.replace(params=moved)
    batch = a_rollout(agent, state)
    steps = batch.steps

    def log_prob(params):
        policy, _ = agent.network.apply(params, steps.obs, method="policy")
        return np.asarray(policy.log_prob(steps.action))

    old = jax.tree.map(lambda x: x[0], state.past)
    np.testing.assert_allclose(steps.extras["log_prob"], log_prob(old), rtol=1e-5)
    log_ratio = log_prob(moved) - log_prob(old)
    assert np.abs(log_ratio).max() > 0.1
    ends = steps.terminated, steps.truncated
    values = agent.values(moved, batch)
    clips = {"clip_rho": 1.1, "clip_c": 0.9, "clip_pg_rho": 1.1}
    expected = vtrace(steps.reward, *values, *ends, log_ratio, 0.99, 0.9, **clips)
    sample = agent.prepare(state, batch, Clock.start()).steps
    np.testing.assert_allclose(sample.target, expected.targets, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sample.advantage, expected.advantages, rtol=1e-4, atol=1e-5)


def test_it_learns_with_a_lag():
    agent = IMPALA(num_envs=64, num_steps=8, hidden_sizes=(16,), learning_rate=1e-2, lag=4)
    agent, state, _ = learned(agent, BestActionByObservation(), 60)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


def test_traces_are_not_cut_later_than_errors():
    with pytest.raises(ValueError, match=r"clip_c is 1\.0 and clip_rho is 0\.5"):
        IMPALA(clip_rho=0.5).bind(SPEC)
