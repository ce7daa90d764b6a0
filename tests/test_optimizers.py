"""Optimisers by name or factory, for all gradient-based agents."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.environments import BestContinuousAction, Counter

from jaxrl.agents import A2C, DQN, PPO, REINFORCE, RPG, SAC, TD3, TRPO
from jaxrl.engine.train import train
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.optimizers import optimizer
from jaxrl.schedules import Linear
from jaxrl.types import Clock

KEY = jax.random.key(0)
HALF_WAY = Clock(jnp.int32(0), jnp.int32(0), jnp.float32(0.5))
PARAMS = {"a": jnp.array([1.0, -2.0])}
GRADIENT = {"a": jnp.array([3.0, -4.0])}


def step(transform):
    return transform.update(GRADIENT, transform.init(PARAMS), PARAMS)[0]["a"]


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("adam", optax.adam(0.1, eps=1e-8)),
        ("adamw", optax.adamw(0.1, eps=1e-8)),
        ("rmsprop", optax.rmsprop(0.1, 0.99, 1e-5, initial_scale=1.0)),
        ("sgd", optax.sgd(0.1)),
    ],
)
def test_named_optimizers_match_optax(name, same):
    found = step(optimizer(name, Linear(0.2), HALF_WAY))
    np.testing.assert_allclose(found, step(same), rtol=1e-6)
    clipped = step(optimizer(name, 0.1, HALF_WAY, max_grad_norm=0.5))
    np.testing.assert_allclose(
        clipped, step(optax.chain(optax.clip_by_global_norm(0.5), same)), rtol=1e-6
    )


def test_factories_get_the_scheduled_rate_and_clipped_gradients():
    agent = PPO(optimizer=optax.sgd, learning_rate=Linear(0.2), max_grad_norm=None)
    np.testing.assert_allclose(step(agent.transform(HALF_WAY)), [-0.3, 0.4], rtol=1e-6)
    agent = agent.replace(max_grad_norm=0.5)
    np.testing.assert_allclose(step(agent.transform(HALF_WAY)), [-0.03, 0.04], rtol=1e-6)


def test_algorithms_have_their_default_optimizers():
    for agent, same in ((PPO(), "adam"), (DQN(), "adam"), (A2C(), "rmsprop")):
        named = agent.replace(optimizer=same)
        np.testing.assert_array_equal(*(step(x.transform(HALF_WAY)) for x in (agent, named)))


SMALL = {"num_envs": 2, "num_steps": 4}
OFF_POLICY = {"hidden_sizes": (4,), "batch_size": 4, "capacity": 16, "warmup": 2}
AGENTS = {
    "a2c": (A2C(**SMALL), 1),
    "ppo": (PPO(**SMALL), 1),
    "dqn": (DQN(**OFF_POLICY), 1),
    "td3": (TD3(**OFF_POLICY), 2),
    "sac": (SAC(**OFF_POLICY), 2),
    "reinforce": (REINFORCE(**SMALL), 2),
    "rpg": (RPG(**SMALL), 2),
    "trpo": (TRPO(**SMALL, critic_minibatches=1), 1),
}


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_uses_the_given_optimizer(name):
    """The factory makes each optimiser, here Muon, and the agent keeps its state."""
    agent, number = AGENTS[name]
    made = []

    def factory(rate):
        made.append(rate)
        return optax.contrib.muon(rate)

    agent, env = agent.replace(optimizer=factory), BestContinuousAction()
    env = Counter() if name == "dqn" else env
    bound = agent.bind(env.spec)
    made.clear()
    jax.eval_shape(bound.init, KEY)
    assert len(made) == number
    state, _ = jax.eval_shape(lambda key: train(agent, env, key, total_steps=16), KEY)
    assert len(made) > 2 * number
    assert jax.tree.structure(state.agent) == jax.tree.structure(jax.eval_shape(bound.init, KEY))


def test_invalid_optimizers_are_rejected():
    spec = Counter().spec
    with pytest.raises(InvalidValue, match=r"optimizer is 'adan': use one of adam, .* a function"):
        PPO(optimizer="adan").bind(spec)
    with pytest.raises(InvalidValue, match=r"optimizer is GradientTransformation.*a function"):
        PPO(optimizer=optax.adam(1e-3)).bind(spec)
    with pytest.raises(
        InvalidType, match=r"\(learning_rate\) returns a float, .* pass optax\.adamw"
    ):
        PPO(optimizer=float).bind(spec)
