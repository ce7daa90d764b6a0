"""The learning curve of one run."""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def learning_curve(
    steps: np.ndarray, returns: np.ndarray, path: Path, *, title: str = ""
) -> None:
    """Draws the evaluation return over steps, a thin line a seed and the mean with its range.

    Args:
      steps: `[E]` environment steps of each seed.
      returns: `[E, seeds]` mean return of each evaluation; NaN leaves a gap.
      path: the PNG to write.
      title: above the axes.
    """
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    num_seeds = returns.shape[1]
    marker = "o" if len(steps) < 40 else None
    if num_seeds > 1:
        axes.plot(steps, returns, color="tab:blue", alpha=0.25, linewidth=0.8)
        mean, std = np.mean(returns, axis=1), np.std(returns, axis=1)
        axes.fill_between(steps, mean - std, mean + std, color="tab:blue", alpha=0.15, linewidth=0)
        label = f"mean of {num_seeds} seeds ± standard deviation"
        axes.plot(steps, mean, color="tab:blue", linewidth=2, marker=marker, ms=4, label=label)
        axes.legend(loc="best", frameon=False)
    else:
        axes.plot(steps, returns[:, 0], color="tab:blue", linewidth=2, marker=marker, ms=4)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of an evaluation episode")
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)
