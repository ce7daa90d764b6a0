"""Finite-difference policy gradient: its regression against NumPy, exact slopes, and probes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import BestActionByObservation
from helpers.probes import learned, mode
from helpers.simulation import slope
from jax.flatten_util import ravel_pytree

from jaxrl.agent import Update
from jaxrl.agents import FiniteDifference
from jaxrl.distributions import DiagonalGaussian
from jaxrl.engine.train import train
from jaxrl.errors import InvalidValue
from jaxrl.schedules import Linear
from jaxrl.types import Clock, Stream, stream
from jaxrl_envs.exact import lqr

KEY = jax.random.key(0)
HORIZON = 3
ENV = lqr.make(max_steps=HORIZON)
GAIN = (2.0, -2.0)


class LinearPolicy(nn.Module):
    """u = theta^T x, as the mean of a Gaussian."""

    @nn.compact
    def __call__(self, obs, mask=None):
        theta = self.param("theta", lambda key: -jnp.asarray(GAIN))
        return DiagonalGaussian(jnp.expand_dims(obs @ theta, -1), jnp.zeros(1))


@pytest.mark.parametrize("population_size", [10, 4])
def test_the_gradient_solves_the_regression(population_size):
    """With fewer candidates than parameters, the shortest solution."""
    agent = FiniteDifference(population_size=population_size, hidden_sizes=(1,)).bind(
        BestActionByObservation().spec
    )
    state = agent.init(KEY)
    returns = np.random.default_rng(0).normal(size=(population_size, 3)).astype(np.float32)
    found, _ = agent.gradient(state, jnp.asarray(returns))
    rows = np.stack(
        [
            ravel_pytree(jax.tree.map(lambda x, i=i: x[i], state.candidates))[0]
            for i in range(population_size)
        ]
    ).astype(np.float64)
    rows -= np.asarray(ravel_pytree(state.params)[0], np.float64)
    gain = returns.mean(1) - returns.mean()
    wanted = np.linalg.lstsq(rows, gain, rcond=1e-6)[0]
    np.testing.assert_allclose(ravel_pytree(found)[0], wanted, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(rows.sum(0), 0, atol=1e-6)  # in pairs


class Still(FiniteDifference):
    """Reports its gradients and never moves."""

    def update(self, state, returns, key, clock):
        gradient = ravel_pytree(self.gradient(state, returns)[0])[0]
        metrics = {f"{i}": gradient[i] for i in range(2)}
        metrics |= {f"{i} squared": jnp.square(gradient[i]) for i in range(2)}
        candidates = self.perturbed(state.params, stream(key, Stream.SAMPLE), clock)
        return Update(state.replace(candidates=candidates), metrics)


def cost(gain):
    """The expected cost of HORIZON steps, from the moments of the states."""
    A, B, Q, R, noise, start = (np.asarray(x, np.float64) for x in jax.tree.leaves(ENV))
    K = np.asarray(gain, np.float64)[None]
    moment, total = start**2 * np.eye(2), 0.0
    for _ in range(HORIZON):
        total += np.trace((Q + K.T @ R @ K) @ moment)
        closed = A - B @ K
        moment = closed @ moment @ closed.T + noise**2 * np.eye(2)
    return total


def test_the_gradient_is_the_slope_of_the_return():
    """Within four standard errors over 512 iterations."""
    number = 512
    agent = Still(
        population_size=16,  # two pairs would often lie nearly on one line
        episodes_per_candidate=256,
        policy_network=LinearPolicy(),
        perturbation=0.1,
    )
    steps = number * agent.bind(ENV.spec).plan.steps_per_iteration
    _, metrics = train(agent, ENV, KEY, total_steps=steps, num_evaluations=0)
    wanted = slope(cost, GAIN)  # u = -K x, and the return is the negative cost
    for i in range(2):
        found, squared = (
            float(metrics.training.updates[name].value[0]) for name in (f"{i}", f"{i} squared")
        )
        error = np.sqrt((squared - found**2) / number)
        assert abs(found - wanted[i]) < 4 * error, (found, wanted[i], error)
        assert error < 0.1 * abs(wanted[i])


def test_probe_action_by_observation():
    agent = FiniteDifference(population_size=32, episodes_per_candidate=4, learning_rate=0.5)
    agent, state, _ = learned(agent, BestActionByObservation(), 30)
    assert mode(agent, state, [[-1.0], [1.0]]).tolist() == [0, 1]


def test_perturbations_too_small_for_float32_change_nothing():
    agent = FiniteDifference(perturbation=1e-30).bind(BestActionByObservation().spec)
    state = agent.init(KEY)
    returns = jnp.arange(32.0)[:, None]
    new = agent.update(state, returns, KEY, Clock.start()).state
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new.params))


def test_perturbations_follow_their_schedule():
    agent = FiniteDifference(population_size=2, perturbation=Linear(1.0, 0.5))
    agent = agent.bind(BestActionByObservation().spec)
    params = agent.init(KEY).params

    def spread(fraction):
        clock = Clock.start().replace(fraction=jnp.float32(fraction))
        candidates = agent.perturbed(params, KEY, clock)
        return ravel_pytree(jax.tree.map(lambda x, p: x[0] - p, candidates, params))[0]

    np.testing.assert_allclose(spread(1.0), 0.5 * spread(0.0), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "env", "message"),
    [
        ({"population_size": 5}, ENV, "population_size is 5: perturbations come in pairs"),
        ({"perturbation": 0.0}, ENV, "perturbation is 0"),
        ({"discount": 0.5}, ENV, "discount is 0.5, but the returns of a population are undiscount"),
        ({"hidden_sizes": ()}, ENV, r"hidden_sizes is \(\)"),
    ],
)
def test_invalid_fields_are_rejected(options, env, message):
    with pytest.raises(InvalidValue, match=message):
        FiniteDifference(**options).bind(env.spec)


def test_a_limit_is_needed():
    with pytest.raises(InvalidValue, match="max_episode_steps is none"):
        train(FiniteDifference(), lqr.make(), KEY, total_steps=10)
