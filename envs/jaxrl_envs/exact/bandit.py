"""A Gaussian bandit: exact gradient, variance and optimal baselines of REINFORCE.

A policy is p `[K]`; gradients are with respect to its logits `[K]`. One pull gives the estimate
g_k = (r - b) (1{a = k} - p_k); Williams 1992, "Simple statistical gradient-following algorithms".
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.types import Array, Discrete, EnvSpec, Key, static

Floats = np.ndarray
_SEEN = jax.ShapeDtypeStruct((1,), jnp.float32)


class Bandit(struct.PyTreeNode):
    """A bandit with one pull per episode; the observation is always 1.

    Attributes:
      means: `float32[K]`, expected rewards.
      std: `float32[]`, standard deviation of the rewards.
      spec: shapes and spaces.
    """

    means: Any
    std: Any
    spec: EnvSpec = static()

    def reset(self, key: Key) -> tuple[Array, Array]:
        return jnp.ones(1, jnp.float32), jnp.ones(1, jnp.float32)

    def step(self, key: Key, state: Array, action: Array) -> tuple[Array, Timestep]:
        reward = self.means[action] + self.std * jax.random.normal(key, dtype=jnp.float32)
        return state, Timestep(state, reward, jnp.bool_(True), jnp.bool_(False))


def make(means: ArrayLike = (0.0, 0.5, 1.0), std: float = 1.0) -> Bandit:
    """Builds a bandit.

    Args:
      means: expected reward of each arm, `[K]`.
      std: standard deviation of the rewards.

    Raises:
      ValueError: `means` is not a list of numbers.
    """
    means = np.asarray(means, np.float32)
    if means.ndim != 1 or not means.size:
        raise InvalidValue(f"means is {list(means.shape)}: give one number for each arm")
    spec = EnvSpec(_SEEN, Discrete(means.size), max_steps=1, truncates="at_max_steps")
    return Bandit(jnp.asarray(means), jnp.float32(std), spec)


def policy_gradient(env: Bandit, policy: Floats) -> Floats:
    """p_k (mu_k - sum_a p_a mu_a), `[K]`."""
    means = np.asarray(env.means, np.float64)
    return policy * (means - policy @ means)


def reinforce_variance(env: Bandit, policy: Floats, baseline: ArrayLike = 0.0) -> Floats:
    """Var g_k `[K]` for one pull: E[(r - b)^2 score_k^2] - (grad_k)^2.

    Args:
      env: the bandit.
      policy: `[K]`.
      baseline: b, one for all components or `[K]`.
    """
    means, std = np.asarray(env.means, np.float64), float(env.std)
    square = (means[:, None] - np.broadcast_to(baseline, policy.shape)) ** 2 + std**2  # [arm, k]
    second_moment = policy @ (square * _score(policy) ** 2)
    return second_moment - policy_gradient(env, policy) ** 2


def best_baselines(env: Bandit, policy: Floats) -> Floats:
    """E[score_k^2 r] / E[score_k^2] `[K]`: each minimises the variance of its component.

    Peters and Schaal 2008, "Reinforcement learning of motor skills with policy gradients".
    """
    square = _score(policy) ** 2
    return (policy * np.asarray(env.means, np.float64)) @ square / (policy @ square)


def best_baseline(env: Bandit, policy: Floats) -> float:
    """E[|score|^2 r] / E[|score|^2]: the scalar that minimises the sum of the variances.

    Greensmith, Bartlett and Baxter 2004, "Variance reduction techniques for gradient estimates".
    """
    weights = policy * (_score(policy) ** 2).sum(-1)
    return float(weights @ np.asarray(env.means, np.float64) / weights.sum())


def _score(policy: Floats) -> Floats:
    """d log p_a / d logit_k, `[arm, k]`."""
    return np.eye(len(policy)) - policy
