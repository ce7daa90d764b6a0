"""Options of Q-learning agents: Munchausen, quantile levels, noise, and epsilon of each copy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers.environments import MaskedChoice, RewardIsObservation
from helpers.probes import KEY

from jaxrl.agents import DQN, PQN
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Clock, Masked, Trajectory, Transition


def rows_of(obs, next_obs, reward, terminated):
    """Transitions in which the first action was taken."""
    terminated = jnp.asarray(terminated)
    action = jnp.zeros(terminated.shape, jnp.int32)
    steps = Transition(obs, action, jnp.asarray(reward), terminated, terminated & False, next_obs)
    return Replayed.once(steps)


def test_munchausen_target_matches_numpy():
    """Vieillard et al., 2020, eq. 1, with both terms from the target network."""
    alpha, tau, low = 0.9, 0.5, -0.45
    agent = DQN(
        hidden_sizes=(8,), munchausen=alpha, munchausen_temperature=tau, munchausen_clip=low
    ).bind(MaskedChoice().spec)
    params, target = (agent.init_params(k) for k in jax.random.split(KEY))
    rng = np.random.default_rng(0)

    def observations():
        obs = rng.standard_normal((24, *MaskedChoice().spec.observation.obs.shape))
        mask = rng.random((24, agent.spec.action.num)) < 0.5
        mask[:, 0] = True
        return Masked(jnp.asarray(obs, jnp.float32), jnp.asarray(mask))

    obs, next_obs = observations(), observations()
    reward, terminated = rng.standard_normal(24).astype(np.float32), np.arange(24) % 3 == 0
    rows = rows_of(obs, next_obs, reward, terminated)

    def log_policy(seen):
        q = np.asarray(agent.network_values(target, seen), np.float64)
        q = np.where(seen.action_mask, q, -np.inf)
        return q, q / tau - scipy.special.logsumexp(q / tau, axis=-1, keepdims=True)

    bonus = alpha * np.clip(tau * log_policy(obs)[1][:, 0], low, 0.0)
    q, log_pi = log_policy(next_obs)
    with np.errstate(invalid="ignore"):
        soft = np.nansum(np.where(np.isfinite(q), np.exp(log_pi) * (q - tau * log_pi), 0.0), -1)
    expected = reward + bonus + agent.discount * np.where(terminated, 0.0, soft)
    predicted = np.asarray(agent.network_values(params, obs))[:, 0]
    loss, error, _ = agent.td_errors(params, target, rows, KEY)
    np.testing.assert_allclose(error, np.abs(expected - predicted), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loss, 0.5 * (expected - predicted) ** 2, rtol=1e-4, atol=1e-5)
    assert (bonus == alpha * low).any()
    assert (bonus > alpha * low).any()


def test_iqn_has_its_three_numbers_of_levels(monkeypatch):
    """N to learn, N' for targets, K to act and to select the next action."""
    agent = DQN(head="iqn", num_atoms=3, num_target_levels=5, num_acting_levels=7, warmup=0)
    agent = agent.replace(hidden_sizes=(8,)).bind(RewardIsObservation().spec)
    params, used = agent.init_params(KEY), []
    network = type(agent.network)

    def spy(self, obs, levels=None):
        used.append(levels.shape[-1])
        return call(self, obs, levels)

    call = network.__call__
    monkeypatch.setattr(network, "__call__", spy)
    zeros = jnp.zeros((4, 1))
    rows = rows_of(zeros, zeros, jnp.zeros(4), jnp.zeros(4) > 0)
    agent.td_errors(params, params, rows, KEY)
    assert sorted(used) == [3, 5, 7]
    used.clear()  # both policies of Munchausen have K levels of their own
    agent.replace(munchausen=0.9).td_errors(params, params, rows, KEY)
    assert sorted(used) == [3, 5, 7, 7]
    used.clear()
    agent.q_values(params, zeros, KEY)
    assert used == [7]


