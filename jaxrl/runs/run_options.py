"""How a run is followed and recorded, which does not change what it learns. Imports no jax."""

from typing import TYPE_CHECKING

from jaxrl.engine.options import EvaluationOptions, Kind, Role, option, options_class
from jaxrl.errors import InvalidValue

if TYPE_CHECKING:
    from jaxrl.runs.callbacks import Callback


@options_class
class RunOptions(EvaluationOptions):
    """What `fit` is asked for besides training.

    Raises:
      ValueError: a field has no possible value.
    """

    checkpoint_seconds: float = option(
        default=60.0, role=Role.FOLLOWING, kind=Kind.SECONDS, shown="60",
        doc="Time between checkpoints, at least; the end is saved in any case",
    )  # fmt: skip
    keep_checkpoints: int = option(
        default=3, role=Role.FOLLOWING, kind=Kind.COUNT, doc="How many checkpoints stay"
    )
    keep_best: bool = option(
        default=False, role=Role.FOLLOWING, kind=Kind.SWITCH,
        doc="Keep what was learned at the best evaluation, too: the highest mean over the seeds "
        "that have not diverged, for `jaxrl evaluate RUN --step best` or "
        "`load_policy(run_dir, step=\"best\")`",
    )  # fmt: skip
    stop_at_return: float | None = option(
        default=None, role=Role.FOLLOWING, kind=Kind.NUMBER,
        doc="End when an evaluation's return, the mean over the seeds that have not diverged, is "
        "that high; what was reached is then judged on other episodes",
    )  # fmt: skip
    time_budget: float | None = option(
        default=None, role=Role.FOLLOWING, kind=Kind.SECONDS, metavar="SECONDS",
        doc="End after so much time, compilation not counted; the run can be resumed",
    )  # fmt: skip
    tensorboard: bool = option(
        default=True, role=Role.FOLLOWING, kind=Kind.SWITCH,
        doc="Write event files for TensorBoard",
    )  # fmt: skip
    wandb: str | None = option(
        default=None, role=Role.FOLLOWING, kind=Kind.TEXT, metavar="PROJECT",
        doc="Log to this project of Weights & Biases, too; needs pip install 'jaxrl[wandb]'",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_evaluations < 1:  # `train` can do without
            number = self.num_evaluations
            raise InvalidValue(
                f"num_evaluations is {number}: it must be a whole number, at least 1"
            )

    def ends(self) -> "list[Callback]":
        """Those that end the run where the options say so."""
        from jaxrl.runs.callbacks import stop_at_return, time_budget

        ends: list[Callback] = []
        if self.stop_at_return is not None:
            ends.append(stop_at_return(self.stop_at_return))
        if self.time_budget is not None:
            ends.append(time_budget(self.time_budget))
        return ends
