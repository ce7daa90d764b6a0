"""DDPG, TD3, SAC and QSearch: probe environments, exact solutions, invalid input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from helpers.environments import (
    BestActionByObservation,
    BestContinuousAction,
    Counter,
    Endless,
    MaskedChoice,
    timestep,
)
from helpers.probes import KEY, cases, learned, mode
from scipy import stats

from jaxrl.agents import DDPG, SAC, TD3, QSearch
from jaxrl.distributions import TanhGaussian
from jaxrl.engine.evaluate import play_episodes
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.networks.layers import MLP
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Box, Clock, EnvSpec, Transition, static
from jaxrl_envs.exact import lqr

SMALL = {
    "num_envs": 8, "num_steps": 4, "num_updates": 8, "batch_size": 64, "capacity": 4096,
    "warmup": 128, "hidden_sizes": (32, 32), "critic_learning_rate": 3e-3, "tau": 0.05,
}  # fmt: skip
FAST = {
    "ddpg": DDPG(**SMALL, learning_rate=3e-3, exploration_noise=0.3),
    "td3": TD3(**SMALL, learning_rate=3e-3, exploration_noise=0.3, target_noise=0.05),
    "sac": SAC(**SMALL, learning_rate=3e-3, temperature=0.1),
    "search": QSearch(**SMALL),
    "search by a normal sample": QSearch(**SMALL, proposal="gaussian", num_refinements=0),
}


class Cut(struct.PyTreeNode):
    """`Endless` with a box of actions: a reward of 1 per step, truncated by a time limit."""

    limit: int = static(default=5)

    @property
    def spec(self):
        return EnvSpec(Endless().spec.observation, Box.of(-2.0, 4.0, (2,)), max_steps=self.limit)

    def reset(self, key):
        return jnp.int32(0), jnp.ones(1)

    def step(self, key, state, action):
        return state + 1, timestep(jnp.ones(1), 1.0, False, state + 1 >= self.limit)


def critic_values(agent, state, obs, action):
    params = state.agent.params if hasattr(state.agent, "params") else state.agent.critic
    params = getattr(params, "critic", params)
    return np.asarray(agent.critic.apply(params, jnp.asarray(obs), jnp.asarray(action)))


# Probes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases(FAST, "sac"))
def test_probe_action_by_observation(name):
    """The best action is half the observation: -0.5 or 0.5."""
    agent, state, _ = learned(FAST[name], BestContinuousAction(), 150)
    found = mode(agent, state, [[-1.0], [1.0]])
    np.testing.assert_allclose(found[:, 0], [-0.5, 0.5], atol=0.15)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["ddpg", "td3", "sac", "search"])
def test_probe_truncation_is_not_termination(name):
    """1 / (1 - 0.8) = 5; treating the time limit as termination gives at most 3.4."""
    agent = FAST[name].replace(discount=0.8)
    if name == "sac":
        agent = agent.replace(learn_temperature=False, temperature=1e-6)
    agent, state, _ = learned(agent, Cut(), 300)
    np.testing.assert_allclose(critic_values(agent, state, [[1.0]], [[0.0, 0.0]]), 5.0, atol=0.25)


@pytest.mark.thorough
def test_probe_discrete_actions():
    agent, state, _ = learned(
        FAST["sac"].replace(target_entropy=0.1), BestActionByObservation(), 150
    )
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])
    agent, _, metrics = learned(FAST["sac"].replace(target_entropy=0.1), MaskedChoice(), 150)
    assert metrics.evaluation.returns.mean() >= 3.5


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "iterations", "num_updates", "share"), [("td3", 1500, 8, 1.15), ("sac", 1500, 32, 1.2)]
)
def test_regulator_cost_is_near_the_optimum(name, iterations, num_updates, share):
    """Linear-quadratic, truncated after 20 steps: the cost is near that of the Riccati equation's
    gain. (A random policy costs ten times as much.)"""
    env = Bounded(lqr.make(max_steps=20, start_std=0.7))
    agent = FAST[name].replace(
        discount=0.95, learning_rate=1e-3, critic_learning_rate=1e-3, tau=0.02,
        num_updates=num_updates,
    )  # fmt: skip
    _, _, metrics = learned(agent, env, iterations, num_eval_episodes=512)
    gain, _ = lqr.optimum(env.inner, 0.95)

    def best(carry, obs, key):
        return carry, -obs @ jnp.asarray(gain.T, jnp.float32), ()

    optimal = play_episodes(best, VectorEnv(env, 512), (), KEY).returns.mean()
    assert metrics.evaluation.returns[-1].mean() >= share * optimal  # both are negative


class Bounded(struct.PyTreeNode):
    """A regulator with bounded actions."""

    inner: object

    @property
    def spec(self):
        return EnvSpec(
            self.inner.spec.observation, Box.of(-3.0, 3.0, (1,)), self.inner.spec.max_steps
        )

    def reset(self, key):
        return self.inner.reset(key)

    def step(self, key, state, action):
        return self.inner.step(key, state, action)


# Parts --------------------------------------------------------------------------------------------


def test_actions_are_scaled_to_the_bounds_and_back():
    agent = FAST["td3"].bind(Cut().spec)
    action = jnp.array([[-1.0, 1.0], [0.0, 0.5]])
    np.testing.assert_allclose(agent.unscale_action(action), [[-2.0, 4.0], [1.0, 2.5]])
    np.testing.assert_allclose(agent.scale_action(agent.unscale_action(action)), action, atol=1e-6)


def test_tanh_gaussian_is_a_density():
    """Matches SciPy by change of variables, integrates to 1, and is finite at saturation."""
    policy = TanhGaussian(jnp.array([0.3]), jnp.array([-0.5]))
    grid = np.linspace(-1, 1, 20_001)[1:-1]
    density = np.exp(jax.vmap(policy.log_prob)(jnp.asarray(grid, jnp.float32)[:, None]))
    u = np.arctanh(grid)
    expected = stats.norm.pdf(u, 0.3, np.exp(-0.5)) / (1 - grid**2)
    np.testing.assert_allclose(density[10:-10], expected[10:-10], rtol=2e-3)
    assert abs(np.trapezoid(density, grid) - 1) < 1e-3
    assert np.isfinite(policy.log_prob(jnp.array([1.0])))
    far = TanhGaussian(jnp.full((64, 1), 30.0), jnp.zeros((64, 1)))
    action, log_prob = far.sample_and_log_prob(KEY)
    assert (action == 1.0).all()
    assert np.isfinite(log_prob).all()
    slope = jax.grad(lambda m: TanhGaussian(m, jnp.zeros(1)).sample_and_log_prob(KEY)[1])
    assert np.isfinite(slope(jnp.array([30.0]))).all()
    sample, log_prob = policy.sample_and_log_prob(KEY)
    np.testing.assert_allclose(policy.log_prob(sample), log_prob, rtol=1e-4)
    np.testing.assert_array_equal(policy.sample(KEY), sample)


@pytest.mark.thorough
def test_temperature_keeps_the_target_entropy():
    agent = FAST["sac"].replace(target_entropy=-1.5)
    training = Training.create(agent, BestContinuousAction(), total_steps=400 * 32)
    run = jax.jit(training.chunk)
    state, *_ = run(jax.jit(training.init)(KEY), KEY, jnp.int32(0), jnp.int32(300))
    _, metrics, _ = run(state, KEY, jnp.int32(300), jnp.int32(400))
    np.testing.assert_allclose(metrics.updates["entropy"].value, -1.5, atol=0.25)


@pytest.mark.thorough
@pytest.mark.parametrize("delay", [1, 2, 3])
def test_policy_delay_holds_under_vmap(delay):
    """12 updates, one per iteration, over seeds and learning rates."""
    agent = FAST["td3"].replace(policy_delay=delay, num_updates=1, warmup=1)

    def run(rate, key):
        training = Training.create(
            agent.replace(critic_learning_rate=rate), BestContinuousAction(), total_steps=12 * 32
        )
        state = training.init(key)

        def one(state, i):
            new, _ = training.iteration(state, key, i)
            moves = jax.tree.map(
                lambda a, b: jnp.any(a != b), (state.agent.params, state.agent.target),
                (new.agent.params, new.agent.target),
            )  # fmt: skip
            params, target = moves
            parts = (params.actor, params.critic, target.actor, target.critic)
            return new, jnp.stack([jnp.any(jnp.stack(jax.tree.leaves(x))) for x in parts])

        return jax.lax.scan(one, state, jnp.arange(12))[1]

    run = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))
    moved = np.asarray(run(jnp.array([1e-3, 3e-3]), jax.random.split(KEY, 2)))  # [2, 2, 12, 4]
    due = (np.arange(12) + 1) % delay == 0
    assert moved[..., 1].all()
    for part in (0, 2, 3):
        np.testing.assert_array_equal(moved[..., part], np.broadcast_to(due, (2, 2, 12)))


@pytest.mark.thorough
def test_policy_delay_counts_across_iterations():
    """Three updates per iteration and a delay of 2: alternately one and two policy updates."""
    agent = FAST["td3"].replace(policy_delay=2, num_updates=3, warmup=1)
    training = Training.create(agent, BestContinuousAction(), total_steps=4 * 32)
    state, iterate, steps = training.init(KEY), jax.jit(training.iteration), [0]
    for i in range(4):
        state, _ = iterate(state, KEY, jnp.int32(i))
        steps.append(int(optax.tree_utils.tree_get(state.agent.actor_optimizer, "count")))
    np.testing.assert_array_equal(np.diff(steps), [1, 2, 1, 2])
    assert optax.tree_utils.tree_get(state.agent.critic_optimizer, "count") == 12


def test_td3_targets_take_the_minimum_and_clip_the_noise():
    """With noise far above its clip, nearly all target actions are at the clip."""
    agent = TD3(**SMALL, target_noise=100.0, target_noise_clip=0.2).bind(
        BestContinuousAction().spec
    )
    state = jax.jit(agent.init)(KEY)
    obs = jax.random.normal(KEY, (64, 1))
    action = agent.policy(state.target.actor, obs)
    ends = [jnp.clip(action + sign * 0.2, -1.0, 1.0) for sign in (-1.0, 1.0)]
    least = [np.asarray(agent.critic.apply(state.target.critic, obs, a)).min(0) for a in ends]
    seen = []
    real = TD3.bellman_target

    class Spied(TD3):
        def bellman_target(self, rows, next_values):
            seen.append(next_values)
            return real(self, rows, next_values)

    spied = Spied(**SMALL, target_noise=100.0, target_noise_clip=0.2).bind(agent.spec)
    zeros = jnp.zeros(64)
    rows = Replayed.once(Transition(obs, jnp.zeros((64, 1)), zeros, zeros > 0, zeros > 0, obs))
    spied.update(state, rows, KEY, Clock.start())
    found = np.asarray(seen[0])
    close = np.minimum(*(np.abs(found - x) for x in least))
    assert (close < 1e-4).mean() > 0.9  # nearly all draws are clipped


@pytest.mark.thorough
def test_refinements_improve_on_the_initial_sample():
    agent = FAST["search"].bind(BestContinuousAction().spec)
    params, obs = jax.jit(agent.init)(KEY).params, jax.random.normal(KEY, (256, 1))
    found = [
        float(agent.replace(num_refinements=n, num_candidates=8).search(params, obs, KEY)[1].mean())
        for n in (0, 1, 5)
    ]
    grid = jnp.linspace(-1.0, 1.0, 401)
    q = jnp.stack([agent.critic.apply(params, obs, jnp.full((256, 1), a)).min(0) for a in grid])
    best = float(q.max(0).mean())
    assert found[0] < found[1] < found[2] <= best + 1e-4
    assert best - found[2] < 0.5 * (best - found[0])
    action, value = agent.search(params, obs, KEY)
    np.testing.assert_allclose(agent.critic.apply(params, obs, action).min(0), value, rtol=1e-4)


def test_warmup_actions_are_uniform_over_the_box():
    agent = FAST["sac"].bind(Cut().spec)
    state = jax.jit(agent.init)(KEY)
    obs = jnp.ones((4000, 1))
    early, late = (
        np.asarray(
            agent.act(
                state, (), obs, KEY, Clock.start().replace(iteration=jnp.int32(i)), explore=True
            )[1]
        )
        for i in (3, 4)
    )
    assert stats.kstest(early.ravel(), "uniform", args=(-2, 6)).pvalue > 1e-3
    assert stats.kstest(late.ravel(), "uniform", args=(-2, 6)).pvalue < 1e-3


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["td3", "sac"])
def test_sixteen_seeds_in_one_program_differ_and_learn(name):
    agent = FAST[name].replace(num_envs=2, num_steps=4, hidden_sizes=(16,))
    keys = jax.random.split(KEY, 16)
    run = jax.jit(jax.vmap(lambda k: train(agent, BestContinuousAction(), k, total_steps=1600)))
    state, metrics = run(keys)
    assert (metrics.evaluation.returns[:, -1].mean(-1) > -0.1).all()
    leaves = [np.reshape(x, (16, -1)) for x in jax.tree.leaves(state.agent) if x.size > 16 * 100]
    assert leaves
    assert all(np.unique(x, axis=0).shape[0] == 16 for x in leaves)


@pytest.mark.parametrize("kind", [TD3, SAC, QSearch])
def test_custom_torso_has_parameters_in_each_network(kind):
    agent = kind(**SMALL, torso=MLP((5,))).bind(Cut().spec)
    state = jax.jit(agent.init)(KEY)
    shapes = [x.shape for x in jax.tree.leaves(state) if x.ndim == 2]
    assert (1, 5) in shapes  # from the observation
    assert all(shape[0] != 1 for shape in shapes if shape != (1, 5))
    obs = jnp.ones((3, 1))
    assert agent.act(state, (), obs, KEY, Clock.start(), explore=False)[1].shape == (3, 2)


def test_warmup_takes_no_masked_actions():
    agent = FAST["sac"].bind(MaskedChoice().spec)
    obs = agent.spec.dummy_observation(64)
    mask = jnp.zeros_like(obs.action_mask).at[:, 1].set(True)
    state = jax.jit(agent.init)(KEY)
    action = agent.act(state, (), obs._replace(action_mask=mask), KEY, Clock.start(), explore=True)
    np.testing.assert_array_equal(action[1], 1)


def test_target_entropy_depends_on_the_available_actions():
    agent = FAST["sac"].bind(MaskedChoice().spec)
    obs = agent.spec.dummy_observation(2)
    num = obs.action_mask.shape[-1]
    mask = jnp.arange(num)[None] < jnp.array([[2], [num]])
    wanted = agent._wanted_entropy(obs._replace(action_mask=mask))
    np.testing.assert_allclose(wanted, 0.89 * np.log([2, num]), rtol=1e-6)


def test_log_prob_of_a_sample_keeps_its_precision():
    """Next to a mean of 1, a deviation of 2e-9 is rounded away, and so is (u - mean) / std."""
    log_std = jnp.full((4096, 1), -20.0)

    def log_prob(log_std):
        return TanhGaussian(jnp.ones((4096, 1)), log_std).sample_and_log_prob(KEY)[1]

    entropy = -20.0 + 0.5 * np.log(2 * np.pi * np.e)
    expected = -entropy - np.log(1 - np.tanh(1.0) ** 2)
    np.testing.assert_allclose(log_prob(log_std).mean(), expected, atol=0.05)
    slope = jax.grad(lambda x: log_prob(x).mean())(log_std).sum()
    np.testing.assert_allclose(slope, -1.0, atol=1e-3)


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "spec", "message"),
    [
        (TD3(), Counter().spec, "TD3 needs a Box of actions.*use DQN or SAC"),
        (QSearch(), lqr.make().spec, "not finite, .* give the environment finite bounds"),
        (SAC(), lqr.make().spec, "SAC scales its actions"),
        (TD3(tau=0.0), Cut().spec, "tau is 0.0"),
        (TD3(policy_delay=0), Cut().spec, "policy_delay is 0"),
        (TD3(exploration_noise=-0.1), Cut().spec, "exploration_noise is -0.1"),
        (SAC(temperature=0.0), Cut().spec, "temperature is 0.0"),
        (SAC(critic_learning_rate=np.nan), Cut().spec, "critic_learning_rate is nan"),
        (SAC(hidden_sizes=()), Cut().spec, "hidden_sizes"),
        (QSearch(num_elites=9, num_candidates=8), Cut().spec, "num_elites is 9, more than"),
        (QSearch(num_elites=1), Cut().spec, "num_elites is 1, but a Gaussian needs"),
        (QSearch(proposal="sobol"), Cut().spec, "proposal is 'sobol'"),
        (SAC(n_step=3), Cut().spec, "n_step is 3: n-step rewards leave out the entropy"),
        (TD3(), EnvSpec(Cut().spec.observation, Box.of(-3e38, 3e38, (1,))), "too far apart"),
    ],
)
def test_invalid_options_are_rejected(agent, spec, message):
    with pytest.raises(ValueError, match=message):
        agent.bind(spec)
