"""Statistics over seeds, after Agarwal et al. (2021), "Deep RL at the edge of the precipice"."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxrl.analysis import intervals
from jaxrl.analysis.intervals import MIN_SEEDS


def mean_of_finished(returns: np.ndarray) -> np.ndarray:
    """The mean over the last axis, ignoring NaNs (unfinished episodes); NaN if all are NaN."""
    finished = np.isfinite(returns)
    total, count = np.where(finished, returns, 0.0).sum(-1, dtype=np.float64), finished.sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def counted(per_seed: np.ndarray, diverged: Sequence[int] | np.ndarray) -> np.ndarray:
    """The entries of `per_seed` without the indices in `diverged`; a single NaN if none is left."""
    left = np.delete(np.asarray(per_seed, np.float64), list(diverged))
    return left if left.size else np.array([np.nan])


def episode_statistics(returns: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    """Statistics of an evaluation's episodes; None if none finished.

    Args:
      returns: `[episodes]`, NaN for unfinished episodes.
      lengths: `[episodes]`.
    """
    lengths = lengths[np.isfinite(returns)]
    finished = returns[np.isfinite(returns)].astype(np.float64)
    some = finished.size > 0
    return {
        "return_mean": finished.mean() if some else None,
        "return_std": finished.std() if some else None,
        "return_min": finished.min() if some else None,
        "return_max": finished.max() if some else None,
        "length_mean": lengths.mean() if some else None,
        "episodes": finished.size,
        "unfinished_episodes": returns.size - finished.size,
    }


def summarize(per_seed: np.ndarray, diverged: Sequence[int] = ()) -> dict[str, Any]:
    """Mean, population standard deviation, IQM and the mean's 95% `interval`.

    Args:
      per_seed: `[seeds]`; any NaN makes everything NaN.
      diverged: indices of seeds to leave out; `seeds` in the result is the number of the others.
    """
    per_seed = np.asarray(per_seed, np.float64)
    some = counted(per_seed, diverged)
    low, high = interval(mean, some)
    return {
        "mean": float(some.mean()),
        "std": float(some.std()),
        "iqm": iqm(some),
        "ci_low": low,
        "ci_high": high,
        "per_seed": per_seed.tolist(),
        "seeds": per_seed.size - len(diverged),
        "diverged": list(diverged),
    }


def iqm(scores: np.ndarray) -> float:
    """The interquartile mean of all entries; NaN if any is NaN."""
    return float(interquartile_mean(np.asarray(scores, np.float64).reshape(-1, 1)))


def bootstrap_interval(
    per_seed: np.ndarray,
    *,
    level: float = 0.95,
    num_samples: int = 10_000,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[float, float]:
    """`stratified_interval` for one task, by default of the mean, from seeds `[N]`.

    It is too narrow for few seeds: use `interval`.
    """
    scores = np.asarray(per_seed, np.float64).reshape(-1, 1)
    low, high = stratified_interval(statistic or mean, scores, level=level, num_samples=num_samples)
    return float(low), float(high)


# Several tasks ------------------------------------------------------------------------------------
#
# Below, `scores` is `[seeds, tasks]`, normalised to a common scale (such as 0 for random play and 1
# for a good player); otherwise averages over tasks are meaningless.


def mean(scores: np.ndarray) -> np.ndarray:
    """The mean over seeds and tasks, from `[..., seeds, tasks]` to `[...]`."""
    return scores.mean((-2, -1))


def median(scores: np.ndarray) -> np.ndarray:
    """The median over tasks of their means over seeds."""
    return np.median(scores.mean(-2), -1)


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of all scores, across seeds and tasks."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), -1)
    cut = flat.shape[-1] // 4
    middle = flat[..., cut : flat.shape[-1] - cut].mean(-1)
    return np.where(np.isnan(flat).any(-1), np.nan, middle)


def optimality_gap(scores: np.ndarray, goal: float = 1.0) -> np.ndarray:
    """The mean shortfall from `goal`; scores above it count as `goal`."""
    return goal - np.minimum(scores, goal).mean((-2, -1))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Probability that a seed of `x` beats one of `y`, averaged over tasks; a tie counts half.

    Args:
      x, y: `[..., seeds, tasks]` with the same tasks; the numbers of seeds may differ.
    """
    x, y = x[..., :, None, :], y[..., None, :, :]
    return (np.mean(x > y, (-3, -2)) + np.mean(x == y, (-3, -2)) / 2).mean(-1)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The fraction of scores above each threshold, `[..., len(thresholds)]`."""
    flat = scores.reshape(*scores.shape[:-2], -1)
    return np.mean(flat[..., None, :] > thresholds[:, None], -1)


def interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    scores: np.ndarray,
    *,
    level: float = 0.95,
    num_samples: int = 10_000,
) -> tuple[float, float]:
    """The confidence interval of a statistic over seeds that jaxrl reports everywhere.

    Student's t interval for the mean, and an expanded percentile bootstrap for other statistics.
    `jaxrl.analysis.intervals` compares their coverage with rliable's interval
    (`stratified_interval`).

    Args:
      statistic: `mean`, `median`, `interquartile_mean`, ...: maps `[..., seeds, tasks]` to `[...]`.
      scores: `[seeds]`, or `[seeds, tasks]`.
      level: confidence level.
      num_samples: number of bootstrap resamples.

    Returns:
      The ends; NaN with fewer than `MIN_SEEDS` (3) seeds, or if the statistic is NaN.

    >>> low, high = interval(interquartile_mean, returns_of_ten_seeds)
    """
    scores = _of_tasks(scores)
    if scores.shape[0] < MIN_SEEDS:
        return float("nan"), float("nan")
    if statistic is mean:
        return intervals.student_interval(scores, level)
    return intervals.expanded_percentile_interval(statistic, scores, level, num_samples)


def improvement_interval(
    x: np.ndarray, y: np.ndarray, *, level: float = 0.95
) -> tuple[float, float]:
    """The interval of `probability_of_improvement(x, y)`: `intervals.mann_whitney_interval`.

    Args:
      x, y: `[seeds]`, or `[seeds, tasks]`; the numbers of seeds may differ.
      level: confidence level.

    Returns:
      The ends; NaN if either has fewer than `MIN_SEEDS` seeds or a NaN.
    """
    x, y = _of_tasks(x), _of_tasks(y)
    m, n = len(x), len(y)
    if min(m, n) < MIN_SEEDS or np.isnan(x).any() or np.isnan(y).any():
        return float("nan"), float("nan")
    measured = float(probability_of_improvement(x, y))
    return intervals.mann_whitney_interval(measured, m, n, x.shape[1], level)


def profile_band(
    scores: np.ndarray, thresholds: np.ndarray, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of `performance_profile(scores, thresholds)` at each threshold.

    The number of scores above a threshold is binomial (`intervals.binomial_intervals`); with
    several tasks the interval is conservative (Hoeffding, 1956).

    Args:
      scores: `[seeds]`, or `[seeds, tasks]`.
      thresholds: `[T]`.
      level: minimum confidence level.

    Returns:
      The ends, both `[T]`; NaN with fewer than `MIN_SEEDS` seeds, or if a score is NaN.
    """
    scores = _of_tasks(scores)
    if len(scores) < MIN_SEEDS or np.isnan(scores).any():
        return np.full(len(thresholds), np.nan), np.full(len(thresholds), np.nan)
    share = performance_profile(scores, thresholds)
    low, high = intervals.binomial_intervals(scores.size, level)
    above = np.rint(share * scores.size).astype(int)
    return low[above], high[above]


def _of_tasks(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    return scores[:, None] if scores.ndim == 1 else scores


def stratified_interval(
    statistic: Callable[..., np.ndarray],
    *scores: np.ndarray,
    level: float = 0.95,
    num_samples: int = 2000,
) -> tuple[np.ndarray, np.ndarray]:
    """rliable's interval of `statistic(*scores)`: the stratified percentile bootstrap.

    It reproduces rliable's numbers, for comparison with published results. It is too narrow for few
    seeds (with 3 seeds, "95%" covers the mean in 74% of cases), so jaxrl reports `interval`
    instead. NaN if a task has fewer than two seeds. The random seed is fixed: the same scores give
    the same interval.
    """
    rng = np.random.default_rng(0)
    values = statistic(*(intervals.resamples(rng, of_one, num_samples) for of_one in scores))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    if min(of_one.shape[0] for of_one in scores) < 2:
        return np.full_like(low, np.nan), np.full_like(high, np.nan)
    return low, high
