"""What a run tells while it happens, and what it has to show in the end."""

import dataclasses
from typing import Any

import numpy as np

from jaxrl.analysis.statistics import counted, mean_of_finished, summarize
from jaxrl.engine.learners import TrainState
from jaxrl.engine.training import Training


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Sent once, before training: how long tracing and compiling took, in seconds.

    `compile_seconds` is 0 where nothing was compiled, under `jax_disable_jit`.
    """

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
      seconds_left: at the pace so far: of training, and of the evaluations once there was one.
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
      returns: `float32[seeds, episodes]`, NaN for an episode that did not finish, and for all of a
        seed that has diverged.
      lengths: `int32[seeds, episodes]`.
      training: what training reported since the last evaluation: names to `float64[seeds]`.
      seconds_left: at the pace so far: of training and of the evaluations that are still to come.
      info: the scalars of `Timestep.info` in the last step, by name: `float64[seeds]`, the mean
        over the episodes that finished, NaN where none did.
      diverged: the seeds, by their index, whose numbers are not finite any more.
      state: what was evaluated. It is valid while callbacks are called, and no longer: the next
        iteration writes over its arrays. `jax.tree.map(jnp.copy, event.state)` stays. None in
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
        """`float64[seeds]`: over the episodes that finished, NaN where none did."""
        return mean_of_finished(self.returns)

    @property
    def return_mean(self) -> float:
        """The mean over the seeds that have not diverged; NaN if one of them finished no episode,
        and if none is left."""
        return float(counted(self.return_means, self.diverged).mean())


@dataclasses.dataclass(frozen=True)
class Diverged:
    """Sent when metrics of a member ceased to be finite; the other members train on.

    Attributes:
      steps: environment steps before the iteration in which it happened.
      iteration: that iteration, from 0.
      member: what tells the member from the others, its seed for example.
      metrics: the names of those metrics.
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
    """Sent when a checkpoint after `steps` steps of each seed has been handed to its writer."""

    steps: int


@dataclasses.dataclass(frozen=True)
class Resumed:
    """Sent before training, where a run goes on.

    Attributes:
      steps: environment steps of each seed so far.
      notes: what one should know, in sentences.
    """

    steps: int
    notes: tuple[str, ...] = ()


Event = Compiled | Progress | Evaluation | Diverged | Saved | Resumed


@dataclasses.dataclass(frozen=True)
class Best:
    """The evaluation with the highest return, whose state a run has kept.

    Attributes:
      step: environment steps of each seed until then.
      return_mean: the mean over the seeds that had not diverged. It was chosen as the highest of
        many, and is likely too high for that: other episodes say what the state is worth.
    """

    step: int
    return_mean: float


@dataclasses.dataclass(frozen=True)
class Result:
    """What `fit` returns.

    Attributes:
      state: the final state; leaves `[seeds, ...]` where `key` was an array of keys.
      training: what was trained, for its `policy` and `evaluate`.
      evaluations: all of them, in order; of a resumed run those since then (metrics.jsonl has all).
      env_steps: steps taken by all seeds together.
      train_seconds: time spent training.
      compiled: what tracing and compiling took.
      diverged: the members whose numbers ceased to be finite.
      stopped: why the run ended early; None where it did not.
      afresh: an evaluation of the final state on other episodes, where the last of `evaluations`
        ended the run: that one was the first to be high enough, and is too high for that.
      best: the best evaluation, where `keep_best` asked for it.
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
        """The evaluation that says what was reached: of the final state, and not chosen by it."""
        return self.afresh or self.evaluations[-1]

    @property
    def steps_per_second(self) -> float:
        """Training only, all seeds together."""
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
    """The entry of summary.json; that its return was selected is said beside it."""
    return {"best": {**dataclasses.asdict(best), "selected": True}}
