"""Online actor-critic: traces and the factor I against NumPy, expectation, and probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import (
    BestActionByObservation,
    BestContinuousAction,
    BestMixedAction,
    Counter,
    Endless,
)
from helpers.gradients import estimates, tabular_agent, tabular_params
from helpers.probes import KEY, learned, mode, value
from helpers.simulation import agrees

from jaxrl.agents import OffPAC, OnlineActorCritic
from jaxrl.types import Clock, Trajectory, Transition
from jaxrl_envs.exact import garnet, gradients, values

DISCOUNT = 0.8
MDP = garnet.make(num_states=4, num_actions=3, termination=0.1, max_steps=6, seed=3)
LOGITS = np.random.default_rng(0).standard_normal((4, 3))
POLICY = values.softmax(LOGITS)
VALUE = np.random.default_rng(1).standard_normal(4)
RATES = {"learning_rate": 0.5, "critic_learning_rate": 0.25}


def tabular(kind=OnlineActorCritic, **options):
    return tabular_agent(kind, MDP, **({"num_envs": 2, "discount": DISCOUNT} | RATES | options))


def history(num_steps=9, num_envs=2):
    """States `[T + 1, N]` (those after an end are new starts), actions, rewards, ends `[T, N]`, and
    the state that each step ends in."""
    rng = np.random.default_rng(2)
    state, action = (
        rng.integers(0, 4, (num_steps + 1, num_envs)),
        rng.integers(0, 3, (num_steps, num_envs)),
    )
    terminated, truncated = np.zeros((2, num_steps, num_envs), bool)
    terminated[3, 0], truncated[5, 1], terminated[7, 1] = True, True, True
    following = np.where(terminated | truncated, rng.integers(0, 4, action.shape), state[1:])
    return state, action, rng.standard_normal(action.shape), terminated, truncated, following


def batches(data):
    """The steps of a history as trajectories `[1, N]`."""
    state, action, reward, terminated, truncated, following = data
    first = np.concatenate([np.ones_like(terminated[:1]), (terminated | truncated)[:-1]])
    steps = Transition(
        obs=jnp.eye(4)[state[:-1]],
        action=jnp.asarray(action, jnp.int32),
        reward=jnp.asarray(reward, jnp.float32),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        next_obs=jnp.eye(4)[following],
        extras={"log_prob": jnp.full(action.shape, -np.log(3))},  # a uniform behaviour
    )
    whole = Trajectory(steps, jnp.asarray(first))
    return [jax.tree.map(lambda x, t=t: x[t : t + 1], whole) for t in range(len(action))]


def run(agent, data, *, frozen=False):
    """Parameters (theta `[S, A]`, v `[S]`) after all steps; with frozen weights, each update starts
    from the initial ones, and the sums of all changes are returned."""
    state = start = agent.init(KEY).replace(params=tabular_params(LOGITS, VALUE))

    @jax.jit
    def learn(state, batch):
        prepared = agent.prepare(state, batch, Clock.start())
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), prepared)
        return agent.update(state, flat, KEY, Clock.start()).state

    def tables(params):
        theta, critic = params.actor["params"]["actor"]["theta"], params.critic["params"]
        head = critic["critic_head"]
        return np.float64(theta).reshape(4, 3), np.float64(head["kernel"])[:, 0] + np.float64(
            head["bias"]
        )

    total = [0.0, 0.0]
    for batch in batches(data):
        state = learn(state, batch)
        if frozen:
            moved = [x - y for x, y in zip(tables(state.params), tables(start.params), strict=True)]
            total = [x + y for x, y in zip(total, moved, strict=True)]
            state = state.replace(params=start.params)
    return total if frozen else tables(state.params)


def score(theta, state, action):
    """grad log pi(a | s) of a softmax table."""
    result = np.zeros_like(theta)
    result[state] = -values.softmax(theta)[state]
    result[state, action] += 1.0
    return result


# The book's pseudocode ----------------------------------------------------------------------------


@pytest.mark.parametrize("lambdas", [(None, None), (0.6, 0.9)], ids=["one-step", "traces"])
@pytest.mark.parametrize("kind", [OnlineActorCritic, OffPAC])
@pytest.mark.parametrize("discount_states", [True, False])
def test_updates_follow_the_book(lambdas, kind, discount_states):
    """The boxes on p. 332 as a loop over steps and copies in NumPy. Gradients are averaged over
    copies; a new episode, also after a truncation, has new traces and I = 1. OffPAC's traces are
    rho (discount lambda z + I grad), algorithm 1 of its paper."""
    data = history()
    actor, critic = lambdas
    options = {"lambda_actor": actor, "lambda_critic": critic, "discount_states": discount_states}
    found = run(tabular(kind, **options), data)
    state, action, reward, terminated, truncated, following = data
    # The critic is linear in (one-hot state, 1): its bias learns, too.
    theta, v, bias = LOGITS.copy(), np.float64(np.float32(VALUE)), 0.0
    features = np.concatenate([np.eye(4), np.ones((4, 1))], axis=1)
    z_actor, z_critic, weight = np.zeros((2, 4, 3)), np.zeros((2, 5)), np.ones(2)
    for t in range(len(action)):
        step_theta, step_w = np.zeros((4, 3)), np.zeros(5)
        for n in range(2):
            s, after = state[t, n], following[t, n]
            ahead = 0.0 if terminated[t, n] else v[after] + bias
            delta = reward[t, n] + DISCOUNT * ahead - v[s] - bias
            factor, a = weight[n] if discount_states else 1.0, action[t, n]
            rho = 3.0 * values.softmax(theta)[s, a] if kind is OffPAC else 1.0
            z_actor[n] = rho * (
                DISCOUNT * (actor or 0.0) * z_actor[n] + factor * score(theta, s, a)
            )
            z_critic[n] = rho * (DISCOUNT * (critic or 0.0) * z_critic[n] + features[s])
            step_theta += delta * z_actor[n] / 2
            step_w += delta * z_critic[n] / 2
            weight[n] *= DISCOUNT
            if terminated[t, n] or truncated[t, n]:
                z_actor[n], z_critic[n], weight[n] = 0.0, 0.0, 1.0
        theta += 0.5 * step_theta
        v, bias = v + 0.25 * step_w[:4], bias + 0.25 * step_w[4]
    np.testing.assert_allclose(found[0], theta, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], v + bias, rtol=1e-4, atol=1e-5)


def test_traces_with_lambda_zero_are_the_one_step_method():
    one, two = (
        run(tabular(), history()),
        run(tabular(lambda_actor=0.0, lambda_critic=0.0), history()),
    )
    for x, y in zip(one, two, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_forward_and_backward_view_agree_on_an_episode():
    """With frozen weights, the sum of delta_t z_t over an episode is the sum of
    (G_t^lambda - v(S_t)) grad v(S_t), and for the policy of gamma^t (G_t^lambda - v(S_t))
    grad log pi (Sutton and Barto, eq. 12.3 and 12.8). Copy 0 terminates, copy 1 is truncated and
    continues from the value of its final state."""
    lambda_ = 0.7
    state, action, reward, terminated, truncated, following = (x[:6] for x in history())
    terminated, truncated = terminated & False, truncated & False
    terminated[5, 0], truncated[5, 1] = True, True
    following = np.where((terminated | truncated)[:6], following, np.roll(state, -1, 0))
    state = np.concatenate([state, state[:1]])
    data = state, action, reward, terminated, truncated, following
    found = run(tabular(lambda_actor=lambda_, lambda_critic=lambda_), data, frozen=True)

    v, wanted = np.float64(np.float32(VALUE)), [np.zeros((4, 3)), np.zeros(4)]
    for n in range(2):

        def n_step_return(t, steps, n=n):
            """G_{t:t+steps}, with the value of the state that the last step ends in."""
            rewards = sum(DISCOUNT**k * reward[t + k, n] for k in range(steps))
            last = t + steps - 1
            return rewards + DISCOUNT**steps * (
                0.0 if terminated[last, n] else v[following[last, n]]
            )

        for t in range(6):
            left = 6 - t
            returns = [n_step_return(t, k) for k in range(1, left + 1)]
            weights = [(1 - lambda_) * lambda_ ** (k - 1) for k in range(1, left)] + [
                lambda_ ** (left - 1)
            ]
            error = np.dot(weights, returns) - v[state[t, n]]
            wanted[0] += 0.5 * DISCOUNT**t * error * score(LOGITS, state[t, n], action[t, n]) / 2
            wanted[1] += 0.25 * error * (np.eye(4)[state[t, n]] + 1.0) / 2  # + 1: the bias
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-5)


# The expectation ----------------------------------------------------------------------------------


def test_one_step_updates_ascend_the_discounted_return():
    """With the exact value, the mean over episodes of the sum of I delta grad log pi weights states
    by discount^t, as in the policy gradient theorem; without I it weights them by 1."""
    exact = values.policy_value(MDP, POLICY, DISCOUNT)
    agent = tabular(num_envs=4, learning_rate=1.0).replace(num_steps=6)
    start = agent.init(KEY)

    def of_first_episodes(agent, params, batch):
        """The sum of the updates, all from the same parameters, in each copy's first episode."""

        def one(state, part):
            first_episode, step = part
            error = jnp.where(first_episode, step.steps.td_error, 0.0)
            step = step.replace(steps=step.steps.replace(td_error=error))
            new = agent.update(state, step, KEY, Clock.start()).state
            moved = jax.tree.map(jnp.subtract, new.params.actor, params.actor)
            return new.replace(params=params), moved

        batch = batch.replace(carry=(), env_index=())
        parts = (jnp.cumsum(batch.first, axis=0) <= 1, batch)
        moved = jax.lax.scan(one, start.replace(params=params), parts)[1]
        return jax.tree.map(lambda x: jnp.sum(x, axis=0), moved)

    states = values.episode_states(MDP, POLICY, 6)

    def truth(base):
        weights = (base ** np.arange(6)) @ states
        return gradients.policy_gradient(MDP, POLICY, DISCOUNT, weights).reshape(-1)

    params = tabular_params(LOGITS, exact)
    found = estimates(agent, MDP, params, of_first_episodes, 4096)
    assert agrees(found, truth(DISCOUNT))
    assert not agrees(found, truth(1.0))
    without = agent.replace(discount_states=False)
    assert agrees(estimates(without, MDP, params, of_first_episodes, 4096), truth(1.0))


