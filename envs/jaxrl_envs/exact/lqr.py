"""The discounted linear-quadratic regulator with noise: exact optimum and policy gradient.

A policy is u ~ N(-K x, diag(exp(log_std))^2) with gain K `[M, N]` and `log_std[M]`. Without a time
limit, its value is V(x) = -(x' P x + c). Exact solutions are NumPy float64. Fazel, Ge, Kakade and
Mesbahi 2018, "Global convergence of policy gradient methods for the linear quadratic regulator",
with a discount (which scales A and B by its square root) and noise.
"""

import functools
from typing import Any, NamedTuple, Self

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
_dot = functools.partial(jnp.matmul, precision="highest")  # an accelerator's default is not float32


class LQR(struct.PyTreeNode):
    """x' = A x + B u + w, with reward -(x' Q x + u' R u); x is observed, u is unbounded.

    Attributes:
      A: `float32[N, N]`.
      B: `float32[N, M]`.
      Q: `float32[N, N]`, symmetric positive semidefinite.
      R: `float32[M, M]`, symmetric positive definite.
      noise_std: `float32[]`, standard deviation of each entry of w.
      start_std: `float32[]`, standard deviation of each entry of the first x, whose mean is 0.
      spec: shapes, spaces and the time limit.
    """

    A: Any
    B: Any
    Q: Any
    R: Any
    noise_std: Any
    start_std: Any
    spec: EnvSpec = static()

    @classmethod
    def of(
        cls,
        A: ArrayLike,
        B: ArrayLike,
        Q: ArrayLike,
        R: ArrayLike,
        noise_std: float = 0.1,
        start_std: float = 1.0,
        max_steps: int | None = None,
    ) -> Self:
        """Builds a regulator; the time limit truncates and is not observed, None for none.

        Raises:
          ValueError: inconsistent shapes, or costs without a minimum.
        """
        A, B, Q, R = (np.asarray(x, np.float64) for x in (A, B, Q, R))
        num_states, num_actions = B.shape
        shapes = {"A": A, "Q": Q, "R": R}
        for name, matrix in shapes.items():
            side = num_actions if name == "R" else num_states
            if matrix.shape != (side, side):
                raise InvalidValue(
                    f"{name} is {list(matrix.shape)}: with B [{num_states}, {num_actions}] it must "
                    f"be [{side}, {side}]"
                )
            if name != "A" and not np.allclose(matrix, matrix.T):
                raise InvalidValue(f"{name} is not symmetric: give ({name} + {name}') / 2")
        if np.linalg.eigvalsh(Q).min() < -1e-9 or np.linalg.eigvalsh(R).min() <= 0:
            raise InvalidValue("Q must be positive semidefinite, and R must be positive definite")
        check_whole("max_steps", max_steps, or_none=True)
        spec = EnvSpec(
            jax.ShapeDtypeStruct((num_states,), jnp.float32),
            Box.of(-np.inf, np.inf, (num_actions,)),
            max_steps,
            truncates="at_max_steps",
        )
        env = cls(A, B, (Q + Q.T) / 2, (R + R.T) / 2, noise_std, start_std, spec)
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), env)

    def reset(self, key: Key) -> tuple[tuple[Array, Array], Array]:
        x = self.start_std * jax.random.normal(key, self.spec.observation.shape, jnp.float32)
        return (x, jnp.int32(0)), x

    def step(
        self, key: Key, state: tuple[Array, Array], action: Array
    ) -> tuple[tuple[Array, Array], Timestep]:
        x, time = state
        reward = -(_dot(x, _dot(self.Q, x)) + _dot(action, _dot(self.R, action)))
        noise = self.noise_std * jax.random.normal(key, x.shape, jnp.float32)
        x, time = _dot(self.A, x) + _dot(self.B, action) + noise, time + 1
        limit = self.spec.max_steps
        cut = jnp.bool_(False) if limit is None else time >= limit
        return (x, time), Timestep(x, reward, jnp.bool_(False), cut)


def make(
    A: ArrayLike = ((1.0, 0.2), (0.0, 1.0)),
    B: ArrayLike = ((0.0,), (0.2,)),
    Q: ArrayLike = ((1.0, 0.0), (0.0, 0.1)),
    R: ArrayLike = ((0.1,),),
    noise_std: float = 0.1,
    start_std: float = 1.0,
    max_steps: int | None = None,
) -> LQR:
    """Builds a regulator; the default is a cart on rails, with its position and speed."""
    return LQR.of(A, B, Q, R, noise_std, start_std, max_steps)


# Exact solutions ----------------------------------------------------------------------------------


class Quadratic(NamedTuple):
    """The value V(x) = -(x' P x + c).

    Attributes:
      P: `[N, N]`, symmetric.
      c: cost of the noise.
    """

    P: Floats
    c: float

    def __call__(self, x: Floats) -> Floats:
        """Values `[...]` of states `[..., N]`."""
        return -(np.einsum("...i,ij,...j->...", x, self.P, x) + self.c)


