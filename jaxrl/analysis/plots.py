"""Plots of learning curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # pyplot would choose a backend for the whole process
from matplotlib.ticker import EngFormatter, ScalarFormatter

from jaxrl.analysis.curves import Curve
from jaxrl.analysis.statistics import counted, interval
from jaxrl.analysis.statistics import mean as mean_of_all

COLOUR = "tab:blue"
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink",
           "tab:gray", "tab:olive", "tab:cyan")  # fmt: skip


def learning_curve(
    steps: np.ndarray,
    returns: np.ndarray,
    path: Path,
    *,
    title: str = "",
    diverged: np.ndarray | None = None,
) -> None:
    """Plots the evaluation return over steps: a thin line per seed, their range and their mean.

    Args:
      steps: `[E]`, environment steps of each seed.
      returns: `[E, seeds]`, mean return of each evaluation; NaN leaves a gap.
      path: the PNG to write.
      title: title of the plot.
      diverged: `bool[E, seeds]`, seeds that had diverged and are left out; None for none.
    """
    lost = np.zeros(returns.shape, bool) if diverged is None else diverged
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    num_seeds = returns.shape[1]
    marker = "o" if len(steps) < 40 else None
    if num_seeds > 1:
        low = np.where(lost, np.inf, returns).min(axis=1)
        high = np.where(lost, -np.inf, returns).max(axis=1)
        low, high = (np.where(lost.all(axis=1), np.nan, ends) for ends in (low, high))
        axes.fill_between(steps, low, high, color=COLOUR, alpha=0.12, linewidth=0)
        axes.plot(steps, returns, color=COLOUR, alpha=0.3, linewidth=0.8)
    label = f"mean of {num_seeds} seeds; shaded: lowest to highest" if num_seeds > 1 else None
    if label and lost.any():
        label += f"\n{lost[-1].sum()} diverged and left out"
    mean = np.array(
        [counted(*pair).mean() for pair in zip(returns, map(np.flatnonzero, lost), strict=True)]
    )
    axes.plot(steps, mean, color=COLOUR, linewidth=2, marker=marker, markersize=4, label=label)
    if label:
        axes.legend(loc="best", frameon=False)
    if not np.isfinite(returns).any():
        axes.text(0.5, 0.5, "no episode finished", transform=axes.transAxes, ha="center")
        axes.set_yticks([])
    axes.set_xlabel("environment steps" + (" of each seed" if num_seeds > 1 else ""))
    axes.set_ylabel("mean return of an evaluation")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(0, 1.02 * max(steps[-1], 1))
    finish_axes(axes)
    axes.set_title(title, loc="left")
    figure.savefig(path, dpi=120)


def learning_curves(curves: Sequence[Curve], path: Path, *, metric: str = "return_mean") -> None:
    """Plots several curves over steps and over training time: means with 95% intervals.

    There is a row of panels for each environment. The band is `statistics.interval` over seeds;
    with fewer than three seeds there is none.

    Args:
      curves: at least one.
      path: the PNG to write.
      metric: name of the metric, for the axis.
    """
    environments = list(dict.fromkeys(curve.environment for curve in curves))
    figure = Figure(figsize=(10, 0.6 + 3.4 * len(environments)), layout="constrained")
    rows = figure.subplots(len(environments), 2, squeeze=False, sharey="row")
    for (left, right), environment in zip(rows, environments, strict=True):
        here = [curve for curve in curves if curve.environment == environment]
        for i, curve in enumerate(here):
            colour, marker = COLOURS[i % len(COLOURS)], "o" if len(curve.steps) < 40 else None
            band = _band(curve.counted)
            seeds = curve.values.shape[1]
            label = f"{curve.label} ({curve.size} seed{'s' if seeds > 1 else ''})"
            for axes, x in ((left, curve.steps), (right, curve.seconds)):
                axes.plot(
                    x, curve.means, color=colour, marker=marker, markersize=3,
                    label=label,
                )  # fmt: skip
                axes.fill_between(x, *band, color=colour, alpha=0.18, linewidth=0)
        left.set_title(environment, loc="left")
        left.set_ylabel("mean return of an evaluation" if metric == "return_mean" else metric)
        left.set_xlabel("environment steps of each seed")
        right.set_xlabel("seconds of training, all seeds of a run together")
        left.xaxis.set_major_formatter(EngFormatter(sep=""))
        left.legend(loc="best", frameon=False)
        for axes in (left, right):
            axes.set_xlim(left=0)
            finish_axes(axes)
    figure.savefig(path, dpi=120)


def _band(values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The interval of the mean at each evaluation, both `[E]`; NaN with too few seeds."""
    low, high = np.array([interval(mean_of_all, row) for row in values]).T
    return low, high


def finish_axes(axes: Any) -> None:
    """Applies the common style to the axes."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if isinstance(axes.yaxis.get_major_formatter(), ScalarFormatter):  # numbers, not names
        axes.ticklabel_format(axis="y", useOffset=False)
