"""Comparison of groups of runs: a table with confidence intervals, and a plot."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxrl.analysis.curves import Curve
from jaxrl.analysis.intervals import MIN_SEEDS
from jaxrl.analysis.plots import COLOURS, finish_axes
from jaxrl.analysis.statistics import (
    improvement_interval,
    interquartile_mean,
    interval,
    mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    profile_band,
)
from jaxrl.runs.text import aligned


def median_of_seeds(scores: np.ndarray) -> np.ndarray:
    """The median over seeds of one task, `[..., seeds, 1]`; `statistics.median` is over tasks."""
    return np.median(scores[..., 0], -1)


GAP = "optimality gap"
SHOWN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": mean,
    "median": median_of_seeds,
    "IQM": interquartile_mean,
}


def table(curves: Sequence[Curve], goal: float | None = None) -> str:
    """A text table of the final results of each curve, by environment.

    Statistics over seeds have a 95% interval (`statistics.interval`) if there are enough seeds.
    "P(better than first)" is the probability that a seed of the curve beats one of the first curve
    in its environment.

    Args:
      curves: the curves to compare.
      goal: a target return, which adds the optimality gap; None for none.
    """
    names = list(SHOWN if goal is None else _with_goal(goal))
    head = ["", "seeds", "steps", *names, "P(better than first)", "training"]
    rows = [head]
    for environment in dict.fromkeys(curve.environment for curve in curves):
        here = [curve for curve in curves if curve.environment == environment]
        rows.append([environment, *[""] * (len(head) - 1)])
        for curve in here:
            scores = curve.final[:, None]
            cells = [_with_interval(name, scores, goal) for name in names]
            better = "" if curve is here[0] else _improvement(curve, here[0])
            steps, seconds = f"{curve.steps[-1]:,}", f"{curve.seconds[-1]:.1f} s"
            rows.append([f"  {curve.label}", curve.size, steps, *cells, better, seconds])
    lines = [aligned(rows, left=1)]
    few = [curve.label for curve in curves if curve.final.size < MIN_SEEDS]
    if few:
        who = few[0] if len(few) == 1 else f"{len(few)} of {len(curves)} rows"
        lines.append(f"fewer than three seeds are too few for an interval: {who}")
    return "\n".join(lines)


def _with_goal(goal: float) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    return {**SHOWN, GAP: functools.partial(optimality_gap, goal=goal)}


def _with_interval(name: str, scores: np.ndarray, goal: float | None) -> str:
    statistic = SHOWN[name] if goal is None else _with_goal(goal)[name]
    low, high = interval(statistic, scores)
    if name == GAP:
        low = np.maximum(low, 0.0)  # a gap is not negative
    return _interval_text(float(statistic(scores)), (low, high), "{:.1f}")


def _improvement(curve: Curve, first: Curve) -> str:
    x, y = curve.final[:, None], first.final[:, None]
    value = float(probability_of_improvement(x, y))
    return _interval_text(value, improvement_interval(x, y), "{:.2f}")


def _interval_text(value: float, ends: tuple[float, float], form: str) -> str:
    low, high = ends
    if np.isnan(low):
        return form.format(value)
    return f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Plots, for each environment, intervals of the aggregates and performance profiles."""
    environments = list(dict.fromkeys(curve.environment for curve in curves))
    figure = Figure(figsize=(10, 0.6 + 3.2 * len(environments)), layout="constrained")
    axes = figure.subplots(len(environments), 2, squeeze=False, width_ratios=(3, 2))
    for (left, right), environment in zip(axes, environments, strict=True):
        here = [curve for curve in curves if curve.environment == environment]
        _draw_intervals(left, here)
        _draw_profiles(right, here)
        left.set_title(environment, loc="left")
        left.set_xlabel("return at the end")
        right.set_xlabel("return τ")
        right.set_ylabel("share of seeds above τ")
    figure.savefig(path, dpi=120)


def _draw_intervals(axes: Any, curves: Sequence[Curve]) -> None:
    """Plots each aggregate of each curve with its interval."""
    heights = np.linspace(0.25, -0.25, len(SHOWN))
    for i, curve in enumerate(curves):
        scores = curve.final[:, None]
        for (name, statistic), height, marker in zip(SHOWN.items(), heights, "osD", strict=True):
            low, high = interval(statistic, scores)
            y, value = height - i, statistic(scores)
            colour = COLOURS[i % len(COLOURS)]
            axes.plot([low, high], [y, y], color=colour, linewidth=5, alpha=0.35)
            label = name if i == 0 else None
            axes.plot(value, y, marker, color=colour, markersize=6, label=label)
    axes.set_yticks([-i for i in range(len(curves))], [curve.label for curve in curves])
    axes.legend(loc="best", frameon=False)
    finish_axes(axes)


def _draw_profiles(axes: Any, curves: Sequence[Curve]) -> None:
    """Plots the performance profile of each curve with its band."""
    every = np.concatenate([curve.final for curve in curves])
    every = every[np.isfinite(every)]
    low, high = (every.min(), every.max()) if every.size else (0.0, 1.0)
    margin = 0.05 * (high - low) or 1.0
    thresholds = np.linspace(low - margin, high + margin, 200)
    for i, curve in enumerate(curves):
        scores = curve.final[:, None]
        profile, band = performance_profile(scores, thresholds), profile_band(scores, thresholds)
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(thresholds, profile, color=colour, label=curve.label)
        axes.fill_between(thresholds, *band, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(-0.03, 1.03)
    finish_axes(axes)
