"""A continuous bandit with a quadratic cost, whose difficulty is the dimension of the action.

Silver, Lever, Heess, Degris, Wierstra and Riedmiller, "Deterministic policy gradient algorithms",
2014, section 5.1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.types import Array, Box, EnvSpec, Key, static
from jaxrl.validation import check_whole

Floats = np.ndarray
_SEEN = jax.ShapeDtypeStruct((1,), jnp.float32)


class ContinuousBandit(struct.PyTreeNode):
    """One action per episode, of reward -(a - a*)^T C (a - a*); the observation is always 1.

    Attributes:
      C: `float32[D, D]`, symmetric positive definite.
      best: a*, `float32[D]`.
      std: `float32[]`, standard deviation of the rewards.
      spec: shapes and spaces.
    """

    C: Any
    best: Any
    std: Any
    spec: EnvSpec = static()

    def reset(self, key: Key) -> tuple[Array, Array]:
        return jnp.ones(1, jnp.float32), jnp.ones(1, jnp.float32)

    def step(self, key: Key, state: Array, action: Array) -> tuple[Array, Timestep]:
        away = action - self.best
        # An accelerator's default is not float32.
        cost = jnp.dot(away, jnp.matmul(self.C, away, precision="highest"), precision="highest")
        reward = self.std * jax.random.normal(key, dtype=jnp.float32) - cost
        return state, Timestep(state, reward, jnp.bool_(True), jnp.bool_(False))


def make(
    dimension: int = 10,
    eigenvalues: ArrayLike = (0.1, 1.0),
    best: float = 4.0,
    std: float = 0.0,
    seed: int = 0,
) -> ContinuousBandit:
    """Builds a bandit; equal arguments give equal bandits.

    Args:
      dimension: D, of the action.
      eigenvalues: of C, repeated until there are D of them; eigenvectors are random.
      best: each entry of a*.
      std: standard deviation of the rewards.
      seed: random seed of the eigenvectors.

    Raises:
      ValueError: a dimension below 1, or an eigenvalue that is not positive.
    """
    check_whole("dimension", dimension)
    found = np.asarray(eigenvalues, np.float64)
    if found.ndim != 1 or not found.size or not ((found > 0) & np.isfinite(found)).all():
        raise InvalidValue(f"eigenvalues is {found.tolist()}: give positive numbers")
    normal = np.random.default_rng(seed).standard_normal((dimension, dimension))
    vectors = np.linalg.qr(normal)[0]
    C = vectors * np.resize(found, dimension) @ vectors.T
    spec = EnvSpec(
        _SEEN, Box.of(-np.inf, np.inf, (dimension,)), max_steps=1, truncates="at_max_steps"
    )
    env = ContinuousBandit((C + C.T) / 2, np.full(dimension, best), std, spec)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), env)


def objective(env: ContinuousBandit, mean: Floats, log_std: ArrayLike = -np.inf) -> float:
    """The expected reward of a ~ N(mean, diag(exp(log_std))^2).

    -(mean - a*)^T C (mean - a*) - sum_i std_i^2 C_ii; without `log_std`, that of the mean alone.

    Args:
      env: the bandit.
      mean: `[D]`.
      log_std: `[D]`, or one for all entries.
    """
    C, best = _float64(env)
    return float(-(mean - best) @ C @ (mean - best) - np.exp(2 * _each(log_std, C)) @ np.diag(C))


def policy_gradient(
    env: ContinuousBandit, mean: Floats, log_std: ArrayLike = -np.inf
) -> tuple[Floats, Floats]:
    """The gradients of `objective` with respect to the mean, -2 C (mean - a*), and to each log_std.

    The first is that of a deterministic policy for any noise.
    """
    C, best = _float64(env)
    return -2 * C @ (mean - best), -2 * np.exp(2 * _each(log_std, C)) * np.diag(C)


def _float64(env: ContinuousBandit) -> tuple[Floats, Floats]:
    return np.asarray(env.C, np.float64), np.asarray(env.best, np.float64)


def _each(log_std: ArrayLike, C: Floats) -> Floats:
    return np.broadcast_to(np.asarray(log_std, np.float64), len(C))
