"""PPO with a KL penalty: divergences and gradients against NumPy, adaptation, and probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import (
    BestActionByObservation,
    BestMixedAction,
    Counter,
    Endless,
    MaskedChoice,
    Recall,
)
from helpers.gradients import kept, tabular_agent, tabular_params
from helpers.probes import KEY, learned, mode, value

from jaxrl.agents import A2C, PPOPenalty
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.agents.bases.kl_control import adapted_coefficient
from jaxrl.agents.ppo_penalty import PPOPenaltyState
from jaxrl.engine.sweep import sweep
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.types import Clock, Masked, Trajectory
from jaxrl_envs.exact import garnet
from jaxrl_envs.exact.values import softmax

FAST = PPOPenalty(
    num_envs=32, num_steps=16, learning_rate=3e-3, hidden_sizes=(16,), entropy_coefficient=1e-3
)
SMALL = {"num_envs": 4, "num_steps": 6, "hidden_sizes": (8,)}


def state_of(agent, params, old_params, beta=1.0):
    """The state after some updates of an iteration."""
    return PPOPenaltyState(params, agent.init(KEY).optimizer, old_params, jnp.float32(beta))


# The loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "max"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_loss_and_gradient_match_equation_8(direction, reduction):
    """A softmax policy with a table of logits: value and derivative by hand, in float64.

    KL(old || new) has the derivative new - old in the logits of a state, and KL(new || old) has
    new (log(new / old) - KL).
    """
    num_states, num_actions, rows, beta = 4, 3, 24, 2.5
    agent = tabular_agent(
        PPOPenalty,
        garnet.make(num_states, num_actions, branching=2, seed=1),
        kl_direction=direction,
        kl_reduction=reduction,
        normalize_advantages=False,
        entropy_coefficient=0.0,
        value_coefficient=0.0,
    )
    rng = np.random.default_rng(0)
    logits, old_logits = rng.standard_normal((2, num_states, num_actions))
    s, a = rng.integers(num_states - 1, size=rows), rng.integers(num_actions, size=rows)
    advantage = rng.standard_normal(rows)
    new, old = softmax(logits), softmax(old_logits)

    log_ratio = np.log(new) - np.log(old)
    if direction == "forward":
        kl, slope = -(old * log_ratio).sum(-1), new - old
    else:
        kl = (new * log_ratio).sum(-1)
        slope = new * (log_ratio - kl[:, None])
    if reduction == "mean":
        weight = np.bincount(s, minlength=num_states) / rows
    else:  # the last state has no row, and would be farther
        kl[-1] = 0.0
        weight = np.eye(num_states)[kl.argmax()]
    ratio = np.exp(log_ratio[s, a])
    gradient = beta * weight[:, None] * slope
    for t in range(rows):
        gradient[s[t]] -= ratio[t] * advantage[t] / rows * (np.eye(num_actions)[a[t]] - new[s[t]])

    def params(logits):
        return kept(agent, tabular_params(logits, np.zeros(num_states)))

    sample = Sample(
        obs=jnp.eye(num_states)[s],
        action=jnp.asarray(a, jnp.int32),
        log_prob=jnp.asarray(np.log(old)[s, a], jnp.float32),
        value=jnp.zeros(rows),
        advantage=jnp.asarray(advantage, jnp.float32),
        target=jnp.zeros(rows),
    )
    state = state_of(agent, params(logits), params(old_logits), beta)
    batch = Trajectory(sample, jnp.zeros(rows, bool))
    (loss, metrics), found = jax.jit(
        jax.value_and_grad(lambda p: agent.loss(p, state, batch, Clock.start()), has_aux=True)
    )(state.params)
    np.testing.assert_allclose(metrics["kl_penalty"], beta * weight @ kl, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy_loss"], -(ratio * advantage).mean(), rtol=1e-4)
    np.testing.assert_allclose(loss, beta * weight @ kl - (ratio * advantage).mean(), rtol=1e-4)
    theta = np.asarray(found["params"]["actor"]["theta"]).reshape(num_states, num_actions)
    np.testing.assert_allclose(theta, gradient, atol=2e-6)


@pytest.mark.thorough
@pytest.mark.parametrize(("env", "core"), [(MaskedChoice(), "none"), (Recall(delay=3), "gru")])
def test_one_update_per_iteration_is_a_policy_gradient_step(env, core):
    """The ratio is 1 and the divergence at its minimum, so that A2C takes the same steps.

    With a coefficient of 0, and with any other one.
    """
    options = SMALL | {"optimizer": "sgd", "learning_rate": 0.1, "gae_lambda": 0.9}
    options |= {"core": core, "core_size": 8, "normalize_advantages": False}
    agent = PPOPenalty(**options, num_epochs=1, num_minibatches=1, target_kl=None)

    def params(agent):
        return train(agent, env, KEY, total_steps=72, num_evaluations=0)[0].agent.params

    lanes = jax.jit(jax.vmap(params))(sweep(agent, kl_coefficient=[0.0, 5.0]))
    plain = jax.jit(params)(A2C(**options))
    start = Training.create(agent, env, total_steps=72).init(KEY).agent.params
    moved = jax.tree.map(lambda x, y: jnp.abs(x - y).max(), plain, start)
    assert max(jax.tree.leaves(moved)) > 1e-2
    for lane, x in zip(jax.tree.leaves(lanes), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(lane, jnp.stack([x, x]), atol=1e-5)


# The divergence of an iteration, and the coefficient ----------------------------------------------


def categorical_kl(logits, other, mask=True):
    p, q = (np.where(mask, np.exp(np.asarray(x, np.float64)), 0.0) for x in (logits, other))
    p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0.0).sum(-1)


def gaussian_kl(one, other):
    mean, log_std, mean_2, log_std_2 = (
        np.asarray(x, np.float64) for d in (one, other) for x in (d.mean, d.log_std)
    )
    distance = np.exp(2 * log_std) + (mean - mean_2) ** 2
    return (log_std_2 - log_std + distance / (2 * np.exp(2 * log_std_2)) - 0.5).sum(-1)


def mixed_kl(one, other):
    """Of a choice, a box and a pair of choices."""
    (choice, box, pair), (choice_2, box_2, pair_2) = one.components, other.components
    return (
        categorical_kl(choice.logits, choice_2.logits)
        + gaussian_kl(box, box_2)
        + categorical_kl(pair.logits[..., :2], pair_2.logits[..., :2])
        + categorical_kl(pair.logits[..., 2:], pair_2.logits[..., 2:])
    )


def masked_kl(one, other):
    return categorical_kl(one.logits, other.logits, np.asarray(one.mask))


@pytest.mark.parametrize("reduction", ["mean", "max"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(
    ("env", "kl_of"), [(BestMixedAction(), mixed_kl), (MaskedChoice(), masked_kl)]
)
def test_an_iteration_ends_with_the_exact_divergence_of_its_batch(env, kl_of, direction, reduction):
    agent = PPOPenalty(**SMALL, kl_direction=direction, kl_reduction=reduction).bind(env.spec)

    def moved(key):
        params = agent.init(key).params
        return jax.tree.map(lambda x: x + 0.4 * jax.random.normal(key, x.shape), params)

    old_params, params = map(moved, jax.random.split(KEY))
    obs = jax.random.normal(KEY, (6, 4, *jax.tree.leaves(env.spec.observation)[0].shape))
    if isinstance(env, MaskedChoice):
        obs = Masked(obs, jnp.argsort(obs, axis=-1) < 2)
    old, new = (agent.network.apply(p, obs, method="policy")[0] for p in (old_params, params))
    kl = kl_of(old, new) if direction == "forward" else kl_of(new, old)
    expected = kl.mean() if reduction == "mean" else kl.max()
    backwards = kl_of(new, old) if direction == "forward" else kl_of(old, new)
    assert abs(backwards.mean() / kl.mean() - 1) > 0.01  # the directions can be told apart

    sample = Sample(obs, *[()] * 5)
    batch, state = Trajectory(sample, jnp.zeros((6, 4), bool)), state_of(agent, params, old_params)
    end = agent.end_iteration(state, batch, KEY, Clock.start())
    np.testing.assert_allclose(end.metrics["kl"], expected, rtol=1e-5)
    assert end.state.kl_coefficient == end.metrics["kl_coefficient"] == 2.0  # far beyond 0.01
    jax.tree.map(np.testing.assert_array_equal, end.state.old_params, params)
    fixed = agent.replace(target_kl=None).end_iteration(state, batch, KEY, Clock.start())
    assert fixed.state.kl_coefficient == 1.0
    jax.tree.map(np.testing.assert_array_equal, fixed.state.old_params, params)


def test_the_coefficient_is_halved_and_doubled_around_the_target():
    """Target 0.375: halved below 0.25, doubled above 0.5625, and not at these bounds."""
    beta = jnp.float32(1.0)
    for kl, expected in (
        (0.24, 0.5), (0.25, 0.5), (0.375, 0.5), (0.5625, 0.5), (0.57, 1.0), (jnp.inf, 2.0),
        (jnp.nan, 2.0), (0.0, 1.0),
    ):  # fmt: skip
        beta = adapted_coefficient(beta, jnp.float32(kl), 0.375, 1e-6)
        assert beta == expected, kl


def test_the_coefficient_never_sticks_at_zero():
    def after_200_iterations(beta, kl):
        for _ in range(200):
            beta = adapted_coefficient(jnp.float32(beta), kl, 1.0, 0.01)
        return beta

    least = after_200_iterations(1.0, kl=0.0)
    assert least == jnp.float32(0.01)
    assert 1e5 < after_200_iterations(least, kl=9.0) < jnp.inf


@pytest.mark.thorough
def test_the_coefficient_follows_the_reported_divergences():
    """In a run, from iteration to iteration, as the loop of section 4."""
    agent = FAST.replace(learning_rate=1e-2, kl_coefficient=0.5, target_kl=0.02)
    per_iteration = agent.bind(Counter().spec).plan.steps_per_iteration
    state, metrics = jax.jit(
        lambda key: train(
            agent, Counter(limit=9), key, total_steps=12 * per_iteration, num_evaluations=12,
            num_eval_episodes=1,
        )
    )(KEY)  # fmt: skip
    updates, beta, expected = metrics.training.updates, 0.5, []
    for d in np.asarray(updates["kl"].value):
        if d < 0.02 / 1.5:
            beta = beta / 2
        elif d > 0.02 * 1.5:
            beta = beta * 2
        expected.append(beta)
    np.testing.assert_array_equal(updates["kl_coefficient"].value, expected)
    assert state.agent.kl_coefficient == expected[-1]
    assert {-1, 1} <= set(np.sign(np.diff([0.5, *expected])))


@pytest.mark.thorough
def test_points_of_a_sweep_equal_separate_runs_without_retracing():
    env, traces = Counter(limit=5), []
    grid = sweep(PPOPenalty(**SMALL, kl_reduction="max"), kl_coefficient=[0.1, 9.0],
                 target_kl=[1e-4, 1.0])  # fmt: skip

    def run(agent):
        traces.append(1)
        return train(agent, env, KEY, total_steps=96, num_evaluations=0)[0].agent

    alone, lanes = jax.jit(run), jax.jit(jax.vmap(run))(grid)
    for lane in range(4):
        one = alone(jax.tree.map(lambda x, lane=lane: x[lane], grid))
        assert one.kl_coefficient == lanes.kl_coefficient[lane]
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(lanes), strict=True):
            np.testing.assert_allclose(x, y[lane], atol=2e-5)
    assert len(traces) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_coefficient": -1.0}, "kl_coefficient is -1"),
        ({"target_kl": 0.0}, "target_kl is 0"),
        ({"min_kl_coefficient": 0.0}, "min_kl_coefficient is 0"),
        ({"kl_direction": "backward"}, "kl_direction is 'backward': use 'forward' or 'reverse'"),
        ({"kl_reduction": "sum"}, "kl_reduction is 'sum': use 'mean' or 'max'"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        Training.create(PPOPenalty(**options), Counter(), total_steps=100)


# Probes -------------------------------------------------------------------------------------------


def test_probe_action_by_observation():
    agent, state, _ = learned(FAST, BestActionByObservation(), 60)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


@pytest.mark.thorough  # PPO has the same targets and the same test
def test_probe_truncation_is_not_termination():
    """One endless state truncated every 5 steps: the value is 1 / (1 - 0.8) = 5."""
    agent, state, _ = learned(FAST.replace(discount=0.8, learning_rate=1e-2), Endless(limit=5), 150)
    np.testing.assert_allclose(value(agent, state, [[1.0]]), [5.0], atol=0.1)


@pytest.mark.thorough
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_probe_mixed_action(direction):
    agent = FAST.replace(num_envs=64, kl_direction=direction)
    agent, state, _ = learned(agent, BestMixedAction(), 250)
    choice, position, pair = mode(agent, state, [[-1.0], [1.0]])
    np.testing.assert_array_equal(choice, [0, 1])
    np.testing.assert_allclose(position[:, 0], [-0.5, 0.5], atol=0.15)
    np.testing.assert_array_equal(pair, [[0, 2], [1, 2]])


@pytest.mark.thorough
@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_probe_masks(reduction):
    _, _, metrics = learned(FAST.replace(kl_reduction=reduction), MaskedChoice(), 80)
    assert metrics.evaluation.returns.mean() == 4.0
    assert metrics.training.episodes.returns.value[0] > 0  # a forbidden action costs 100


@pytest.mark.thorough
@pytest.mark.parametrize(("core", "shared"), [("gru", False), ("lstm", True)])
def test_probe_memory(core, shared):
    """With a fixed coefficient: an adaptive one fades once the task is solved, and equal returns
    standardise to noise, so that half of the seeds forget it within 120 iterations."""
    agent = FAST.replace(core=core, core_size=16, shared_torso=shared, target_kl=None)
    _, _, metrics = learned(agent, Recall(delay=3), 120)
    assert metrics.evaluation.returns.mean() == 1.0
