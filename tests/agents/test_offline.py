"""CQL, IQL and TD3+BC: losses against NumPy, exact fixed points, probes, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import (
    BestActionByObservation,
    BestContinuousAction,
    MaskedChoice,
)
from helpers.probes import KEY, learned, mode
from scipy import optimize, special

from jaxrl.agents import CQL, IQL, TD3BC, FittedQ
from jaxrl.engine.data import check_data
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.errors import InvalidValue
from jaxrl.losses import expectile_loss
from jaxrl.runs.fit import fit
from jaxrl.runs.load import load_policy, load_run
from jaxrl.types import Box, Clock, Discrete, EnvSpec, Masked, MultiDiscrete, Transition
from jaxrl_envs.exact import garnet

CLOCK = Clock.start()
BOX = EnvSpec(jax.ShapeDtypeStruct((2,), jnp.float32), Box.of(-2.0, 4.0, (2,)))
FEW = EnvSpec(BOX.observation, Discrete(3))
SMALL = {"hidden_sizes": (8,), "discount": 0.8}


def rows_of(spec, num=32):
    """Random transitions, of which some terminated and some were truncated."""
    rng = np.random.default_rng(0)
    obs, next_obs = rng.standard_normal((2, num, 2)).astype(np.float32)
    few = isinstance(spec.action, Discrete)
    action = np.arange(num) % 3 if few else rng.uniform(-3.0, 5.0, (num, 2)).astype(np.float32)
    ends = np.arange(num) % 4
    reward = rng.standard_normal(num).astype(np.float32)
    rows = Transition(obs, action, reward, ends == 1, ends == 2, next_obs)
    return jax.tree.map(jnp.asarray, rows)


def apart(agent):
    """A state whose networks all differ."""
    state = jax.jit(agent.init)(KEY)
    return state.replace(target=jax.jit(agent.init)(jax.random.key(3)).target)


# Losses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.9])
def test_the_expectile_minimises_its_loss(expectile):
    """At the minimum, the two sides' errors weigh the same (Newey and Powell, eq. 2.7)."""
    sample = np.random.default_rng(0).standard_normal(50)
    found = optimize.minimize_scalar(
        lambda x: float(expectile_loss(jnp.asarray(sample - x, jnp.float32), expectile)),
        bounds=(-3, 3), method="bounded",
    ).x  # fmt: skip
    error = sample - found
    above, below = error[error > 0].sum(), -error[error < 0].sum()
    np.testing.assert_allclose(expectile * above, (1 - expectile) * below, rtol=1e-2)
    np.testing.assert_allclose(found, expectile_of(sample, expectile), atol=1e-3)


def expectile_of(values, expectile):
    """The expectile of equally likely values, by bisection."""

    def balance(x):
        error = values - x
        return np.where(error > 0, expectile, 1 - expectile) @ error

    return optimize.brentq(balance, values.min() - 1e-9, values.max() + 1e-9)


