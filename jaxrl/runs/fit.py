"""A host loop over the same compiled chunk as `train`: progress, logs and files between calls."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import Agent
from jaxrl.engine.learners import IterationMetrics
from jaxrl.engine.train import Training, chunk_stops
from jaxrl.environment import Environment
from jaxrl.keys import check_key
from jaxrl.runs.directory import RunDirectory
from jaxrl.runs.events import Compiled, Evaluation, Event, Origin, Progress, Result
from jaxrl.types import Key

SECONDS_BETWEEN_SIGNS_OF_LIFE = 1.0


def fit(
    agent: Agent,
    env: Environment,
    key: Key,
    *,
    total_steps: int,
    num_evaluations: int = 10,
    run_dir: Path | str | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> Result:
    """Trains as `train` does, calling back between chunks; prints nothing itself.

    Args:
      agent, env, total_steps, num_evaluations, **options: as for `train`.
      key: one typed key, or `[seeds]` of them for as many runs in one program.
      run_dir: a directory to make, for the configuration, the metrics, a summary, the final
        checkpoint and a learning curve.
      on_event: called with each `Event`.

    Raises:
      ValueError, TypeError: a field does not fit, or `run_dir` holds files already or cannot be
        written; before anything is compiled.
    """
    check_key(key)
    if num_evaluations < 1:
        raise ValueError(f"num_evaluations is {num_evaluations}: it must be at least 1")
    training = Training.create(agent, env, total_steps=total_steps, **options)
    directory = None if run_dir is None else RunDirectory.create(run_dir)
    return run(
        training, key, num_evaluations=num_evaluations, directory=directory, on_event=on_event
    )


def run(
    training: Training,
    key: Key,
    *,
    num_evaluations: int,
    directory: RunDirectory | None = None,
    origin: Origin | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Result:
    """The loop behind `fit`, for a `Training` and a directory that have been made.

    Args:
      training, key, num_evaluations, on_event: as for `fit`.
      directory: where to record the run.
      origin: names for the record; those of the classes unless given.
    """
    if directory is None:
        return _loop(training, key, num_evaluations, on_event)
    from jaxrl.runs.recorder import Recorder  # deferred: orbax and matplotlib take a second

    recorder = Recorder(directory, training, key, num_evaluations, origin)

    def record_and_pass_on(event: Event) -> None:
        recorder(event)
        on_event(event)

    try:
        result = _loop(training, key, num_evaluations, record_and_pass_on)
    finally:
        directory.discard()  # if nothing was written into it
    recorder.finish(result)
    return result


def _loop(
    training: Training, key: Key, num_evaluations: int, on_event: Callable[[Event], None]
) -> Result:
    num_seeds = 1 if key.ndim == 0 else key.shape[0]
    steps_per_iteration = training.agent.plan.steps_per_iteration
    programs = Programs(training, key)
    on_event(programs.compiled)

    state = programs.init(training, key)
    evaluations: list[Evaluation] = []
    train_seconds, iteration = 0.0, 0
    stride = 1  # iterations a call: grows until a call takes about a second
    for stop in chunk_stops(training.num_iterations, num_evaluations):
        so_far: IterationMetrics | None = None
        while iteration < stop:
            to = min(iteration + stride, stop)
            began = time.perf_counter()
            state, metrics = programs.chunk(
                training, state, key, jnp.int32(iteration), jnp.int32(to)
            )
            metrics = jax.tree.map(lambda x: np.asarray(x, np.float64), metrics)  # waits
            jax.block_until_ready(state)
            seconds = time.perf_counter() - began
            train_seconds += seconds
            so_far = metrics if so_far is None else so_far + metrics
            per_iteration = max(seconds / (to - iteration), 1e-9)
            stride = max(1, min(2 * stride, int(SECONDS_BETWEEN_SIGNS_OF_LIFE / per_iteration)))
            iteration = to
            on_event(
                Progress(
                    steps=iteration * steps_per_iteration,
                    total_steps=training.total_steps,
                    train_seconds=train_seconds,
                    steps_per_second=iteration * steps_per_iteration * num_seeds / train_seconds,
                    seconds_left=train_seconds / iteration * (training.num_iterations - iteration),
                    return_mean=_mean(so_far.episodes.returns),
                )
            )
        episodes = programs.evaluate(training, state, key, jnp.int32(iteration))
        rows = (num_seeds, -1)
        evaluation = Evaluation(
            steps=iteration * steps_per_iteration,
            train_seconds=train_seconds,
            returns=np.where(episodes.finished, episodes.returns, np.nan).reshape(rows),
            lengths=np.asarray(episodes.lengths).reshape(rows),
            training=_training_metrics(so_far, num_seeds),
        )
        evaluations.append(evaluation)
        on_event(evaluation)
    return Result(
        state=state,
        training=training,
        evaluations=evaluations,
        env_steps=training.total_steps * num_seeds,
        train_seconds=train_seconds,
        compiled=programs.compiled,
    )


class Programs:
    """The three compiled programs of a run, with seeds vmapped where there are several."""

    def __init__(self, training: Training, key: Key):
        init, chunk, evaluate = Training.init, Training.chunk, Training.evaluate
        if key.ndim > 0:
            init = jax.vmap(init, (None, 0))
            chunk = jax.vmap(chunk, (None, 0, 0, None, None))
            evaluate = jax.vmap(evaluate, (None, 0, 0, None))
        began = time.perf_counter()
        zero = jnp.int32(0)
        state = jax.eval_shape(init, training, key)
        lowered = (
            jax.jit(init).lower(training, key),
            jax.jit(chunk, donate_argnums=1).lower(training, state, key, zero, zero),
            jax.jit(evaluate).lower(training, state, key, zero),
        )
        traced = time.perf_counter()
        self.init, self.chunk, self.evaluate = (x.compile() for x in lowered)
        self.compiled = Compiled(traced - began, time.perf_counter() - traced)


def _mean(mean: Any) -> float:
    count = np.sum(mean.count)
    return float(np.sum(mean.total) / count) if count > 0 else float("nan")


def _training_metrics(metrics: IterationMetrics | None, num_seeds: int) -> dict[str, np.ndarray]:
    """Means since the last evaluation, `float64[seeds]` each."""
    if metrics is None:
        return {}
    named = {
        "training_return_mean": metrics.episodes.returns,
        "training_length_mean": metrics.episodes.lengths,
        **metrics.updates,
    }
    out = {"training_episodes": np.broadcast_to(metrics.episodes.count, (num_seeds,))}
    for name, mean in named.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.asarray(mean.total) / np.where(mean.count > 0, mean.count, np.nan)
        out[name] = np.broadcast_to(value, (num_seeds,))
    return out
