"""Records a run in its directory: metrics, checkpoints, best state and summary; and restores it."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import Replay
from jaxrl.analysis.plots import learning_curve
from jaxrl.analysis.statistics import episode_statistics, summarize
from jaxrl.devices import hosts
from jaxrl.engine import hosted
from jaxrl.engine.learners import TrainState
from jaxrl.errors import InvalidValue, JaxrlError
from jaxrl.runs import fingerprint
from jaxrl.runs.checkpoint import Contents, learned
from jaxrl.runs.checkpoint_files import Checkpoints, DamagedCheckpoint, replace_by
from jaxrl.runs.description import configuration, defaults, schedule_changes
from jaxrl.runs.directory import (
    RunDirectory,
    other_versions,
    plain,
    read_config,
    read_metrics,
)
from jaxrl.runs.disk import writing
from jaxrl.runs.events import (
    Best,
    Compiled,
    Evaluation,
    Event,
    Result,
    Resumed,
    Saved,
    describe_best,
)
from jaxrl.runs.loggers import Logger, TensorBoard, WeightsAndBiases, check_wandb
from jaxrl.runs.members import Members
from jaxrl.runs.run_config import Origin, changes
from jaxrl.runs.run_options import RunOptions
from jaxrl.runs.run_state import RunState


class Recorder:
    """Writes the files of a run directory from the events of the run.

    With several processes, only the first one's recorder writes; the others read, on resume.

    As a context manager, it stops its writer threads at the end.
    """

    def __init__(
        self,
        directory: RunDirectory,
        members: Members,
        options: RunOptions,
        origin: Origin | None = None,
    ):
        self.directory = directory
        self.members = members
        self.options = options
        self.labels = members.labels
        training = members.training
        agent, env = type(training.agent).__name__, type(training.envs.env).__name__
        self.origin = origin or Origin(algorithm=agent, environment=env)
        self._is_of_python = origin is None
        if options.wandb is not None:
            check_wandb()
        self.config = plain(configuration(members, options, self.origin))
        self.contents = Contents(
            directory.path, members, self.config, environment=fingerprint.of(training)
        )
        self.checkpoints = Checkpoints(directory.checkpoints, keep=options.keep_checkpoints)
        self.best: Best | None = None
        self.recorded_until = -1  # the last step in metrics.jsonl
        self._writes = hosts.is_first()
        self._begun = self._compiled = False
        self._loggers: list[Logger] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Closes everything; after an error, disk errors are ignored, as they are probably it."""
        with contextlib.ExitStack() as stack:
            for close in (self.checkpoints.close, *(logger.close for logger in self._loggers)):
                if error is not None:
                    stack.enter_context(contextlib.suppress(OSError))
                stack.callback(close)

    # Recording ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Writes config.json, so that the run can be resumed even if killed while it compiles."""
        hosts.by_first(lambda: self.directory.write_config(self.config, new=True))
        self._begun = True

    def retract(self) -> None:
        """Removes config.json if compilation failed, since it would fail again."""
        if self._writes and self._begun and not self._compiled:
            self.directory.retract_config()

    def __call__(self, event: Event) -> None:
        """Records an evaluation, one line of metrics.jsonl per member, and keeps the best state.

        A resumed run gets its new config.json once it is compiled. Other events are ignored.
        """
        if isinstance(event, Compiled):
            self._compiled = True
            if self._writes and not self._begun:
                self.directory.write_config(self.config)
        if not isinstance(event, Evaluation):
            return
        if self._writes and event.steps > self.recorded_until:
            rows = self._rows(event)
            self.directory.append_metrics(rows)
            for logger in self._begin_logs():
                logger.write(rows)
        if self.options.keep_best:
            highest = -np.inf if self.best is None else self.best.return_mean
            if event.return_mean > highest:
                self._keep(event)

    def _keep(self, event: Evaluation) -> None:
        """Replaces the best state so far, once the new one is fully written."""
        assert event.state is not None
        part = self.members.placement.collect(learned(event.state))
        if self._writes:
            record = self.contents.best_record(event)
            replace_by(self.directory.best, event.steps, {"learned": part}, record)
        self.best = Best(event.steps, event.return_mean)

    def _begin_logs(self) -> list[Logger]:
        """The loggers, started when there is something to log."""
        if not self._loggers:
            path, options = self.directory.path, self.options
            if options.tensorboard:
                logs = TensorBoard(self.directory.tensorboard, self.labels, self.recorded_until)
                self._loggers.append(logs)
            if options.wandb is not None:
                self._loggers.append(
                    WeightsAndBiases(
                        options.wandb, self.labels, config=self.config, group=path.name, path=path
                    )
                )
        return self._loggers

    def _rows(self, event: Evaluation) -> list[dict[str, Any]]:
        return [
            {
                "step": event.steps,
                **label,
                **episode_statistics(event.returns[i], event.lengths[i]),
                **{f"info/{name}": values[i] for name, values in event.info.items()},
                "diverged": i in event.diverged,
                "train_seconds": event.train_seconds,
                # a metric may have the name of a swept hyper-parameter
                **{
                    f"training_{name}" if name in label else name: values[i]
                    for name, values in event.training.items()
                },
            }
            for i, label in enumerate(self.labels)
        ]

    def save(self, run_state: RunState) -> Saved:
        """Saves a checkpoint in the background."""
        steps = self.members.training.steps_after(run_state.iteration)
        contents = self.contents
        if self._writes:
            self.checkpoints.save(steps, contents.parts(run_state), contents.record(run_state))
        return Saved(steps)

    def finish(self, result: Result) -> None:
        """Plots the learning curve and writes summary.json, which marks the run as complete."""
        if not self._writes:
            return
        self.checkpoints.wait()
        steps, returns, diverged = curve(list(read_metrics(self.directory.path)))
        title = f"{self.origin.algorithm} on {self.origin.environment}"
        with writing(self.directory.plot):
            learning_curve(steps, returns, self.directory.plot, title=title, diverged=diverged)
        self.directory.write_summary(result.summary())

    def give_up(self, why: str, run_state: RunState) -> None:
        """Writes summary.json for a run that cannot continue, with NaN as its final return."""
        if not self._writes:
            return
        steps = self.members.training.steps_after(run_state.iteration)
        self.directory.write_summary(
            {
                "env_steps": steps * len(self.members),
                "train_seconds": run_state.train_seconds,
                "final_return": summarize(
                    np.full(len(self.members), np.nan), sorted(run_state.diverged)
                ),
                "stopped": why,
                "diverged": [dataclasses.asdict(x) for x in run_state.diverged.values()],
                **(describe_best(self.best) if self.best else {}),
            }
        )

    # Resuming -------------------------------------------------------------------------------------

    def check_resumable(self) -> None:
        """Raises ValueError, naming the differences, if the directory contains another run."""
        record, declared = self._newest_record(), read_config(self.directory.path)
        then = record.get("config") or declared
        if changed := list(changes(then, self.config, plain(defaults(self.members.base)))):
            raise InvalidValue(
                f"{self.directory.path} contains a run with another configuration: "
                + ", ".join(changed)
                + "; restore it, or start a new run in another directory"
            )
        before, now = declared["total_steps"], self.members.training.total_steps
        if now < before:
            raise InvalidValue(
                f"total_steps is {now}, but the run in {self.directory.path} has {before}: it can "
                "only grow"
            )
        fingerprint.check(
            record.get("environment"), self.contents.environment, record.get("versions", {})
        )

    def _newest_record(self) -> dict[str, Any]:
        for step in self.checkpoints.steps():
            with contextlib.suppress(DamagedCheckpoint):
                return self.checkpoints.record(step)
        return {}

    def restore(self, run_state: RunState, tell: Callable[[Event], None]) -> bool:
        """Restores `run_state` from the newest intact checkpoint; returns whether there is one.

        Sends `Resumed` with notes about damaged checkpoints, other versions or a new horizon.

        Args:
          run_state: of a new run; its state may consist of shapes.
          tell: sends events.
        """

        def first() -> tuple[int, list[str], str]:
            step, notes = self._restore_newest(run_state)
            if step >= 0 and hosted.collects(training := self.members.training):
                notes.append(
                    f"new episodes start in all environments: the state of "
                    f"{training.envs.env.host.name} cannot be saved"
                )
            self.recorded_until = self.directory.keep_metrics(step)
            return step, notes, self._seal(step) if several else ""

        several = hosts.count() > 1
        step, notes, seal = hosts.by_first(first)
        if several:
            hosts.together(self._restore_as_first(run_state, step, seal))
        self.best = self._best_so_far()
        tell(Resumed(max(step, 0), tuple(notes)))
        return step >= 0

    def _restore_newest(self, run_state: RunState) -> tuple[int, list[str]]:
        """Restores the newest intact checkpoint; returns its step, or -1, and notes."""
        notes: list[str] = []
        for step in self.checkpoints.steps():
            try:
                record = self.checkpoints.record(step)
                load = functools.partial(self.checkpoints.load, step)
                self.contents.restore(run_state, step, record, load)
            except DamagedCheckpoint as damage:
                aside = self.checkpoints.put_aside(step)
                self.directory.copy_metrics(aside)
                notes.append(f"checkpoint {step} is damaged ({damage}), moved to {aside}")
                continue
            return step, notes + self._notes(record, run_state)
        return -1, [*notes, "no checkpoint yet: starting over with the same seeds"]

    def _seal(self, step: int) -> str:
        """What two processes that read the same checkpoint agree on."""
        return json.dumps(self.checkpoints.record(step), sort_keys=True) if step >= 0 else ""

    def _restore_as_first(self, run_state: RunState, step: int, seal: str) -> str | None:
        """Restores the first process's checkpoint in the others; returns what prevents it."""
        if self._writes or step < 0:
            return None
        try:
            if self._seal(step) == seal:
                record = self.checkpoints.record(step)
                load = functools.partial(self.checkpoints.load, step)
                self.contents.restore(run_state, step, record, load)
                return None
        except (JaxrlError, OSError):
            pass
        return (
            f"process {jax.process_index()} does not see checkpoint {step} of "
            f"{self.directory.path}: put the run on a file system that all processes share"
        )

    def _best_so_far(self) -> Best | None:
        """The best evaluation so far, which may be later than the newest checkpoint."""
        bests = Checkpoints(self.directory.best)
        for step in bests.steps():
            with contextlib.suppress(DamagedCheckpoint):
                return Best(step, bests.record(step)["return_mean"])
        return None

    def _notes(self, record: dict[str, Any], run_state: RunState) -> list[str]:
        notes = []
        if others := other_versions(record.get("versions", {})):
            notes.append(f"the run used {others}: results may differ in rounding")
        devices, now = record.get("devices", 1), len(self.members.placement.devices)
        if devices != now:
            is_replay = isinstance(self.members.training.agent.plan, Replay)
            rows = " and in sampled rows" if is_replay and len(self.members) == 1 else ""
            notes.append(
                f"devices: {devices} before, {now} now: results may differ in rounding{rows}"
            )
        training, then = self.members.training, record.get("num_iterations")
        if then is not None and then != training.num_iterations:
            now, steps = training.num_iterations, training.steps_after(then)
            notes.append(
                f"the horizon is now {training.total_steps:,} steps instead of {steps:,}: "
                + schedule_changes(self.members.base, run_state.iteration, then, now)
            )
        return notes

    def last_good_checkpoint(self, like: TrainState) -> str:
        """A phrase that names the newest checkpoint without non-finite numbers.

        Args:
          like: shapes of the state.
        """
        self.checkpoints.wait()
        for step in self.checkpoints.steps():
            try:
                part = self.checkpoints.load(step, "learned", learned(like))
            except DamagedCheckpoint:
                continue
            floats = (x for x in jax.tree.leaves(part) if jnp.issubdtype(x.dtype, jnp.inexact))
            if all(np.isfinite(np.asarray(x, np.float64)).all() for x in floats):
                return f"the last good checkpoint is {self.directory.checkpoints / str(step)}"
        return "there is no good checkpoint"

    def how_to_resume(self, run_state: RunState) -> str:
        """A message for a user who has interrupted the run."""
        self.checkpoints.wait()
        steps = self.members.training.steps_after(run_state.iteration)
        return f"saved after {steps:,} steps; {self.go_on}"

    @property
    def go_on(self) -> str:
        """How to resume the run."""
        path = self.directory.path
        if self._is_of_python:  # the command knows neither its agent nor its environment
            return f"resume with: fit(..., run_dir={str(path)!r}, resume=True)"
        return f"resume with: {self.directory.resume_command}"

    def recovery_hint(self) -> str:
        """A message about a run that could not be written any further; empty if nothing is left."""
        if not (self.directory.path / "config.json").exists():
            return ""
        steps = self.checkpoints.steps()
        last = "no checkpoint yet"
        if steps:
            last = f"the last checkpoint is {self.directory.checkpoints / str(steps[0])}"
        return f"; {last}; {self.go_on}"


def curve(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Converts the lines of metrics.jsonl to arrays.

    Returns:
      Steps `[E]`, mean returns `[E, members]` (NaN for null), and whether a member had diverged,
      `[E, members]`.
    """
    steps = list(dict.fromkeys(row["step"] for row in rows))
    returns = [row["return_mean"] for row in rows]
    filled = np.array([np.nan if x is None else x for x in returns], np.float64)
    diverged = np.array([row.get("diverged", False) for row in rows], bool)
    return np.array(steps), filled.reshape(len(steps), -1), diverged.reshape(len(steps), -1)
