"""The DQN family: probe environments, exact values, and each option."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import (
    BestAction,
    BestActionByObservation,
    BestContinuousAction,
    Coin,
    ConstantReward,
    Counter,
    DelayedReward,
    Endless,
    MaskedChoice,
    RewardIsObservation,
)
from helpers.probes import KEY, cases, learned, mode

from jaxrl.agents import DQN, PQN, FittedQ, OnlineQ, Rainbow
from jaxrl.agents.bases.learning import TrainState
from jaxrl.agents.bases.prioritized import weighted_mean
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.networks.layers import MLP
from jaxrl.networks.q_networks import NoisyDense, of_actions
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Linear
from jaxrl.types import Clock, Trajectory, Transition
from jaxrl_envs.exact import corridor, garnet, values

SMALL = {
    "num_envs": 8, "num_steps": 4, "num_updates": 8, "batch_size": 64, "capacity": 2048,
    "warmup": 64, "hidden_sizes": (16, 16), "learning_rate": 3e-3, "target_every": 16,
    "epsilon": 0.5, "value_min": -2.0, "value_max": 6.0, "num_atoms": 21,
}  # fmt: skip
FAST = DQN(**SMALL)
KINDS = {
    "dqn": FAST,
    "double": FAST.replace(double="target"),
    "two networks": FAST.replace(double="two_networks"),
    "dueling": FAST.replace(dueling=True),
    "prioritised, n-step": FAST.replace(prioritized=True, n_step=2),
    "noisy": FAST.replace(noisy=True),
    "c51": FAST.replace(head="c51"),
    "quantile": FAST.replace(head="quantile", num_atoms=8),
    "iqn": FAST.replace(head="iqn", num_atoms=8, embedding_size=8),
    "polyak": FAST.replace(target_every=1, tau=0.05),
    "munchausen": FAST.replace(munchausen=0.9),
    "munchausen iqn": FAST.replace(
        munchausen=0.9, head="iqn", num_atoms=8, num_target_levels=4, num_acting_levels=16
    ),
    "rainbow": Rainbow(**(SMALL | {"epsilon": 0.2})),
}
SIMPLE = {
    n: SMALL[n] for n in ("num_envs", "num_steps", "hidden_sizes", "learning_rate", "epsilon")
}
ON_POLICY = {
    "online": OnlineQ(**SIMPLE),
    "pqn": PQN(**SIMPLE, num_epochs=2, num_minibatches=4),
}
ALL = KINDS | ON_POLICY
VALUES = [
    name for name in ALL if name not in ("rainbow", "noisy", "iqn") and "munchausen" not in name
]
"""Agents whose values converge within a probe's few steps."""


def q(agent, state, obs):
    return np.asarray(agent.q_values(state.agent.params, jnp.asarray(obs)))


# Probes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases(VALUES, "pqn"))
def test_probe_values_by_observation(name):
    agent, state, _ = learned(ALL[name], RewardIsObservation(), 150)
    np.testing.assert_allclose(q(agent, state, [[-1.0], [1.0]]), [[-1] * 2, [1] * 2], atol=0.1)


@pytest.mark.parametrize("name", cases(ALL, "dqn", "online"))
def test_probe_action_by_observation(name):
    agent, state, _ = learned(ALL[name], BestActionByObservation(), 100)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["dqn", "c51", "online", "pqn"])
def test_probe_discounting(name):
    agent = ALL[name].replace(discount=0.5)
    agent, state, _ = learned(agent, DelayedReward(), 250)
    np.testing.assert_allclose(q(agent, state, [[0.0], [1.0]]), [[0.5] * 2, [1] * 2], atol=0.1)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["dqn", "prioritised, n-step", "rainbow", "pqn"])
def test_probe_truncation_is_not_termination(name):
    """One endless state truncated every 5 steps: the value is 1 / (1 - 0.8) = 5.

    Treating truncation as termination would give 3.4.
    """
    agent = ALL[name].replace(discount=0.8)
    agent, state, _ = learned(agent, Endless(limit=5), 300)
    np.testing.assert_allclose(q(agent, state, [[1.0]]), [[5.0] * 2], atol=0.2)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["dqn", "two networks", "iqn", "pqn"])
def test_masked_actions_are_neither_taken_nor_evaluated(name):
    agent, _, metrics = learned(ALL[name], MaskedChoice(), 150)
    assert metrics.evaluation.returns.mean() >= 3.5
    obs = agent.spec.dummy_observation(64)
    mask = jnp.zeros_like(obs.action_mask).at[:, 1].set(True)
    state = jax.jit(agent.init)(KEY)
    action = agent.act(state, (), obs._replace(action_mask=mask), KEY, Clock.start(), explore=True)
    np.testing.assert_array_equal(action[1], 1)


