"""The host loop of a run, which calls compiled programs and sends events."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.analysis.statistics import mean_of_finished
from jaxrl.devices import hosts
from jaxrl.engine.checked_vector import EnvironmentFault
from jaxrl.engine.metrics import IterationMetrics
from jaxrl.engine.train import chunk_stops
from jaxrl.errors import Unable
from jaxrl.runs.callbacks import Callback
from jaxrl.runs.events import Diverged, Evaluation, Event, Progress, Result
from jaxrl.runs.host_programs import programs_of
from jaxrl.runs.interrupt import Interrupted
from jaxrl.runs.members import Members
from jaxrl.runs.run_options import RunOptions
from jaxrl.runs.run_state import RunState
from jaxrl.types import Key, Stream

SECONDS_BETWEEN_SIGNS_OF_LIFE = 1.0


class DivergenceError(Unable):
    """All members of a run have diverged."""


class Loop:
    """Calls the compiled programs and sends events to the callbacks.

    With several processes, each has a loop. Clocks, signals and callbacks differ between them, so
    they agree on whatever depends on those: the number of iterations of a call, saving, stopping.
    """

    def __init__(
        self,
        members: Members,
        options: RunOptions,
        callbacks: Sequence[Callback] = (),
        recorder: Any = None,
        asked_to_end: Callable[[], int] = lambda: 0,
    ):
        self.members = members
        self.options = options
        self.callbacks = [*callbacks, *options.ends()]
        self.recorder = recorder
        self.asked_to_end = asked_to_end
        self.stopped: str | None = None
        self.afresh: Evaluation | None = None
        self.evaluations: list[Evaluation] = []
        self.evaluate_seconds: list[float] = []  # durations
        self.stride = 1  # iterations per call; grows until a call takes about a second

    def run(self, resume: bool = False) -> Result:
        """Trains from the start, or from the recorder's checkpoint, to the end."""
        self.programs = programs_of(self.members, self.options)
        try:
            return self._run(resume)
        except EnvironmentFault:
            self.save(self.run_state)
            raise
        finally:
            self.programs.close()

    def _run(self, resume: bool) -> Result:
        training, programs = self.members.training, self.programs
        self.tell(programs.compiled)
        state = programs.init(programs.training, programs.key)
        run_state = self.run_state = RunState(state, programs.no_metrics())
        if resume:
            run_state.state = jax.eval_shape(programs.trim, state)
            if self.recorder.restore(run_state, self.tell):
                run_state.state = programs.place_state(run_state.state)
            else:
                run_state.state = state
        self.saved_at, self.saved_iteration = time.monotonic(), run_state.iteration
        stops = chunk_stops(training.num_iterations, self.options.num_evaluations)
        # A run that was killed while ending is evaluated again, so that it ends the same way.
        first = run_state.iteration + (run_state.stopped is None)
        self.stops = [stop for stop in stops if stop >= first] or stops[-1:]
        for stop in self.stops:
            while run_state.iteration < stop and self.stopped is None:
                self.train(run_state, stop)
                if run_state.iteration < stop and self.stopped is None:
                    self.save_if_due(run_state)
            self.evaluate(run_state)
            if self.stopped is None and run_state.iteration < training.num_iterations:
                self.save_if_due(run_state)
            if self.stopped is not None:
                break
        self.save(run_state)
        return Result(
            state=programs.trim(run_state.state),
            training=training,
            evaluations=self.evaluations,
            env_steps=training.steps_after(run_state.iteration) * len(self.members),
            train_seconds=run_state.train_seconds,
            compiled=programs.compiled,
            diverged=tuple(run_state.diverged.values()),
            stopped=self.stopped,
            afresh=self.afresh,
            best=None if self.recorder is None else self.recorder.best,
        )

    def train(self, run_state: RunState, stop: int) -> None:
        """Calls the chunk once, for about a second."""
        training, programs, start = self.members.training, self.programs, run_state.iteration
        to = min(start + self.stride, stop)
        began = time.perf_counter()
        run_state.state, metrics, divergence = programs.chunk(
            programs.training, run_state.state, programs.key, jnp.int32(start), jnp.int32(to)
        )
        metrics, divergence = programs.readable((metrics, divergence))
        metrics = programs.trim(jax.tree.map(lambda x: np.asarray(x, np.float64), metrics))  # waits
        jax.block_until_ready(run_state.state)
        seconds = hosts.of_first(time.perf_counter() - began)
        if programs.fault is not None:
            to = programs.reached
        run_state.iteration = to
        run_state.train_seconds += seconds
        run_state.since += metrics
        per_iteration = max(seconds / max(to - start, 1), 1e-9)
        longest = int(SECONDS_BETWEEN_SIGNS_OF_LIFE / per_iteration)
        self.stride = max(1, min(2 * self.stride, longest))
        self.look_for_divergence(run_state, programs.trim(jax.device_get(divergence)))
        if programs.fault is not None:
            raise programs.fault
        steps = training.steps_after(to)
        self.tell(
            Progress(
                steps=steps,
                total_steps=training.total_steps,
                train_seconds=run_state.train_seconds,
                steps_per_second=steps * len(self.members) / run_state.train_seconds,
                seconds_left=self.seconds_left(run_state),
                return_mean=_mean(run_state.since.episodes.returns),
            )
        )

    def seconds_left(self, run_state: RunState) -> float:
        """Estimated remaining time, including evaluations once there has been one."""
        iterations = self.members.training.num_iterations - run_state.iteration
        seconds = run_state.train_seconds / max(run_state.iteration, 1) * iterations
        if not (taken := self.evaluate_seconds):
            return seconds
        return seconds + sum(taken) / len(taken) * (len(self.stops) - len(taken))

    def look_for_divergence(self, run_state: RunState, divergence: Any) -> None:
        """Reports members that have just diverged; raises DivergenceError if none is left."""
        num_members = len(self.members)
        iterations = np.broadcast_to(divergence.iteration, num_members)
        for i in np.flatnonzero(iterations >= 0):
            if int(i) in run_state.diverged:
                continue
            bad = {k: np.broadcast_to(x, num_members)[i] for k, x in divergence.metrics.items()}
            iteration = int(iterations[i])
            names = tuple(name for name, is_bad in bad.items() if is_bad)
            steps, member = self.members.training.steps_after(iteration), self.members.labels[i]
            run_state.diverged[int(i)] = Diverged(steps, iteration, member, names)
            self.tell(run_state.diverged[int(i)])
        if len(run_state.diverged) == num_members:
            last = list(run_state.diverged.values())[-1]
            recorder = self.recorder
            saved = ""
            if recorder is not None:
                template = jax.eval_shape(self.programs.trim, run_state.state)
                saved = f"; {hosts.by_first(lambda: recorder.last_good_checkpoint(template))}"
            raise DivergenceError(f"{last}{saved}")

    def evaluate(self, run_state: RunState) -> None:
        """Plays evaluation episodes and reports the metrics since the last evaluation.

        If the evaluation ends the run (by `stop_at_return`, for example), its return is biased
        upwards, so new episodes are played for the final result.
        """
        began = time.perf_counter()
        evaluation = self.play(run_state, self.programs.key)
        self.evaluate_seconds.append(time.perf_counter() - began)
        evaluation = dataclasses.replace(evaluation, seconds_left=self.seconds_left(run_state))
        run_state.since = self.programs.no_metrics()
        self.evaluations.append(evaluation)
        going_on = self.stopped is None
        self.tell(dataclasses.replace(evaluation, state=self.programs.trim(run_state.state)))
        if going_on and self.stopped is not None:
            keys = self.members.keys_of_stream(Stream.EVALUATE_AFRESH)
            self.afresh = self.play(run_state, self.programs.place(keys))

    def play(self, run_state: RunState, key: Key) -> Evaluation:
        """Evaluates the current state of the members, with keys as the programs take them."""
        training, num_members, programs = self.members.training, len(self.members), self.programs
        iteration = jnp.int32(run_state.iteration)
        episodes = programs.evaluate(programs.training, run_state.state, key, iteration)
        episodes = programs.trim(programs.readable(jax.block_until_ready(episodes)))
        counts = np.array(episodes.finished).reshape(num_members, -1)
        counts[diverged := sorted(run_state.diverged)] = False
        returns = np.asarray(episodes.returns).reshape(counts.shape)
        return Evaluation(
            steps=training.steps_after(run_state.iteration),
            train_seconds=run_state.train_seconds,
            returns=np.where(counts, returns, np.nan),
            lengths=np.asarray(episodes.lengths).reshape(counts.shape),
            training=_training_metrics(run_state.since, num_members),
            seconds_left=0.0,
            diverged=tuple(diverged),
            info={
                name: mean_of_finished(np.where(counts, np.reshape(x, counts.shape), np.nan))
                for name, x in episodes.info.items()
            },
        )

    def save_if_due(self, run_state: RunState) -> None:
        """Saves the run if it is time to, and raises Interrupted if a signal was received.

        A signal to one process ends all.
        """
        is_due = time.monotonic() - self.saved_at >= self.options.checkpoint_seconds
        said = hosts.of_all((self.asked_to_end(), is_due))
        asked, is_due = max(number for number, _ in said), said[0][1]
        if asked or is_due:
            self.save(run_state)
        if asked:
            raise Interrupted(self.recorder.how_to_resume(run_state), asked)

    def save(self, run_state: RunState) -> None:
        """Saves a checkpoint if there is a recorder and something new to save."""
        if self.recorder is not None and run_state.iteration != self.saved_iteration:
            run_state.stopped = self.stopped
            whole = dataclasses.replace(
                run_state, state=self.programs.placement.collect(run_state.state)
            )
            self.tell(self.recorder.save(whole))
            self.saved_at, self.saved_iteration = time.monotonic(), run_state.iteration

    def tell(self, event: Event) -> None:
        """Sends an event to the callbacks; the first reason to stop is kept."""
        for callback in self.callbacks:
            reason = callback(event)
            self.stopped = self.stopped or next(filter(None, hosts.of_all(reason)), None)


def _mean(mean: Any) -> float:
    """The mean over members with finite values."""
    finite = np.isfinite(mean.total)
    count = np.sum(mean.count, where=finite)
    return float(np.sum(mean.total, where=finite) / count) if count > 0 else float("nan")


def _training_metrics(metrics: IterationMetrics, num_members: int) -> dict[str, np.ndarray]:
    """Means since the last evaluation, each `float64[members]`."""
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
