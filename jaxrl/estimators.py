"""Returns and advantages of sequences that may contain several episodes, each one `jax.lax.scan`.

All functions share these arguments; `[T, ...]` is time first, then any batch axes or none:

- `rewards`, `values` = V(x_t): `float[T, ...]`.
- `next_values`: `float[T, ...]`, V of the observation after step t, BEFORE any auto-reset. Ignored
  where `terminated`, even if NaN.
- `terminated`: `bool[T, ...]`, the step ended in a state of value zero: nothing is bootstrapped.
- `truncated`: `bool[T, ...]`, the episode was cut off (time limit): bootstrap from `next_values`.
  Where both masks are true, the step counts as terminated.
- `discount`, `lambda_`: scalars, or arrays with as many axes as `rewards`, of the same size or 1.

Sums stop at `terminated | truncated`. The last step of the sequence, unless terminated, bootstraps
from `next_values`. Results are `float32[T, ...]` (wider if an input is). Gradients flow through
every argument, so use `stop_gradient` in a loss.

A wrong shape raises ValueError and a non-boolean mask TypeError, naming the argument.
"""

import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.types import Array, Scalar


def discounted_returns(
    rewards: Array, next_values: Array, terminated: Array, truncated: Array, discount: Scalar
) -> Array:
    """Discounted sum of rewards to the end of the episode or the sequence.

    G_t = r_t + discount_t G_{t+1}; after a truncation and after the last step, G is `next_values`,
    which is ignored elsewhere. See the module docstring for the arguments.

    Returns:
      G: `float[T, ...]`.

    Source: Sutton and Barto, Reinforcement Learning, 2018, eq. 3.9.
    """
    rewards, next_values = _floats(rewards, next_values=next_values)
    ended = _cut(rewards, terminated, truncated)
    at_ends = jnp.where(ended | _is_last(rewards), next_values, 0)
    return lambda_returns(rewards, at_ends, terminated, truncated, discount, 1.0)


def n_step_returns(
    rewards: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    discount: Scalar,
    n: int,
) -> Array:
    """n-step returns: the discounted sum of `n` rewards and a bootstrapped value.

    G_t = r_t + ... + discount^(n-1) r_{t+n-1} + discount^n V(x_{t+n}); if the episode or the
    sequence ends after k < n steps, it is the k-step return. See the module docstring for the
    arguments.

    Args:
      n: number of rewards, at least 1; static.

    Returns:
      G: `float[T, ...]`.

    Source: Sutton and Barto, Reinforcement Learning, 2018, eq. 7.1.
    """
    rewards, next_values = _floats(rewards, next_values=next_values)
    cut = _cut(rewards, terminated, truncated)
    discount = _per_step(rewards, "discount", discount)
    if (n := operator.index(n)) < 1:
        raise InvalidValue(f"n is {n}: it must be at least 1")
    stop = cut | _is_last(rewards)

    def one_step_more(tail: Array, _: None) -> tuple[Array, None]:
        returns = step(tail)
        following = jnp.concatenate([returns[1:], returns[-1:]])
        return jnp.where(stop, next_values, following), None

    def step(tail: Array) -> Array:  # tail[t]: the return from after step t
        return rewards + discount * jnp.where(terminated, 0, tail)

    num_steps = min(n, rewards.shape[0])
    tail, _ = jax.lax.scan(one_step_more, next_values, length=num_steps - 1)
    return step(tail)


def lambda_returns(
    rewards: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    discount: Scalar,
    lambda_: Scalar,
) -> Array:
    """Lambda-returns: averages of k-step returns with weights (1 - lambda) lambda^(k-1).

    G_t = r_t + discount_t ((1 - lambda_t) V(x_{t+1}) + lambda_t G_{t+1}); the longest k-step return
    within the episode and the sequence gets the remaining weight. See the module docstring for the
    arguments.

    Returns:
      G: `float[T, ...]`.

    Source: Sutton and Barto, Reinforcement Learning, 2018, eq. 12.3 and 12.18.
    """
    rewards, next_values = _floats(rewards, next_values=next_values)
    cut = _cut(rewards, terminated, truncated)
    discount = _per_step(rewards, "discount", discount)
    lambda_ = jnp.where(cut, 0, _per_step(rewards, "lambda_", lambda_))
    weight = jnp.where(_is_last(rewards), 1, 1 - lambda_)
    bootstrap = weight * jnp.where(terminated, 0, next_values)
    return _accumulate(rewards + discount * bootstrap, discount * lambda_)