@pytest.mark.parametrize("head", ["scalar", "quantile"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_conservative_penalty_matches_numpy(head, masked):
    """CQL's loss is that of fitted Q, plus alpha times log sum exp Q(s, .) - Q(s, a).

    Over the actions that the mask allows.
    """
    spec, rows = FEW, rows_of(FEW)
    mask = np.ones((32, 3), bool)
    if masked:
        mask[np.arange(32), (np.asarray(rows.action) + 1) % 3] = False
        with_mask = Masked(spec.observation, jax.ShapeDtypeStruct((3,), jnp.bool_))
        spec = EnvSpec(with_mask, spec.action)
        seen = {
            name: Masked(getattr(rows, name), jnp.asarray(mask)) for name in ("obs", "next_obs")
        }
        rows = rows.replace(**seen)
    options = {**SMALL, "head": head, "num_atoms": 5}
    plain, agent = (a.bind(spec) for a in (FittedQ(**options), CQL(**options, conservatism=0.7)))
    state = apart(agent)
    found, without = (a.update(state, rows, KEY, CLOCK).metrics["loss"] for a in (agent, plain))
    q = np.asarray(agent.means(agent.outputs(state.params, rows.obs, None)[0]), np.float64)
    excess = special.logsumexp(np.where(mask, q, -np.inf), axis=1)
    excess -= q[np.arange(32), np.asarray(rows.action)]
    np.testing.assert_allclose(found - without, 0.7 * excess.mean(), rtol=1e-5)


@pytest.mark.parametrize("spec", [FEW, BOX], ids=["few", "box"])
def test_an_update_of_iql_matches_numpy(spec):
    """The four losses of one update, from the networks' outputs."""
    agent = IQL(
        **SMALL, optimizer="sgd", learning_rate=0.1, critic_learning_rate=0.1, tau=0.25,
        expectile=0.8, inverse_temperature=2.0, max_weight=0.9,
    ).bind(spec)  # fmt: skip
    state, rows = apart(agent), rows_of(spec)
    new = jax.jit(agent.update)(state, rows, KEY, CLOCK)
    number, taken = np.arange(32), np.asarray(rows.action)
    inside = (np.clip(taken, -2.0, 4.0) + 2.0) / 3.0 - 1.0

    def value(params, obs):
        return np.asarray(agent.state_values(params, obs), np.float64)

    def q(params):
        if spec is FEW:
            return np.asarray(agent.critic.apply(params, rows.obs))[:, number, taken]
        return np.asarray(agent.critic.apply(params, rows.obs, inside))

    least = q(state.target).min(0)
    error = least - value(state.value, rows.obs)
    assert 0 < (error > 0).mean() < 1
    weights = np.where(error > 0, 0.8, 0.2)
    np.testing.assert_allclose(new.metrics["value_loss"], (weights * error**2).mean(), rtol=1e-4)
    advantage = least - value(new.state.value, rows.obs)  # of V after its step
    assert np.abs(advantage - error).max() > 0.05
    weight = np.minimum(np.exp(2.0 * advantage), 0.9)
    assert 0 < (weight == 0.9).mean() < 1
    policy = agent.policy(state.actor, rows.obs)
    if spec is FEW:
        log_prob = special.log_softmax(np.asarray(policy.logits), axis=1)[number, taken]
    else:
        z = inside - np.asarray(policy.mean)  # standard deviation 1
        log_prob = (-0.5 * z**2 - 0.5 * np.log(2 * np.pi)).sum(1)
    np.testing.assert_allclose(new.metrics["policy_loss"], -(weight * log_prob).mean(), rtol=1e-4)
    following = value(new.state.value, rows.next_obs)
    target = np.asarray(rows.reward) + 0.8 * np.where(rows.terminated, 0.0, following)
    wanted = np.square(q(state.critic) - target).mean(1).sum()
    np.testing.assert_allclose(new.metrics["critic_loss"], wanted, rtol=1e-4)
    mixed = jax.tree.map(lambda x, y: 0.25 * x + 0.75 * y, new.state.critic, state.target)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), new.state.target, mixed)


def test_the_policy_loss_of_td3_bc_matches_numpy():
    """mean (mu - a)^2 - alpha mean Q / mean |Q|, with actions in [-1, 1] (the authors' code)."""
    agent = TD3BC(**SMALL, improvement=2.5).bind(BOX)
    rows = agent.recorded(rows_of(BOX))
    rng = np.random.default_rng(2)
    q, action = rng.standard_normal(32), rng.uniform(-1, 1, (32, 2))
    found = agent.policy_loss(jnp.asarray(q), jnp.asarray(action), rows)
    scaled = (np.clip(rows_of(BOX).action, -2.0, 4.0) + 2.0) / 3.0 - 1.0
    wanted = np.mean((action - scaled) ** 2) - 2.5 * q.mean() / np.abs(q).mean()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    slope = jax.grad(lambda q: agent.policy_loss(q, jnp.asarray(action), rows))
    np.testing.assert_allclose(slope(jnp.asarray(q)), -2.5 / np.abs(q).mean() / 32, rtol=1e-5)


# Exact fixed points -------------------------------------------------------------------------------

MDP = garnet.make(num_states=5, num_actions=3, branching=1, seed=1)
COUNTS = np.array([[6, 3, 1], [1, 1, 2], [4, 4, 1], [1, 2, 3], [3, 1, 1]])
SHARES = COUNTS / COUNTS.sum(1, keepdims=True)
DISCOUNT = 0.7


def tabular_data():
    """Each state and action of a deterministic MDP, as often as `COUNTS` says."""
    state, action = (np.repeat(x.ravel(), COUNTS.ravel()) for x in np.indices(COUNTS.shape))
    after = np.asarray(MDP.transition).argmax(-1)[state, action]
    one_hot, no = np.eye(5, dtype=np.float32), np.zeros(len(state), bool)
    reward = np.asarray(MDP.reward)[state, action]
    return Transition(one_hot[state], action.astype(np.int32), reward, no, no, one_hot[after])


