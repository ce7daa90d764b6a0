"""Where a run stands: all that a checkpoint holds."""

import dataclasses

from jaxrl.engine.learners import IterationMetrics, TrainState
from jaxrl.runs.events import Diverged


@dataclasses.dataclass
class RunState:
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
