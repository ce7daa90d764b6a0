"""Statistics over seeds and tasks, against rliable, SciPy and simulations."""

import itertools

import numpy as np
import pytest
import scipy.stats

from jaxrl.analysis import intervals, statistics

X = np.array([
    [0.6, 0.72, 0.49, 0.24, 0.42], [0.2, 0.62, 1.14, 0.4, 0.35], [0.8, 0.74, 0.64, 0.23, 0.59],
    [0.88, 0.06, 0.42, -0.16, 0.08], [-0.14, 0.51, 0.09, 0.71, 0.66],
    [0.53, -0.41, 0.38, 0.58, 0.65],
])  # fmt: skip
Y = np.array([
    [-0.11, 0.31, 0.11, 0.18, 0.92], [0.18, 0.49, 0.85, 0.27, 0.46], [0.54, 0.53, 0.01, 0.53, 1.04],
    [-0.12, 0.84, 0.55, 0.24, 1.3], [0.8, 0.02, 0.53, 0.73, 0.42], [0.77, 0.47, 0.77, 1.08, 0.23],
    [0.58, 0.31, 0.55, 0.03, 0.27],
])  # fmt: skip
"""Seeds by tasks, drawn once; what follows is what rliable 1.2.0 makes of them."""
AGGREGATES = (
    statistics.mean,
    statistics.median,
    statistics.interquartile_mean,
    statistics.optimality_gap,
)
OF_X = [0.434, 0.4583333333333333, 0.47812499999999997, 0.5706666666666667]
OF_Y = [0.4765714285714286, 0.43714285714285717, 0.4621052631578947, 0.5354285714285714]
INTERVALS_OF_X = [
    [0.3163333333333333, 0.3016666666666667, 0.34062499999999996, 0.46266666666666667],
    [0.5453333333333333, 0.5683333333333334, 0.5825, 0.6859999999999999],
]
"""From 50,000 resamples."""


def test_aggregates_are_those_of_rliable():
    for aggregate, of_x, of_y in zip(AGGREGATES, OF_X, OF_Y, strict=True):
        np.testing.assert_allclose(aggregate(X), of_x, rtol=1e-12)
        np.testing.assert_allclose(aggregate(Y), of_y, rtol=1e-12)
        np.testing.assert_allclose(aggregate(np.stack([X, X + 1.0])), [of_x, aggregate(X + 1.0)])


def test_intervals_are_those_of_rliable():
    for aggregate, *theirs in zip(AGGREGATES, *INTERVALS_OF_X, strict=True):
        ours = statistics.stratified_interval(aggregate, X, num_samples=20_000)
        np.testing.assert_allclose(ours, theirs, atol=0.006)  # of a width of 0.2
        assert ours == statistics.stratified_interval(aggregate, X, num_samples=20_000)


def test_the_probability_of_improvement_is_that_of_rliable_and_of_mann_and_whitney():
    ours = statistics.probability_of_improvement(X, Y)
    np.testing.assert_allclose(ours, 0.488095238095238, rtol=1e-12)
    u = [scipy.stats.mannwhitneyu(x, y).statistic for x, y in zip(X.T, Y.T, strict=True)]
    np.testing.assert_allclose(ours, np.mean(u) / (len(X) * len(Y)), rtol=1e-12)
    interval = statistics.stratified_interval(
        statistics.probability_of_improvement, X, Y, num_samples=20_000
    )
    np.testing.assert_allclose(interval, [0.34047619, 0.63809524], atol=0.006)
    ties = np.array([[1.0], [2.0]])
    assert statistics.probability_of_improvement(ties, ties) == 0.5
    assert statistics.probability_of_improvement(ties + 2, ties) == 1.0


def test_the_performance_profile_is_that_of_rliable():
    thresholds = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    profile = statistics.performance_profile(X, thresholds)
    np.testing.assert_allclose(profile, [0.9, 0.7, 0.5, 0.1, 1 / 30], rtol=1e-12)


def test_resamples_stay_within_their_task():
    """Constant scores that differ by task: all resamples have the same mean."""
    constant = np.tile([0.0, 100.0], (4, 1))
    assert statistics.stratified_interval(statistics.mean, constant) == (50.0, 50.0)


def test_the_interval_is_that_of_every_resample():
    """Two seeds on two tasks have 16 resamples."""
    scores = np.array([[0.0, 10.0], [1.0, 30.0]])
    means = sorted(
        (scores[a, 0] + scores[b, 0] + scores[c, 1] + scores[d, 1]) / 4
        for a, b, c, d in itertools.product(range(2), repeat=4)
    )
    expected = np.quantile(means, [0.2, 0.8], method="inverted_cdf")
    ours = statistics.stratified_interval(statistics.mean, scores, level=0.6, num_samples=20_000)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_one_seed_has_no_interval_and_nan_is_owned_up_to():
    assert np.isnan(statistics.stratified_interval(statistics.mean, X[:1])).all()
    bad = X.copy()
    bad[0, 0] = np.nan
    for aggregate in AGGREGATES:
        assert np.isnan(aggregate(bad))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16])
