"""Where else the numbers of a run go: TensorBoard, which a run directory has, Weights & Biases."""

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.errors import InvalidValue
from jaxrl.runs.disk import writing

UNTOLD = ("step", "seed", "train_seconds", "diverged")
"""Columns of a line of metrics.jsonl that are no curves of their own."""
EVALUATED = ("return_", "length_", "episodes", "unfinished_episodes", "info/")
"""How columns begin that an evaluation has, and not training."""


class TensorBoard:
    """Event files of the lines of metrics.jsonl, a directory for each member of a run.

    Without tensorboardX's own thread, which dies where the disk is full, and then blocks the run.
    """

    def __init__(self, path: Path, labels: Sequence[Mapping[str, Any]], steps: int = 0):
        """Logs into `path`; what was logged there after `steps` steps is not shown any more.

        Raises:
          WriteError: here and later, the files cannot be written.
        """
        # deferred: they take a third of a second
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        # A name by the second, tensorboardX's own, would overwrite what a run that goes on within
        # that second has logged.
        suffix = f".{time.time_ns()}"
        self._path = path
        self._writers = []
        with writing(path):
            for label in labels:
                folder = path / member_name(label) if len(labels) > 1 else path
                folder.mkdir(parents=True, exist_ok=True)
                self._writers.append(EventsWriter(str(folder / "events"), suffix))
                self._add(-1, steps + 1, file_version="brain.Event:2")
                self._add(-1, steps + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds an evaluation: one line of metrics.jsonl a member."""
        from tensorboardX.summary import scalar

        with writing(self._path):
            for i, row in enumerate(rows):
                for name, value in _curves(row):
                    self._add(i, row["step"], summary=scalar(name, value))
                self._writers[i].flush()

    def _add(self, member: int, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, **content)
        self._writers[member].write_event(event)

    def close(self) -> None:
        """Closes the files."""
        with writing(self._path):
            for writer in self._writers:
                writer.close()


class WeightsAndBiases:
    """Runs of Weights & Biases, one a member, all of one group.

    The key of an account is where wandb looks for it, in its own settings or `WANDB_API_KEY`; jaxrl
    neither sees nor writes it. `WANDB_MODE=offline` keeps everything on this machine.
    """

    def __init__(
        self,
        project: str,
        labels: Sequence[Mapping[str, Any]],
        *,
        config: Mapping[str, Any],
        group: str,
        path: Path,
    ):
        """Begins the runs.

        Args:
          project: where they appear.
          labels: what tells each member from the others.
          config: shown beside each run.
          group: their name together.
          path: the directory for wandb's files.
        """
        import wandb  # the extra

        with writing(path):
            self._runs = [
                wandb.init(
                    project=project,
                    name=f"{group} {member_name(label)}",
                    group=group,
                    config={**config, **label},
                    dir=path,
                    reinit="create_new",
                )
                for label in labels
            ]

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds an evaluation: one line of metrics.jsonl a member."""
        for run, row in zip(self._runs, rows, strict=True):
            run.log(dict(_curves(row)), step=row["step"])

    def close(self) -> None:
        """Ends the runs, and waits until they are sent."""
        for run in self._runs:
            run.finish()


Logger = TensorBoard | WeightsAndBiases


def check_wandb() -> None:
    """Raises ValueError where wandb is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise InvalidValue("wandb is not installed: pip install 'jaxrl[wandb]'")


def _curves(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line of metrics.jsonl that are curves, by their full names."""
    for name, value in row.items():
        number = isinstance(value, int | float | np.number) and np.isfinite(value)
        if name not in UNTOLD and number:
            group = "evaluation" if name.startswith(EVALUATED) else "training"
            yield f"{group}/{name}", float(value)


def member_name(label: Mapping[str, Any]) -> str:
    """`seed=0,learning_rate=0.001`"""
    return ",".join(f"{name}={value}" for name, value in label.items())
