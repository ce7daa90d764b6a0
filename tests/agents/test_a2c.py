"""A2C: loss and updates against NumPy, equivalence with PPO, and probe environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import (
    BestActionByObservation,
    BestContinuousAction,
    BestMixedAction,
    Counter,
    DelayedReward,
    Endless,
    MaskedChoice,
    Recall,
    RewardIsObservation,
)
from helpers.probes import KEY, learned, mode, value

from jaxrl.agents import A2C, PPO
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.engine.acting import policy_of
from jaxrl.engine.rollout import rollout
from jaxrl.engine.training import Training
from jaxrl.optimizers import rmsprop
from jaxrl.schedules import Linear
from jaxrl.types import Clock, Trajectory, Transition

FAST = A2C(num_envs=32, num_steps=8, learning_rate=1e-2, hidden_sizes=(16,))
SMALL = A2C(num_envs=4, num_steps=6, hidden_sizes=(8,))


def a_batch(rows=48):
    """Random samples in the format of `prepare`."""
    keys = jax.random.split(KEY, 4)
    sample = Sample(
        obs=jax.random.normal(keys[0], (rows, 1)),
        action=jax.random.randint(keys[1], (rows,), 0, 2),
        log_prob=jnp.full(rows, jnp.nan),  # unused: the data are on-policy
        value=jnp.full(rows, jnp.nan),
        advantage=1.0 + 3.0 * jax.random.normal(keys[2], (rows,)),
        target=jax.random.normal(keys[3], (rows,)),
    )
    return Trajectory(sample, jnp.zeros(rows, bool))


def bound(agent, env=None):
    return agent.bind((env or BestActionByObservation()).spec)


# Loss and updates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [False, True])
def test_loss_is_the_sum_of_three_terms(normalize):
    agent = bound(
        SMALL.replace(
            normalize_advantages=normalize, entropy_coefficient=0.03, value_coefficient=0.7
        )
    )
    params, batch = jax.tree.map(lambda x: x + 0.3, agent.init(KEY).params), a_batch()
    head = params["params"]["actor_head"]["Dense_0"]
    head["kernel"] *= jnp.array([[3.0, -1.0]])  # makes one action likelier
    loss, metrics = agent.loss(params, None, batch, Clock.start())

    policy, v, _ = agent.network.apply(params, batch.steps.obs)
    log_p = np.asarray(jax.nn.log_softmax(policy.logits), np.float64)
    advantage = np.asarray(batch.steps.advantage, np.float64)
    if normalize:
        advantage = (advantage - advantage.mean()) / advantage.std()
    taken = log_p[np.arange(48), np.asarray(batch.steps.action)]
    entropy = -(np.exp(log_p) * log_p).sum(-1).mean()
    error = 0.5 * np.square(np.asarray(v, np.float64) - np.asarray(batch.steps.target)).mean()
    wanted = -(taken * advantage).mean() + 0.7 * error - 0.03 * entropy
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy_loss"], -(taken * advantage).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], error, rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)


@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_two_updates_match_rmsprop(max_grad_norm):
    """The step is g / sqrt(m + epsilon), with m <- decay m + (1 - decay) g^2 from m = 1.

    g is clipped by its global norm; the schedules, which end at zero, are halfway through.
    """
    agent = bound(
        SMALL.replace(
            max_grad_norm=max_grad_norm,
            learning_rate=Linear(0.2),
            entropy_coefficient=Linear(0.8),
            rmsprop_decay=0.9,
            rmsprop_epsilon=0.3,
        )
    )
    state, batch = agent.init(KEY), a_batch()
    clock = Clock(jnp.int32(0), jnp.int32(0), jnp.float32(0.5))
    constant = agent.replace(entropy_coefficient=0.4)
    mean_square = [np.ones(x.shape) for x in jax.tree.leaves(state.params)]
    for _ in range(2):
        gradient = jax.grad(lambda p: constant.loss(p, None, batch, Clock.start())[0])(state.params)
        leaves = [np.asarray(g, np.float64) for g in jax.tree.leaves(gradient)]
        norm = np.sqrt(sum((g**2).sum() for g in leaves))
        if max_grad_norm is not None:
            assert norm > 2 * max_grad_norm
            leaves = [g * max_grad_norm / norm for g in leaves]
        mean_square = [0.9 * m + 0.1 * g**2 for m, g in zip(mean_square, leaves, strict=True)]
        wanted = [
            np.asarray(x) - 0.1 * g / np.sqrt(m + 0.3)
            for x, g, m in zip(jax.tree.leaves(state.params), leaves, mean_square, strict=True)
        ]
        state = agent.update(state, batch, KEY, clock).state
        for x, y in zip(jax.tree.leaves(state.params), wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_rmsprop_epsilon_is_inside_the_root():
    """g = 3, m = 0.75 + 0.25 * 9 = 3, epsilon = 6: the step is 3 / sqrt(9)."""
    transform = rmsprop(1.0, Clock.start(), decay=0.75, epsilon=6.0)
    updates, _ = transform.update({"x": jnp.float32(3.0)}, transform.init({"x": jnp.float32(0.0)}))
    np.testing.assert_allclose(updates["x"], -1.0, rtol=1e-6)


def test_targets_are_bootstrapped_rollout_returns():
    """Mnih et al., algorithm S3: R <- r + gamma R backwards, starting from V at the end of the
    rollout, from 0 at a termination and from V at a time limit."""
    agent = bound(SMALL.replace(discount=0.9))
    params = agent.init(KEY)
    keys = jax.random.split(KEY, 3)
    obs = jax.random.normal(keys[0], (7, 4, 1))
    terminated = jnp.zeros((6, 4), bool).at[2, 0].set(True).at[4, 1].set(True)
    truncated = jnp.zeros((6, 4), bool).at[3, 2].set(True)
    next_obs = jnp.where((terminated | truncated)[..., None], obs[1:] + 1.0, obs[1:])
    steps = Transition(
        obs=obs[:-1],
        action=jnp.zeros((6, 4), jnp.int32),
        reward=jax.random.normal(keys[1], (6, 4)),
        terminated=terminated,
        truncated=truncated,
        next_obs=next_obs,
        extras={"log_prob": jnp.zeros((6, 4))},
    )
    made = agent.prepare(params, Trajectory(steps, jnp.zeros((6, 4), bool)), Clock.start()).steps

    def v(x):
        return agent.network.apply(params.params, x, method="value")[0]

    for n in range(4):
        behind = v(next_obs[-1:, n])[0]
        for t in reversed(range(6)):
            if truncated[t, n]:
                behind = v(next_obs[t : t + 1, n])[0]
            behind = steps.reward[t, n] + 0.9 * (0.0 if terminated[t, n] else behind)
            np.testing.assert_allclose(made.target[t, n], behind, rtol=1e-4, atol=1e-5)
            advantage = behind - v(obs[t : t + 1, n])[0]
            np.testing.assert_allclose(made.advantage[t, n], advantage, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("env", "core"), [(MaskedChoice(), "none"), (Recall(delay=3), "gru")])
def test_a2c_is_ppo_with_one_epoch_and_one_minibatch(env, core):
    """Huang et al., "A2C is a special case of PPO", 2022: ratios are 1 and gradients equal."""
    options = {
        "num_envs": 4, "num_steps": 6, "hidden_sizes": (8,), "gae_lambda": 1.0,
        "core": core, "core_size": 8,
    }  # fmt: skip
    a2c = bound(A2C(**options), env)
    ppo = bound(
        PPO(
            **options, num_epochs=1, num_minibatches=1, normalize_advantages=False, clip_value=False
        ),
        env,
    )
    training, clock = Training.create(a2c, env, total_steps=24), Clock.start()

    @jax.jit
    def collect(state):
        policy = policy_of(a2c, state.agent, state.stats, clock, explore=True)
        carry = a2c.initial_carry(4)
        trajectory = rollout(policy, training.envs, state.envs, carry, carry, KEY, 6)[2]
        return a2c.prepare(state.agent, trajectory, clock)

    state = training.init(KEY)
    batch, params = collect(state), state.agent.params
    gradients = [
        jax.jit(jax.grad(lambda p, agent=agent: agent.loss(p, None, batch, clock)[0]))(params)
        for agent in (a2c, ppo)
    ]
    assert all(jnp.abs(x).max() > 0 for x in jax.tree.leaves(gradients[0]))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), *gradients)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"gae_lambda": 1.5}, "gae_lambda is 1.5"),
        ({"entropy_coefficient": -1.0}, "entropy_coefficient is -1"),
        ({"value_coefficient": -1.0}, "value_coefficient is -1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0"),
        ({"rmsprop_decay": 1.1}, "rmsprop_decay is 1.1"),
        ({"rmsprop_epsilon": 0.0}, "rmsprop_epsilon is 0"),
        (
            {"num_envs": 1, "num_steps": 1, "normalize_advantages": True},
            r"over num_envs \* num_steps = 1 step .* Collect more steps or set normalize_adv",
        ),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        Training.create(A2C(**options), Counter(), total_steps=100)


# Probes -------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_probe_value_by_observation():
    agent, state, _ = learned(FAST, RewardIsObservation(), 300)
    np.testing.assert_allclose(value(agent, state, [[-1.0], [1.0]]), [-1.0, 1.0], atol=0.05)


@pytest.mark.thorough
def test_probe_discounting():
    agent, state, _ = learned(FAST.replace(discount=0.5), DelayedReward(), 300)
    np.testing.assert_allclose(value(agent, state, [[0.0], [1.0]]), [0.5, 1.0], atol=0.05)


@pytest.mark.thorough  # PPO has the same targets and the same test
def test_probe_truncation_is_not_termination():
    """One endless state truncated every 5 steps: the value is 1 / (1 - 0.8) = 5."""
    agent, state, _ = learned(FAST.replace(discount=0.8), Endless(limit=5), 600)
    np.testing.assert_allclose(value(agent, state, [[1.0]]), [5.0], atol=0.1)


def test_probe_action_by_observation():
    agent, state, _ = learned(FAST, BestActionByObservation(), 200)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


@pytest.mark.thorough
def test_probe_continuous_action():
    agent, state, _ = learned(FAST, BestContinuousAction(), 600)
    np.testing.assert_allclose(mode(agent, state, [[-1.0], [1.0]])[:, 0], [-0.5, 0.5], atol=0.1)


@pytest.mark.thorough
def test_probe_mixed_action():
    agent, state, _ = learned(FAST.replace(num_envs=64), BestMixedAction(), 1000)
    choice, position, pair = mode(agent, state, [[-1.0], [1.0]])
    np.testing.assert_array_equal(choice, [0, 1])
    np.testing.assert_allclose(position[:, 0], [-0.5, 0.5], atol=0.15)
    np.testing.assert_array_equal(pair, [[0, 2], [1, 2]])


@pytest.mark.thorough  # PPO's test covers the same network, act and prepare
def test_probe_masks():
    _, _, metrics = learned(FAST, MaskedChoice(), 200)
    assert metrics.evaluation.returns.mean() == 4.0
    assert metrics.training.episodes.returns.value[0] > 0  # a forbidden action costs 100


@pytest.mark.thorough
@pytest.mark.parametrize(("core", "shared"), [("gru", False), ("lstm", True)])
def test_probe_memory(core, shared):
    agent = FAST.replace(core=core, core_size=16, shared_torso=shared)
    _, _, metrics = learned(agent, Recall(delay=3), 600)
    assert metrics.evaluation.returns.mean() == 1.0