def test_probe_constant_reward():
    agent, state, _ = learned(FAST, ConstantReward(), 150)
    np.testing.assert_allclose(q(agent, state, [[0.0]]), [[1.0] * 2], atol=0.1)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["c51", "quantile", "iqn"])
def test_probe_distribution(name):
    """A coin: half of the mass at each outcome, or one outcome per half of the levels."""
    agent = ALL[name].replace(
        num_envs=32, learning_rate=Linear(1e-2, 1e-4), value_min=-2.0, value_max=2.0,
        num_atoms=9 if name == "c51" else 2, huber_delta=0.1,
    )  # fmt: skip
    agent, state, _ = learned(agent, Coin(), 200)
    outputs, _ = agent.outputs(state.agent.params, jnp.ones((1, 1)), None)
    if name == "c51":
        expected = np.zeros(9)
        expected[[2, 6]] = 0.5
        np.testing.assert_allclose(jax.nn.softmax(outputs)[0], [expected] * 2, atol=0.1)
    else:
        np.testing.assert_allclose(outputs[0], [[-1.0, 1.0]] * 2, atol=0.1)


# Exact values -------------------------------------------------------------------------------------

DISCOUNT = 0.9
MDP = garnet.make(num_states=6, num_actions=3, termination=0.05, max_steps=20, seed=4)
OPTIMAL = values.optimal_action_value(MDP, DISCOUNT)
TABLE = {"hidden_sizes": (64,), "max_grad_norm": None}


def every_transition(mdp):
    """Every state and action with each of its successors, terminations included."""
    survive, reward, _ = values.model(mdp)
    rows = []
    for s, a in np.ndindex(reward.shape):
        rows.extend(
            (s, a, t, reward[s, a], False, survive[s, a, t]) for t in np.flatnonzero(survive[s, a])
        )
        rows.append((s, a, s, reward[s, a], True, 1.0 - survive[s, a].sum()))
    copies = [row[:5] for row in rows for _ in range(round(100 * row[5]))]
    s, a, t, r, end = map(np.asarray, zip(*copies, strict=True))
    one_hot = np.eye(reward.shape[0], dtype=np.float32)
    return Transition(
        obs=jnp.asarray(one_hot[s]),
        action=jnp.asarray(a, jnp.int32),
        reward=jnp.asarray(r, jnp.float32),
        terminated=jnp.asarray(end),
        truncated=jnp.zeros(len(s), bool),
        next_obs=jnp.asarray(one_hot[t]),
    )


def optimal_of(data, discount):
    """Q* of the empirical problem: transition probabilities are frequencies in the data."""
    s, a, t = np.argmax(data.obs, -1), np.asarray(data.action), np.argmax(data.next_obs, -1)
    found = np.zeros((data.obs.shape[1], a.max() + 1))
    visits, totals = np.zeros_like(found), np.zeros_like(found)
    np.add.at(visits, (s, a), 1)
    for _ in range(300):
        totals[:] = 0.0
        best = np.where(data.terminated, 0.0, found.max(-1)[t])
        np.add.at(totals, (s, a), data.reward + discount * best)
        found = totals / visits
    return found


def test_fitted_q_iteration_converges_to_the_optimal_values():
    agent = FittedQ(**TABLE, discount=DISCOUNT, num_updates=50, learning_rate=1e-2)
    data = every_transition(MDP)
    state, _ = jax.jit(
        lambda key: train(agent, MDP, key, total_steps=60 * 50, num_evaluations=3, data=data)
    )(KEY)
    found = np.asarray(agent.bind(MDP.spec).q_values(state.agent.params, jnp.eye(6)))
    np.testing.assert_allclose(found, optimal_of(data, DISCOUNT), atol=0.01)
    np.testing.assert_allclose(found, OPTIMAL, atol=0.03)  # probabilities are rounded to 1%


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["dqn", "two networks", "quantile", "online"])
def test_q_learning_finds_the_optimal_policy_of_a_random_problem(name):
    agent = ALL[name].replace(
        discount=DISCOUNT, hidden_sizes=(64,), epsilon=1.0, value_min=-2.0, value_max=8.0,
        num_atoms=51, learning_rate=Linear(3e-3, 1e-4),
    )  # fmt: skip
    if isinstance(agent, DQN):
        agent = agent.replace(capacity=20_000)
    agent, state, _ = learned(agent, MDP, 600)
    found = q(agent, state, np.eye(6))
    policy = values.greedy(found)
    gain = values.objective(MDP, policy, DISCOUNT)
    best = values.objective(MDP, values.greedy(OPTIMAL), DISCOUNT)
    assert gain >= best - 0.02 * abs(best)
    np.testing.assert_allclose(found, OPTIMAL, atol=0.6)