# Off-policy ---------------------------------------------------------------------------------------


def test_off_policy_updates_have_the_policys_expectation():
    """With the exact value, the mean of rho delta grad log pi is the policy gradient weighted by
    the states of the uniform behaviour (theorem 1 of the paper), and that of rho delta grad V is 0.
    Without ratios, both are something else."""
    exact = values.policy_value(MDP, POLICY, DISCOUNT)
    agent = tabular(OffPAC, num_envs=16, learning_rate=1.0, critic_learning_rate=1.0)
    agent = agent.replace(num_steps=6)
    start = agent.init(KEY)

    def updates(agent, params, batch):
        """Mean updates of policy and value, with and without ratios."""

        def one(state, step):
            without = step.replace(steps=step.steps.replace(ratio=None))
            moved = [
                jax.tree.map(
                    jnp.subtract, agent.update(state, x, KEY, Clock.start()).state.params, params
                )
                for x in (step, without)
            ]
            return state, [(x.actor, x.critic) for x in moved]

        batch = batch.replace(carry=(), env_index=())
        moved = jax.lax.scan(one, start.replace(params=params), batch)[1]
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), moved)

    states = values.rollout_states(MDP, np.full((4, 3), 1 / 3), 6).mean(0)
    truth = gradients.policy_gradient(MDP, POLICY, DISCOUNT, states).reshape(-1)
    truth = np.concatenate([truth, np.zeros(5)])  # no change of the value and its bias
    found = estimates(agent, MDP, tabular_params(LOGITS, exact), updates, 2048)
    found, naive = np.split(found, 2, axis=1)
    assert agrees(found, truth)
    assert not agrees(naive[:, :12], truth[:12])
    assert not agrees(naive[:, 12:], truth[12:])


