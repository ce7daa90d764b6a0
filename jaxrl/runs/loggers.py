"""Where else the numbers of a run go: TensorBoard, which a run directory has, Weights & Biases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.runs.events import Evaluation, Event

UNTOLD = ("step", "seed", "train_seconds")
"""Columns of a line of metrics.jsonl that are no curves of their own."""


class TensorBoard:
    """Event files of the lines of metrics.jsonl, a directory for each member of a run."""

    def __init__(self, path: Path, labels: Sequence[Mapping[str, Any]], steps: int = 0):
        """Logs into `path`; what was logged there after `steps` steps is not shown any more."""
        from tensorboardX import SummaryWriter  # deferred: it takes a third of a second

        self._writers = [
            SummaryWriter(
                str(path / member_name(label) if len(labels) > 1 else path), purge_step=steps + 1
            )
            for label in labels
        ]

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds an evaluation: one line of metrics.jsonl a member."""
        for writer, row in zip(self._writers, rows, strict=True):
            for name, value in row.items():
                number = isinstance(value, int | float | np.number) and np.isfinite(value)
                if name not in UNTOLD and number:
                    group = "evaluation" if name.startswith(EVALUATED) else "training"
                    writer.add_scalar(f"{group}/{name}", float(value), row["step"])
            writer.flush()

    def close(self) -> None:
        """Ends the threads that write."""
        for writer in self._writers:
            writer.close()


EVALUATED = ("return_", "length_", "episodes", "unfinished_episodes")


class WeightsAndBiases:
    """A callback that logs to Weights & Biases; needs the extra `wandb`, and its login.

        fit(..., callbacks=[WeightsAndBiases(project="cartpole", labels=[{"seed": 0}])])

    A member is a run of its own, all of one group. The key of an account is where wandb looks for
    it, in its own settings or `WANDB_API_KEY`; jaxrl never sees it.
    """

    def __init__(
        self,
        project: str,
        labels: Sequence[Mapping[str, Any]],
        *,
        config: Mapping[str, Any] | None = None,
        group: str | None = None,
        directory: Path | str | None = None,
        mode: Any = None,
    ):
        """Begins the runs.

        Args:
          project: where they appear.
          labels: what tells each member from the others.
          config: shown beside each run.
          group: their name together.
          directory: for wandb's files.
          mode: "online", "offline" or "disabled"; None for wandb's own choice.

        Raises:
          ValueError: wandb is not installed.
        """
        try:
            import wandb
        except ImportError:
            raise ValueError("wandb is not installed: pip install 'jaxrl[wandb]'") from None
        if directory is not None:
            Path(directory).mkdir(parents=True, exist_ok=True)
        self._runs = [
            wandb.init(
                project=project,
                name=member_name(label),
                group=group,
                config={**(config or {}), **label},
                dir=directory,
                mode=mode,
                reinit="create_new",
            )
            for label in labels
        ]

    def __call__(self, event: Event) -> None:
        """Logs an evaluation, beside what training reported since the one before."""
        if not isinstance(event, Evaluation):
            return
        for i, run in enumerate(self._runs):
            told = {"evaluation/return_mean": event.return_means[i]}
            told |= {f"training/{name}": values[i] for name, values in event.training.items()}
            run.log({k: float(v) for k, v in told.items() if np.isfinite(v)}, step=event.steps)

    def close(self) -> None:
        """Ends the runs, and waits until they are sent."""
        for run in self._runs:
            run.finish()


def member_name(label: Mapping[str, Any]) -> str:
    """`seed=0,learning_rate=0.001`"""
    return ",".join(f"{name}={value}" for name, value in label.items())
