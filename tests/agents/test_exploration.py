"""Noise that is linear in features and kept for several steps (gSDE), and policies over a box."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers.environments import (
    BestActionByObservation,
    BestContinuousAction,
    BestMixedAction,
)
from helpers.probes import KEY, cases, learned, mode

from jaxrl.agents import A2C, A3C, COPDAC, PPO, RPG, SAC, SHAC, TRPO, OffPAC
from jaxrl.distributions import FeatureGaussian
from jaxrl.types import Clock

SPEC = BestContinuousAction().spec
EXPLORERS = {
    "ppo": PPO(hidden_sizes=(16,), std_from="features", initial_log_std=-1.0).bind(SPEC),
    "a3c": A3C(
        num_envs=3, num_workers=3, hidden_sizes=(16,), std_from="features", initial_log_std=-1.0
    ).bind(SPEC),
    "sac": SAC(hidden_sizes=(16,), std_from="features", initial_log_std=-1.0, warmup=0).bind(SPEC),
}
CLOCK = Clock.start()


@pytest.mark.parametrize("name", EXPLORERS)
def test_noise_is_kept_until_it_is_drawn_again(name):
    """In one state, actions repeat while the weights do; other copies have other weights."""
    obs = jnp.full((3, 1), 0.5)

    def actions(every):
        agent = EXPLORERS[name].replace(noise_every=every)
        state, carry = agent.init(KEY), agent.initial_carry(3)
        found = []
        for key in jax.random.split(KEY, 6):
            carry, action, _ = agent.act(state, carry, obs, key, CLOCK, explore=True)
            found.append(np.asarray(action)[:, 0])
        return np.array(found)

    kept = actions(None)
    np.testing.assert_array_equal(kept, np.tile(kept[:1], (6, 1)))
    assert len(np.unique(kept[0])) == 3
    pairs = actions(2)
    np.testing.assert_array_equal(pairs[0::2], pairs[1::2])
    assert len(np.unique(pairs[0::2])) == 9


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_kept_noise_is_a_smooth_function_of_the_state(name):
    """It is linear in the features, so that close states have close noise."""
    agent = EXPLORERS[name]
    state, carry = agent.init(KEY), agent.initial_carry(1)
    carry, first, _ = agent.act(state, carry, jnp.full((1, 1), 0.5), KEY, CLOCK, explore=True)
    _, near, _ = agent.act(state, carry, jnp.full((1, 1), 0.501), KEY, CLOCK, explore=True)
    _, far, _ = agent.act(state, carry, jnp.full((1, 1), -0.5), KEY, CLOCK, explore=True)
    assert 0 < abs(near - first)[0, 0] < 1e-2
    assert abs(far - first)[0, 0] > 1e-2


def test_actions_have_the_density_that_the_policy_states():
    """Over many draws of the weights, actions in one state are normal with std(s)."""
    agent = EXPLORERS["ppo"]
    state, num = agent.init(KEY), 20_000
    obs = jnp.full((num, 1), 0.5)
    _, action, extras = agent.act(state, agent.initial_carry(num), obs, KEY, CLOCK, explore=True)
    policy, _ = agent.network.apply(state.params, obs[:1], method="policy")
    mean, std = float(policy.mean[0, 0]), float(np.exp(policy.log_std[0, 0]))
    z = (np.asarray(action, np.float64)[:, 0] - mean) / std
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-3
    expected = scipy.stats.norm.logpdf(z) - np.log(std)
    np.testing.assert_allclose(extras["log_prob"], expected, atol=1e-4)


def test_variance_is_that_of_a_sum_over_features():
    rng = np.random.default_rng(0)
    mean, features, log_std = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((5, 2, 3), (5, 4), (4, 2, 3))
    )
    policy = FeatureGaussian.of(mean, features, log_std, 2)
    variance = np.einsum("nf,fij->nij", features**2, np.exp(2.0 * log_std)) + 1e-6
    np.testing.assert_allclose(policy.log_std, 0.5 * np.log(variance), rtol=1e-5)
    noise = rng.standard_normal((5, 4, 2, 3)).astype(np.float32)
    expected = mean + np.einsum("nf,nfij->nij", features, np.exp(log_std) * noise)
    np.testing.assert_allclose(policy.sample_with(noise), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("box_policy", ["squashed", "beta"])
def test_bounded_policies_can_be_part_of_mixed_actions(box_policy):
    agent = PPO(hidden_sizes=(8,), box_policy=box_policy).bind(BestMixedAction().spec)
    state, obs = agent.init(KEY), jnp.ones((50, 1))
    _, action, extras = agent.act(state, (), obs, KEY, CLOCK, explore=True)
    assert (np.abs(action[1]) <= 1.0).all()
    assert np.isfinite(extras["log_prob"]).all()
    np.testing.assert_array_equal(action[0].shape, (50,))


FAST = PPO(num_envs=32, num_steps=16, learning_rate=3e-3, hidden_sizes=(16,))
LEARNERS = {
    "ppo, squashed": FAST.replace(box_policy="squashed", initial_log_std=-0.5),
    "ppo, std of the network": FAST.replace(std_from="output"),
    "ppo, gSDE": FAST.replace(std_from="features", initial_log_std=-2.0),
    "trpo, gSDE": TRPO(
        num_envs=32, num_steps=16, hidden_sizes=(16,), std_from="features", initial_log_std=-2.0
    ),
    "trpo, beta": TRPO(num_envs=32, num_steps=16, hidden_sizes=(16,), box_policy="beta"),
    "a2c, squashed": A2C(
        num_envs=64, learning_rate=1e-2, hidden_sizes=(16,), entropy_coefficient=0.0,
        box_policy="squashed", initial_log_std=-1.5,
    ),
    "sac, gSDE": SAC(
        num_envs=8, num_updates=8, hidden_sizes=(32,), warmup=200, batch_size=64,
        critic_learning_rate=3e-3, learning_rate=3e-3, std_from="features", capacity=4096,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", cases(LEARNERS, "ppo, gSDE", "trpo, beta"))
def test_probe_continuous_action(name):
    agent, state, _ = learned(LEARNERS[name], BestContinuousAction(), 150)
    found = mode(agent, state, [[-1.0], [1.0]])[:, 0]
    np.testing.assert_allclose(found, [-0.5, 0.5], atol=0.12)


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (PPO(std_from="features", core="gru"), "PPO with core='gru' cannot keep noise"),
        (PPO(std_from="features", box_policy="beta"), "std_from is 'features'"),
        (PPO(noise_every=4), "noise_every is 4, but std_from is 'parameter'"),
        (SAC(noise_every=4), "noise_every is 4, but std_from is 'output'"),
        (RPG(std_from="features"), "RPG cannot keep noise"),
        (SHAC(std_from="features"), "SHAC cannot keep noise"),
        (SHAC(box_policy="beta"), "box_policy is 'beta'"),
        (OffPAC(box_policy="squashed"), "box_policy is 'squashed': OffPAC"),
        (COPDAC(std_from="output"), "std_from is 'output': COPDAC"),
        (COPDAC(initial_log_std=-1.0), "initial_log_std is -1.0: COPDAC"),
        (SAC(initial_log_std=-1.0), "initial_log_std is -1.0, but std_from is 'output'"),
    ],
)
def test_noise_that_cannot_be_kept_is_rejected(agent, message):
    with pytest.raises(ValueError, match=message):
        agent.bind(SPEC)


def test_discrete_actions_have_no_kept_noise():
    with pytest.raises(ValueError, match="only actions in a box have noise"):
        SAC(std_from="features").bind(BestActionByObservation().spec)