def test_the_interquartile_mean_of_one_task_is_that_of_its_seeds(size):
    scores = np.random.default_rng(size).normal(size=size)
    np.testing.assert_allclose(
        statistics.interquartile_mean(scores[:, None]), statistics.iqm(scores), rtol=1e-12
    )


# Intervals over few seeds ------------------------------------------------------------------------


@pytest.mark.parametrize("num_seeds", [3, 5, 10, 20])
def test_intervals_keep_their_promise_for_few_seeds(num_seeds):
    """The percentile bootstrap covers the mean of normal scores in 74, 85, 90 and 93% of cases."""
    rng = np.random.default_rng(num_seeds)
    for statistic, least, repetitions in (
        (statistics.mean, 0.935, 4000),
        (statistics.interquartile_mean, 0.93, 600),
    ):
        scores = rng.normal(7.0, 3.0, (repetitions, num_seeds))
        ends = [statistics.interval(statistic, row, num_samples=500) for row in scores]
        low, high = np.array(ends).T
        assert least < np.mean((low <= 7.0) & (high >= 7.0)) < 0.985


def test_the_interval_of_the_mean_is_students():
    for num_seeds in (3, 4, 9):
        scores = np.random.default_rng(num_seeds).normal(size=num_seeds)
        theirs = scipy.stats.t.interval(0.9, num_seeds - 1, scores.mean(), scipy.stats.sem(scores))
        np.testing.assert_allclose(statistics.interval(statistics.mean, scores, level=0.9), theirs)
    assert statistics.interval(statistics.mean, np.full(5, 3.0)) == (3.0, 3.0)


def test_the_mean_over_tasks_has_the_freedom_of_welch_and_satterthwaite():
    """If one task's sign is flipped, it is Welch's interval of a difference."""
    scores = np.random.default_rng(0).normal(0.0, [1.0, 4.0], (8, 2))
    welch = scipy.stats.ttest_ind(scores[:, 0], -scores[:, 1], equal_var=False)
    variances = scores.var(axis=0, ddof=1)
    freedom = np.floor(7 * variances.sum() ** 2 / (variances**2).sum())
    assert freedom == np.floor(welch.df)
    reach = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(variances.sum() / 8) / 2
    middle = scores.mean()
    np.testing.assert_allclose(
        statistics.interval(statistics.mean, scores), (middle - reach, middle + reach)
    )


def test_quantiles_and_bands_are_those_of_scipy():
    for freedom, probability in itertools.product((1, 2, 3, 8, 9, 40), (0.6, 0.95, 0.995)):
        np.testing.assert_allclose(
            intervals.student_quantile(probability, freedom),
            scipy.stats.t.ppf(probability, freedom),
            rtol=1e-9,
        )
    scores = np.arange(1.0, 8.0)
    low, high = statistics.profile_band(scores, np.array([0.5, 4.5, 9.0]))  # 7, 3, 0 are above
    exact = [scipy.stats.binomtest(k, 7).proportion_ci(method="exact") for k in (7, 3, 0)]
    np.testing.assert_allclose(np.array([low, high]).T, exact, atol=1e-9)


@pytest.mark.parametrize(("num_seeds", "shift"), [(3, 2.0), (10, 0.0)])
def test_the_interval_of_an_improvement_keeps_its_promise(num_seeds, shift):
    """At three seeds, the bootstrap covers .92 in 37% of cases: it has no width if all win."""
    rng = np.random.default_rng(0)
    truth = scipy.stats.norm.cdf(shift / np.sqrt(2))
    x, y = rng.normal(shift, 1, (400, num_seeds)), rng.normal(0, 1, (400, num_seeds))
    low, high = np.array(
        [statistics.improvement_interval(*pair) for pair in zip(x, y, strict=True)]
    ).T
    assert np.mean((low <= truth) & (high >= truth)) > 0.94
    assert (low >= 0).all()
    assert (high <= 1).all()
    all_better = statistics.improvement_interval(x[0] + 99, y[0])
    assert all_better[1] == 1.0
    assert all_better[0] < 0.9


def test_too_few_seeds_have_no_interval():
    two = np.array([1.0, 2.0])
    for ends in (
        statistics.interval(statistics.mean, two),
        statistics.interval(statistics.interquartile_mean, two),
        statistics.improvement_interval(two, np.arange(9.0)),
        statistics.profile_band(two, np.array([1.5])),
        statistics.interval(statistics.mean, np.array([1.0, 2.0, np.nan])),
    ):
        assert np.isnan(ends).all()
    summary = statistics.summarize(two)
    assert np.isnan([summary["ci_low"], summary["ci_high"]]).all()