def test_time_limit_does_not_bias_corridor_values():
    """Within 1% of the largest value of the corridor without a time limit."""
    env = corridor.make(max_steps=10, goal_reward=1.0)
    agent = FAST.replace(
        discount=0.9, epsilon=1.0, hidden_sizes=(64,), learning_rate=Linear(5e-3, 1e-5),
        capacity=8192, num_updates=16,
    )  # fmt: skip
    agent, state, _ = learned(agent, env, 800)
    states = env.spec.observation.shape[0]
    truth = values.optimal_action_value(env, 0.9)
    found = q(agent, state, np.eye(states))
    np.testing.assert_allclose(found, truth, atol=0.01 * np.abs(truth).max())


# Targets and updates by hand ----------------------------------------------------------------------


def random_rows(num, seed=0):
    """Random rows of one to three steps in `Counter`; some are terminated."""
    rng = np.random.default_rng(seed)
    return Replayed.once(
        Transition(
            jnp.asarray(rng.standard_normal((num, 2)), jnp.float32),
            jnp.asarray(rng.integers(0, 2, num)),
            jnp.asarray(rng.standard_normal(num), jnp.float32),
            jnp.asarray(rng.random(num) < 0.3),
            jnp.zeros(num, bool),
            jnp.asarray(5 * rng.standard_normal((num, 2)), jnp.float32),
        )
    ).replace(num_steps=jnp.asarray(rng.integers(1, 4, num)))


def table_rows(reward, action, terminated):
    """Row i leads from state i of a table to state num + i."""
    num = len(reward)
    return Replayed.once(
        Transition(
            obs=jnp.arange(num),
            action=jnp.asarray(action, jnp.int32),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.asarray(terminated, bool),
            truncated=jnp.zeros(num, bool),
            next_obs=num + jnp.arange(num),
        )
    )


class FromATable:
    """The parameters are the network's outputs, `[S, A, K]`; an observation indexes a row."""

    def outputs(self, params, obs, key, level_key=None, num_levels=None):
        levels = (jnp.arange(params.shape[-1]) + 0.5) / params.shape[-1]
        return params[obs], jnp.broadcast_to(levels, (obs.shape[0], params.shape[-1]))


class TableDQN(FromATable, DQN):
    """DQN from a table."""


class TableOnlineQ(FromATable, OnlineQ):
    """Online Q from a table."""


def test_double_q_learning_matches_rlax():
    """The gradient changes only the value of the action taken."""
    agent = TableDQN(double="target", discount=1.0).bind(Counter().spec)
    online = jnp.array([[1, 1, 0], [1, 2, 0], [2, 10, 1], [11, 20, 1]], jnp.float32)[..., None]
    target = jnp.array([[0, 0, 0], [0, 0, 0], [99, 1, 98], [91, 2, 66]], jnp.float32)[..., None]
    rows = table_rows([1.0, 1.0], [0, 1], [True, False])  # rlax's discounts: 0 and 1
    _, error, _ = agent._td_errors(online, target, rows, KEY)
    np.testing.assert_allclose(error, [0.0, 1.0], atol=1e-6)
    slope = jax.grad(lambda params: agent._td_errors(params, target, rows, KEY)[0].sum())(online)
    expected = np.zeros_like(online)
    expected[1, 1] = -1.0
    np.testing.assert_allclose(slope, expected)


@pytest.mark.parametrize(("fraction", "beta"), [(0.0, 0.4), (0.5, 0.7), (1.0, 1.0)])
def test_prioritised_update_matches_the_paper(fraction, beta):
    """Weights are (N P)^-beta with annealed beta; priorities are (|error| + 1e-6)^alpha."""
    agent = FAST.replace(prioritized=True, priority_exponent=0.7).bind(Counter().spec)
    state, rows = jax.jit(agent.init)(KEY), random_rows(32)
    relative = np.random.default_rng(1).uniform(0.1, 4.0, 32).astype(np.float32)
    rows = rows.replace(relative_probability=jnp.asarray(relative))
    clock = Clock.start().replace(fraction=jnp.float32(fraction))
    _, metrics, priorities = jax.jit(agent.update)(state, rows, KEY, clock)
    best = np.asarray(agent.q_values(state.target, rows.next_obs)).max(-1) * ~rows.terminated
    taken = np.asarray(agent.q_values(state.params, rows.obs))[np.arange(32), rows.action]
    error = rows.reward + 0.99 ** np.asarray(rows.num_steps) * best - taken
    weight = relative**-beta / (relative**-beta).max()
    np.testing.assert_allclose(metrics["loss"], (weight * error**2 / 2).mean(), rtol=1e-4)
    np.testing.assert_allclose(priorities, (np.abs(error) + 1e-6) ** 0.7, rtol=1e-3)


