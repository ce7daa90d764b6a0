"""Compatible critics: COPDAC on regulators, the stochastic actor-critic on a finite MDP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import BestActionByObservation, BestContinuousAction, Counter, Endless
from helpers.gradients import Identity, estimates, tabular_agent, tabular_params
from helpers.linear_policies import Gain, Squares, gain_params, linear_value
from helpers.probes import KEY, learned, mode
from helpers.simulation import agrees

from jaxrl.agents import COPDAC, CompatibleActorCritic
from jaxrl.agents.bases.compatible import CompatibleCritic
from jaxrl.agents.bases.learning import Networks
from jaxrl.types import Box, Clock, EnvSpec, Trajectory, Transition
from jaxrl_envs.exact import continuous_bandit, garnet, gradients, lqr, values

DISCOUNT = 0.9
CART = lqr.make()
K = np.array([[1.0, 1.5]])


class WithoutMu(COPDAC):
    """A critic that is not compatible: a^T (grad mu)^T w, without subtracting mu."""

    def advantage(self, actor, weights, batch):
        _, slope = self.mu(actor, weights, batch)
        return jnp.sum(batch.steps.action * slope, axis=-1)


def cart_agent(kind=COPDAC, torso=None, **options):
    options = {"num_envs": 32, "num_steps": 3, "discount": DISCOUNT} | options
    torso = Squares() if torso is None else torso
    return kind(policy_network=Gain(1), torso=torso, **options).bind(CART.spec)


def exact_weights(discount=DISCOUNT):
    """W, for which grad_a Q(x, a) at a = -K x is -W x."""
    value = lqr.policy_value(CART, K, np.full(1, -np.inf), discount)
    A, B, R = (np.asarray(x, np.float64) for x in (CART.A, CART.B, CART.R))
    curvature = R + discount * B.T @ value.P @ B
    return -2.0 * (curvature @ K - discount * B.T @ value.P @ A)


def exact_params(noise, weights=None):
    """The policy, W and the value of the behaviour."""
    value = lqr.policy_value(CART, K, np.log([noise]), DISCOUNT)
    weights = exact_weights() if weights is None else weights
    critic = CompatibleCritic(gain_params(weights), linear_value(-value.P, -value.c))
    return Networks(gain_params(K), critic)


def along_the_critic(agent, params, batch):
    found = agent.policy_direction(params.actor, params.critic.weights, batch)
    return found["params"]["actor"]["K"]


def change_of_weights(agent, params, batch):
    direction = agent.critic_direction(params.actor, params.critic, batch)[1]
    return direction.weights["params"]["actor"]["K"]


def after_regression(agent, params, batch):
    direction = agent.critic_direction(params.actor, params.critic, batch)[1]
    critic = agent.regression(params.actor, params.critic, direction, batch)
    return agent.policy_direction(params.actor, critic.weights, batch)


# The deterministic policy gradient ----------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_the_step_along_an_exact_critic_is_the_deterministic_gradient(noise):
    """With w = W, the mean over the behaviour's states of grad mu grad_a Q(s, mu(s)): theorem 1 of
    the paper with those states, for any noise."""
    agent = cart_agent(exploration_noise=noise)
    found = estimates(agent, CART, exact_params(noise), along_the_critic, 2048)
    exact, _ = lqr.policy_gradient(CART, K, np.log([noise]), DISCOUNT, num_steps=3)
    assert agrees(found, exact.ravel())
    assert not agrees(found, exact_weights().ravel())


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_q_learning_rests_at_the_exact_critic(noise):
    """E[delta (a - mu) grad mu] = 0 at W: what a linear A misses is even in the noise. At other
    weights, and without subtracting mu, it is not 0."""
    agent = cart_agent(exploration_noise=noise)
    params = exact_params(noise)
    assert agrees(estimates(agent, CART, params, change_of_weights, 2048), 0.0)
    other = exact_params(noise, exact_weights() * 0.5)
    assert not agrees(estimates(agent, CART, other, change_of_weights, 2048), 0.0)
    wrong = cart_agent(WithoutMu, exploration_noise=noise)
    assert not agrees(estimates(wrong, CART, params, change_of_weights, 2048), 0.0)


def test_a_regression_from_scratch_gives_the_gradient():
    """From w = 0 and with the value of the behaviour in the targets; without bias, as the noise is
    symmetric and independent of the states of the first step."""
    agent = cart_agent(num_steps=1, exploration_noise=0.5)
    params = exact_params(0.5, np.zeros((1, 2)))
    found = estimates(agent, CART, params, after_regression, 2048)[:, :2]
    exact, _ = lqr.policy_gradient(CART, K, np.log([0.5]), DISCOUNT, num_steps=1)
    assert agrees(found, exact.ravel())
    myopic, _ = lqr.policy_gradient(CART, K, np.log([0.5]), 0.0, num_steps=1)
    assert not agrees(found, myopic.ravel())


@pytest.mark.parametrize(("kind", "right"), [(COPDAC, True), (WithoutMu, False)])
def test_any_value_function_is_good_enough_for_a_compatible_critic(kind, right):
    """(a - mu) grad mu is uncorrelated with all functions of the state, so that the regression with
    a value linear in x is unbiased, although costs are quadratic; a grad mu is correlated."""
    agent = cart_agent(kind, Identity(), num_steps=1, discount=0.0, exploration_noise=0.5)
    critic = CompatibleCritic(gain_params(np.zeros((1, 2))), linear_value(np.zeros(2), 0.0))
    found = estimates(agent, CART, Networks(gain_params(K), critic), after_regression, 2048)
    exact, _ = lqr.policy_gradient(CART, K, np.log([0.5]), 0.0, num_steps=1)
    assert agrees(found[:, :2], exact.ravel()) is right


@pytest.mark.parametrize("dimension", [1, 5])
def test_bandit_gradient_is_exact_for_a_batch_of_any_noise(dimension):
    env = continuous_bandit.make(dimension, std=0.3)
    agent = COPDAC(
        num_envs=16, exploration_noise=0.7, policy_network=Gain(dimension), torso=Identity()
    ).bind(env.spec)
    gain = -np.random.default_rng(0).standard_normal((dimension, 1))  # the mode, as x = 1
    zeros = gain_params(np.zeros((dimension, 1)))
    params = Networks(gain_params(gain), CompatibleCritic(zeros, linear_value([0.0], 0.0)))
    found = -estimates(agent, env, params, after_regression, 2048)[:, :dimension]
    assert agrees(found, continuous_bandit.policy_gradient(env, -gain[:, 0])[0])
    assert not agrees(found, continuous_bandit.policy_gradient(env, -0.5 * gain[:, 0])[0])


# One update ---------------------------------------------------------------------------------------

RATES = {"learning_rate": 0.1, "weights_learning_rate": 0.2, "critic_learning_rate": 0.05}


@pytest.mark.parametrize("natural", [False, True])
def test_updates_follow_the_paper(natural):
    """Eq. 19 to 22 in NumPy, means over a batch, with one episode that terminates and one that is
    truncated; all parameters of a step are those before it."""
    rng, num = np.random.default_rng(0), 6
    spec = EnvSpec(CART.spec.observation, Box.of(-np.inf, np.inf, (2,)), max_steps=9)
    agent = COPDAC(
        num_envs=num, discount=0.8, policy_network=Gain(2), torso=Identity(),
        natural_gradient=natural, **RATES,
    ).bind(spec)  # fmt: skip
    gain, weights, value, bias = (
        rng.standard_normal(shape) for shape in ((2, 2), (2, 2), (2,), ())
    )
    critic = CompatibleCritic(gain_params(weights), linear_value(value, bias))
    state = agent.init(KEY).replace(params=Networks(gain_params(gain), critic))

    @jax.jit
    def learn(state, steps):
        batch = Trajectory(steps, jnp.zeros((1, num), bool))
        batch = agent.prepare(state, batch, Clock.start())
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        return agent.update(state, flat, KEY, Clock.start()).state

    for _ in range(3):
        x, after = rng.standard_normal((2, num, 2))
        action, reward = rng.standard_normal((num, 2)), rng.standard_normal(num)
        terminated, truncated = np.arange(num) == 1, np.arange(num) == 2
        steps = (x, action, reward, terminated, truncated, after)
        state = learn(state, jax.tree.map(lambda x: jnp.asarray(x)[None], Transition(*steps)))

        ahead = np.where(terminated, 0.0, after @ value + bias)
        away = action + x @ gain.T
        q = np.einsum("bi,bi->b", away, -x @ weights.T) + x @ value + bias
        delta = reward + 0.8 * ahead - q
        uphill = weights if natural else weights @ x.T @ x / num
        gain = gain + 0.1 * uphill
        weights = weights - 0.2 * np.einsum("b,bi,bj->ij", delta, away, x) / num
        value, bias = value + 0.05 * delta @ x / num, bias + 0.05 * delta.sum() / num
    found = state.params
    np.testing.assert_allclose(found.actor["params"]["actor"]["K"], gain, rtol=1e-4, atol=1e-5)
    of_critic = found.critic.weights["params"]["actor"]["K"]
    np.testing.assert_allclose(of_critic, weights, rtol=1e-4, atol=1e-5)
    head = found.critic.value["params"]["critic_head"]
    np.testing.assert_allclose(head["kernel"][:, 0], value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head["bias"][0], bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spread", [1.0, 0.001])
def test_a_regression_is_least_squares(spread):
    """w equals NumPy's `lstsq`, also for actions so close together that the features of w are far
    smaller than those of v, and the policy's step uses the new w."""
    env = continuous_bandit.make(3, std=0.5 * spread)
    agent = COPDAC(
        num_envs=12, critic_fit="regression", policy_network=Gain(3), torso=Identity(),
        exploration_noise=0.5, learning_rate=1.0,
    ).bind(env.spec)  # fmt: skip
    state = agent.init(KEY)
    action = spread * np.random.default_rng(1).standard_normal((12, 3)).astype(np.float32)
    reward = np.asarray(jax.vmap(env.step, (0, None, 0))(
        jax.random.split(KEY, 12), None, jnp.asarray(action)
    )[1].reward)  # fmt: skip
    ones, no = jnp.ones((12, 1)), jnp.zeros(12, bool)
    batch = Trajectory(Transition(ones, action, reward, ~no, no, ones), no)
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], batch)
    batch = agent.prepare(state, batch, Clock.start())
    batch = jax.tree.map(lambda x: x[0], batch)
    new = jax.jit(agent.update)(state, batch, KEY, Clock.start()).state.params
    features = np.concatenate([-action, np.ones((12, 1))], axis=1)  # mu = -K x = 0
    w, *_ = np.linalg.lstsq(features, np.float64(reward), rcond=None)
    found = new.critic.weights["params"]["actor"]["K"][:, 0]
    atol = 1e-3 * np.abs(w).max()
    np.testing.assert_allclose(found, w[:3], rtol=1e-3, atol=atol)
    moved = new.actor["params"]["actor"]["K"][:, 0]
    np.testing.assert_allclose(moved, w[:3], rtol=1e-3, atol=atol)


