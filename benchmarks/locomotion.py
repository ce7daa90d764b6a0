"""PPO, SAC and TD3 on brax's hopper, by steps and by time: writes docs/locomotion_*.png.

    python -m benchmarks.scores hopper-ppo hopper-sac hopper-td3    train missing seeds
    python -m benchmarks.locomotion                                 plot the results

Train the rows on an idle machine, since the second figure shows training time.
"""

from pathlib import Path

import numpy as np

from benchmarks.figures import figure
from benchmarks.rows import ROWS
from benchmarks.scores import Batch, load

DOCS = Path(__file__).parent.parent / "docs"
ALGORITHMS = ("ppo", "sac", "td3")


def by_steps(batch: Batch) -> np.ndarray:
    """Thousands of steps at each evaluation, `[E]`."""
    return np.array(batch.steps) / 1e3


def by_time(batch: Batch) -> np.ndarray:
    """Minutes of training at each evaluation, without compilation and evaluation, `[E]`."""
    return np.array(batch.steps) / batch.steps[-1] * batch.train_seconds / 60


def draw(name: str, xlabel: str, position, xscale: str) -> None:
    """Plots each seed as a thin line and their mean as a thick one."""
    with figure(
        DOCS / f"locomotion_{name}.png",
        xlabel=xlabel,
        ylabel="return (mean action, whole episodes)",
        title="brax hopper, 2 CPU cores, 3 seeds each",
    ) as axes:
        axes.set_xscale(xscale)
        for algorithm, color in zip(ALGORITHMS, ("C0", "C1", "C2"), strict=True):
            result = load(ROWS[f"hopper-{algorithm}"])
            if result is None:
                print(
                    f"hopper-{algorithm} is missing: python -m benchmarks.scores hopper-{algorithm}"
                )
                continue
            x = np.array([position(batch) for batch in result.batches])
            returns = np.array([batch.curve for batch in result.batches], float)[..., 0]
            axes.plot(x.T, returns.T, color=color, alpha=0.35, linewidth=1)
            axes.plot(
                x.mean(0), returns.mean(0), color=color, linewidth=2.5, label=algorithm.upper()
            )


def main() -> None:
    draw("steps", "thousands of environment steps", by_steps, "log")
    draw("time", "minutes of training", by_time, "linear")


if __name__ == "__main__":
    main()