def test_online_q_takes_a_semi_gradient_step():
    """A terminal target is the reward alone; bootstrapped values get no gradient."""
    agent = TableOnlineQ(discount=0.5, learning_rate=0.1).bind(Counter().spec)
    table = jnp.array([[1, 9], [1, 9], [2, 4], [2, 4]], jnp.float32)[..., None]
    rows = table_rows([1.0, 1.0], [0, 0], [False, True])
    steps = Transition(**{name: getattr(rows, name) for name in Transition.__dataclass_fields__})
    state = TrainState(table, agent.transform(Clock.start()).init(table))
    batch = Trajectory(steps, jnp.zeros(2, bool))
    state, metrics, _ = jax.jit(agent.update)(state, batch, KEY, Clock.start())
    # Errors 1 + 0.5 * 4 - 1 = 2 and 1 - 1 = 0; Adam's first step is the learning rate.
    np.testing.assert_allclose([metrics["loss"], metrics["error"]], [1.0, 1.0])
    moved = np.zeros_like(table)
    moved[0, 0] = 0.1
    np.testing.assert_allclose(state.params, table + moved, atol=1e-6)


SIXTEENTHS = {
    "c51": [[0, 0, 4, 0, 0, 0, 12, 0, 0], [0, 1, 0, 3, 0, 3, 0, 9, 0]],
    "quantile": [[-16, 16, 16, 16], [-8, 8, 24, 24]],
}
"""Returns of the two coins below, times 16: probabilities of -2, -1.5, ..., 2, or quantiles."""


@pytest.mark.parametrize("head", SIXTEENTHS)
def test_two_coins_have_the_distribution_of_their_sum(head):
    """Each pays 1 with probability 3/4, else -1; the second is discounted by 1/2."""
    num_atoms = len(SIXTEENTHS[head][0])
    agent = TableDQN(
        head=head, num_atoms=num_atoms, value_min=-2.0, value_max=2.0, huber_delta=0.01,
        discount=0.5,
    ).bind(Counter().spec)  # fmt: skip
    rows = Replayed.once(
        Transition(
            obs=jnp.array([0, 0, 0, 0, 1, 1, 1, 1]),
            action=jnp.zeros(8, jnp.int32),
            reward=jnp.array([-1.0, 1.0, 1.0, 1.0] * 2),
            terminated=jnp.arange(8) < 4,
            truncated=jnp.zeros(8, bool),
            next_obs=jnp.zeros(8, jnp.int32),
        )
    )
    slope = jax.grad(lambda table, fixed: agent.td_errors(table, fixed, rows, KEY)[0].sum())
    rate = 1.0 if head == "c51" else 0.005
    table = jax.lax.fori_loop(
        0, 5000, lambda _, x: x - rate * slope(x, x), jnp.zeros((2, 1, num_atoms))
    )
    found = jax.nn.softmax(table[:, 0]) if head == "c51" else table[:, 0]
    np.testing.assert_allclose(found, np.array(SIXTEENTHS[head]) / 16, atol=0.01)


# Each option --------------------------------------------------------------------------------------


def test_dueling_streams_are_centred():
    """A constant added to all advantages changes nothing: their mean is subtracted."""
    agent = FAST.replace(dueling=True).bind(Counter().spec)
    params = agent.init(KEY).params
    obs = jnp.ones((1, 2))
    before = agent.q_values(params, obs)
    out = params["params"]["actions_out"]
    shifted = {**params["params"], "actions_out": {**out, "bias": out["bias"] + 7.0}}
    np.testing.assert_allclose(agent.q_values({"params": shifted}, obs), before, atol=1e-5)


def test_mean_of_dueling_values_is_the_state_value():
    agent = FAST.replace(dueling=True).bind(Counter().spec)
    params = agent.init(KEY).params["params"]
    obs = jax.random.normal(KEY, (5, 2))
    out = jax.tree.map(jnp.zeros_like, params["actions_out"])
    state = agent.q_values({"params": params | {"actions_out": out}}, obs)
    found = np.asarray(agent.q_values({"params": params}, obs))
    assert found.std(-1).min() > 1e-3
    np.testing.assert_allclose(found.mean(-1), state[:, 0], rtol=1e-5, atol=1e-6)


def test_invalid_actions_have_nan_values():
    outputs = jnp.arange(12.0).reshape(3, 2, 2)
    values = of_actions(outputs, jnp.array([1, -1, 2]))
    np.testing.assert_array_equal(values, [[2, 3], [np.nan] * 2, [np.nan] * 2])