# The stochastic actor-critic ----------------------------------------------------------------------

MDP = garnet.make(num_states=4, num_actions=3, termination=0.1, max_steps=6, seed=3)
LOGITS = np.random.default_rng(0).standard_normal((4, 3))
POLICY = values.softmax(LOGITS)


def tabular(**options):
    options = {"num_envs": 8, "num_steps": 5, "discount": DISCOUNT} | options
    return tabular_agent(CompatibleActorCritic, MDP, **options)


def table_params(weights):
    plain = tabular_params(LOGITS, values.policy_value(MDP, POLICY, DISCOUNT))
    weights = tabular_params(weights, np.zeros(4)).actor
    return Networks(plain.actor, CompatibleCritic(weights, plain.critic))


def test_the_stochastic_step_along_an_exact_critic_is_the_gradient():
    """With w = A(s, a), the mean of grad log pi grad log pi^T w is the policy gradient over the
    states of the rollout, and the critic rests."""
    advantage = values.advantage(MDP, POLICY, DISCOUNT)
    states = values.rollout_states(MDP, POLICY, 5).mean(0)
    exact = gradients.policy_gradient(MDP, POLICY, DISCOUNT, states)

    def both(agent, params, batch):
        """The policy's direction, and that of w."""
        uphill = agent.policy_direction(params.actor, params.critic.weights, batch)
        return uphill, agent.critic_direction(params.actor, params.critic, batch)[1].weights

    found = estimates(tabular(), MDP, table_params(advantage), both, 2048)
    assert agrees(found, np.concatenate([exact.ravel(), np.zeros(12)]))
    other = estimates(tabular(), MDP, table_params(0.8 * advantage), both, 2048)
    assert not agrees(other[:, :12], exact.ravel())
    assert not agrees(other[:, 12:], 0.0)


