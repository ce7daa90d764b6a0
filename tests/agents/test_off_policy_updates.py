"""Single updates of DDPG, TD3, SAC and QSearch against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import Counter, Endless
from helpers.probes import KEY
from scipy import stats

from jaxrl.agents import DDPG, SAC, TD3, QSearch
from jaxrl.engine.acting import start_carry
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Box, Clock, EnvSpec, Transition

SPACE = EnvSpec(Counter().spec.observation, Box.of(-2.0, 4.0, (2,)))
SMALL = {
    "hidden_sizes": (8,), "discount": 0.8, "tau": 0.1, "critic_learning_rate": 1e-2,
}  # fmt: skip
FAST = {
    "ddpg": DDPG(**SMALL, learning_rate=1e-2),
    "td3": TD3(**SMALL, learning_rate=1e-2, policy_delay=1, target_noise=0.0),
    "sac": SAC(**SMALL, learning_rate=1e-2, temperature=0.5, learn_temperature=False),
    "search": QSearch(**SMALL, num_critics=2),
}


def rows_of(action, num_steps=1):
    """Random rows with these actions; some are terminated, truncated or invalid."""
    num = len(action)
    rng = np.random.default_rng(0)
    obs, next_obs = 2.0 * rng.standard_normal((2, num, 2)).astype(np.float32)
    ends = np.arange(num) % 4
    steps = Transition(
        obs, action, rng.standard_normal(num).astype(np.float32), ends == 1, ends == 2, next_obs
    )
    rows = Replayed.once(jax.tree.map(jnp.asarray, steps))
    num_steps = jnp.broadcast_to(jnp.asarray(num_steps, jnp.int32), (num,))
    return rows.replace(num_steps=num_steps, valid=jnp.arange(num) % 7 != 3)


def box_rows(num=32, num_steps=1):
    action = np.random.default_rng(1).uniform(-2.0, 4.0, (num, 2)).astype(np.float32)
    return rows_of(action, num_steps)


def fresh(agent, key=KEY):
    """An initial state whose target networks differ from the online networks."""
    states = [jax.jit(agent.init)(k) for k in jax.random.split(key)]
    target = states[1].target
    return states[0].replace(target=target)


def critic_loss(values, reward, weight, next_value, rows):
    """Mean squared error of each critic's `values[num, B]` over valid rows, summed over critics."""
    target = np.asarray(reward) + weight * np.where(rows.terminated, 0.0, next_value)
    return np.square(values - target)[:, np.asarray(rows.valid)].mean(-1).sum()


# Soft values --------------------------------------------------------------------------------------


def test_soft_target_for_box_actions_matches_numpy():
    """r + 0.8 (min Q'(s', a') - 0.5 log pi(a' | s')), the density by change of variables."""
    agent, rows, key = FAST["sac"].bind(SPACE), box_rows(), jax.random.key(3)
    state = fresh(agent)
    metrics = jax.jit(agent.update)(state, rows, key, Clock.start()).metrics

    policy = agent.policy(state.actor, rows.next_obs)
    next_action = policy.sample(jax.random.split(key)[0])
    location, log_std = np.split(
        np.asarray(agent.actor.apply(state.actor, rows.next_obs)), 2, axis=-1
    )
    u = np.arctanh(np.asarray(next_action, np.float64))
    log_prob = stats.norm.logpdf(u, location, np.exp(log_std)) - np.log1p(-(np.tanh(u) ** 2))
    q = np.asarray(agent.critic.apply(state.target, rows.next_obs, next_action))
    assert 0 < (q[0] < q[1]).mean() < 1
    soft = q.min(0) - 0.5 * log_prob.sum(-1)

    taken = (np.asarray(rows.action) + 2.0) / 3.0 - 1.0
    values = np.asarray(agent.critic.apply(state.critic, rows.obs, taken))
    expected = critic_loss(values, rows.reward, 0.8, soft, rows)
    np.testing.assert_allclose(metrics["critic_loss"], expected, rtol=1e-4)