def test_double_q_separates_selection_from_evaluation():
    """Targets against NumPy, in each of the three modes."""
    agent = FAST.bind(Counter().spec)
    online, target = (agent.init(k).params for k in jax.random.split(KEY))
    rows = random_rows(32)
    q_target, q_online = (np.asarray(agent.q_values(p, rows.next_obs)) for p in (target, online))
    assert (q_target.argmax(-1) != q_online.argmax(-1)).any()
    taken = np.asarray(of_actions(agent.q_values(online, rows.obs)[..., None], rows.action))[:, 0]
    for double, best in (("none", q_target.argmax(-1)), ("target", q_online.argmax(-1))):
        value = q_target[np.arange(32), best] * ~np.asarray(rows.terminated)
        expected = rows.reward + 0.99 ** np.asarray(rows.num_steps) * value - taken
        _, error, _ = agent.replace(double=double)._td_errors(online, target, rows, KEY)
        np.testing.assert_allclose(error, np.abs(expected), rtol=1e-4, atol=1e-5)
    # Two networks: each row has the error of one of them, evaluated by the other's target.
    params, targets = (online, target), (target, online)
    candidates = []
    for i in range(2):
        own, other = (
            np.asarray(agent.q_values(p, rows.next_obs)) for p in (params[i], targets[1 - i])
        )
        value = other[np.arange(32), own.argmax(-1)] * ~np.asarray(rows.terminated)
        taken = of_actions(agent.q_values(params[i], rows.obs)[..., None], rows.action)[:, 0]
        candidates.append(np.abs(rows.reward + 0.99 ** np.asarray(rows.num_steps) * value - taken))
    two = agent.replace(double="two_networks")
    error = np.asarray(two._td_errors(params, targets, rows, KEY)[1])
    which = [np.isclose(error, x, rtol=1e-4, atol=1e-5) for x in candidates]
    assert (which[0] | which[1]).all()
    assert which[0].any()
    assert which[1].any()


@pytest.mark.thorough
@pytest.mark.parametrize(("every", "tau"), [(5, 1.0), (3, 0.5), (1, 0.1)])
def test_target_updates_are_periodic_under_vmap(every, tau):
    """20 updates over seeds and learning rates, against a NumPy loop."""
    agent = FAST.replace(target_every=every, tau=tau, num_updates=1, warmup=1)
    env = Counter(limit=5)

    def run(rate, key):
        training = Training.create(agent.replace(learning_rate=rate), env, total_steps=20 * 32)
        state = training.init(key)

        def one(state, i):
            state, _ = training.iteration(state, key, i)
            return state, (state.agent.params, state.agent.target)

        return state.agent.params, jax.lax.scan(one, state, jnp.arange(20))[1]

    over_keys = jax.vmap(run, (None, 0))
    run = jax.jit(jax.vmap(over_keys, (0, None)))
    start, (params, targets) = run(jnp.array([1e-3, 3e-3]), jax.random.split(KEY, 2))

    def flat(tree, leading):
        leaves = jax.tree.leaves(tree)
        return np.concatenate([np.reshape(x, (*x.shape[:leading], -1)) for x in leaves], -1)

    start, params, targets = flat(start, 2), flat(params, 3), flat(targets, 3)
    target = start
    for i in range(20):
        if (i + 1) % every == 0:
            target = (1 - tau) * target + tau * params[:, :, i]
        np.testing.assert_allclose(targets[:, :, i], target, rtol=1e-5, atol=1e-6)
    assert (np.abs(targets[:, :, -1] - start) > 0).any(-1).all()


def test_target_updates_count_across_iterations():
    """Three updates per iteration, a target update every five; some are an iteration's last."""
    agent = FAST.replace(target_every=5, num_updates=3, warmup=1)
    training = Training.create(agent, Counter(limit=5), total_steps=10 * 32)
    state, iterate = training.init(KEY), jax.jit(training.iteration)
    for i in range(10):
        before = state.agent.target
        state, _ = iterate(state, KEY, jnp.int32(i))

        def equal(a, b):
            return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))

        due = [update for update in range(3 * i, 3 * i + 3) if (update + 1) % 5 == 0]
        assert equal(before, state.agent.target) == (not due)
        assert equal(state.agent.params, state.agent.target) == (due == [3 * i + 2])


def widths_of_norms(params):
    """Sorted widths of the layers that hold only a scale and a bias."""
    if set(params) == {"scale", "bias"}:
        return list(params["scale"].shape)
    inner = (widths_of_norms(p) for p in params.values() if isinstance(p, dict))
    return sorted(itertools.chain.from_iterable(inner))


def test_pqn_normalises_every_hidden_layer():
    agent = PQN(hidden_sizes=(16, 12, 8)).bind(Counter().spec)
    params = jax.eval_shape(agent.init, KEY).params
    assert widths_of_norms(params["params"]) == [8, 12, 16]


