"""PPO: loss against NumPy, properties of updates, and probe environments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers.environments import (
    BestAction,
    BestActionByObservation,
    BestContinuousAction,
    BestMixedAction,
    ConstantReward,
    Counter,
    DelayedReward,
    Endless,
    MaskedChoice,
    Picture,
    Recall,
    RewardIsObservation,
)
from helpers.probes import KEY, learned, mode, value

from jaxrl.agents import PPO
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.engine.sweep import sweep
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.networks.torsos import CNN
from jaxrl.schedules import Linear
from jaxrl.types import Clock, Trajectory

FAST = PPO(
    num_envs=32, num_steps=16, learning_rate=3e-3, hidden_sizes=(16,), entropy_coefficient=1e-3
)


# Probes -------------------------------------------------------------------------------------------


@pytest.mark.thorough  # the next test is stronger
def test_probe_value_of_one_state():
    agent, state, _ = learned(FAST, ConstantReward(), 40)
    np.testing.assert_allclose(value(agent, state, [[0.0]]), [1.0], atol=0.02)


def test_probe_value_by_observation():
    agent, state, _ = learned(FAST, RewardIsObservation(), 60)
    np.testing.assert_allclose(value(agent, state, [[-1.0], [1.0]]), [-1.0, 1.0], atol=0.05)


def test_probe_discounting():
    agent, state, _ = learned(FAST.replace(discount=0.5), DelayedReward(), 80)
    np.testing.assert_allclose(value(agent, state, [[0.0], [1.0]]), [0.5, 1.0], atol=0.05)


@pytest.mark.thorough  # the next test is stronger
def test_probe_action_choice():
    _agent, _state, metrics = learned(FAST, BestAction(), 40)
    assert metrics.evaluation.returns.mean() == 1.0


def test_probe_action_by_observation():
    agent, state, _metrics = learned(FAST, BestActionByObservation(), 60)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


def test_probe_truncation_is_not_termination():
    """One endless state truncated every 5 steps: the value is 1 / (1 - 0.8) = 5.

    Treating the time limit as termination gives 1 to 3.4, depending on the time left.
    """
    agent, state, _ = learned(FAST.replace(discount=0.8, learning_rate=1e-2), Endless(limit=5), 150)
    np.testing.assert_allclose(value(agent, state, [[1.0]]), [5.0], atol=0.1)


@pytest.mark.thorough  # the mixed action below includes a box
def test_probe_continuous_action():
    agent, state, _ = learned(FAST, BestContinuousAction(), 150)
    np.testing.assert_allclose(mode(agent, state, [[-1.0], [1.0]])[:, 0], [-0.5, 0.5], atol=0.1)


def test_probe_mixed_action():
    agent, state, _ = learned(FAST.replace(num_envs=64), BestMixedAction(), 250)
    choice, position, pair = mode(agent, state, [[-1.0], [1.0]])
    np.testing.assert_array_equal(choice, [0, 1])
    np.testing.assert_allclose(position[:, 0], [-0.5, 0.5], atol=0.15)
    np.testing.assert_array_equal(pair, [[0, 2], [1, 2]])


def test_probe_masks():
    _, _, metrics = learned(FAST, MaskedChoice(), 80)
    assert metrics.evaluation.returns.mean() == 4.0
    assert metrics.training.episodes.returns.value[0] > 0  # a forbidden action costs 100


class Eyes(nn.Module):
    """A user-defined torso: a CNN over the picture, concatenated with the number."""

    @nn.compact
    def __call__(self, obs):
        x = CNN(layers=((4, 3, 1),), features=16)(obs["image"])
        return jnp.concatenate([x, obs["noise"][..., None]], axis=-1)


@pytest.mark.thorough
@pytest.mark.parametrize("torso", [None, Eyes()], ids=["flattened", "own module"])
def test_probe_pictures_in_a_dictionary(torso):
    agent = FAST.replace(torso=torso, learning_rate=1e-3 if torso is None else 3e-3)
    _, _, metrics = learned(agent, Picture(), 40)
    assert metrics.evaluation.returns.mean() == 1.0


@pytest.mark.thorough
@pytest.mark.parametrize(("core", "shared"), [("gru", False), ("lstm", True)])
def test_probe_memory(core, shared):
    agent = FAST.replace(core=core, core_size=16, shared_torso=shared)
    _, _, metrics = learned(agent, Recall(delay=3), 120)
    assert metrics.evaluation.returns.mean() == 1.0


@pytest.mark.thorough  # checks the task, not PPO
def test_recall_is_unsolvable_without_a_core():
    _, _, metrics = learned(FAST, Recall(delay=3), 40)
    assert abs(metrics.evaluation.returns.mean()) < 0.5


# Properties ---------------------------------------------------------------------------------------


@pytest.mark.thorough  # the unmoved policy below is a stronger test
@pytest.mark.optimized
@pytest.mark.parametrize(
    ("agent", "env"),
    [
        (PPO(num_envs=8, num_steps=16), Counter(limit=9)),
        (PPO(num_envs=8, num_steps=16, shared_torso=True), Counter(limit=9)),
        (PPO(num_envs=8, num_steps=16, core="gru"), Recall()),
        (PPO(num_envs=8, num_steps=16), MaskedChoice()),
    ],
    ids=["separate", "shared", "recurrent", "masked"],
)
def test_the_first_importance_ratio_is_one(agent, env):
    """One epoch and one minibatch: every ratio is a first one, and statistics keep changing."""
    agent = agent.replace(num_epochs=1, num_minibatches=1, learning_rate=1e-2)
    state, metrics = jax.jit(
        lambda key: train(
            agent, env, key, total_steps=128 * 5, num_evaluations=5, num_eval_episodes=2,
            normalize_observations=True, normalize_rewards=True,
        )
    )(KEY)  # fmt: skip
    assert state.stats.obs[0].count == 640
    np.testing.assert_allclose(metrics.training.updates["approximate_kl"].value, 0.0, atol=1e-12)
    np.testing.assert_array_equal(metrics.training.updates["clip_fraction"].value, 0.0)


def a_batch(agent, rows=64):
    """Random samples in the format of `prepare`."""
    keys = jax.random.split(KEY, 6)
    obs = jax.random.normal(keys[0], (rows, 2))
    sample = Sample(
        obs=obs,
        action=jax.random.randint(keys[1], (rows,), 0, 3),
        log_prob=-1.1 + 0.3 * jax.random.normal(keys[2], (rows,)),
        value=jax.random.normal(keys[3], (rows,)),
        advantage=jax.random.normal(keys[4], (rows,)),
        target=jax.random.normal(keys[5], (rows,)),
    )
    return Trajectory(sample, jnp.zeros(rows, bool))


class FirstRatio(PPO):
    """Reports how far the importance ratio is from 1."""

    def loss(self, params, state, batch, clock):
        sample = batch.steps
        policy, *_ = self.network.apply(params, sample.obs, batch.carry, batch.first)
        ratio = jnp.exp(policy.log_prob(sample.action) - sample.log_prob)
        loss, metrics = super().loss(params, state, batch, clock)
        return loss, metrics | {"error": jnp.max(jnp.abs(ratio - 1.0))}


UNMOVED = FirstRatio(num_envs=8, num_steps=16, learning_rate=0.0, hidden_sizes=(16,))


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("agent", "env", "limit"),
    [
        (UNMOVED, BestActionByObservation(), 0.0),
        pytest.param(UNMOVED, MaskedChoice(), 0.0, marks=pytest.mark.thorough),
        pytest.param(UNMOVED, BestContinuousAction(), 1e-5, marks=pytest.mark.thorough),
        pytest.param(UNMOVED, BestMixedAction(), 1e-5, marks=pytest.mark.thorough),
        (UNMOVED.replace(core="gru", core_size=8), Recall(delay=3), 1e-5),
    ],
    ids=["discrete", "masked", "box", "mixed", "recurrent"],
)
def test_the_importance_ratio_of_an_unmoved_policy_is_one(agent, env, limit):
    """In a whole run whose observation statistics change between iterations."""
    steps = 4 * agent.plan.steps_per_iteration
    _, metrics = jax.jit(
        lambda key: train(
            agent, env, key, total_steps=steps, num_evaluations=0, normalize_observations=True
        )
    )(KEY)
    assert metrics.training.updates["error"].value[0] <= limit


@pytest.mark.parametrize("clip_value", [False, True])
@pytest.mark.parametrize("normalize_advantages", [False, True])
def test_loss_matches_the_paper(clip_value, normalize_advantages):
    """Equation 9 in NumPy and float64, from the network's outputs."""
    agent = PPO(clip_value=clip_value, normalize_advantages=normalize_advantages).bind(
        Counter().spec
    )
    params = jax.tree.map(lambda x: 3 * x + 0.1, agent.init(KEY).params)
    batch = a_batch(agent)
    policy, values, _ = agent.network.apply(params, batch.steps.obs)
    sample = jax.tree.map(lambda x: np.asarray(x, np.float64), batch.steps)
    logits, v = np.asarray(policy.logits, np.float64), np.asarray(values, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = log_p[np.arange(64), sample.action.astype(int)]
    ratio = np.exp(chosen - sample.log_prob)
    advantage = sample.advantage
    if normalize_advantages:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    surrogate = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    error = (v - sample.target) ** 2
    if clip_value:
        clipped = sample.value + np.clip(v - sample.value, -0.2, 0.2)
        error = np.maximum(error, (clipped - sample.target) ** 2)
    entropy = -(np.exp(log_p) * log_p).sum(-1)
    expected = -surrogate.mean() + 0.5 * 0.5 * error.mean() - 0.01 * entropy.mean()
    loss, metrics = agent.loss(params, None, batch, Clock.start())
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], entropy.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["clip_fraction"], (np.abs(ratio - 1) > 0.2).mean())
    np.testing.assert_allclose(
        metrics["approximate_kl"], (ratio - 1 - np.log(ratio)).mean(), rtol=1e-4
    )


