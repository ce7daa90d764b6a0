"""Events of a run, and its result."""

import dataclasses
from typing import Any

import numpy as np

from jaxrl.analysis.statistics import counted, mean_of_finished, summarize
from jaxrl.engine.learners import TrainState
from jaxrl.engine.training import Training


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Sent once before training.

    Attributes:
      trace_seconds: time spent tracing.
      compile_seconds: time spent compiling; 0 under `jax_disable_jit`.
      devices: the devices in use, in words.
    """

    trace_seconds: float
    compile_seconds: float
    devices: str = "1"


@dataclasses.dataclass(frozen=True)
class Progress:
    """Sent about once a second during training.

    Attributes:
      steps: environment steps so far, per seed.
      total_steps: total environment steps, per seed.
      train_seconds: time spent training so far, without compilation and evaluation.
      steps_per_second: average over training so far, of all seeds together.
      seconds_left: estimated remaining time, including evaluations once there has been one.
      return_mean: mean return of the training episodes since the last evaluation; NaN if none.
    """

    steps: int
    total_steps: int
    train_seconds: float
    steps_per_second: float
    seconds_left: float
    return_mean: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sent after each evaluation. Arrays have one row per seed.

    Attributes:
      steps: environment steps so far, per seed.
      train_seconds: time spent training so far.
      returns: `float32[seeds, episodes]`, NaN for unfinished episodes and for diverged seeds.
      lengths: `int32[seeds, episodes]`.
      training: training metrics since the last evaluation, by name: `float64[seeds]`.
      seconds_left: estimated remaining time of training and evaluations.
      info: scalars of `Timestep.info` in the last step, by name: `float64[seeds]`, means over the
        finished episodes, NaN if there are none.
      diverged: indices of the seeds that have diverged.
      state: the evaluated state. It is valid only during callbacks, since the next iteration
        overwrites its arrays; to keep it, use `jax.tree.map(jnp.copy, event.state)`. None in
        `Result.evaluations`.
    """

    steps: int
    train_seconds: float
    returns: np.ndarray
    lengths: np.ndarray
    training: dict[str, np.ndarray]
    seconds_left: float
    diverged: tuple[int, ...] = ()
    state: TrainState | None = None
    info: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def return_means(self) -> np.ndarray:
        """Mean return of the finished episodes, `float64[seeds]`; NaN if there are none."""
        return mean_of_finished(self.returns)

    @property
    def return_mean(self) -> float:
        """Mean return over the seeds that have not diverged.

        NaN if one of them finished no episode, or if all have diverged.
        """
        return float(counted(self.return_means, self.diverged).mean())


@dataclasses.dataclass(frozen=True)
class Diverged:
    """Sent when metrics of a member become non-finite; the other members continue.

    Attributes:
      steps: environment steps before the iteration in which it happened.
      iteration: that iteration, counted from 0.
      member: label of the member, such as its seed.
      metrics: names of the non-finite metrics.
    """

    steps: int
    iteration: int
    member: dict[str, Any]
    metrics: tuple[str, ...]

    def __str__(self) -> str:
        who = ", ".join(f"{name} {value}" for name, value in self.member.items())
        return (
            f"{who} diverged in iteration {self.iteration:,} (step {self.steps:,}): "
            f"not finite: {', '.join(self.metrics)}"
        )


@dataclasses.dataclass(frozen=True)
class Saved:
    """Sent when a checkpoint after `steps` steps per seed is being written."""

    steps: int


@dataclasses.dataclass(frozen=True)
class Resumed:
    """Sent before training when a run is resumed.

    Attributes:
      steps: environment steps per seed so far.
      notes: notes for the user, one sentence each.
    """

    steps: int
    notes: tuple[str, ...] = ()


Event = Compiled | Progress | Evaluation | Diverged | Saved | Resumed


@dataclasses.dataclass(frozen=True)
class Best:
    """The evaluation with the highest return, whose state was kept.

    Attributes:
      step: environment steps per seed until then.
      return_mean: mean over the seeds that had not diverged. It is biased upwards, as the maximum
        of many evaluations: evaluate the state on other episodes for an unbiased estimate.
    """

    step: int
    return_mean: float


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of `fit`.

    Attributes:
      state: the final state; leaves `[seeds, ...]` if `key` was an array of keys.
      training: the training setup, for its `policy` and `evaluate`.
      evaluations: all evaluations in order; for a resumed run, those since resuming (metrics.jsonl
        has all).
      env_steps: steps taken by all seeds together.
      train_seconds: time spent training.
      compiled: time spent on tracing and compiling.
      diverged: the members that diverged.
      stopped: why the run ended early; None if it did not.
      afresh: an evaluation of the final state on new episodes, if the last of `evaluations` ended
        the run and is therefore biased upwards.
      best: the best evaluation, with `keep_best`.
    """

    state: TrainState
    training: Training
    evaluations: list[Evaluation]
    env_steps: int
    train_seconds: float
    compiled: Compiled
    diverged: tuple[Diverged, ...] = ()
    stopped: str | None = None
    afresh: Evaluation | None = None
    best: Best | None = None

    @property
    def final(self) -> Evaluation:
        """An unbiased evaluation of the final state."""
        return self.afresh or self.evaluations[-1]

    @property
    def steps_per_second(self) -> float:
        """Training speed of all seeds together."""
        return self.env_steps / self.train_seconds if self.train_seconds > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "env_steps": self.env_steps,
            "steps_per_second": self.steps_per_second,
            "trace_seconds": self.compiled.trace_seconds,
            "compile_seconds": self.compiled.compile_seconds,
            "train_seconds": self.train_seconds,
            "final_return": {
                **summarize(self.final.return_means, self.final.diverged),
                "afresh": self.afresh is not None,
            },
            "stopped": self.stopped,
            "diverged": [dataclasses.asdict(member) for member in self.diverged],
            **(describe_best(self.best) if self.best else {}),
        }


def describe_best(best: Best) -> dict[str, Any]:
    """The entry of summary.json, marked as selected for its return."""
    return {"best": {**dataclasses.asdict(best), "selected": True}}
