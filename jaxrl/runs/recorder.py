"""Writes a run into its directory while it happens, and reads where it stood."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.analysis.plots import learning_curve
from jaxrl.analysis.statistics import of_episodes, summarize
from jaxrl.errors import InvalidValue
from jaxrl.runs import fingerprint
from jaxrl.runs.checkpoint import Contents, learned
from jaxrl.runs.checkpoint_files import Checkpoints, DamagedCheckpoint, replace_by
from jaxrl.runs.description import configuration, of_schedules
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
    """Turns the events of a run into the files of its directory. A context: it ends its threads."""

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
        self.told_until = -1  # the last step that metrics.jsonl has already
        self._begun = self._compiled = False
        self._loggers: list[Logger] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Where the run has failed, what fails now besides is left out: likely it is the same."""
        with contextlib.ExitStack() as stack:
            for close in (self.checkpoints.close, *(logger.close for logger in self._loggers)):
                if error is not None:
                    stack.enter_context(contextlib.suppress(OSError))
                stack.callback(close)

    # While it happens ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Writes config.json: a run that is killed from here on, compiling say, can be resumed."""
        self.directory.write_config(self.config, new=True)
        self._begun = True

    def retract(self) -> None:
        """Takes config.json away again where nothing was compiled: it will not be the next time."""
        if self._begun and not self._compiled:
            self.directory.retract_config()

    def __call__(self, event: Event) -> None:
        """Writes a line a member of metrics.jsonl for an evaluation. Other events pass, but that a
        run which goes on gets its new config.json once it is compiled."""
        if isinstance(event, Compiled):
            self._compiled = True
            if not self._begun:
                self.directory.write_config(self.config)
        if isinstance(event, Evaluation) and event.steps > self.told_until:
            rows = self._rows(event)
            self.directory.append_metrics(rows)
            for logger in self._begin_logs():
                logger.write(rows)
        if isinstance(event, Evaluation) and self.options.keep_best:
            highest = -np.inf if self.best is None else self.best.return_mean
            if event.return_mean > highest:
                self._keep(event)

    def _keep(self, event: Evaluation) -> None:
        """Keeps what was learned instead of the best so far, which stays until this is whole."""
        assert event.state is not None
        parts = {"learned": learned(event.state)}
        replace_by(self.directory.best, event.steps, parts, self.contents.best_record(event))
        self.best = Best(event.steps, event.return_mean)

    def _begin_logs(self) -> list[Logger]:
        """The loggers that the settings ask for, begun when there is something to log."""
        if not self._loggers:
            path, options = self.directory.path, self.options
            if options.tensorboard:
                logs = TensorBoard(self.directory.tensorboard, self.labels, self.told_until)
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
                **of_episodes(event.returns[i], event.lengths[i]),
                **{f"info/{name}": values[i] for name, values in event.info.items()},
                "diverged": i in event.diverged,
                "train_seconds": event.train_seconds,
                # a swept hyper-parameter and what became of it may have one name
                **{
                    f"training_{name}" if name in label else name: values[i]
                    for name, values in event.training.items()
                },
            }
            for i, label in enumerate(self.labels)
        ]

    def save(self, run_state: RunState) -> Saved:
        """Hands a checkpoint to the thread that writes it."""
        steps = self.members.training.steps_after(run_state.iteration)
        contents = self.contents
        self.checkpoints.save(steps, contents.parts(run_state), contents.record(run_state))
        return Saved(steps)

    def finish(self, result: Result) -> None:
        """Draws the learning curve and, last, writes summary.json: with it the run is complete."""
        self.checkpoints.wait()
        steps, returns, diverged = curve(list(read_metrics(self.directory.path)))
        title = f"{self.origin.algorithm} on {self.origin.environment}"
        with writing(self.directory.plot):
            learning_curve(steps, returns, self.directory.plot, title=title, diverged=diverged)
        self.directory.write_summary(result.summary())

    def give_up(self, why: str, run_state: RunState) -> None:
        """Writes summary.json of a run that cannot go on: nothing was reached."""
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

    # Where it stood -------------------------------------------------------------------------------

    def check_resumable(self) -> None:
        """Raises ValueError, with the names, where the run in the directory was another one."""
        record, declared = self._newest_record(), read_config(self.directory.path)
        then = record.get("config") or declared
        if changed := list(changes(then, self.config)):
            raise InvalidValue(
                f"{self.directory.path} holds a run of another configuration: "
                + ", ".join(changed)
                + "; give it as it was, or train anew in another directory"
            )
        before, now = declared["total_steps"], self.members.training.total_steps
        if now < before:
            raise InvalidValue(
                f"{self.directory.path} was to take {before} steps: a horizon can only grow, and "
                f"total_steps is {now}"
            )
        fingerprint.check(
            record.get("environment"), self.contents.environment, record.get("versions", {})
        )

    def _newest_record(self) -> dict[str, Any]:
        for step in self.checkpoints.steps():
            with contextlib.suppress(DamagedCheckpoint):
                return self.checkpoints.record(step)
        return {}

    def restore(self, run_state: RunState, tell: Callable[[Event], None]) -> None:
        """Puts the newest whole checkpoint into `run_state`, which stays as it is without one.

        Tells what one should know: damaged checkpoints, other versions, another horizon.
        """
        notes, restored = [], -1
        for step in self.checkpoints.steps():
            try:
                record = self.checkpoints.record(step)
                load = functools.partial(self.checkpoints.load, step)
                self.contents.restore(run_state, step, record, load)
            except DamagedCheckpoint as damage:
                aside = self.checkpoints.put_aside(step)
                self.directory.copy_metrics(aside)
                notes.append(f"the checkpoint {step} is damaged ({damage}), now {aside}")
                continue
            restored = step
            notes += self._notes(record, run_state)
            break
        else:
            notes.append("there is no checkpoint yet: beginning anew, with the same seeds")
        self.best = self._best_so_far()
        self.told_until = self.directory.keep_metrics(restored)
        tell(Resumed(max(restored, 0), tuple(notes)))

    def _best_so_far(self) -> Best | None:
        """What was kept before, also after the newest checkpoint: what comes must be better."""
        bests = Checkpoints(self.directory.best)
        for step in bests.steps():
            with contextlib.suppress(DamagedCheckpoint):
                return Best(step, bests.record(step)["return_mean"])
        return None

    def _notes(self, record: dict[str, Any], run_state: RunState) -> list[str]:
        notes = []
        if others := other_versions(record.get("versions", {})):
            notes.append(f"it ran on {others}: results may differ in rounding")
        training, then = self.members.training, record.get("num_iterations")
        if then is not None and then != training.num_iterations:
            now, steps = training.num_iterations, training.steps_after(then)
            notes.append(
                f"the horizon is {training.total_steps:,} steps and was {steps:,}: "
                + of_schedules(self.members.base, run_state.iteration, then, now)
            )
        return notes

    def last_good_checkpoint(self, run_state: RunState) -> str:
        """A phrase on what is left of a run that cannot go on."""
        self.checkpoints.wait()
        for step in self.checkpoints.steps():
            try:
                part = self.checkpoints.load(step, "learned", learned(run_state.state))
            except DamagedCheckpoint:
                continue
            floats = (x for x in jax.tree.leaves(part) if jnp.issubdtype(x.dtype, jnp.inexact))
            if all(np.isfinite(np.asarray(x, np.float64)).all() for x in floats):
                return f"the last good checkpoint is {self.directory.checkpoints / str(step)}"
        return "there is no good checkpoint"

    def how_to_resume(self, run_state: RunState) -> str:
        """A sentence for someone who has just interrupted the run."""
        self.checkpoints.wait()
        steps = self.members.training.steps_after(run_state.iteration)
        return f"saved after {steps:,} steps; {self._go_on}"

    @property
    def _go_on(self) -> str:
        path = self.directory.path
        if self._is_of_python:  # of which the command knows neither agent nor environment
            return f"go on with: fit(..., run_dir={str(path)!r}, resume=True)"
        return f"go on with: {self.directory.resume_command}"

    def what_is_left(self) -> str:
        """What there is of a run that could not be written on, and how it goes on; or nothing."""
        if not (self.directory.path / "config.json").exists():
            return ""
        steps = self.checkpoints.steps()
        last = "there is no checkpoint yet"
        if steps:
            last = f"the last whole checkpoint is {self.directory.checkpoints / str(steps[0])}"
        return f"; {last}; {self._go_on}"


def curve(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lines of metrics.jsonl as steps `[E]`, mean returns `[E, members]`, NaN for null, and
    which members had diverged, `[E, members]`."""
    steps = list(dict.fromkeys(row["step"] for row in rows))
    returns = [row["return_mean"] for row in rows]
    filled = np.array([np.nan if x is None else x for x in returns], np.float64)
    diverged = np.array([row.get("diverged", False) for row in rows], bool)
    return np.array(steps), filled.reshape(len(steps), -1), diverged.reshape(len(steps), -1)