def test_rainbow_has_its_six_parts():
    agent = Rainbow().bind(Counter().spec)
    assert agent.double == "target"
    assert agent.plan.prioritized
    assert agent.plan.n_step > 1
    assert agent.head == "c51"
    params = jax.eval_shape(agent.init, KEY).params["params"]
    assert {"state_out", "actions_out"} <= set(params)
    assert all("kernel_std" in params[f"{name}_out"] for name in ("state", "actions"))
    assert params["state_out"]["bias"].shape == (agent.num_atoms,)


def test_pqn_targets_equal_a_reference_loop():
    """r + discount ((1 - lambda) max Q(s', .) + lambda G'), up to the end of the episode."""
    agent = PQN(**SIMPLE, discount=0.9, q_lambda=0.6).bind(Counter().spec)
    state = jax.jit(agent.init)(KEY)
    rng = np.random.default_rng(0)
    obs, next_obs = rng.standard_normal((2, 12, 3, 2)).astype(np.float32)
    reward = rng.standard_normal((12, 3)).astype(np.float32)
    terminated, truncated = rng.random((2, 12, 3)) < 0.2
    steps = Transition(obs, np.zeros((12, 3), int), reward, terminated, truncated, next_obs)
    trajectory = Trajectory(jax.tree.map(jnp.asarray, steps), jnp.zeros((12, 3), bool))
    found = agent.prepare(state, trajectory, Clock.start()).steps.target
    best = np.asarray(agent.q_values(state.params, next_obs.reshape(-1, 2))).max(-1)
    best = best.reshape(12, 3) * ~terminated
    expected = np.zeros((12, 3))
    for t in reversed(range(12)):
        ends = terminated[t] | truncated[t] | (t == 11)
        rest = expected[t + 1] if t < 11 else best[t]
        expected[t] = reward[t] + 0.9 * np.where(ends, best[t], 0.4 * best[t] + 0.6 * rest)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dqn", "c51", "quantile", "online"])
def test_terminal_observations_are_never_read(name):
    """A NaN in the final observation of a terminated episode does not reach the loss."""
    agent = ALL[name].bind(Counter().spec)
    obs, next_obs = jnp.ones((8, 2)), jnp.full((8, 2), jnp.nan)
    rows = Replayed.once(
        Transition(
            obs, jnp.zeros(8, int), jnp.ones(8), jnp.ones(8, bool), jnp.zeros(8, bool), next_obs
        )
    )
    params = jax.jit(agent.init)(KEY).params
    loss, *_ = agent.td_errors(params, params, rows, KEY)
    assert np.isfinite(loss).all()


def test_noisy_target_selects_and_evaluates_with_one_draw():
    """Without double Q, the target uses the maximum of the drawn values (Fortunato, eq. 14)."""
    agent = FAST.replace(noisy=True, discount=1.0).bind(Counter().spec)
    params = jax.jit(agent.init)(KEY).params
    obs, zeros = jax.random.normal(KEY, (64, 2)), jnp.zeros(64)
    rows = Replayed.once(Transition(obs, zeros.astype(int), zeros, zeros > 0, zeros > 0, 3.0 * obs))
    keys = jax.random.split(KEY, 3)  # as `td_errors` splits its key
    drawn = agent.means(agent.outputs(params, rows.next_obs, keys[2])[0]).max(-1)
    predicted = agent.means(agent.outputs(params, rows.obs, keys[0])[0])[:, 0]
    _, error, _ = agent.td_errors(params, params, rows, KEY)
    np.testing.assert_allclose(error, np.abs(drawn - predicted), rtol=1e-4, atol=1e-5)