def test_clip_epsilon_may_anneal_to_zero():
    """As in the paper's Atari runs: ratios clipped to 1, values to the old ones, no NaN."""
    agent = PPO(clip_epsilon=Linear(0.1, 0.0), entropy_coefficient=0.0).bind(Counter().spec)
    params = agent.init(KEY).params
    batch = a_batch(agent)
    policy, values, _ = agent.network.apply(params, batch.steps.obs)
    sample = batch.steps.replace(log_prob=policy.log_prob(batch.steps.action))  # ratios of 1
    end = Clock(jnp.int32(9), jnp.int32(9), jnp.float32(1.0))
    (loss, metrics), gradient = jax.value_and_grad(agent.loss, has_aux=True)(
        params, None, batch.replace(steps=sample), end
    )
    v, target, old = (np.asarray(x) for x in (values, sample.target, sample.value))
    expected = 0.5 * np.maximum((v - target) ** 2, (old - target) ** 2).mean()
    np.testing.assert_allclose(metrics["value_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy_loss"], 0.0, atol=1e-6)  # centred advantages
    assert np.isfinite(loss)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_gradients_are_clipped_by_their_global_norm():
    """Before Adam, all leaves are scaled by one factor (not clipped element by element)."""
    agent = PPO(max_grad_norm=0.5).bind(Counter().spec)
    gradient = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([12.0])}  # norm 13
    optimizer = agent.transform(Clock.start())
    _, state = optimizer.update(gradient, optimizer.init(gradient), gradient)
    (first_moment,) = jax.tree.leaves(state[1][0].mu)  # all leaves, concatenated
    np.testing.assert_allclose(first_moment, 0.1 * 0.5 * np.array([3, 4, 12]) / 13, rtol=1e-5)