def test_each_copy_can_have_its_own_epsilon():
    """Ape-X: epsilon^(1 + power i / (N - 1)); the first copy has epsilon itself."""
    agent = DQN(epsilon=0.4, epsilon_power=7.0, hidden_sizes=(8,))
    agent = agent.bind(RewardIsObservation().spec)
    state, num = agent.init(KEY), 4
    _, best, _ = agent.act(state, (), jnp.ones((num, 1)), KEY, Clock.start(), explore=False)

    def differs(key):
        _, action, _ = agent.act(state, (), jnp.ones((num, 1)), key, Clock.start(), explore=True)
        return action != best

    share = np.mean(jax.vmap(differs)(jax.random.split(KEY, 20_000)), axis=0)
    expected = 0.5 * 0.4 ** (1.0 + 7.0 * np.arange(num) / (num - 1))  # half of them are the best
    error = np.sqrt(expected * (1.0 - expected) / 20_000)
    assert (np.abs(share - expected) < 4.5 * error).all()


def test_noisy_layers_start_with_the_given_scale():
    spec = RewardIsObservation().spec
    for scale in (0.5, 0.1):
        params = DQN(noisy=True, noise_scale=scale).bind(spec).init_params(KEY)["params"]
        np.testing.assert_allclose(params["actions_out"]["bias_std"], scale / 8.0)  # 64 inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"munchausen": 0.9, "head": "c51"}, "munchausen is 0.9 and head is 'c51'"),
        ({"munchausen": 0.9, "double": "target"}, "munchausen is 0.9 and double is 'target'"),
        ({"munchausen": 0.9, "n_step": 3}, "munchausen is 0.9 and n_step is 3"),
        ({"epsilon_power": 7.0, "exploration": "boltzmann"}, "epsilon_power is 7.0, but"),
        ({"num_target_levels": 8}, "num_target_levels is 8, but head is 'scalar'"),
        ({"num_acting_levels": 8, "head": "c51"}, "num_acting_levels is 8, but head is 'c51'"),
        ({"noise_scale": -1.0}, "noise_scale is -1.0"),
    ],
)
def test_options_that_have_no_use_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        DQN(**change).bind(RewardIsObservation().spec)


def test_traces_of_pqn_are_peng_s_or_retrace_s():
    """Against a loop over the definitions; with retrace, exploring actions cut the trace."""
    agent = PQN(num_envs=3, num_steps=6, hidden_sizes=(8,), q_lambda=0.8, discount=0.9)
    agent = agent.bind(RewardIsObservation().spec)
    state, rng, shape = agent.init(KEY), np.random.default_rng(0), (6, 3)
    obs, next_obs = (jnp.asarray(rng.standard_normal((*shape, 1)), jnp.float32) for _ in range(2))
    terminated = rng.random(shape) < 0.15
    truncated = (rng.random(shape) < 0.15) & ~terminated
    action = rng.integers(0, 2, shape).astype(np.int32)
    reward = rng.standard_normal(shape).astype(np.float32)
    steps = Transition(obs, action, reward, *map(jnp.asarray, (terminated, truncated)), next_obs)
    batch = Trajectory(steps, jnp.zeros(shape, bool), ())

    def q_of(x):
        return np.asarray(agent.q_values(state.params, x.reshape(-1, 1))).reshape(*shape, 2)

    q, following = q_of(obs), q_of(next_obs).max(-1)
    greedy = np.take_along_axis(q, action[..., None], -1)[..., 0] == q.max(-1)
    assert greedy.any()
    assert not greedy.all()
    for traces in ("peng", "retrace"):
        expected, after = np.zeros(shape), np.zeros(3)
        for t in reversed(range(6)):
            goes_on = ~(terminated[t] | truncated[t]) & (t < 5)
            trace = 0.8 * goes_on
            if traces == "retrace" and t < 5:
                trace = trace * greedy[t + 1]
            value = np.where(terminated[t], 0.0, following[t])
            if traces == "peng" or t == 5:
                after = reward[t] + 0.9 * ((1 - trace) * value + trace * after)
            else:  # for a greedy action, Q(s, a) is V(s)
                taken = np.take_along_axis(q[t + 1], action[t + 1][:, None], -1)[:, 0]
                after = reward[t] + 0.9 * (value + trace * (after - taken))
            expected[t] = after
        found = agent.replace(traces=traces).prepare(state, batch, Clock.start()).steps.target
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
