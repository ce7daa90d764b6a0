"""Statistics over seeds, after Agarwal et al. (2021), "Deep RL at the edge of the precipice"."""

from collections.abc import Callable
from typing import Any

import numpy as np


def mean_of_finished(returns: np.ndarray) -> np.ndarray:
    """The mean over the last axis without its NaNs (unfinished episodes); NaN where all are."""
    finished = np.isfinite(returns)
    total, count = np.where(finished, returns, 0.0).sum(-1, dtype=np.float64), finished.sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def iqm(scores: np.ndarray) -> float:
    """The interquartile mean: of the entries without a quarter at each end; NaN if any is."""
    ordered = np.sort(np.asarray(scores, np.float64), axis=None)
    if np.isnan(ordered).any():  # sorted last, where it might be cut
        return float("nan")
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def _mean_of_rows(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=1)


def iqm_of_rows(rows: np.ndarray) -> np.ndarray:
    """The interquartile mean of each row, for `bootstrap_interval`."""
    return np.apply_along_axis(iqm, 1, rows)


def bootstrap_interval(
    per_seed: np.ndarray,
    *,
    level: float = 0.95,
    num_samples: int = 10_000,
    statistic: Callable[[np.ndarray], np.ndarray] = _mean_of_rows,
) -> tuple[float, float]:
    """The percentile-bootstrap interval of the mean over seeds; NaN for fewer than two seeds.

    `statistic` is another one, from rows of seeds `[num_samples, seeds]` to `[num_samples]`.

    With one environment the stratified bootstrap is the plain one: seeds drawn with replacement.
    The draw is fixed, so that the same scores give the same interval.
    """
    per_seed = np.asarray(per_seed, np.float64)
    if per_seed.size < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(0).integers(0, per_seed.size, (num_samples, per_seed.size))
    values = statistic(per_seed[draws])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summarize(per_seed: np.ndarray) -> dict[str, Any]:
    """Mean, deviation (of the population of seeds), IQM and the mean's 95% interval."""
    per_seed = np.asarray(per_seed, np.float64)
    low, high = bootstrap_interval(per_seed)
    return {
        "mean": float(per_seed.mean()),
        "std": float(per_seed.std()),
        "iqm": iqm(per_seed),
        "ci_low": low,
        "ci_high": high,
        "per_seed": per_seed.tolist(),
    }
