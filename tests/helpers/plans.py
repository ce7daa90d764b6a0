"""One agent per plan, with an environment and options for `train`."""

from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from helpers.agents.cross_entropy import CrossEntropy
from helpers.agents.fitted_q import FittedQ
from helpers.agents.q_learning import QLearning
from helpers.environments import Chain, Counter, Recall
from jaxrl.agents import PPO
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.types import Transition

KEY = jax.random.key(0)


def random_policy(carry, obs, key):
    num = jax.tree.leaves(obs)[0].shape[0]
    return carry, jax.random.randint(key, (num,), 0, 2), ()


def walk(num=200):
    """Transitions of a random walk along the chain, as data for offline agents."""
    envs = VectorEnv(Chain(), 16)
    out = rollout(random_policy, envs, envs.reset(KEY), (), (), KEY, num)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out[2].steps)


def boxes():
    """One-step episodes of `BestContinuousAction` with random actions."""
    obs, action = jax.random.uniform(jax.random.key(0), (2, 64, 1), jnp.float32, -1.0, 1.0)
    ends = jnp.ones(64, bool)
    return Transition(obs, action, -jnp.abs(action[:, 0] - obs[:, 0]), ends, ~ends, obs)


def equal(a, b):
    """Whether two trees are bit-identical."""

    def same(x, y):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        return np.array_equal(np.asarray(x), np.asarray(y), equal_nan=x.dtype.kind == "f")

    return all(jax.tree.leaves(jax.tree.map(same, a, b)))


_PLANS = {
    "on-policy": (PPO(num_envs=8, num_steps=8), Counter(limit=5), {}, None),
    "on-policy, normalised, seeds": (
        PPO(num_envs=8, num_steps=8),
        Counter(limit=5),
        {"normalize_observations": True, "normalize_rewards": True},
        3,
    ),
    "recurrent, seeds": (PPO(num_envs=8, num_steps=8, core="lstm"), Recall(), {}, 3),
    "replay": (QLearning(), Chain(), {}, None),
    "replay, seeds": (QLearning(), Chain(), {}, 3),
    "offline, seeds": (FittedQ(batch_size=32), Chain(), {"data": walk}, 3),
    "population, seeds": (CrossEntropy(), Recall(), {}, 3),
}

PLANS = {name: (*x[:2], MappingProxyType(x[2]), *x[3:]) for name, x in _PLANS.items()}
"""Agent, environment, options (no test may change them for the others), and number of seeds."""
