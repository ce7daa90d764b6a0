"""Training on probe environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.engine.train import train
from jaxrl.types import Clock

KEY = jax.random.key(0)


def cases(names, *fast):
    """Parameters for a test: all names, of which those not in `fast` are marked `thorough`."""
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.thorough) for name in names
    ]


def learned(agent, env, iterations, **options):
    """Trains an agent; returns the bound agent and its state."""
    steps = agent.bind(env.spec).plan.steps_per_iteration * iterations
    state, metrics = jax.jit(
        lambda key: train(agent, env, key, total_steps=steps, num_evaluations=1, **options)
    )(KEY)
    return agent.bind(env.spec), state, metrics


def value(agent, state, obs):
    params = getattr(state.agent.params, "critic", state.agent.params)  # if separate
    return np.asarray(agent.network.apply(params, jnp.asarray(obs), method="value")[0])


def mode(agent, state, obs):
    return agent.act(state.agent, (), jnp.asarray(obs), KEY, Clock.start(), explore=False)[1]
