"""How a run is followed and recorded, which does not change what it learns. Imports no jax."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from jaxrl.errors import InvalidValue

if TYPE_CHECKING:
    from jaxrl.runs.callbacks import Callback


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What `fit` is asked for besides training; see there.

    Raises:
      ValueError: a field has no possible value.
    """

    num_evaluations: int = 10
    checkpoint_seconds: float = 60.0
    keep_checkpoints: int = 3
    keep_best: bool = False
    stop_at_return: float | None = None
    time_budget: float | None = None
    tensorboard: bool = True
    wandb: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_evaluations", "keep_checkpoints"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InvalidValue(f"{name} is {value!r}: it must be a whole number, at least 1")
        for name in ("checkpoint_seconds", "time_budget"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value >= 0):
                raise InvalidValue(
                    f"{name} is {value!r}: it must be a number of seconds, at least 0"
                )
        if self.stop_at_return is not None and not _is_number(self.stop_at_return):
            raise InvalidValue(f"stop_at_return is {self.stop_at_return!r}: it must be a number")
        for name in ("keep_best", "tensorboard"):
            if (value := getattr(self, name)) not in (True, False):
                raise InvalidValue(f"{name} is {value!r}: it must be True or False")

    def callbacks(self) -> "list[Callback]":
        """Those that end the run where the settings say so."""
        from jaxrl.runs.callbacks import stop_at_return, time_budget

        ends: list[Callback] = []
        if self.stop_at_return is not None:
            ends.append(stop_at_return(self.stop_at_return))
        if self.time_budget is not None:
            ends.append(time_budget(self.time_budget))
        return ends


def _is_number(value: Any) -> bool:
    """Whether it can be compared with a return or a time; NaN and text cannot."""
    try:
        return not isinstance(value, str) and not math.isnan(value)
    except (TypeError, ValueError):
        return False


@dataclasses.dataclass(frozen=True)
class Origin:
    """What the record of a run calls its algorithm and its environment."""

    algorithm: str
    environment: str
    environment_parameters: dict[str, float] = dataclasses.field(default_factory=dict)
    """Those that were changed."""
    warm_start: str | None = None
    """The run whose agent was the start."""
