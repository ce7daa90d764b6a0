"""Options that several on-policy agents share: standardisation, fresh targets, clipping, cores."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.environments import BestActionByObservation, Recall
from helpers.probes import KEY, learned, mode

from jaxrl.agents import A2C, PPO, REINFORCE, PPOPenalty
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.networks.recurrent import Core, initial_carry
from jaxrl.types import Clock, Trajectory, Transition

SPEC = BestActionByObservation().spec


def a_rollout(num_steps=6, num_envs=4):
    rng = np.random.default_rng(0)
    shape = (num_steps, num_envs)
    obs, next_obs = (jnp.asarray(rng.standard_normal((*shape, 1)), jnp.float32) for _ in range(2))
    never = jnp.zeros(shape, bool)
    reward = jnp.asarray(rng.standard_normal(shape) * 3 + 1, jnp.float32)
    extras = {"log_prob": jnp.full(shape, -0.7)}
    steps = Transition(obs, jnp.zeros(shape, jnp.int32), reward, never, never, next_obs, extras)
    return Trajectory(steps, never, ())


@pytest.mark.parametrize("kind", [PPO, PPOPenalty])
def test_advantages_can_be_standardised_over_the_rollout(kind):
    """Then minibatches keep their own mean and spread."""
    agent = kind(hidden_sizes=(8,), num_envs=4, num_steps=6).bind(SPEC)
    state = agent.init(KEY)
    raw = np.asarray(agent.prepare(state, a_rollout(), Clock.start()).steps.advantage)
    whole = agent.replace(normalize_over="rollout")
    sample: Sample = whole.prepare(state, a_rollout(), Clock.start()).steps
    expected = (raw - raw.mean()) / (raw.std() + 1e-8)
    np.testing.assert_allclose(sample.advantage, expected, rtol=1e-4, atol=1e-5)
    part = jax.tree.map(lambda x: x[:2], sample)
    np.testing.assert_array_equal(whole.advantages(part), part.advantage)
    assert abs(float(agent.advantages(part).mean())) < 1e-5
    off = whole.replace(normalize_advantages=False)
    unscaled = off.prepare(state, a_rollout(), Clock.start()).steps.advantage
    np.testing.assert_array_equal(unscaled, raw)


def test_single_steps_can_be_standardised_over_the_rollout():
    few = {"num_envs": 4, "num_steps": 1, "num_minibatches": 4}
    with pytest.raises(ValueError, match="normalize_advantages"):
        PPO(**few).bind(SPEC)
    PPO(**few, normalize_over="rollout").bind(SPEC)


@pytest.mark.parametrize("kind", [PPO, PPOPenalty])
def test_advantages_can_be_recomputed(kind):
    """`tests/engine/test_seams.py` checks that the plan does what it says."""
    assert not kind().plan.prepare_each_epoch
    assert kind(recompute_advantages=True).plan.prepare_each_epoch


def test_recomputed_advantages_train():
    agent = PPO(
        num_envs=32, num_steps=8, learning_rate=3e-3, hidden_sizes=(16,), recompute_advantages=True,
        normalize_over="rollout",
    )  # fmt: skip
    agent, state, _ = learned(agent, BestActionByObservation(), 40)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_truncated_backpropagation_stops_at_multiples_of_its_length(name):
    """The gradient is that of segments whose first state is a constant; outputs stay the same."""
    size, every = 5, 3
    x = jnp.asarray(np.random.default_rng(0).standard_normal((7, 2, 4)), jnp.float32)
    first = jnp.zeros((7, 2), bool).at[4, 0].set(True)
    start = initial_carry(name, size, 2)
    whole, cut = Core(name, size), Core(name, size, every)
    params = whole.init(KEY, start, x, first)
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((7, 2, size)), jnp.float32)

    def loss(params, core):
        return jnp.sum(weights * core.apply(params, start, x, first)[1])

    def loss_of_segments(params):
        carry, total = start, 0.0
        for t in range(0, 7, every):
            part = slice(t, t + every)
            carry, y, _ = whole.apply(params, carry, x[part], first[part])
            carry, total = jax.lax.stop_gradient(carry), total + jnp.sum(weights[part] * y)
        return total

    full, (value, found), (expected_value, expected) = jax.jit(
        lambda params: (
            jax.grad(loss)(params, whole),
            jax.value_and_grad(loss)(params, cut),
            jax.value_and_grad(loss_of_segments)(params),
        )
    )(params)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    different = 0.0
    for a, b, c in zip(*map(jax.tree.leaves, (found, expected, full)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        different += float(jnp.abs(a - c).max())
    assert different > 1e-2


def test_an_agent_truncates_its_backpropagation():
    agent = PPO(core="gru", core_size=4, hidden_sizes=(8,), truncate_every=2)
    assert agent.bind(Recall(delay=3).spec).network.truncate_every == 2
    with pytest.raises(ValueError, match="truncate_every is 2, but core is 'none'"):
        PPO(truncate_every=2).bind(SPEC)


def test_policy_gradients_can_be_clipped():
    """With plain gradient ascent at a rate of 1, the step is as long as the limit."""
    agent = REINFORCE(
        num_envs=4, num_steps=6, hidden_sizes=(8,), optimizer="sgd", learning_rate=1.0
    ).bind(SPEC)

    def step(agent):
        state = agent.init(KEY)
        batch = agent.prepare(state, a_rollout(), Clock.start())
        new = agent.update(state, batch, KEY, Clock.start()).state
        moved = jax.tree.map(jnp.subtract, new.params.actor, state.params.actor)
        return float(optax.tree.norm(moved))

    assert step(agent) > 0.1
    np.testing.assert_allclose(step(agent.replace(max_grad_norm=1e-2)), 1e-2, rtol=1e-4)


def test_a2c_runs_with_adam():
    agent = A2C(optimizer="adam", learning_rate=3e-3, num_envs=64, hidden_sizes=(16,))
    agent, state, _ = learned(agent, BestActionByObservation(), 60)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])
