"""Confidence intervals over few seeds, for `jaxrl.analysis.statistics`.

rliable's percentile bootstrap is too narrow for few seeds: it uses the normal quantile instead of
Student's, and the variance over N instead of N - 1. Its 95% interval of the mean of normal scores
covers the truth in 49%, 74%, 85% and 90% of cases at 2, 3, 5 and 10 seeds; the intervals here in
95%. At two seeds they would extend twelve standard errors to each side, so there is no interval
below `MIN_SEEDS`. docs/intervals.md has the coverage for other distributions of scores.

No interval can account for failures that no seed shows: if all scores are equal, such as 500 in
CartPole, its width is zero. The only remedy is more seeds.
"""

import functools
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from scipy.special import betaincinv, stdtrit

MIN_SEEDS = 3
"""With fewer seeds, intervals are NaN."""

Interval = tuple[float, float]


def student_interval(scores: np.ndarray, level: float) -> Interval:
    """Student's t interval of the mean over seeds and tasks.

    With several tasks, the variances of their means are added, with Welch-Satterthwaite degrees of
    freedom.

    Args:
      scores: `[seeds, tasks]`, at least two seeds.
      level: confidence level.
    """
    num_seeds, num_tasks = scores.shape
    variances = scores.var(axis=0, ddof=1) / num_seeds / num_tasks**2
    variance, freedom = float(variances.sum()), num_seeds - 1
    if variance > 0:
        freedom = math.floor(freedom * variance**2 / float((variances**2).sum()) + 1e-9)
    reach = student_quantile((1 + level) / 2, freedom) * math.sqrt(variance)
    return float(scores.mean() - reach), float(scores.mean() + reach)


def expanded_percentile_interval(
    statistic: Callable[[np.ndarray], np.ndarray], scores: np.ndarray, level: float, samples: int
) -> Interval:
    """Percentile bootstrap interval, expanded to be valid for few seeds.

    Distances from the statistic are scaled by t / z * sqrt(N / (N - 1)), which replaces the normal
    quantile by Student's and the resamples' variance over N by that over N - 1 (Hesterberg, 2015,
    "What teachers should know about the bootstrap", section 3.4; he adjusts the percentiles
    instead, but few seeds have no percentiles that far out). For the mean of normal scores it
    nearly equals `student_interval`. With several tasks t still has N - 1 degrees of freedom, which
    is conservative.

    Args:
      statistic: maps `[..., seeds, tasks]` to `[...]`.
      scores: `[seeds, tasks]`, at least two seeds.
      level: confidence level.
      samples: number of resamples. The random seed is fixed: the same scores give the same
        interval.
    """
    num_seeds = scores.shape[0]
    values = statistic(resamples(np.random.default_rng(0), scores, samples))
    middle, probability = float(statistic(scores)), (1 + level) / 2
    factor = student_quantile(probability, num_seeds - 1) / NormalDist().inv_cdf(probability)
    factor *= math.sqrt(num_seeds / (num_seeds - 1))
    low, high = middle + factor * (np.quantile(values, [1 - probability, probability]) - middle)
    return float(low), float(high)


def mann_whitney_interval(measured: float, m: int, n: int, tasks: int, level: float) -> Interval:
    """Interval of the probability that one of m scores beats one of n, averaged over tasks.

    A score interval: all probabilities p that are within t standard errors of the measured one,
    with the standard error at p (Newcombe, 2006, "Confidence intervals for an effect size measure
    based on the Mann-Whitney statistic, part 2", method 5, with Student's quantile instead of the
    normal one). Unlike a bootstrap interval, it does not collapse to 1 if all ten seeds beat all
    ten others.
    """
    quantile = student_quantile((1 + level) / 2, m + n - 2)

    def is_near(p: np.ndarray) -> np.ndarray:
        pairs = 1 + ((m + n) / 2 - 1) * ((1 - p) / (2 - p) + p / (1 + p))
        return (measured - p) ** 2 <= quantile**2 * p * (1 - p) * pairs / (m * n * tasks)

    low, high = _farthest(is_near, np.full(2, measured), np.array([0.0, 1.0]))
    return float(low), float(high)


@functools.cache
def binomial_intervals(size: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's exact interval (1934) of a probability, after k successes of `size`.

    Returns its ends for k = 0, ..., size, both `[size + 1]`.
    """
    k = np.arange(1, size + 1)
    low = np.append(0.0, betaincinv(k, size - k + 1, (1 - level) / 2))
    return low, 1 - low[::-1]


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution with `freedom` degrees of freedom."""
    return float(stdtrit(freedom, probability))


def resamples(rng: np.random.Generator, scores: np.ndarray, samples: int) -> np.ndarray:
    """Bootstrap resamples, within each task, of `[seeds, tasks]`: `[samples, seeds, tasks]`."""
    num_seeds, num_tasks = scores.shape
    rows = rng.integers(0, num_seeds, (samples, num_seeds, num_tasks))
    return scores[rows, np.arange(num_tasks)]


def _farthest(
    holds: Callable[[np.ndarray], np.ndarray], start: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """By bisection, the last point from `start` towards `end` where `holds` is true."""
    yes, no = start, end
    for _ in range(50):
        middle = (yes + no) / 2
        good = holds(middle)
        yes, no = np.where(good, middle, yes), np.where(good, no, middle)
    return yes