def discount_weights(done: Array, discount: Scalar) -> Array:
    """discount^t for steps `[T, ...]`, where t starts at 0 and again after each end of an episode.

    Args:
      done: `bool[T, ...]`, whether the episode ended at the step.
      discount: gamma.

    Returns:
      `float32[T, ...]`.
    """

    def one(weight: Array, done: Array) -> tuple[Array, Array]:
        return jnp.where(done, 1.0, weight * discount), weight

    return jax.lax.scan(one, jnp.ones_like(done[0], jnp.float32), done)[1]


def gae(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    discount: Scalar,
    lambda_: Scalar,
) -> Array:
    """Generalised advantage estimation.

    A_t = sum over k of (discount lambda)^k delta_{t+k}, to the end of the episode or the sequence,
    with delta_t = r_t + discount (1 - terminated_t) V(x_{t+1}) - V(x_t). `gae(...) + values` is the
    lambda-return, the usual value target. See the module docstring for the arguments.

    Returns:
      A: `float[T, ...]`.

    Source: Schulman, Moritz, Levine, Jordan and Abbeel, 2016, eq. 16.
    """
    rewards, values, next_values = _floats(rewards, values=values, next_values=next_values)
    cut = _cut(rewards, terminated, truncated)
    discount = _per_step(rewards, "discount", discount)
    lambda_ = _per_step(rewards, "lambda_", lambda_)
    deltas = rewards + discount * jnp.where(terminated, 0, next_values) - values
    return _accumulate(deltas, jnp.where(cut, 0, discount * lambda_))


class VTrace(NamedTuple):
    """Results of `vtrace`; all `float[T, ...]`.

    Attributes:
      errors: v_t - V(x_t).
      targets: v_t, the targets of V(x_t).
      advantages: policy-gradient advantages, including importance weights.
    """

    errors: Array
    targets: Array
    advantages: Array


def vtrace(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    log_ratios: Array,
    discount: Scalar,
    lambda_: Scalar = 1.0,
    clip_rho: Scalar = 1.0,
    clip_c: Scalar = 1.0,
    clip_pg_rho: Scalar = 1.0,
) -> VTrace:
    """V-trace: off-policy value targets and advantages.

    With ratio_t = exp(log_ratios_t), rho_t = min(clip_rho, ratio_t) and
    c_t = lambda_ min(clip_c, ratio_t):

        v_t = V(x_t) + sum over k of discount^k c_t ... c_{t+k-1} rho_{t+k} delta_{t+k}
        advantage_t = min(clip_pg_rho, ratio_t) (r_t + discount v_{t+1} - V(x_t))

    with delta as in `gae`; where the episode or the sequence ends, v_{t+1} is V(x_{t+1}), or 0 if
    terminated. The advantage uses v_{t+1} for any lambda, as in the paper; rlax mixes it with
    V(x_{t+1}) if lambda < 1. See the module docstring for the other arguments.

    Args:
      log_ratios: `float[T, ...]`, log pi(a_t | x_t) - log mu(a_t | x_t), where mu is the behaviour
        policy.
      lambda_: trace decay (the paper's remark 2).
      clip_rho: upper bound of rho; it sets the policy whose value the targets converge to. `inf`
        for none.
      clip_c: upper bound of c, at most `clip_rho`; trades variance for speed.
      clip_pg_rho: upper bound of the advantage's weight.

    Returns:
      `VTrace(errors, targets, advantages)`.

    Source: Espeholt, Soyer, Munos et al., 2018, eq. 1 and section 4.2.
    """
    rewards, values, next_values, log_ratios = _floats(
        rewards, values=values, next_values=next_values, log_ratios=log_ratios
    )
    cut = _cut(rewards, terminated, truncated)
    discount = _per_step(rewards, "discount", discount)
    lambda_ = _per_step(rewards, "lambda_", lambda_)
    ratios = importance_ratio(log_ratios)
    rho = jnp.minimum(ratios, _per_step(rewards, "clip_rho", clip_rho))
    c = lambda_ * jnp.minimum(ratios, _per_step(rewards, "clip_c", clip_c))
    pg_rho = jnp.minimum(ratios, _per_step(rewards, "clip_pg_rho", clip_pg_rho))

    bootstrap = jnp.where(terminated, 0, next_values)
    deltas = rho * (rewards + discount * bootstrap - values)
    errors = _accumulate(deltas, jnp.where(cut, 0, discount * c))
    targets = values + errors
    following = jnp.concatenate([targets[1:], targets[-1:]])
    following = jnp.where(cut | _is_last(rewards), bootstrap, following)
    return VTrace(errors, targets, pg_rho * (rewards + discount * following - values))