def fixed_point(values_of_next):
    """Q = r + discount V(s'), where V is a function of Q, by iteration."""
    reward, after = np.asarray(MDP.reward), np.asarray(MDP.transition).argmax(-1)
    q = np.zeros_like(reward)
    for _ in range(300):
        q = reward + DISCOUNT * values_of_next(q)[after]
    return q


@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_iql_finds_the_expectile_values_and_their_policy(expectile):
    """With 0.5 V is the mean, so Q is that of the data's policy; the policy is in closed form."""

    def values(q):
        rows = [np.repeat(x, n) for x, n in zip(q, COUNTS, strict=True)]
        return np.array([expectile_of(x, expectile) for x in rows])

    q = fixed_point(values)
    agent = IQL(
        expectile=expectile, inverse_temperature=1.0, discount=DISCOUNT, hidden_sizes=(64,),
        learning_rate=3e-3, critic_learning_rate=3e-3, tau=0.05,
    )  # fmt: skip
    agent, state, _ = learned(agent, MDP, 25, data=tabular_data())
    eye = jnp.eye(5)
    np.testing.assert_allclose(agent.state_values(state.agent.value, eye), values(q), atol=0.1)
    np.testing.assert_allclose(agent.critic.apply(state.agent.critic, eye)[0], q, atol=0.15)
    weight = SHARES * np.exp(q - values(q)[:, None])
    wanted = weight / weight.sum(1, keepdims=True)
    found = agent.policy(state.agent.actor, eye).probabilities()
    np.testing.assert_allclose(found, wanted, atol=0.07)


def test_cql_finds_the_conservative_values():
    """Q = T Q - alpha (softmax Q / beta - 1), where the gradient of equation 4 vanishes."""
    reward, after = np.asarray(MDP.reward), np.asarray(MDP.transition).argmax(-1)
    alpha, q = 0.2, np.zeros((5, 3))
    for _ in range(4000):
        target = reward + DISCOUNT * q.max(1)[after]
        q += 0.05 * (target - alpha * (special.softmax(q, axis=1) / SHARES - 1.0) - q)
    agent = CQL(
        conservatism=alpha, discount=DISCOUNT, hidden_sizes=(64,), learning_rate=3e-3,
        num_updates=50, batch_size=None, max_grad_norm=None,
    )  # fmt: skip
    agent, state, _ = learned(agent, MDP, 60, data=tabular_data())
    found = agent.q_values(state.agent.params, jnp.eye(5))
    np.testing.assert_allclose(found, q, atol=0.03)
    assert np.abs(q - fixed_point(lambda q: q.max(1))).max() > 0.5  # far from optimal values


# Probes -------------------------------------------------------------------------------------------


def bandit(env, action, reward_of):
    """One-step episodes with these actions."""
    obs = jnp.where(jax.random.bernoulli(KEY, shape=(len(action), 1)), 1.0, -1.0)
    ends = jnp.ones(len(action), bool)
    return Transition(obs, action, reward_of(obs[:, 0], action), ends, ~ends, obs)


FEW_DATA = bandit(
    BestActionByObservation(),
    jax.random.randint(jax.random.key(1), (1000,), 0, 2, jnp.int32),
    lambda obs, action: obs * (2.0 * action - 1.0),
)
BOX_DATA = bandit(
    BestContinuousAction(),
    2.0 * jnp.square(jax.random.uniform(jax.random.key(1), (1000, 1))) - 1.0,
    lambda obs, action: -jnp.square(action[:, 0] - 0.5 * obs),
)


@pytest.mark.parametrize(
    "agent", [CQL(learning_rate=3e-3), IQL(hidden_sizes=(32,), learning_rate=3e-3)], ids=type
)
def test_probe_few_actions(agent):
    """Cloning random actions would be right half the time."""
    agent, state, _ = learned(agent, BestActionByObservation(), 10, data=FEW_DATA)
    assert mode(agent, state, [[-1.0], [1.0]]).tolist() == [0, 1]


def weighted_mean(inverse_temperature):
    """The mean action of the data by IQL's weights, below and above 0; Q is the reward."""
    found = []
    for sign in (-1.0, 1.0):
        rows = np.asarray(BOX_DATA.obs[:, 0] == sign)
        action, reward = (np.asarray(x)[rows] for x in (BOX_DATA.action[:, 0], BOX_DATA.reward))
        advantage = reward - expectile_of(reward, 0.7)
        weight = np.minimum(np.exp(inverse_temperature * advantage), 100.0)
        found.append(weight @ action / weight.sum())
    return found