def test_soft_target_for_discrete_actions_matches_numpy():
    """r + 0.8 (sum pi min Q' - 0.5 sum pi log pi), with the minimum over critics per action."""
    agent = FAST["sac"].bind(Counter().spec)
    rows = rows_of(np.arange(32) % 3)
    state = fresh(agent)
    state = state.replace(actor=jax.tree.map(lambda x: 10.0 * x, state.actor))  # not uniform
    metrics = jax.jit(agent.update)(state, rows, KEY, Clock.start()).metrics

    logits = np.asarray(agent.actor.apply(state.actor, rows.next_obs), np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    entropy = -(probabilities * np.log(probabilities)).sum(-1)
    assert entropy.std() > 0.01
    q = np.asarray(agent.critic.apply(state.target, rows.next_obs))  # [2, B, 3]
    assert 0 < (q[0] < q[1]).mean() < 1
    soft = (probabilities * q.min(0)).sum(-1) + 0.5 * entropy

    values = np.asarray(agent.critic.apply(state.critic, rows.obs))
    values = values[:, np.arange(32), np.asarray(rows.action)]
    expected = critic_loss(values, rows.reward, 0.8, soft, rows)
    np.testing.assert_allclose(metrics["critic_loss"], expected, rtol=1e-4)


def test_exact_soft_values_are_a_fixed_point():
    """Q = 1 + 0.8 (Q + 0.5 log 2): critics that satisfy this have zero loss."""
    q = (1 + 0.8 * 0.5 * np.log(2)) / (1 - 0.8)
    np.testing.assert_allclose(q, 6.386, atol=1e-3)
    agent = FAST["sac"].bind(Endless().spec)
    state = jax.tree.map(jnp.zeros_like, jax.jit(agent.init)(KEY))
    critic = dict(state.critic["params"])
    for i in range(2):
        critic[f"out_{i}"] = {**critic[f"out_{i}"], "bias": jnp.full(2, q)}
    state = state.replace(
        critic={"params": critic}, target={"params": critic}, log_temperature=jnp.log(0.5)
    )
    obs, zeros = jnp.ones((4, 1)), jnp.zeros(4)
    action = jnp.array([0, 1, 0, 1])
    rows = Replayed.once(Transition(obs, action, 1.0 + zeros, zeros > 0, zeros > 0, obs))
    metrics = jax.jit(agent.update)(state, rows, KEY, Clock.start()).metrics
    np.testing.assert_allclose(metrics["value"], q, rtol=1e-6)
    np.testing.assert_allclose(metrics["entropy"], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics["critic_loss"], 0.0, atol=1e-9)


# n-step rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ddpg", "td3", "search"])
def test_n_step_bootstrap_is_discounted_n_times(name):
    """r + 0.8^n V(s') for rows of 1, 2 and 3 steps."""
    agent, num_steps = FAST[name].bind(SPACE), 1 + np.arange(32) // 3 % 3
    rows, state = box_rows(num_steps=num_steps), fresh(agent)
    metrics = jax.jit(agent.update)(state, rows, KEY, Clock.start()).metrics

    target, online = state.target, state.params
    if name == "search":
        next_value = agent.search(target, rows.next_obs, KEY)[1]
    else:
        action = agent.policy(target.actor, rows.next_obs)
        next_value = np.asarray(agent.critic.apply(target.critic, rows.next_obs, action)).min(0)
        online = online.critic
    taken = (np.asarray(rows.action) + 2.0) / 3.0 - 1.0
    values = np.asarray(agent.critic.apply(online, rows.obs, taken))
    expected = critic_loss(values, rows.reward, 0.8**num_steps, next_value, rows)
    np.testing.assert_allclose(metrics["critic_loss"], expected, rtol=1e-4)


# Actors -------------------------------------------------------------------------------------------


def test_td3_actor_ascends_the_first_critic():
    """The second critic is always smaller, with the opposite slope: ascending the minimum would
    move actions the other way (Fujimoto, van Hoof and Meger, 2018, algorithm 1)."""

    class Opposed:
        def apply(self, params, obs, action):
            first = jnp.sum(action, axis=-1)
            return jnp.stack([first, -first - 100.0])

    class Climbs(TD3):
        critic = Opposed()

    agent = Climbs(**SMALL, learning_rate=1e-2, policy_delay=1).bind(SPACE)
    state, rows = fresh(FAST["td3"].bind(SPACE)), box_rows()
    new = jax.jit(lambda state: agent._improve(state, rows, KEY, Clock.start()))(state)
    before, after = (agent.policy(x.params.actor, rows.obs) for x in (state, new))
    assert np.mean(after - before) > 1e-3


# Targets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAST)
def test_targets_are_polyak_averages_of_new_parameters(name):
    """(1 - tau) target + tau params, with tau = 0.1 and the parameters after the step."""
    agent = FAST[name].bind(SPACE)
    state = fresh(agent)
    new = jax.jit(agent.update)(state, box_rows(), KEY, Clock.start()).state
    before, after = (x.critic if name == "sac" else x.params for x in (state, new))

    def check(target, params, found):
        expected = 0.9 * np.asarray(target) + 0.1 * np.asarray(params)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    jax.tree.map(check, state.target, after, new.target)
    for old, learned in zip(*map(jax.tree.leaves, (before, after)), strict=True):
        assert np.abs(old - learned).max() > 1e-3  # averaging towards the old parameters would fail


# Search -------------------------------------------------------------------------------------------


class Peak:
    """A critic whose best action is half the observation."""

    def apply(self, params, obs, action):
        return -jnp.square(action - 0.5 * obs).sum(-1)[None]


class ToThePeak(QSearch):
    critic = Peak()


@pytest.mark.parametrize("proposal", ["uniform", "gaussian"])
def test_search_finds_a_known_maximum(proposal):
    """Eight refinements come within 0.01; the worst initial sample is more than 0.1 away."""
    agent = ToThePeak(proposal=proposal, num_candidates=64, num_elites=8).bind(SPACE)
    obs = jax.random.uniform(KEY, (32, 2), minval=-1.0, maxval=1.0)
    distance = {}
    for rounds in (0, 8):
        action, value = agent.replace(num_refinements=rounds).search((), obs, KEY)
        distance[rounds] = np.linalg.norm(np.asarray(action) - 0.5 * np.asarray(obs), axis=-1)
        np.testing.assert_allclose(value, -np.square(distance[rounds]), rtol=1e-3, atol=1e-7)
    assert distance[0].max() > 0.1
    assert distance[8].max() < 1e-2


# Options of all agents with critics ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["ddpg", "td3", "sac", "search"])
def test_prioritised_critics_match_numpy(name):
    """Weights (N P)^-beta over the largest, and priorities by the largest error of all critics."""
    options = {"prioritized": True, "priority_exponent": 0.7, "importance_exponent": 0.5}
    agent, rows, key = FAST[name].replace(**options).bind(SPACE), box_rows(), jax.random.key(3)
    probability = np.random.default_rng(2).uniform(0.2, 3.0, len(rows.reward)).astype(np.float32)
    rows = rows.replace(relative_probability=jnp.asarray(probability))
    target = np.linspace(-1.0, 1.0, len(probability)).astype(np.float32)
    params, optimizer = agent.init_critic(KEY)
    *_, metrics, priorities = agent.learn_critic(
        params, optimizer, rows, jnp.asarray(target), key, Clock.start()
    )

    taken = (np.asarray(rows.action) + 2.0) / 3.0 - 1.0
    error = np.abs(np.asarray(agent.critic.apply(params, rows.obs, taken)) - target)
    valid = np.asarray(rows.valid)
    weight = probability**-0.5
    weight = weight / weight[valid].max()
    expected = (weight * np.square(error).sum(0))[valid].mean()
    np.testing.assert_allclose(metrics["critic_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(priorities, (error.max(0) + 1e-6) ** 0.7, rtol=1e-4)
    assert agent.plan.prioritized

    update = jax.jit(agent.update)(fresh(agent), rows, key, Clock.start())
    assert update.priorities.shape == target.shape


def test_critics_have_their_own_widths():
    agent = TD3(hidden_sizes=(8,), critic_hidden_sizes=(16, 12)).bind(SPACE)
    params = jax.eval_shape(agent.init, KEY).params
    shapes = {x.shape for x in jax.tree.leaves(params.critic)}
    assert shapes == {(4, 16), (16,), (16, 12), (12,), (12, 1), (1,)}
    assert {x.shape for x in jax.tree.leaves(params.actor)} == {(2, 8), (8,), (8, 2), (2,)}
    with pytest.raises(ValueError, match=r"critic_hidden_sizes is \(8, 0\): give widths"):
        agent.replace(critic_hidden_sizes=(8, 0)).bind(SPACE)
    message = r"layer_norm is True and critic_hidden_sizes is \(8, 1\): a single feature"
    with pytest.raises(ValueError, match=message):
        agent.replace(critic_hidden_sizes=(8, 1), layer_norm=True).bind(SPACE)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_layer_norm_makes_critics_indifferent_to_the_scale_of_weights(layer_norm):
    agent, rows = TD3(hidden_sizes=(8, 8), layer_norm=layer_norm).bind(SPACE), box_rows()
    params, _ = agent.init_critic(KEY)

    def scaled(path, x):
        return 10.0 * x if "hidden" in str(path) and "Dense" in str(path) else x

    def values(params):
        return np.asarray(agent.critic.apply(params, rows.obs, rows.action))

    after = values(jax.tree_util.tree_map_with_path(scaled, params))
    assert np.allclose(after, values(params), rtol=1e-2, atol=1e-2) is layer_norm


def test_the_temperature_has_a_learning_rate_of_its_own():
    """Adam's first step is as long as the learning rate."""
    agent = SAC(**SMALL, learning_rate=1e-3, temperature_learning_rate=0.03).bind(SPACE)
    state = fresh(agent)
    new = jax.jit(agent.update)(state, box_rows(), KEY, Clock.start()).state
    np.testing.assert_allclose(abs(new.log_temperature - state.log_temperature), 0.03, rtol=1e-4)


# Ornstein-Uhlenbeck noise -------------------------------------------------------------------------


def test_ornstein_uhlenbeck_noise_has_its_drift_and_diffusion():
    """x' = x - theta x dt + sigma sqrt(dt) N(0, 1): the change of x regressed on x, over 4,000
    steps of 16 copies; white noise has the slope -1."""
    rate, step, sigma = 0.5, 0.1, 0.02
    agent = DDPG(
        **SMALL, noise="ou", ou_rate=rate, ou_step=step, exploration_noise=sigma, warmup=0
    ).bind(SPACE)
    state = agent.init(KEY)
    obs = jnp.full((16, 2), 0.3)
    centre = agent.policy(state.params.actor, obs)

    def one(carry, key):
        carry, action, _ = agent.act(state, carry, obs, key, Clock.start(), explore=True)
        return carry, agent.scale_action(action) - centre

    start = agent.initial_carry(16)
    x = np.asarray(jax.lax.scan(one, start, jax.random.split(KEY, 4000))[1], np.float64)
    before, change = x[:-1].ravel(), np.diff(x, axis=0).ravel()
    slope = (before @ change) / (before @ before)
    noise = change - slope * before
    error = sigma * np.sqrt(step / (before @ before))
    assert abs(slope + rate * step) < 4 * error
    np.testing.assert_allclose(noise.std(), sigma * np.sqrt(step), rtol=0.02)


def test_an_unstable_process_is_rejected():
    unstable = {"noise": "ou", "ou_rate": 4.0, "ou_step": 0.5}
    for kind in (DDPG, TD3):
        with pytest.raises(ValueError, match=r"ou_rate is 4.0 and ou_step is 0.5: where their pro"):
            kind(**unstable).bind(SPACE)
    DDPG(**unstable | {"ou_rate": 3.9}).bind(SPACE)
    DDPG(**unstable | {"noise": "normal"}).bind(SPACE)


def test_greedy_policies_carry_no_noise():
    agent = DDPG(**SMALL, noise="ou").bind(SPACE)
    np.testing.assert_array_equal(start_carry(agent, 3, explore=True), np.zeros((3, 2)))
    assert start_carry(agent, 3, explore=False) == ()
    assert DDPG(**SMALL).bind(SPACE).initial_carry(3) == ()
    carry, action, _ = agent.act(
        agent.init(KEY), (), jnp.zeros((3, 2)), KEY, Clock.start(), explore=False
    )
    assert (carry, action.shape) == ((), (3, 2))
