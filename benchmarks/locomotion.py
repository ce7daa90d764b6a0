"""PPO, SAC, TD3 and CMA-ES on brax's hopper, by steps and by time: writes docs/locomotion_*.png.

    python -m benchmarks.scores hopper-ppo hopper-sac hopper-td3 hopper-cma   train missing seeds
    python -m benchmarks.locomotion                                           plot the results

Train the rows on an idle machine, since the second figure shows training time. CMA-ES is only in
that one: its steps are a budget, of which episodes that end early leave a part.
"""

from pathlib import Path

import numpy as np

from benchmarks.figures import figure
from benchmarks.rows import ROWS
from benchmarks.scores import Batch, load

DOCS = Path(__file__).parent.parent / "docs"
ALGORITHMS = {"ppo": "PPO", "sac": "SAC", "td3": "TD3"}


def by_steps(batch: Batch) -> np.ndarray:
    """Thousands of steps at each evaluation, `[E]`."""
    return np.array(batch.steps) / 1e3


def by_time(batch: Batch) -> np.ndarray:
    """Minutes of training at each evaluation, without compilation and evaluation, `[E]`."""
    if batch.seconds is not None:
        return np.array(batch.seconds) / 60
    return np.array(batch.steps) / batch.steps[-1] * batch.train_seconds / 60


def draw(name: str, xlabel: str, position, xscale: str, algorithms: dict[str, str]) -> None:
    """Plots each seed as a thin line and their mean as a thick one.

    Args:
      name: of the file.
      xlabel: what `position` returns.
      position: where the evaluations of a batch stand on the x axis, `[E]`.
      xscale: of that axis.
      algorithms: suffixes of the rows, and their names.
    """
    with figure(
        DOCS / f"locomotion_{name}.png",
        xlabel=xlabel,
        ylabel="return (mean action, whole episodes)",
        title="brax hopper, 2 CPU cores, 3 seeds each",
    ) as axes:
        axes.set_xscale(xscale)
        for i, (algorithm, label) in enumerate(algorithms.items()):
            color = f"C{i}"
            result = load(ROWS[f"hopper-{algorithm}"])
            if result is None:
                print(
                    f"hopper-{algorithm} is missing: python -m benchmarks.scores hopper-{algorithm}"
                )
                continue
            x = np.array([position(batch) for batch in result.batches])
            returns = np.array([batch.curve for batch in result.batches], float)[..., 0]
            axes.plot(x.T, returns.T, color=color, alpha=0.35, linewidth=1)
            axes.plot(x.mean(0), returns.mean(0), color=color, linewidth=2.5, label=label)


def main() -> None:
    draw("steps", "thousands of environment steps", by_steps, "log", ALGORITHMS)
    everyone = ALGORITHMS | {"cma": "CMA-ES, 8 hidden units"}
    draw("time", "minutes of training", by_time, "linear", everyone)


if __name__ == "__main__":
    main()
