"""The state of a run."""

import dataclasses

from jaxrl.engine.learners import TrainState
from jaxrl.engine.metrics import IterationMetrics
from jaxrl.runs.events import Diverged


@dataclasses.dataclass
class RunState:
    """The state of a run between two calls of the compiled chunk, as saved in checkpoints.

    Attributes:
      state: training state of the members.
      since: metrics since the last evaluation, `float64`.
      iteration: number of finished iterations.
      train_seconds: time spent training.
      diverged: diverged members by index.
      stopped: why the run was to end here; None if it was not, or if it ended and was continued.
    """

    state: TrainState
    since: IterationMetrics
    iteration: int = 0
    train_seconds: float = 0.0
    diverged: dict[int, Diverged] = dataclasses.field(default_factory=dict)
    stopped: str | None = None
