"""A host loop over the same compiled chunk as `train`: progress, logs and files between calls."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import Agent
from jaxrl.engine.learners import IterationMetrics, TrainState
from jaxrl.engine.train import Training, chunk_stops
from jaxrl.environment import Environment
from jaxrl.types import Key

SECONDS_BETWEEN_SIGNS_OF_LIFE = 1.0


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Sent once, before training: how long tracing and compiling took, in seconds."""

    trace_seconds: float
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class Progress:
    """Sent about once a second while training.

    Attributes:
      steps: environment steps so far, of each seed.
      total_steps: steps there will be.
      train_seconds: time spent training so far, without compiling and evaluating.
      steps_per_second: of all seeds together, since the beginning.
      seconds_left: of training.
      return_mean: of the training episodes that ended since the last evaluation; NaN without any.
    """

    steps: int
    total_steps: int
    train_seconds: float
    steps_per_second: float
    seconds_left: float
    return_mean: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sent after each evaluation. Arrays have one row a seed.

    Attributes:
      steps: environment steps so far, of each seed.
      train_seconds: time spent training so far.
      returns: `float32[seeds, episodes]`, NaN for an episode that did not finish.
      lengths: `int32[seeds, episodes]`.
      training: what training reported since the last evaluation: names to `float64[seeds]`.
    """

    steps: int
    train_seconds: float
    returns: np.ndarray
    lengths: np.ndarray
    training: dict[str, np.ndarray]


Event = Compiled | Progress | Evaluation


@dataclasses.dataclass(frozen=True)
class Result:
    """What `fit` returns.

    Attributes:
      state: the final state; leaves `[seeds, ...]` where `key` was an array of keys.
      training: what was trained, for its `policy` and `evaluate`.
      evaluations: all of them, in order.
      env_steps: steps taken by all seeds together.
      train_seconds: time spent training.
      compiled: what tracing and compiling took.
    """

    state: TrainState
    training: Training
    evaluations: list[Evaluation]
    env_steps: int
    train_seconds: float
    compiled: Compiled

    @property
    def steps_per_second(self) -> float:
        """Training only, all seeds together."""
        return self.env_steps / self.train_seconds


def fit(
    agent: Agent,
    env: Environment,
    key: Key,
    *,
    total_steps: int,
    num_evaluations: int = 10,
    on_event: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> Result:
    """Trains as `train` does, calling back between chunks; prints nothing itself.

    Args:
      agent, env, total_steps, num_evaluations, **options: as for `train`.
      key: one typed key, or `[seeds]` of them for as many runs in one program.
      on_event: called with each `Event`.

    Raises:
      ValueError, TypeError: a field does not fit; before anything is compiled.
    """
    if num_evaluations < 1:
        raise ValueError(f"num_evaluations is {num_evaluations}: it must be at least 1")
    training = Training.create(agent, env, total_steps=total_steps, **options)
    return run(training, key, num_evaluations=num_evaluations, on_event=on_event)


def run(
    training: Training,
    key: Key,
    *,
    num_evaluations: int,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Result:
    """The loop behind `fit`, for a `Training` that has been built."""
    num_seeds = 1 if key.ndim == 0 else key.shape[0]
    steps_per_iteration = training.agent.plan.steps_per_iteration
    programs = _Programs(training, key)
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


class _Programs:
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