@pytest.mark.parametrize(
    ("agent", "wanted"),
    [
        (IQL(inverse_temperature=20.0), weighted_mean(20.0)),
        (IQL(inverse_temperature=0.0), weighted_mean(0.0)),
        (TD3BC(improvement=50.0), [-0.5, 0.5]),
        (TD3BC(improvement=0.0), weighted_mean(0.0)),
    ],
    ids=["iql", "iql, cloning", "td3_bc", "td3_bc, cloning"],
)
def test_probe_box(agent, wanted):
    """The best action is half the observation; the mean of the data is -1/3."""
    assert wanted[1] > 0.2 or wanted[1] < -0.25
    fast = {"hidden_sizes": (32,), "learning_rate": 3e-3, "critic_learning_rate": 3e-3}
    agent, state, _ = learned(agent.replace(**fast), BestContinuousAction(), 15, data=BOX_DATA)
    found = mode(agent, state, [[-1.0], [1.0]])[:, 0]
    np.testing.assert_allclose(found, wanted, atol=0.12)


def test_statistics_are_those_of_the_data():
    """They are known before the first update, and do not change."""
    data = BOX_DATA.replace(obs=3.0 + 2.0 * BOX_DATA.obs)
    _, state, _ = learned(
        TD3BC(hidden_sizes=(4,), num_updates=1), BestContinuousAction(), 3, data=data,
        normalize_observations=True,
    )  # fmt: skip
    (moments,) = state.stats.obs
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, np.mean(data.obs, axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, np.var(data.obs, axis=0), rtol=1e-5)


def test_constant_features_are_not_scaled_beyond_bounds():
    data = BOX_DATA.replace(obs=jnp.full_like(BOX_DATA.obs, 3.0))
    training = Training.create(
        IQL(), BestContinuousAction(), total_steps=1, data=data, normalize_observations=True
    )
    stats = training.init(KEY).stats
    np.testing.assert_allclose(
        stats.normalize_obs(jnp.array([[3.0], [3.001]])), [[0.0], [1.0]], atol=1e-2
    )


class Onlooker(FittedQ):
    """Reports the means and deviations of the observations that it learns from."""

    def update(self, state, batch, key, clock):
        new = super().update(state, batch, key, clock)
        seen = {"obs": batch.obs, "next_obs": batch.next_obs}
        means = {f"mean_{name}": jnp.mean(x) for name, x in seen.items()}
        return new._replace(metrics=means | {f"std_{name}": jnp.std(x) for name, x in seen.items()})


def test_observations_of_data_are_normalised_for_learning_and_acting(tmp_path):
    """Also for a run that is loaded without its data, and for one that starts from it."""
    obs = 3.0 + 2.0 * FEW_DATA.obs
    data = FEW_DATA.replace(obs=obs, next_obs=obs)
    agent, env = Onlooker(num_updates=1, hidden_sizes=(4,)), BestActionByObservation()
    options = {"normalize_observations": True, "total_steps": 2, "num_eval_episodes": 2}
    _, metrics = train(agent, env, KEY, data=data, num_evaluations=1, **options)
    updates = {k: float(v.value[-1]) for k, v in metrics.training.updates.items()}
    for name in ("obs", "next_obs"):
        np.testing.assert_allclose(updates[f"mean_{name}"], 0.0, atol=1e-5)
        np.testing.assert_allclose(updates[f"std_{name}"], 1.0, atol=1e-4)
    run = fit(agent, env, KEY, data=data, run_dir=tmp_path / "run", tensorboard=False, **options)
    policy = load_policy(tmp_path / "run", agent=agent, env=env)
    wanted = agent.bind(env.spec).q_values(run.state.agent.params, jnp.array([[-1.0], [1.0]]))
    action = policy(jnp.array([[1.0], [5.0]]))
    np.testing.assert_array_equal(action, jnp.argmax(wanted, axis=1))
    start = load_run(tmp_path / "run", agent=agent, env=env, data=FEW_DATA).start()
    later = train(agent, env, KEY, data=FEW_DATA, agent_state=start, **options)[0]
    jax.tree.map(np.testing.assert_array_equal, later.stats.obs, run.state.stats.obs)


# Masks and refusals -------------------------------------------------------------------------------


