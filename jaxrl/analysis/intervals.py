"""The mathematics of confidence intervals over few seeds. `jaxrl.analysis.statistics` applies it.

rliable's percentile bootstrap is too narrow for few seeds: it replaces Student's quantile by the
normal one, and the variance over N - 1 by that over N. Its 95% interval of the mean of normal
scores covers the truth in 49%, 74%, 85% and 90% of cases at 2, 3, 5 and 10 seeds; the intervals
here cover it in 95%. At two seeds they would be twelve standard errors wide to each side, so below
`MIN_SEEDS` there is none.

How often they cover the truth at 3, 5, 10 and 20 seeds (simulated):

    scores                          mean                median              IQM
    normal                          .95 .95 .95 .95     .92 .98 .96 .96     .96 .97 .96 .96
    log-normal                      .89 .87 .89 .90     .92 .98 .96 .95     .94 .96 .97 .96
    cut off at a maximum            .83 .88 .92 .92     .86 .96 .96 .96     .86 .95 .96 .96
    30% of the seeds fail           .74 .84 .94 .94     .92 .99 .98 .96     .88 .93 .96 .95

No interval can know of a failure that none of the seeds shows: where all scores are equal, as at
CartPole's 500, its width is zero. More seeds are the only remedy.
"""

import functools
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from scipy.special import betaincinv, stdtrit

MIN_SEEDS = 3
"""With fewer seeds an interval is NaN: too few to say."""

Interval = tuple[float, float]


def student_interval(scores: np.ndarray, level: float) -> Interval:
    """Student's interval of the mean over seeds and tasks.

    For several tasks the variances of their means add up, with the degrees of freedom of Welch and
    Satterthwaite.

    Args:
      scores: `[seeds, tasks]`, two seeds at least.
      level: how often it should cover the true mean.
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
    """The bootstrap's percentiles, moved away from the statistic until few seeds suffice.

    Their distances from it grow by t / z * sqrt(N / (N - 1)): Student's quantile in place of the
    normal one, and the variance over N - 1 in place of that over N, which resamples have
    (Hesterberg, 2015, "What teachers should know about the bootstrap", section 3.4; he moves to
    other percentiles, of which few seeds have none). For the mean of normal scores that is
    `student_interval`, nearly. For several tasks t still has N - 1 degrees of freedom, which is
    wider than need be.

    Args:
      statistic: of `[..., seeds, tasks]`, `[...]`.
      scores: `[seeds, tasks]`, two seeds at least.
      level: how often it should cover the truth.
      samples: how many resamples. The draw is fixed: the same scores give the same interval.
    """
    num_seeds = scores.shape[0]
    values = statistic(resamples(np.random.default_rng(0), scores, samples))
    middle, probability = float(statistic(scores)), (1 + level) / 2
    factor = student_quantile(probability, num_seeds - 1) / NormalDist().inv_cdf(probability)
    factor *= math.sqrt(num_seeds / (num_seeds - 1))
    low, high = middle + factor * (np.quantile(values, [1 - probability, probability]) - middle)
    return float(low), float(high)


def mann_whitney_interval(measured: float, m: int, n: int, tasks: int, level: float) -> Interval:
    """Of the probability that one of m scores beats one of n, averaged over tasks.

    A score interval: the probabilities from which the measured one is less than so many standard
    errors away, the error being the one at that probability (Newcombe, 2006, "Confidence intervals
    for an effect size measure based on the Mann-Whitney statistic, part 2", method 5, with
    Student's quantile instead of the normal one). Ten seeds that all beat ten others do not prove
    a probability of 1, as a bootstrap has it, whose interval has no width there.
    """
    quantile = student_quantile((1 + level) / 2, m + n - 2)

    def is_near(p: np.ndarray) -> np.ndarray:
        pairs = 1 + ((m + n) / 2 - 1) * ((1 - p) / (2 - p) + p / (1 + p))
        return (measured - p) ** 2 <= quantile**2 * p * (1 - p) * pairs / (m * n * tasks)

    low, high = _farthest(is_near, np.full(2, measured), np.array([0.0, 1.0]))
    return float(low), float(high)


@functools.cache
def binomial_intervals(size: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's exact interval (1934) of the probability behind k of `size`.

    Returns its ends for k = 0, ..., size: `[size + 1]` both.
    """
    k = np.arange(1, size + 1)
    low = np.append(0.0, betaincinv(k, size - k + 1, (1 - level) / 2))
    return low, 1 - low[::-1]


def student_quantile(probability: float, freedom: int) -> float:
    """Where Student's distribution, of so many degrees of freedom, reaches a probability."""
    return float(stdtrit(freedom, probability))


def resamples(rng: np.random.Generator, scores: np.ndarray, samples: int) -> np.ndarray:
    """Scores `[seeds, tasks]` drawn anew within each task, `[samples, seeds, tasks]`."""
    num_seeds, num_tasks = scores.shape
    rows = rng.integers(0, num_seeds, (samples, num_seeds, num_tasks))
    return scores[rows, np.arange(num_tasks)]


def _farthest(
    holds: Callable[[np.ndarray], np.ndarray], start: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """By bisection, how far from `start` towards `end` something holds that holds at the start."""
    yes, no = start, end
    for _ in range(50):
        middle = (yes + no) / 2
        good = holds(middle)
        yes, no = np.where(good, middle, yes), np.where(good, no, middle)
    return yes