def test_noise_is_factorised_and_vanishes_without_a_key():
    layer, x = NoisyDense(5), jax.random.normal(KEY, (3, 4))
    params = layer.init(KEY, x)
    mean = layer.apply(params, x)
    p = params["params"]
    np.testing.assert_allclose(mean, x @ p["kernel"] + p["bias"][None], rtol=1e-5)
    np.testing.assert_allclose(p["kernel_std"], 0.5 / 2.0)
    many = jax.vmap(lambda k: layer.apply(params, x, rngs={"noise": k}))(
        jax.random.split(KEY, 4000)
    )
    # E f(e)^2 = E|e| = sqrt(2 / pi) for each factor of the kernel's noise and for the bias's.
    unit = np.sqrt(2 / np.pi)
    variance = 0.25**2 * (unit**2 * np.square(x).sum(-1) + unit)
    np.testing.assert_allclose(many.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(many.var(0), np.broadcast_to(variance[:, None], (3, 5)), rtol=0.15)
    ones = layer.init(KEY, jnp.eye(4))
    noise = layer.apply(ones, jnp.eye(4), rngs={"noise": KEY}) - layer.apply(ones, jnp.eye(4))
    # Each row is kernel noise plus bias noise; differences leave the kernel's, an outer product.
    assert np.linalg.matrix_rank(np.asarray(noise[1:] - noise[:1]), tol=1e-5) == 1


def test_noise_differs_between_steps_but_not_in_evaluation():
    agent = FAST.replace(noisy=True, epsilon=0.0).bind(Counter().spec)
    state, obs = jax.jit(agent.init)(KEY), jax.random.normal(KEY, (256, 2))
    actions = [
        np.asarray(agent.act(state, (), obs, jax.random.key(i), Clock.start(), explore=True)[1])
        for i in range(3)
    ]
    assert any((actions[0] != a).any() for a in actions[1:])
    still = [
        agent.act(state, (), obs, jax.random.key(i), Clock.start(), explore=False)[1]
        for i in range(2)
    ]
    np.testing.assert_array_equal(*still)


@pytest.mark.parametrize("exploration", ["epsilon", "boltzmann"])
def test_exploration_has_the_configured_probabilities(exploration):
    agent = FAST.replace(exploration=exploration, epsilon=Linear(0.8, 0.2), temperature=2.0).bind(
        Counter().spec
    )
    state, obs = jax.jit(agent.init)(KEY), jnp.ones((20_000, 2))
    clock = Clock.start().replace(fraction=jnp.float32(0.5))  # epsilon 0.5
    action = np.asarray(agent.act(state, (), obs, KEY, clock, explore=True)[1])
    q_values = np.asarray(agent.q_values(state.params, obs[:1]))[0]
    if exploration == "epsilon":
        expected = np.full(3, 0.5 / 3) + 0.5 * (np.arange(3) == q_values.argmax())
    else:
        expected = np.exp(q_values / 2.0) / np.exp(q_values / 2.0).sum()
    np.testing.assert_allclose(np.bincount(action, minlength=3) / 20_000, expected, atol=0.015)


def test_importance_weights_undo_the_priorities():
    """At exponent 1, the expected weighted loss is the uniform mean, up to the largest weight."""
    rng = np.random.default_rng(0)
    loss, p = rng.random(6), rng.dirichlet(np.full(6, 5.0))
    drawn = rng.choice(6, 200_000, p=p)
    steps = Transition(*(jnp.zeros(200_000),) * 6)
    rows = Replayed.once(steps).replace(relative_probability=jnp.asarray(6 * p[drawn], jnp.float32))
    found = weighted_mean(jnp.asarray(loss[drawn], jnp.float32), rows, 1.0)
    largest = 1 / (6 * p.min())
    np.testing.assert_allclose(found * largest, loss.mean(), rtol=0.02)
    unweighted = weighted_mean(jnp.asarray(loss[drawn], jnp.float32), rows, 0.0)
    np.testing.assert_allclose(unweighted, (p * loss).sum(), rtol=0.02)
    half = rows.replace(valid=jnp.asarray(drawn != 0))
    left_out = weighted_mean(jnp.asarray(loss[drawn], jnp.float32), half, 0.0)
    np.testing.assert_allclose(left_out, (p * loss)[1:].sum() / p[1:].sum(), rtol=0.02)


def test_sixteen_seeds_in_one_program_differ_and_learn():
    agent = FAST.replace(num_envs=2, num_steps=2)
    keys = jax.random.split(KEY, 16)
    run = jax.jit(jax.vmap(lambda k: train(agent, BestAction(), k, total_steps=800)))
    state, metrics = run(keys)
    assert (metrics.evaluation.returns[:, -1].mean(-1) == 1.0).all()
    kernels = np.asarray(state.agent.params["params"]["actions_out"]["kernel"]).reshape(16, -1)
    assert np.unique(kernels, axis=0).shape[0] == 16


def test_updates_start_after_the_warmup():
    agent = FAST.replace(warmup=1000)
    training = Training.create(agent, Counter(), total_steps=32 * 40)
    state = start = training.init(KEY)
    iterate = jax.jit(training.iteration)
    for i in range(33):
        state, metrics = iterate(state, KEY, jnp.int32(i))
        moved = any(
            (a != b).any()
            for a, b in zip(
                *map(jax.tree.leaves, (start.agent.params, state.agent.params)), strict=True
            )
        )
        assert moved == ((i + 1) * 32 >= 1000)
        assert metrics.updates["loss"].count == 8 * moved


class TwoReturns(DQN):
    """If obs is 1, action 0 returns 0 and action 1 is uniform in [-10, 10]; otherwise -100."""

    def outputs(self, params, obs, key, level_key=None, num_levels=None):
        _, levels = super().outputs(params, obs, key, level_key, num_levels)
        both = jnp.stack([jnp.zeros_like(levels), 20.0 * (levels - 0.5)], axis=1)
        return jnp.where(obs[:, :, None] == 1.0, both, -100.0), levels


def test_iqn_selects_and_evaluates_at_independent_levels():
    """The action with the best mean of eight draws is worth 0; the same draws would give 1.2."""
    agent = TwoReturns(head="iqn", num_atoms=8).bind(RewardIsObservation().spec)
    num = 20_000
    rows = Replayed.once(
        Transition(
            obs=jnp.zeros((num, 1)),
            action=jnp.zeros(num, jnp.int32),
            reward=jnp.zeros(num),
            terminated=jnp.zeros(num, bool),
            truncated=jnp.zeros(num, bool),
            next_obs=jnp.ones((num, 1)),
        )
    )
    params = agent.init_params(KEY)
    _, distance, _ = agent.td_errors(params, params, rows, KEY)  # predicted: -100
    np.testing.assert_allclose(distance.mean() - 100.0, 0.0, atol=0.1)


def test_empty_mask_allows_every_action():
    """A terminal state's mask may be empty: its values must not be -1e30."""
    agent = ON_POLICY["pqn"].bind(MaskedChoice().spec)
    state = jax.jit(agent.init)(KEY)
    obs = agent.spec.dummy_observation(2)
    mask = jnp.zeros_like(obs.action_mask).at[1, 0].set(True)
    found = agent.q_values(state.params, obs._replace(action_mask=mask))
    free = agent.q_values(state.params, obs)
    np.testing.assert_array_equal(found[0], free[0])
    np.testing.assert_array_equal(found[1] == -1e30, ~mask[1])


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (DQN, {"head": "c52"}, "head is 'c52': use one of scalar, c51"),
        (DQN, {"double": "yes"}, "double is 'yes': use one of none, target, two_networks"),
        (DQN, {"exploration": "none"}, "exploration is 'none'"),
        (DQN, {"epsilon": 1.5}, "epsilon is 1.5"),
        (DQN, {"tau": 0.0}, "tau is 0.0"),
        (DQN, {"target_every": 0}, "target_every is 0"),
        (DQN, {"temperature": 0.0}, "temperature is 0.0"),
        (DQN, {"learning_rate": np.nan}, "learning_rate is nan"),
        (DQN, {"head": "c51", "value_min": 1.0, "value_max": 1.0}, "value_min is 1.0: it must be"),
        (DQN, {"head": "c51", "value_min": jnp.float32(20.0)}, "value_min is 20.0: it must"),
        (DQN, {"num_atoms": 1, "head": "c51"}, "num_atoms is 1"),
        (DQN, {"priority_exponent": -1.0}, "priority_exponent is -1.0"),
        (DQN, {"priority_exponent": 8.0}, "priority_exponent is 8.0"),
        (DQN, {"importance_exponent": 2.0}, "importance_exponent is 2.0"),
        (DQN, {"hidden_sizes": ()}, "hidden_sizes"),
        (PQN, {"head": "c51"}, "head is 'c51': PQN has only scalar returns"),
        (PQN, {"hidden_sizes": (8, 1)}, r"True and hidden_sizes is \(8, 1\): a single"),
        (DQN, {"hidden_sizes": (1, 8), "layer_norm": True}, "layer_norm is True"),
        (PQN, {"hidden_sizes": (1,), "torso": MLP((8,))}, "layer_norm is True"),
        (FittedQ, {"num_updates": 0}, "num_updates is 0"),
    ],
)
def test_invalid_options_are_rejected(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options).bind(Counter().spec)


def test_box_actions_are_rejected_with_a_remedy():
    with pytest.raises(ValueError, match=r"wrap the environment in .*DiscretizeActions"):
        DQN().bind(BestContinuousAction().spec)


def test_invalid_replay_sizes_are_rejected():
    for options, message in (
        ({"capacity": 16, "n_step": 3}, "too little for n_step = 3"),
        ({"n_step": 0}, "n_step is 0"),
        ({"warmup": -1}, "warmup is -1: it must be a whole number"),
        ({"warmup": 0.5}, "warmup is 0.5: it must be a whole number"),
        ({"batch_size": 5000, "capacity": 4000, "warmup": 1}, "batch_size is 5000"),
    ):
        with pytest.raises(ValueError, match=message):
            Training.create(DQN(**options), Counter(), total_steps=100)


def test_one_environment_and_odd_sizes():
    agent = FAST.replace(num_envs=1, num_steps=3, batch_size=7, capacity=50, warmup=10, n_step=2)
    _, metrics = jax.jit(lambda k: train(agent, Counter(limit=4), k, total_steps=200))(KEY)
    assert np.isfinite(metrics.training.updates["loss"].value[1:]).all()
