"""Metric loggers: TensorBoard and Weights & Biases."""

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.errors import InvalidValue
from jaxrl.runs.disk import writing

NOT_LOGGED = ("step", "seed", "train_seconds", "diverged")
"""Columns of metrics.jsonl that are not logged as curves."""
EVALUATED = ("return_", "length_", "episodes", "unfinished_episodes", "info/")
"""Prefixes of columns that come from evaluation rather than training."""


class TensorBoard:
    """TensorBoard event files of metrics.jsonl, with a directory for each member of a run.

    It writes without tensorboardX's thread, which dies if the disk is full and then blocks the run.
    """

    def __init__(self, path: Path, labels: Sequence[Mapping[str, Any]], steps: int = 0):
        """Logs into `path`; earlier entries there after `steps` steps are no longer shown.

        Raises:
          WriteError: the files cannot be written, here or in later calls.
        """
        # imported here because they take a third of a second
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        # tensorboardX's default name has a resolution of a second, so a run resumed within that
        # second would overwrite its own log.
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
        """Adds an evaluation: one line of metrics.jsonl per member."""
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
    """Weights & Biases runs, one per member, in one group.

    wandb finds its API key in its own settings or in `WANDB_API_KEY`; jaxrl neither reads nor
    writes it. With `WANDB_MODE=offline`, nothing is sent.
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
        """Starts the runs.

        Args:
          project: name of the W&B project.
          labels: label of each member.
          config: configuration shown with each run.
          group: name of the group.
          path: directory for wandb's files.
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
        """Adds an evaluation: one line of metrics.jsonl per member."""
        for run, row in zip(self._runs, rows, strict=True):
            run.log(dict(_curves(row)), step=row["step"])

    def close(self) -> None:
        """Finishes the runs and waits until they are uploaded."""
        for run in self._runs:
            run.finish()


Logger = TensorBoard | WeightsAndBiases


def check_wandb() -> None:
    """Raises ValueError if wandb is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise InvalidValue("wandb is not installed: pip install 'jaxrl[wandb]'")


def _curves(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of a line of metrics.jsonl to log as curves, by full name."""
    for name, value in row.items():
        number = isinstance(value, int | float | np.number) and np.isfinite(value)
        if name not in NOT_LOGGED and number:
            group = "evaluation" if name.startswith(EVALUATED) else "training"
            yield f"{group}/{name}", float(value)


def member_name(label: Mapping[str, Any]) -> str:
    """The name of a member, such as `seed=0,learning_rate=0.001`."""
    return ",".join(f"{name}={value}" for name, value in label.items())