def test_a_regression_on_the_same_batch_is_reinforce_with_a_baseline():
    """The mean of score score^T w is that of score (target - V): residuals of least squares are
    orthogonal to the scores."""
    agent = tabular(critic_fit="regression", num_envs=16)

    def both(agent, params, batch):
        direction = agent.critic_direction(params.actor, params.critic, batch)[1]
        critic = agent.regression(params.actor, params.critic, direction, batch)
        value, _ = agent.network.apply(critic.value, batch.steps.obs, (), None, method="value")
        weight = (batch.steps.target - value) / value.size

        def gain(actor):
            return jnp.sum(weight * agent.policy(actor, batch).log_prob(batch.steps.action))

        return agent.policy_direction(params.actor, critic.weights, batch), jax.grad(gain)(
            params.actor
        )

    found, wanted = np.split(estimates(agent, MDP, table_params(0 * LOGITS), both, 32), 2, axis=1)
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-3)


# Bad input ----------------------------------------------------------------------------------------


def test_a_deterministic_policy_needs_a_box():
    with pytest.raises(ValueError, match="COPDAC needs a Box of actions"):
        COPDAC().bind(Counter().spec)


def test_a_behaviour_without_noise_never_learns_and_is_rejected():
    with pytest.raises(ValueError, match="exploration_noise is 0"):
        COPDAC(exploration_noise=0.0).bind(BestContinuousAction().spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"core": "gru"}, "core is 'gru': the features of CompatibleActorCritic's critic"),
        ({"shared_torso": True}, "shared_torso is True"),
        ({"cg_iterations": 0}, "cg_iterations is 0"),
        ({"weights_learning_rate": -1.0}, "weights_learning_rate is -1"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        CompatibleActorCritic(**options).bind(Counter().spec)


# Probes -------------------------------------------------------------------------------------------

FAST = {
    "num_envs": 32, "hidden_sizes": (16,), "optimizer": "adam", "learning_rate": 1e-2,
    "weights_learning_rate": 1e-2, "critic_learning_rate": 1e-2,
}  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("fit", ["td", "regression"])
def test_probe_continuous_action(fit):
    """The policy is slower than w: beyond the bounds, where it may overshoot, costs are flat."""
    agent = COPDAC(**FAST | {"learning_rate": 1e-3}, exploration_noise=0.3, critic_fit=fit)
    agent, state, _ = learned(agent, BestContinuousAction(), 3_000)
    np.testing.assert_allclose(mode(agent, state, [[-1.0], [1.0]])[:, 0], [-0.5, 0.5], atol=0.15)


@pytest.mark.thorough
def test_probe_action_by_observation():
    agent, state, _ = learned(CompatibleActorCritic(**FAST), BestActionByObservation(), 500)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


@pytest.mark.thorough
def test_probe_truncation_is_not_termination():
    """One endless state truncated every 5 steps: the value is 1 / (1 - 0.8) = 5."""
    agent = CompatibleActorCritic(**FAST, discount=0.8)
    agent, state, _ = learned(agent, Endless(limit=5), 3_000)
    critic = state.agent.params.critic.value
    found, _ = agent.network.apply(critic, jnp.ones((1, 1)), method="value")
    np.testing.assert_allclose(found, [5.0], atol=0.1)