def test_a_box_has_a_normal_behaviour_around_the_mode():
    agent = OffPAC(behaviour_std=0.3, hidden_sizes=(4,)).bind(BestContinuousAction().spec)
    state, obs = agent.init(KEY), jnp.full((4096, 1), 0.5)
    _, action, extras = agent.act(state, (), obs, KEY, Clock.start(), explore=True)
    _, greedy, _ = agent.act(state, (), obs, KEY, Clock.start(), explore=False)
    np.testing.assert_allclose(np.std(action - greedy), 0.3, rtol=0.05)
    z = np.asarray(action - greedy)[:, 0] / 0.3
    expected = -0.5 * z**2 - np.log(0.3) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(extras["log_prob"], expected, rtol=1e-4, atol=1e-5)


def test_off_policy_needs_discrete_actions_or_a_box():
    with pytest.raises(ValueError, match="OffPAC's behaviour needs discrete actions or a Box"):
        OffPAC().bind(BestMixedAction().spec)


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 5}, "num_steps is 5: OnlineActorCritic learns from each step"),
        ({"core": "gru"}, "core is 'gru': OnlineActorCritic learns from single steps"),
        ({"shared_torso": True}, "shared_torso is True"),
        ({"lambda_actor": 1.5}, "lambda_actor is 1.5"),
        ({"critic_learning_rate": -1.0}, "critic_learning_rate is -1"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        OnlineActorCritic(**options).bind(Counter().spec)


def test_devices_cannot_share_its_environments():
    with pytest.raises(ValueError, match="keeps the environments of a member together"):
        tabular().check_shards(2)


# Probes -------------------------------------------------------------------------------------------

FAST = OnlineActorCritic(
    num_envs=32, hidden_sizes=(16,), optimizer="adam", learning_rate=1e-2, critic_learning_rate=1e-2
)
WITH_TRACES = FAST.replace(lambda_actor=0.5, lambda_critic=0.5)


OFF_POLICY = OffPAC(
    num_envs=32, hidden_sizes=(16,), optimizer="adam", learning_rate=1e-2, critic_learning_rate=1e-2
)


@pytest.mark.thorough
@pytest.mark.parametrize("agent", [FAST, OFF_POLICY], ids=["online", "offpac"])
def test_probe_action_by_observation(agent):
    agent, state, _ = learned(agent, BestActionByObservation(), 300)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


@pytest.mark.thorough
def test_probe_continuous_action_with_traces():
    agent, state, _ = learned(WITH_TRACES, BestContinuousAction(), 3_000)
    np.testing.assert_allclose(mode(agent, state, [[-1.0], [1.0]])[:, 0], [-0.5, 0.5], atol=0.15)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "agent", [FAST, WITH_TRACES, OFF_POLICY], ids=["one-step", "traces", "offpac"]
)
def test_probe_truncation_is_not_termination(agent):
    """One endless state truncated every 5 steps: the value is 1 / (1 - 0.8) = 5."""
    agent, state, _ = learned(agent.replace(discount=0.8), Endless(limit=5), 3_000)
    np.testing.assert_allclose(value(agent, state, [[1.0]]), [5.0], atol=0.1)
