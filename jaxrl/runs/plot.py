"""The learning curve of one run."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # pyplot would choose a backend for the whole process
from matplotlib.ticker import EngFormatter

COLOUR = "tab:blue"


def learning_curve(steps: np.ndarray, returns: np.ndarray, path: Path, *, title: str = "") -> None:
    """Draws the evaluation return over steps: a thin line a seed, their range and their mean.

    Args:
      steps: `[E]` environment steps of each seed.
      returns: `[E, seeds]` mean return of each evaluation; NaN leaves a gap.
      path: the PNG to write.
      title: above the axes.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    num_seeds = returns.shape[1]
    marker = "o" if len(steps) < 40 else None
    if num_seeds > 1:
        low, high = returns.min(axis=1), returns.max(axis=1)
        axes.fill_between(steps, low, high, color=COLOUR, alpha=0.12, linewidth=0)
        axes.plot(steps, returns, color=COLOUR, alpha=0.3, linewidth=0.8)
    label = f"mean of {num_seeds} seeds; shaded: lowest to highest" if num_seeds > 1 else None
    mean = returns.mean(axis=1)
    axes.plot(steps, mean, color=COLOUR, linewidth=2, marker=marker, markersize=4, label=label)
    if label:
        axes.legend(loc="best", frameon=False)
    if not np.isfinite(returns).any():
        axes.text(0.5, 0.5, "no episode finished", transform=axes.transAxes, ha="center")
        axes.set_yticks([])
    axes.set_xlabel("environment steps" + (" of each seed" if num_seeds > 1 else ""))
    axes.set_ylabel("mean return of an evaluation")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlim(0, 1.02 * steps[-1])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left")
    figure.savefig(path, dpi=120)