def retrace(
    rewards: Array,
    action_values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    log_ratios: Array,
    discount: Scalar,
    lambda_: Scalar = 1.0,
) -> Array:
    """Retrace(lambda): off-policy targets of Q(x_t, a_t).

        G_t = r_t + discount (V(x_{t+1}) + c_{t+1} (G_{t+1} - Q(x_{t+1}, a_{t+1})))

    with c_t = lambda_ min(1, exp(log_ratios_t)); the correction ends with the episode or the
    sequence. See the module docstring for the other arguments.

    Args:
      action_values: `float[T, ...]`, Q(x_t, a_t) of the actions taken.
      next_values: `float[T, ...]`, V(x_{t+1}) = sum_a pi(a | x_{t+1}) Q(x_{t+1}, a).
      log_ratios: `float[T, ...]`, log pi(a_t | x_t) - log mu(a_t | x_t), where mu is the behaviour
        policy.
      lambda_: trace decay.

    Returns:
      G: `float[T, ...]`.

    Source: Munos, Stepleton, Harutyunyan and Bellemare, 2016, eq. 4.
    """
    rewards, action_values, next_values, log_ratios = _floats(
        rewards, action_values=action_values, next_values=next_values, log_ratios=log_ratios
    )
    cut = _cut(rewards, terminated, truncated)
    discount = _per_step(rewards, "discount", discount)
    c = _per_step(rewards, "lambda_", lambda_) * jnp.minimum(importance_ratio(log_ratios), 1)
    c = jnp.concatenate([c[1:], c[-1:]])  # of the action after; the last has none
    deltas = rewards + discount * jnp.where(terminated, 0, next_values) - action_values
    return action_values + _accumulate(deltas, jnp.where(cut, 0, discount * c))


def importance_ratio(log_ratio: Array) -> Array:
    """exp(log_ratio), at most exp(80), so that it and its gradient stay finite."""
    return jnp.exp(jnp.minimum(log_ratio, 80.0))


def _accumulate(x: Array, decay: Array) -> Array:
    """y_t = x_t + decay_t y_{t+1}, backwards from y_T = 0; both `[T, ...]`."""
    return jax.lax.scan(_accumulate_step, jnp.zeros_like(x[0]), (x, decay), reverse=True)[1]


def _accumulate_step(following: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
    # Not a closure, so that it is compiled only once outside jit.
    x, decay = now
    y = x + decay * following
    return y, y


def _is_last(rewards: Array) -> Array:
    """`bool[T, ...]`, true at T - 1."""
    num_steps = rewards.shape[0]
    last = jnp.arange(num_steps) == num_steps - 1
    return jnp.broadcast_to(last.reshape(-1, *(1,) * (rewards.ndim - 1)), rewards.shape)


def _floats(rewards: Array, **others: Array) -> list[Array]:
    """`rewards` and the others as arrays of one floating dtype; their shapes must be equal."""
    rewards = jnp.asarray(rewards)
    if rewards.ndim == 0 or rewards.shape[0] == 0:
        raise InvalidValue(
            f"rewards has shape {rewards.shape}: it must be [T, ...] with T at least 1"
        )
    arrays = [rewards]
    for name, x in others.items():
        arrays.append(_same_shape(rewards, name, x))
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return [x.astype(dtype) for x in arrays]


def _cut(rewards: Array, terminated: Array, truncated: Array) -> Array:
    """`terminated | truncated`, after checking that both are masks shaped like `rewards`."""
    for name, mask in (("terminated", terminated), ("truncated", truncated)):
        dtype = _same_shape(rewards, name, mask).dtype
        if dtype != jnp.bool_:
            raise InvalidType(f"{name} has dtype {dtype}: it must be bool")
    return jnp.logical_or(terminated, truncated)


def _same_shape(rewards: Array, name: str, x: Array) -> Array:
    x = jnp.asarray(x)
    if x.shape != rewards.shape:
        raise InvalidValue(
            f"{name} has shape {x.shape}, rewards {rewards.shape}: both must be the same [T, ...]"
        )
    return x


def _per_step(rewards: Array, name: str, x: Scalar) -> Array:
    """The hyper-parameter `x`, broadcast to the shape and dtype of `rewards`."""
    x = jnp.asarray(x, rewards.dtype)
    fits = x.ndim == rewards.ndim and all(
        n in (1, m) for n, m in zip(x.shape, rewards.shape, strict=True)
    )
    if x.ndim and not fits:
        raise InvalidValue(
            f"{name} has shape {x.shape}, rewards {rewards.shape}: give a scalar, or an array with "
            "the same number of axes, each of the same size or 1"
        )
    return jnp.broadcast_to(x, rewards.shape)
