"""Training on environments that step outside JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.hosted import SteppedFromHost

import jaxrl
import jaxrl_envs
from jaxrl.agents import DQN, PPO, SAC

KEY = jax.random.key(3)
SMALL = {"hidden_sizes": (16,), "num_envs": 4}
AGENTS = {
    "ppo": (PPO(num_steps=16, **SMALL), "gymnax/CartPole-v1"),
    "recurrent ppo": (
        PPO(num_steps=16, num_minibatches=2, core="gru", core_size=8, **SMALL),
        "gymnax/CartPole-v1",
    ),
    "dqn": (
        DQN(num_steps=2, num_updates=2, batch_size=8, capacity=256, warmup=16, **SMALL),
        "gymnax/CartPole-v1",
    ),
    "sac": (
        SAC(num_steps=2, num_updates=2, batch_size=8, capacity=256, warmup=16, **SMALL),
        "gymnax/Pendulum-v1",
    ),
}


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("normalized", [False, True])
def test_the_host_engine_learns_what_the_compiled_engine_learns(name, normalized):
    """The same environment, keys and agent, stepped from Python and by a compiled rollout."""
    agent, env_id = AGENTS[name]
    env = jaxrl_envs.make(env_id, max_steps_in_episode=20)
    options = {
        "total_steps": 8 * agent.plan.steps_per_iteration,
        "num_evaluations": 1,
        "num_eval_episodes": 2,
        "normalize_observations": normalized,
        "normalize_rewards": normalized,
    }
    host = SteppedFromHost(env, KEY, agent.plan.num_steps)
    compiled = jaxrl.fit(agent, env, KEY, **options).state
    hosted = jaxrl.fit(agent, host, KEY, **options).state
    for x, y in zip(
        *map(jax.tree.leaves, ((compiled.agent, compiled.stats), (hosted.agent, hosted.stats))),
        strict=True,
    ):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            continue
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
