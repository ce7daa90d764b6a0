"""A host loop over the same compiled chunk as `train`: progress, logs and files between calls."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import Agent
from jaxrl.engine.learners import IterationMetrics, TrainState
from jaxrl.engine.train import Training, chunk_stops
from jaxrl.environment import Environment
from jaxrl.keys import check_key
from jaxrl.runs.callbacks import Callback
from jaxrl.runs.directory import RunDirectory
from jaxrl.runs.disk import WriteError, user_path
from jaxrl.runs.events import Compiled, Diverged, Evaluation, Event, Progress, Result
from jaxrl.runs.interrupt import Interrupted, ending_well
from jaxrl.runs.members import Members
from jaxrl.runs.settings import Origin, Settings
from jaxrl.runs.statistics import mean_of_finished
from jaxrl.transfers import transfers_allowed
from jaxrl.types import Key, Stream

SECONDS_BETWEEN_SIGNS_OF_LIFE = 1.0


class DivergenceError(RuntimeError):
    """No member of a run has finite numbers any more."""


def fit(
    agent: Agent,
    env: Environment,
    key: Key,
    *,
    total_steps: int,
    num_evaluations: int = 10,
    points: Sequence[Mapping[str, Any]] | None = None,
    run_dir: Path | str | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    keep_checkpoints: int = 3,
    keep_best: bool = False,
    stop_at_return: float | None = None,
    time_budget: float | None = None,
    tensorboard: bool = True,
    wandb: str | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Result:
    """Trains as `train` does, with checkpoints and files; prints nothing itself.

    On a CPU the two give equal bits, where `train` is jitted as a function of the agent, the
    environment and the key. A function that closes over them makes their numbers constants, which
    XLA computes with beforehand: the last digit may differ.

    Args:
      agent, env, total_steps, num_evaluations, **options: as for `train`.
      key: one typed key, or `[seeds]` of them for as many runs in one program.
      points: hyper-parameters to train with besides, `[{"learning_rate": 1e-3}, ...]`: every point
        with every key, in the same program. Float fields of the agent, as for `sweep`.
      run_dir: a directory to make, for the configuration, the metrics, checkpoints, a summary and
        a learning curve. `~` is the home directory. It belongs to this process until the run ends.
      resume: go on where the run in `run_dir` was saved last, bit-identical to an uninterrupted
        run; begin, where there is none. `total_steps` may have grown.
      checkpoint_seconds: time between checkpoints, at least; there is one at the end in any case.
      keep_checkpoints: how many of them stay.
      keep_best: keep what was learned at the best evaluation, too, for `load_policy(run_dir,
        step="best")`: the highest mean over all members that have not diverged.
      stop_at_return: end when an evaluation's return is that high, the mean over all members that
        have not diverged. What was reached is then judged on other episodes (`Result.afresh`).
      time_budget: end after so many seconds, compilation not counted.
      tensorboard: whether `run_dir` gets event files for TensorBoard.
      wandb: a project of Weights & Biases to log to as well (the extra `wandb`).
      callbacks: called with each `Event`; one that returns a text ends the run
        (`jaxrl.runs.callbacks`).

    Raises:
      ValueError, TypeError: a field does not fit, `run_dir` holds files already, is written by
        another process or cannot be written, or holds a run of another configuration or
        environment; before anything is compiled.
      WriteError: the disk is full, say; what was saved last can be resumed.
      DivergenceError: no member's metrics are finite any more.
      Interrupted: by Ctrl-C, SIGTERM or SIGHUP; with `run_dir`, after the state was saved.
    """
    check_key(key)
    settings = Settings(
        num_evaluations=num_evaluations,
        checkpoint_seconds=checkpoint_seconds,
        keep_checkpoints=keep_checkpoints,
        keep_best=keep_best,
        stop_at_return=stop_at_return,
        time_budget=time_budget,
        tensorboard=tensorboard,
        wandb=wandb,
    )
    if resume and run_dir is None:
        raise ValueError("resume asks for a run_dir: that of the run to go on with")
    if keep_best and run_dir is None:
        raise ValueError(
            "keep_best asks for a run_dir; without one, copy event.state in a callback"
        )
    training = Training.create(agent, env, total_steps=total_steps, **options)
    members = Members.of(training, key, points)
    if run_dir is None:
        return run(members, settings, callbacks=callbacks)
    begun = resume and (user_path(run_dir) / "config.json").exists()
    directory = RunDirectory.resume(run_dir) if begun else RunDirectory.create(run_dir)
    return run(members, settings, directory=directory, resume=begun, callbacks=callbacks)


@transfers_allowed
def run(
    members: Members,
    settings: Settings,
    *,
    directory: RunDirectory | None = None,
    resume: bool = False,
    origin: Origin | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """The loop behind `fit`, for members and a directory that have been made.

    Args:
      members, settings: who trains, and how it is followed.
      directory: where to record the run.
      resume: whether the directory holds it already.
      origin: names for the record; those of the classes unless given.
      callbacks: as for `fit`.
    """
    if directory is None:
        return Loop(members, settings, callbacks).run()
    from jaxrl.runs.recorder import Recorder  # deferred: orbax and matplotlib take a second

    recorder = None
    try:
        with Recorder(directory, members, settings, origin) as recorder:
            if resume:
                recorder.check_resumable()
            else:
                recorder.begin()
            with ending_well() as asked:
                loop = Loop(members, settings, (recorder, *callbacks), recorder, asked)
                try:
                    result = loop.run(resume)
                except DivergenceError as error:
                    recorder.give_up(str(error), loop.standing)
                    raise
                except Exception:
                    recorder.retract()
                    raise
                recorder.finish(result)
                if number := asked():  # too late to end it early: whoever called is to end
                    raise Interrupted(f"the run {directory.path} is complete", number)
    except WriteError as error:
        left = "" if recorder is None else recorder.what_is_left()
        raise WriteError(error.errno, f"{error}{left}") from error
    finally:
        directory.discard()  # if nothing was written into it
    return result


@dataclasses.dataclass
class Standing:
    """Where a run stands between two calls of the compiled chunk: all that a checkpoint holds.

    Attributes:
      state: of the members.
      since: metrics since the last evaluation, `float64`.
      iteration: how many are finished.
      train_seconds: time spent training.
      diverged: members, by their index, whose numbers are not finite any more.
      stopped: why the run was to end here; None where it was not, or where it did end and goes on.
    """

    state: TrainState
    since: IterationMetrics
    iteration: int = 0
    train_seconds: float = 0.0
    diverged: dict[int, Diverged] = dataclasses.field(default_factory=dict)
    stopped: str | None = None


class Loop:
    """Calls the compiled programs in turn, and tells what happens."""

    def __init__(
        self,
        members: Members,
        settings: Settings,
        callbacks: Sequence[Callback] = (),
        recorder: Any = None,
        asked_to_end: Callable[[], int] = lambda: 0,
    ):
        self.members = members
        self.settings = settings
        self.callbacks = [*callbacks, *settings.callbacks()]
        self.recorder = recorder
        self.asked_to_end = asked_to_end
        self.stopped: str | None = None
        self.afresh: Evaluation | None = None
        self.evaluations: list[Evaluation] = []
        self.evaluate_seconds: list[float] = []  # what each took
        self.stride = 1  # iterations a call: grows until a call takes about a second

    def run(self, resume: bool = False) -> Result:
        """Trains from the beginning, or from where the recorder saved, to the end."""
        training = self.members.training
        self.programs = programs = Programs(self.members)
        self.tell(programs.compiled)
        standing = Standing(programs.init(training, self.members.key), programs.no_metrics())
        self.standing = standing
        if resume:
            self.recorder.restore(standing, self.tell)
        self.saved_at, self.saved_iteration = time.monotonic(), standing.iteration
        stops = chunk_stops(training.num_iterations, self.settings.num_evaluations)
        # One that was killed while it ended is judged again, to end as it would have.
        first = standing.iteration + (standing.stopped is None)
        self.stops = [stop for stop in stops if stop >= first] or stops[-1:]
        for stop in self.stops:
            while standing.iteration < stop and self.stopped is None:
                self.train(standing, stop)
                if standing.iteration < stop and self.stopped is None:
                    self.pause(standing)
            self.evaluate(standing)
            if self.stopped is None and standing.iteration < training.num_iterations:
                self.pause(standing)
            if self.stopped is not None:
                break
        self.save(standing)
        return Result(
            state=standing.state,
            training=training,
            evaluations=self.evaluations,
            env_steps=training.steps_after(standing.iteration) * len(self.members),
            train_seconds=standing.train_seconds,
            compiled=programs.compiled,
            diverged=tuple(standing.diverged.values()),
            stopped=self.stopped,
            afresh=self.afresh,
            best=None if self.recorder is None else self.recorder.best,
        )

    def train(self, standing: Standing, stop: int) -> None:
        """One call of the chunk, of about a second."""
        training, key, start = self.members.training, self.members.key, standing.iteration
        to = min(start + self.stride, stop)
        began = time.perf_counter()
        standing.state, metrics, divergence = self.programs.chunk(
            training, standing.state, key, jnp.int32(start), jnp.int32(to)
        )
        metrics = jax.tree.map(lambda x: np.asarray(x, np.float64), metrics)  # waits
        jax.block_until_ready(standing.state)
        seconds = time.perf_counter() - began
        standing.iteration = to
        standing.train_seconds += seconds
        standing.since += metrics
        per_iteration = max(seconds / (to - start), 1e-9)
        longest = int(SECONDS_BETWEEN_SIGNS_OF_LIFE / per_iteration)
        self.stride = max(1, min(2 * self.stride, longest))
        self.look_for_divergence(standing, jax.device_get(divergence))
        steps = training.steps_after(to)
        self.tell(
            Progress(
                steps=steps,
                total_steps=training.total_steps,
                train_seconds=standing.train_seconds,
                steps_per_second=steps * len(self.members) / standing.train_seconds,
                seconds_left=self.seconds_left(standing),
                return_mean=_mean(standing.since.episodes.returns),
            )
        )

    def seconds_left(self, standing: Standing) -> float:
        """At the pace so far: of the iterations and, once there was one, of the evaluations."""
        iterations = self.members.training.num_iterations - standing.iteration
        seconds = standing.train_seconds / max(standing.iteration, 1) * iterations
        if not (taken := self.evaluate_seconds):
            return seconds
        return seconds + sum(taken) / len(taken) * (len(self.stops) - len(taken))

    def look_for_divergence(self, standing: Standing, divergence: Any) -> None:
        """Tells of each member that has just diverged; raises when none is left."""
        num_members = len(self.members)
        iterations = np.broadcast_to(divergence.iteration, num_members)
        for i in np.flatnonzero(iterations >= 0):
            if int(i) in standing.diverged:
                continue
            bad = {k: np.broadcast_to(x, num_members)[i] for k, x in divergence.metrics.items()}
            iteration = int(iterations[i])
            names = tuple(name for name, is_bad in bad.items() if is_bad)
            steps, member = self.members.training.steps_after(iteration), self.members.labels[i]
            standing.diverged[int(i)] = Diverged(steps, iteration, member, names)
            self.tell(standing.diverged[int(i)])
        if len(standing.diverged) == num_members:
            last = list(standing.diverged.values())[-1]
            recorder = self.recorder
            saved = "" if recorder is None else f"; {recorder.last_good_checkpoint(standing)}"
            raise DivergenceError(f"{last}{saved}")

    def evaluate(self, standing: Standing) -> None:
        """Plays episodes without exploration; the metrics since the last time are told with it.

        Where it ends the run, others are played to say what was reached: it was chosen for its
        return, by `stop_at_return` say, and the first one that is high enough is likely too high.
        """
        began = time.perf_counter()
        evaluation = self.play(standing, self.members.key)
        self.evaluate_seconds.append(time.perf_counter() - began)
        evaluation = dataclasses.replace(evaluation, seconds_left=self.seconds_left(standing))
        standing.since = self.programs.no_metrics()
        self.evaluations.append(evaluation)
        going_on = self.stopped is None
        self.tell(dataclasses.replace(evaluation, state=standing.state))
        if going_on and self.stopped is not None:
            self.afresh = self.play(standing, self.members.keys_of_stream(Stream.EVALUATE_AFRESH))

    def play(self, standing: Standing, key: Key) -> Evaluation:
        """An evaluation of the members as they stand."""
        training, num_members = self.members.training, len(self.members)
        episodes = jax.block_until_ready(
            self.programs.evaluate(training, standing.state, key, jnp.int32(standing.iteration))
        )
        counts = np.array(episodes.finished).reshape(num_members, -1)
        counts[diverged := sorted(standing.diverged)] = False
        returns = np.asarray(episodes.returns).reshape(counts.shape)
        return Evaluation(
            steps=training.steps_after(standing.iteration),
            train_seconds=standing.train_seconds,
            returns=np.where(counts, returns, np.nan),
            lengths=np.asarray(episodes.lengths).reshape(counts.shape),
            training=_training_metrics(standing.since, num_members),
            seconds_left=0.0,
            diverged=tuple(diverged),
            info={
                name: mean_of_finished(np.where(counts, np.reshape(x, counts.shape), np.nan))
                for name, x in episodes.info.items()
            },
        )

    def pause(self, standing: Standing) -> None:
        """A place at which a run can be saved when it is time, and left when someone asked."""
        asked = self.asked_to_end()
        if asked or time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds:
            self.save(standing)
        if asked:
            raise Interrupted(self.recorder.how_to_resume(standing), asked)

    def save(self, standing: Standing) -> None:
        """Hands a checkpoint to the recorder, where there is one, and something to save."""
        if self.recorder is not None and standing.iteration != self.saved_iteration:
            standing.stopped = self.stopped
            self.tell(self.recorder.save(standing))
            self.saved_at, self.saved_iteration = time.monotonic(), standing.iteration

    def tell(self, event: Event) -> None:
        """Calls back; the first reason to stop is kept."""
        for callback in self.callbacks:
            reason = callback(event)
            self.stopped = self.stopped or reason


class Programs:
    """The three compiled programs of a run, vmapped where there are several members.

    Under `jax_disable_jit` they are plain functions: nothing is compiled, and a debugger or a
    `print` sees every step.
    """

    def __init__(self, members: Members):
        training, key = members.training, members.key
        init = members.vmap(Training.init, 0)
        chunk = members.vmap(Training.chunk, 0, 0, None, None)
        evaluate = members.vmap(Training.evaluate, 0, 0, None)
        began = time.perf_counter()
        zero = jnp.int32(0)
        state = jax.eval_shape(init, training, key)
        if jax.config.jax_disable_jit:
            self._metrics = jax.eval_shape(chunk, training, state, key, zero, zero)[1]
            self._hold(init, chunk, evaluate)
            self.compiled = Compiled(time.perf_counter() - began, 0.0)
            return
        lowered = (
            jax.jit(init).lower(training, key),
            jax.jit(chunk, donate_argnums=1).lower(training, state, key, zero, zero),
            jax.jit(evaluate).lower(training, state, key, zero),
        )
        self._metrics = lowered[1].out_info[1]
        traced = time.perf_counter()
        self._hold(*(x.compile() for x in lowered))
        self.compiled = Compiled(traced - began, time.perf_counter() - traced)

    def _hold(self, init: Any, chunk: Any, evaluate: Any) -> None:
        self.init, self.chunk, self.evaluate = init, chunk, evaluate

    def no_metrics(self) -> IterationMetrics:
        """Of no iteration: to add to."""
        return jax.tree.map(lambda x: np.zeros(x.shape, np.float64), self._metrics)


class Memory(NamedTuple):
    """Bytes of a compiled program.

    Attributes:
      kept: arguments and results; results written over arguments count once.
      temporary: what lies between them.
    """

    kept: int
    temporary: int


def memory_of(program: Any) -> Memory | None:
    """The memory of a compiled program; None where the device does not tell, or it is a function
    that nothing compiled."""
    stats = program.memory_analysis() if hasattr(program, "memory_analysis") else None
    if stats is None:
        return None
    kept = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(kept, stats.temp_size_in_bytes)


def _mean(mean: Any) -> float:
    """Of the members whose numbers are finite."""
    finite = np.isfinite(mean.total)
    count = np.sum(mean.count, where=finite)
    return float(np.sum(mean.total, where=finite) / count) if count > 0 else float("nan")


def _training_metrics(metrics: IterationMetrics, num_members: int) -> dict[str, np.ndarray]:
    """Means since the last evaluation, `float64[members]` each; empty where nothing was trained."""
    named = {
        "training_return_mean": metrics.episodes.returns,
        "training_length_mean": metrics.episodes.lengths,
        **{f"training_info/{name}": mean for name, mean in metrics.episodes.info.items()},
        **metrics.updates,
    }
    out = {"training_episodes": np.broadcast_to(metrics.episodes.count, (num_members,))}
    for name, mean in named.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.asarray(mean.total) / np.where(mean.count > 0, mean.count, np.nan)
        out[name] = np.broadcast_to(value, (num_members,))
    return out