def test_the_learning_rate_is_annealed_by_the_clock():
    """Adam's first step is the rate itself, whatever the gradient."""
    agent = PPO(learning_rate=Linear(0.1), max_grad_norm=None, adam_epsilon=1e-12)
    for fraction, rate in ((0.0, 0.1), (0.5, 0.05), (1.0, 0.0)):
        clock = Clock(jnp.int32(0), jnp.int32(0), jnp.float32(fraction))
        optimizer = agent.transform(clock)
        gradient = {"a": jnp.array([3.0, -4.0])}
        step, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        np.testing.assert_allclose(step["a"], [-rate, rate], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "others"), [("clip_epsilon", (0.4, 0.1)), ("entropy_coefficient", (0.5, 0.2))]
)
def test_the_loss_is_annealed_by_the_clock(name, others):
    """Halfway, the loss is that of a constant halfway between both ends."""
    start, end = others
    clock = Clock(jnp.int32(0), jnp.int32(0), jnp.float32(0.5))
    agents = [
        PPO(**{name: x}).bind(Counter().spec) for x in (Linear(start, end), (start + end) / 2)
    ]
    params, batch = agents[0].init(KEY).params, a_batch(agents[0])
    annealed, constant = (agent.loss(params, None, batch, clock)[0] for agent in agents)
    np.testing.assert_allclose(annealed, constant, rtol=1e-6)
    at_start = agents[0].loss(params, None, batch, Clock.start())[0]
    assert abs(annealed - at_start) > 1e-3