def optimum(env: LQR, discount: float) -> tuple[Floats, Floats]:
    """The optimal gain K `[M, N]`, which does not depend on noise, and its cost matrix P `[N, N]`.

    It iterates the discounted Riccati equation from P = Q to its fixed point.

    Raises:
      ValueError: no gain keeps the discounted cost finite.
    """
    A, B, Q, R, *_ = _float64(env)
    P = Q
    for _ in range(100_000):
        K = discount * np.linalg.solve(R + discount * B.T @ P @ B, B.T @ P @ A)
        following = Q + discount * A.T @ P @ (A - B @ K)
        following = (following + following.T) / 2
        change, P = np.abs(following - P).max(), following
        if change <= 1e-13 * np.abs(P).max():
            return K, P
        if change > 1e100:
            break
    raise InvalidValue("no gain keeps the cost finite: B does not control what A makes unstable")


def policy_value(env: LQR, K: Floats, log_std: Floats, discount: float) -> Quadratic:
    """The value of u ~ N(-K x, exp(log_std)^2).

    P = Q + K'RK + discount (A - BK)' P (A - BK), and
    c = (sum_i std_i^2 (R + discount B'PB)_ii + discount noise_std^2 tr P) / (1 - discount).
    """
    A, B, Q, R, noise_std, _ = _float64(env)
    P = _series(Q + K.T @ R @ K, np.sqrt(discount) * (A - B @ K).T)
    spread = np.exp(2 * log_std) @ np.diag(R + discount * B.T @ P @ B)
    noise = discount * noise_std**2 * np.trace(P)
    return Quadratic(P, float((spread + noise) / (1.0 - discount)))


def action_value(env: LQR, value: Quadratic, x: Floats, u: Floats, discount: float) -> Floats:
    """r(x, u) + discount E[V(x')], `[...]` for states `[..., N]` and actions `[..., M]`."""
    A, B, Q, R, noise_std, _ = _float64(env)
    cost = np.einsum("...i,ij,...j->...", x, Q, x) + np.einsum("...i,ij,...j->...", u, R, u)
    noise = noise_std**2 * np.trace(value.P)
    return -cost + discount * (value(x @ A.T + u @ B.T) - noise)


def objective(env: LQR, K: Floats, log_std: Floats, discount: float) -> float:
    """J = E[V(x_0)], the expected discounted return."""
    value = policy_value(env, K, log_std, discount)
    return -float(_float64(env)[5] ** 2 * np.trace(value.P) + value.c)


def discounted_moment(env: LQR, K: Floats, log_std: Floats, discount: float) -> Floats:
    """S = sum_t discount^t E[x_t x_t'], `[N, N]`."""
    A, B, _, _, noise_std, start_std = _float64(env)
    identity = np.eye(len(A))
    noise = noise_std**2 * identity + B @ np.diag(np.exp(2 * log_std)) @ B.T
    enters = start_std**2 * identity + discount / (1.0 - discount) * noise
    return _series(enters, np.sqrt(discount) * (A - B @ K))


def rollout_moment(env: LQR, K: Floats, log_std: Floats, num_steps: int) -> Floats:
    """The mean over t < `num_steps` of E[x_t x_t'], `[N, N]`, with resets at the time limit."""
    A, B, _, _, noise_std, start_std = _float64(env)
    start = start_std**2 * np.eye(len(A))
    noise = noise_std**2 * np.eye(len(A)) + B @ np.diag(np.exp(2 * log_std)) @ B.T
    closed = A - B @ K
    moment, total = start, np.zeros_like(start)
    for t in range(1, num_steps + 1):
        total += moment
        restarts = env.spec.max_steps is not None and t % env.spec.max_steps == 0
        moment = start if restarts else closed @ moment @ closed.T + noise
    return total / num_steps


def policy_gradient(
    env: LQR, K: Floats, log_std: Floats, discount: float, num_steps: int | None = None
) -> tuple[Floats, Floats]:
    """The gradient of J, or its approximation by actor-critic methods.

    -2 [(R + discount B'PB) K - discount B'PA] S and, per step, -2 std_i^2 (R + discount B'PB)_ii.

    Args:
      env: the environment.
      K: `[M, N]`.
      log_std: `[M]`.
      discount: below 1.
      num_steps: None for the gradient of J, where S is the `discounted_moment`; otherwise the mean
        over that many steps of a rollout with equal weights, where S is the `rollout_moment`.

    Returns:
      Gradients with respect to K `[M, N]` and log_std `[M]`.
    """
    A, B, _, R, *_ = _float64(env)
    P = policy_value(env, K, log_std, discount).P
    curvature = R + discount * B.T @ P @ B  # half the Hessian of -Q(x, u) in u
    if num_steps is None:
        moment, steps = discounted_moment(env, K, log_std, discount), 1.0 / (1.0 - discount)
    else:
        moment, steps = rollout_moment(env, K, log_std, num_steps), 1.0
    of_gain = -2.0 * (curvature @ K - discount * B.T @ P @ A) @ moment
    return of_gain, -2.0 * steps * np.exp(2 * log_std) * np.diag(curvature)


def _float64(env: LQR) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    A, B, Q, R, noise, start = (np.asarray(x, np.float64) for x in jax.tree.leaves(env))
    return A, B, Q, R, noise, start


def _series(M: Floats, F: Floats) -> Floats:
    """sum_t F^t M F^t', the solution X of the Lyapunov equation X = M + F X F'.

    Raises:
      ValueError: the series diverges.
    """
    if np.abs(np.linalg.eigvals(F)).max() >= 1.0:
        raise InvalidValue("the discounted cost is infinite: discount |A - B K|^2 must be below 1")
    X = np.linalg.solve(np.eye(M.size) - np.kron(F, F), M.ravel()).reshape(M.shape)
    return (X + X.T) / 2