def masked_data(best):
    """Both available actions of each row, or the other two."""
    mask = jax.vmap(lambda k: jnp.argsort(jax.random.uniform(k, (4,))) < 2)(
        jax.random.split(KEY, 400)
    )
    order = jnp.argsort(mask if best else ~mask, axis=1)
    coin = jax.random.bernoulli(jax.random.key(1), shape=(400,))
    action = jnp.where(coin, order[:, 3], order[:, 2]).astype(jnp.int32)
    other = jnp.where(coin, order[:, 2], order[:, 3])
    obs, ends = Masked(mask.astype(jnp.float32), mask), jnp.ones(400, bool)
    return Transition(obs, action, (action > other) * 1.0, ends, ~ends, obs)


@pytest.mark.parametrize(
    "agent", [CQL(learning_rate=3e-3), IQL(hidden_sizes=(32,), learning_rate=3e-3)], ids=type
)
def test_unavailable_actions_are_neither_learned_nor_taken(agent):
    data = masked_data(best=True)
    agent, state, metrics = learned(agent, MaskedChoice(), 10, data=data)
    chosen = agent.act(state.agent, (), data.obs, KEY, CLOCK, explore=False)[1]
    assert np.asarray(data.obs.action_mask)[np.arange(400), chosen].all()
    assert float(metrics.evaluation.returns[-1].mean()) > 3.5  # of 4


def test_data_with_unavailable_actions_are_refused():
    both = (masked_data(best=True), masked_data(best=False))
    data = jax.tree.map(lambda *x: jnp.concatenate(x), *both)
    message = "data.action has 400 actions that the action mask .*, the first in row 400"
    with pytest.raises(InvalidValue, match=message):
        train(CQL(), MaskedChoice(), KEY, total_steps=1, data=data)


def test_a_mask_without_actions_is_no_mask():
    data = masked_data(best=False)
    none = jnp.zeros_like(data.obs.action_mask)
    obs = data.obs._replace(action_mask=none)
    check_data(MaskedChoice().spec, data.replace(obs=obs, next_obs=obs))


def test_masks_of_several_actions_are_checked_one_by_one():
    obs = Masked(jnp.zeros((2, 1)), jnp.array([[1, 0, 0, 1, 1]] * 2, bool))
    shape = Masked(jax.ShapeDtypeStruct((1,), jnp.float32), jax.ShapeDtypeStruct((5,), jnp.bool_))
    spec, ends = EnvSpec(shape, MultiDiscrete((2, 3))), jnp.ones(2, bool)
    for action, refused in (([[0, 1], [0, 2]], False), ([[0, 1], [0, 0]], True)):
        rows = Transition(obs, jnp.array(action), jnp.zeros(2), ends, ~ends, obs)
        if refused:
            with pytest.raises(InvalidValue, match=r"has 1 actions .*, the first in row 1"):
                check_data(spec, rows)
        else:
            check_data(spec, rows)


def test_data_that_are_not_finite_are_refused_by_row():
    """But not what follows a terminated step, since no target uses it."""
    bad = FEW_DATA.replace(next_obs=FEW_DATA.next_obs.at[3].set(jnp.nan))
    check_data(BestActionByObservation().spec, bad)
    bad = FEW_DATA.replace(reward=FEW_DATA.reward.at[5].set(jnp.inf))
    with pytest.raises(InvalidValue, match=r"data.reward is not finite in row 5: leave out"):
        train(CQL(), BestActionByObservation(), KEY, total_steps=1, data=bad)


@pytest.mark.parametrize(
    ("agent", "spec", "message"),
    [
        (CQL(), BOX, "CQL needs discrete actions.* use IQL, TD3BC"),
        (TD3BC(), FEW, "TD3BC needs a Box of actions.* use CQL or IQL"),
        (IQL(), EnvSpec(BOX.observation, Box.of(-np.inf, np.inf, (2,))), "bounds .* not finite"),
        (IQL(expectile=0.0), FEW, "expectile is 0.0"),
        (IQL(expectile=1.0), FEW, "expectile is 1.0: it must be below 1"),
        (IQL(), EnvSpec(BOX.observation, MultiDiscrete((2, 2))), "it also takes Discrete"),
        (TD3BC(improvement=-1.0), BOX, "improvement is -1.0"),
        (CQL(conservatism=-1.0), FEW, "conservatism is -1.0"),
    ],
)
def test_refused(agent, spec, message):
    with pytest.raises(InvalidValue, match=message):
        agent.bind(spec)
