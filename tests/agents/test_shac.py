"""Short-horizon actor-critic: gradients through the environment against exact ones, and probes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import BestAction, BestContinuousAction
from helpers.probes import learned, mode
from helpers.simulation import slope

from jaxrl.agent import Update
from jaxrl.agents import SHAC
from jaxrl.distributions import DiagonalGaussian
from jaxrl.engine.train import train
from jaxrl.errors import InvalidValue
from jaxrl.estimators import discount_weights
from jaxrl.types import Clock, Trajectory, Transition
from jaxrl_envs.exact import lqr

KEY = jax.random.key(0)
HORIZON, DISCOUNT = 6, 0.8
ENV = lqr.make(max_steps=HORIZON)
GAIN, LOG_STD = np.array([1.5, 0.5]), -0.5


class LinearPolicy(nn.Module):
    """u ~ N(-K x, exp(log_std)^2)."""

    @nn.compact
    def __call__(self, obs, mask=None):
        gain = self.param("gain", lambda key: jnp.asarray(GAIN, jnp.float32))
        log_std = self.param("log_std", lambda key: jnp.full(1, LOG_STD))
        mean = -jnp.expand_dims(obs @ gain, -1)
        return DiagonalGaussian(mean, jnp.broadcast_to(log_std, mean.shape))


def expected(theta):
    """The expected discounted return of an episode, from the moments of the states."""
    A, B, Q, R, noise, start = (np.asarray(x, np.float64) for x in jax.tree.leaves(ENV))
    K, variance = theta[None, :2], np.exp(2 * theta[2])
    moment, total = start**2 * np.eye(2), 0.0
    for t in range(HORIZON):
        total -= DISCOUNT**t * (np.trace((Q + K.T @ R @ K) @ moment) + R[0, 0] * variance)
        closed = A - B @ K
        moment = closed @ moment @ closed.T + noise**2 * np.eye(2) + variance * B @ B.T
    return total


SLOPE = slope(expected, np.array([*GAIN, LOG_STD]))


class Still(SHAC):
    """Reports the gradient of the policy, and does not learn."""

    def follow(self, state, gradient, clock):
        of = gradient.params.actor["params"]["actor"]
        g = jnp.concatenate([of["gain"], of["log_std"]])
        numbers = {f"{i}": g[i] for i in range(3)} | {f"{i} squared": g[i] ** 2 for i in range(3)}
        return Update(state, numbers)

    def update(self, state, batch, key, clock):
        return Update(state, {})


def gradients(number, agent=Still, **options):
    """The mean gradient over `number` rollouts, and its standard error."""
    options = {"num_envs": 8, "num_steps": HORIZON, "bootstrap": False} | options
    agent = agent(policy_network=LinearPolicy(), discount=DISCOUNT, hidden_sizes=(4,), **options)
    steps = number * agent.num_envs * agent.num_steps
    run = jax.jit(lambda key: train(agent, ENV, key, total_steps=steps, num_evaluations=0)[1])
    metrics = run(KEY)
    found = {name: float(x.value[0]) for name, x in metrics.training.updates.items()}
    mean = np.array([found[f"{i}"] for i in range(3)])
    square = np.array([found[f"{i} squared"] for i in range(3)])
    return mean, np.sqrt((square - mean**2) / number)


def test_the_gradient_through_the_environment_is_exact():
    mean, error = gradients(1024)
    assert (np.abs(mean - SLOPE) < 4 * error).all(), (mean, SLOPE, error)
    assert (error < 0.02 * np.abs(SLOPE).max()).all()


def test_a_gradient_of_each_reward_alone_is_detected():
    """Without the derivative of the next state, as if the dynamics were unknown."""

    class Blind(Still):
        def act(self, state, carry, obs, key, clock, *, explore):
            obs = jax.lax.stop_gradient(obs)
            return super().act(state, carry, obs, key, clock, explore=explore)

        def objective(self, state, trajectory, clock):
            steps = trajectory.steps
            x, u = jax.lax.stop_gradient(steps.obs), steps.action
            cost = jnp.einsum("tni,ij,tnj->tn", x, ENV.Q, x) + ENV.R[0, 0] * u[..., 0] ** 2
            weight = DISCOUNT ** jnp.arange(HORIZON, dtype=jnp.float32)
            return -jnp.mean(jnp.sum(weight[:, None] * cost, axis=0))

    mean, error = gradients(1024, Blind)
    assert (np.abs(mean - SLOPE) > 4 * error).any()


def test_values_stand_for_what_follows_a_cut():
    """Where a rollout ends or an episode is truncated, but not where it terminates."""
    agent = SHAC(num_envs=2, num_steps=3, critic_minibatches=1, discount=0.5).bind(ENV.spec)
    state = jax.jit(agent.init)(KEY)
    obs = jnp.arange(12.0).reshape(3, 2, 2) / 10
    steps = Transition(
        obs, obs[..., :1], jnp.ones((3, 2)), jnp.array([[0, 0], [0, 1], [0, 0]], bool),
        jnp.array([[1, 0], [0, 0], [0, 0]], bool), obs + 1, {}, {},
    )  # fmt: skip
    found = agent.objective(state, Trajectory(steps, jnp.zeros((3, 2), bool)), Clock.start())
    value = np.asarray(agent.network.apply(state.target, obs + 1, method="value")[0])
    first = 1 + 0.5 * value[0, 0] + 1 + 0.5 * 1 + 0.25 * value[2, 0]
    second = 1 + 0.5 * 1 + 1 + 0.5 * value[2, 1]
    np.testing.assert_allclose(found, (first + second) / 2, rtol=1e-5)


def test_weights_restart_with_each_episode():
    done = jnp.array([[0, 1], [1, 0], [0, 0]], bool)
    found = discount_weights(done, 0.5)
    np.testing.assert_allclose(found, [[1, 1], [0.5, 1], [1, 0.5]])


def test_probe_continuous_action():
    agent = SHAC(num_envs=16, num_steps=1, hidden_sizes=(16,), learning_rate=0.02)
    agent, state, _ = learned(agent, BestContinuousAction(), 100)
    found = mode(agent, state, [[-1.0], [1.0]])
    assert found[0, 0] < found[1, 0] - 0.5


@pytest.mark.parametrize(
    ("options", "env", "message"),
    [
        ({}, BestAction(), "SHAC needs a Box of actions"),
        ({"core": "gru"}, ENV, "core is 'gru': SHAC's critic values single observations"),
    ],
)
def test_invalid_combinations_are_rejected(options, env, message):
    with pytest.raises(InvalidValue, match=message):
        SHAC(**options).bind(env.spec)


def test_devices_cannot_share_a_rollout_that_is_differentiated():
    with pytest.raises(InvalidValue, match="differentiated stays on one device"):
        SHAC(num_envs=4).bind(ENV.spec).check_shards(2)
