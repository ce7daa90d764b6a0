"""Reference estimators: direct sums over future steps in float64, without recursion.

All functions take `[T, ...]` arrays like `jaxrl.estimators`, or scalars.
"""

import numpy as np


def each_column(column_function):
    """Applies a function of `[T]` arrays to each column of `[T, ...]`."""

    def function(rewards, *arguments, **options):
        shape = np.shape(rewards)

        def columns(x):
            return np.broadcast_to(np.asarray(x), shape).reshape(shape[0], -1).T

        table = [columns(x) for x in (rewards, *arguments)]
        results = [column_function(*column, **options) for column in zip(*table, strict=True)]
        if isinstance(results[0], tuple):
            return tuple(np.stack(x, axis=1).reshape(shape) for x in zip(*results, strict=True))
        return np.stack(results, axis=1).reshape(shape)

    return function


def end_of(t, terminated, truncated):
    """The last step of t's episode, or of the sequence."""
    for s in range(t, len(terminated)):
        if terminated[s] or truncated[s]:
            return s
    return len(terminated) - 1


def value_after(t, next_values, terminated):
    return 0.0 if terminated[t] else float(next_values[t])


def k_step_return(t, k, rewards, next_values, terminated, discount):
    """k discounted rewards from step t, plus the discounted value after them."""
    total, weight = 0.0, 1.0
    for s in range(t, t + k):
        total += weight * float(rewards[s])
        weight *= float(discount[s])
    return total + weight * value_after(t + k - 1, next_values, terminated)


@each_column
def discounted_returns(rewards, next_values, terminated, truncated, discount):
    returns = []
    for t in range(len(rewards)):
        k = end_of(t, terminated, truncated) - t + 1
        returns.append(k_step_return(t, k, rewards, next_values, terminated, discount))
    return np.array(returns)


@each_column
def n_step_returns(rewards, next_values, terminated, truncated, discount, *, n):
    returns = []
    for t in range(len(rewards)):
        k = min(n, end_of(t, terminated, truncated) - t + 1)
        returns.append(k_step_return(t, k, rewards, next_values, terminated, discount))
    return np.array(returns)


@each_column
def lambda_returns(rewards, next_values, terminated, truncated, discount, lambda_):
    """The weighted sum of all k-step returns; the longest one gets the remaining weight."""
    returns = []
    for t in range(len(rewards)):
        longest = end_of(t, terminated, truncated) - t + 1
        total, left = 0.0, 1.0
        for k in range(1, longest + 1):
            weight = left if k == longest else left * (1.0 - float(lambda_[t + k - 1]))
            total += weight * k_step_return(t, k, rewards, next_values, terminated, discount)
            left -= weight
        returns.append(total)
    return np.array(returns)


def td_error(t, rewards, values, next_values, terminated, discount):
    bootstrap = value_after(t, next_values, terminated)
    return float(rewards[t]) + float(discount[t]) * bootstrap - float(values[t])


@each_column
def gae(rewards, values, next_values, terminated, truncated, discount, lambda_):
    advantages = []
    for t in range(len(rewards)):
        total = 0.0
        for s in range(t, end_of(t, terminated, truncated) + 1):
            weight = 1.0
            for i in range(t, s):
                weight *= float(discount[i]) * float(lambda_[i])
            total += weight * td_error(s, rewards, values, next_values, terminated, discount)
        advantages.append(total)
    return np.array(advantages)


@each_column
def vtrace(
    rewards,
    values,
    next_values,
    terminated,
    truncated,
    log_ratios,
    discount,
    lambda_=1.0,
    *,
    clip_rho=1.0,
    clip_c=1.0,
    clip_pg_rho=1.0,
):
    """(errors, targets, advantages) of Espeholt et al., 2018, eq. 1 and section 4.2."""
    ratios = np.exp(np.asarray(log_ratios, np.float64))
    targets = []
    for t in range(len(rewards)):
        target = float(values[t])
        for s in range(t, end_of(t, terminated, truncated) + 1):
            weight = min(clip_rho, ratios[s])
            for i in range(t, s):
                weight *= float(discount[i]) * float(lambda_[i]) * min(clip_c, ratios[i])
            target += weight * td_error(s, rewards, values, next_values, terminated, discount)
        targets.append(target)
    advantages = []
    for t in range(len(rewards)):
        ends = end_of(t, terminated, truncated) == t
        following = value_after(t, next_values, terminated) if ends else targets[t + 1]
        error = float(rewards[t]) + float(discount[t]) * following - float(values[t])
        advantages.append(min(clip_pg_rho, ratios[t]) * error)
    return np.array(targets) - values, np.array(targets), np.array(advantages)