@pytest.mark.thorough
def test_target_kl_stops_only_the_current_iteration():
    agent = PPO(num_envs=8, num_steps=16, learning_rate=1e-2, target_kl=1e-7)
    env = Counter(limit=5)

    def run(agent):
        return train(agent, env, KEY, total_steps=128 * 4, num_evaluations=4)

    _, metrics = run(agent)
    count = np.asarray(metrics.training.updates["approximate_kl"].count)
    np.testing.assert_array_equal(count, 2)  # the first update moves, the second exceeds the target
    generous, metrics = run(agent.replace(target_kl=1e9))
    np.testing.assert_array_equal(metrics.training.updates["approximate_kl"].count, 16)
    plain, _ = run(agent.replace(target_kl=None))  # a limit never reached changes nothing
    for a, b in zip(
        jax.tree.leaves(plain.agent.params), jax.tree.leaves(generous.agent.params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_step_beyond_target_kl_is_not_taken():
    agent = PPO(target_kl=1e-9).bind(Counter().spec)
    state, batch = jax.jit(agent.init)(KEY), a_batch(agent)
    update = jax.jit(lambda agent: agent.update(state, batch, KEY, Clock.start())[0])
    stopped = update(agent)
    assert stopped.stopped
    jax.tree.map(np.testing.assert_array_equal, stopped.replace(stopped=state.stopped), state)
    moved = update(agent.replace(target_kl=1e9))
    assert not moved.stopped
    for old, new in zip(jax.tree.leaves(state.params), jax.tree.leaves(moved.params), strict=True):
        assert not np.array_equal(old, new)


def test_an_optimizer_may_read_the_parameters():
    """As AdamW does for its decay: a decay of 100% leaves zeros."""

    def decay(updates, state, params=None):
        assert params is not None  # optax itself would raise, and not fail a test
        return jax.tree.map(jnp.negative, params), state

    def decaying(rate):
        return optax.GradientTransformation(lambda params: (), decay)

    agent = PPO(optimizer=decaying).bind(Counter().spec)
    batch = a_batch(agent)
    run = jax.jit(lambda key: agent.update(agent.init(key), batch, key, Clock.start())[0])
    assert not any(x.any() for x in jax.tree.leaves(run(KEY).params))


@pytest.mark.thorough
def test_sweep_lane_equals_a_separate_run():
    env, agent = Counter(limit=5), PPO(num_envs=4, num_steps=16)
    grid = sweep(agent, learning_rate=[1e-4, 1e-2], clip_epsilon=[0.1, 0.3])

    def run(agent):
        return train(agent, env, KEY, total_steps=256, num_evaluations=0)[0].agent.params

    lanes = jax.jit(jax.vmap(run))(grid)
    alone = jax.jit(run)(agent.replace(learning_rate=1e-2, clip_epsilon=0.1))
    for lane, x in zip(jax.tree.leaves(lanes), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(lane[2], x, atol=2e-5)


def test_nan_does_not_cross_lanes():
    """A diverging member of a vmap leaves the others finite."""
    env, agent = Counter(limit=5), PPO(num_envs=4, num_steps=16, max_grad_norm=None)
    rates = jnp.array([1e-3, jnp.inf])

    def run(rate):
        lane = agent.replace(learning_rate=rate)
        return train(lane, env, KEY, total_steps=256, num_evaluations=0)[0].agent.params

    lanes = jax.tree.leaves(jax.jit(jax.vmap(run))(rates))
    assert all(np.isfinite(x[0]).all() for x in lanes)
    assert not all(np.isfinite(x[1]).all() for x in lanes)


@pytest.mark.thorough
def test_odd_sizes_and_one_environment():
    for agent in (
        PPO(num_envs=1, num_steps=7, num_minibatches=7, num_epochs=2, normalize_advantages=False),
        PPO(num_envs=3, num_steps=5, num_minibatches=5),
        PPO(num_envs=3, num_steps=5, num_minibatches=3, core="gru"),
    ):
        state, _ = train(agent, Counter(limit=4), KEY, total_steps=50, num_eval_episodes=1)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.agent.params))


@pytest.mark.parametrize("core", ["none", "gru"])
def test_standardising_a_single_advantage_is_rejected(core):
    """(x - x) / std is 0: a policy whose minibatches are single steps would never move."""
    num_steps = 8 if core == "none" else 1
    bandit = PPO(num_envs=4, num_steps=num_steps, num_minibatches=4 * num_steps, core=core)
    message = (
        r"normalize_advantages standardises over num_envs \* num_steps / num_minibatches = 1 step "
        r"per update: .* take fewer minibatches or set normalize_advantages=False"
    )
    with pytest.raises(ValueError, match=message):
        Training.create(bandit, BestAction(), total_steps=320)
    for works in ({"normalize_advantages": False}, {"num_minibatches": 2}, {"num_steps": 16}):
        Training.create(bandit.replace(**works), BestAction(), total_steps=320)


def test_total_steps_are_whole_iterations():
    training = Training.create(PPO(num_envs=4, num_steps=128), Counter(), total_steps=500_000)
    assert training.num_iterations == 977
    assert training.total_steps == 500_224


# Learning -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cartpole_is_solved():
    """A small version of row S1: 4 seeds; the published mean is 490.0 after 500,000 steps."""
    import jaxrl_envs

    agent = PPO(learning_rate=Linear(2.5e-4))
    env = jaxrl_envs.make("gymnax/CartPole-v1")
    run = jax.jit(
        jax.vmap(lambda k: train(agent, env, k, total_steps=500_000, num_evaluations=1)[1])
    )
    metrics = run(jax.random.split(KEY, 4))
    assert metrics.evaluation.returns.mean() > 480
