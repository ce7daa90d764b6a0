"""Options of `fit` alone: devices, actors, saving, stopping, logging.

It does not import jax.
"""

from typing import TYPE_CHECKING

from jaxrl.engine.options import EvaluationOptions, Kind, Role, option, options_class
from jaxrl.errors import InvalidValue

if TYPE_CHECKING:
    from jaxrl.runs.callbacks import Callback


@options_class
class RunOptions(EvaluationOptions):
    """Where a run is trained, and how it is evaluated, saved, stopped and logged.

    Raises:
      ValueError: a field has an invalid value.
    """

    devices: int | None = option(
        default=None, role=Role.FOLLOWING, kind=Kind.COUNT, shown="all",
        doc="Number of devices, such as GPUs or the cores of a CPU, to spread the seeds and the "
        "points of a sweep over. Devices left over share the environments of each. Another number "
        "changes results in the last digits",
    )  # fmt: skip
    actors: int = option(
        default=1, role=Role.TRAINING, kind=Kind.COUNT,
        doc="Threads that step an environment outside jax, such as one of gymnasium; each has an "
        "equal part of the copies",
    )  # fmt: skip
    actor_lag: int = option(
        default=0, role=Role.TRAINING, kind=Kind.COUNT, least=0,
        doc="How many iterations old the policy is that plays in an environment outside jax. With "
        "1, playing and learning overlap",
    )  # fmt: skip
    env_timeout: float = option(
        default=60.0, role=Role.FOLLOWING, kind=Kind.SECONDS, shown="60",
        doc="Seconds after which a step of an environment outside jax counts as hanging, and the "
        "run ends",
    )  # fmt: skip
    checkpoint_seconds: float = option(
        default=60.0, role=Role.FOLLOWING, kind=Kind.SECONDS, shown="60",
        doc="Minimum time between checkpoints; the final state is always saved",
    )  # fmt: skip
    keep_checkpoints: int = option(
        default=3, role=Role.FOLLOWING, kind=Kind.COUNT, doc="Number of newest checkpoints to keep"
    )
    keep_best: bool = option(
        default=False, role=Role.FOLLOWING, kind=Kind.SWITCH,
        doc="Also save the state at the best evaluation, by the mean return over the seeds that "
        "have not diverged; for `jaxrl evaluate RUN --step best` or "
        "`load_policy(run_dir, step=\"best\")`",
    )  # fmt: skip
    stop_at_return: float | None = option(
        default=None, role=Role.FOLLOWING, kind=Kind.NUMBER,
        doc="Stop when the mean return of an evaluation, over the seeds that have not diverged, "
        "reaches this value; the result is then evaluated on new episodes",
    )  # fmt: skip
    time_budget: float | None = option(
        default=None, role=Role.FOLLOWING, kind=Kind.SECONDS, metavar="SECONDS",
        doc="Stop after this much time, not counting compilation; the run can be resumed",
    )  # fmt: skip
    tensorboard: bool = option(
        default=True, role=Role.FOLLOWING, kind=Kind.SWITCH,
        doc="Write event files for TensorBoard",
    )  # fmt: skip
    wandb: str | None = option(
        default=None, role=Role.FOLLOWING, kind=Kind.TEXT, metavar="PROJECT",
        doc="Also log to this Weights & Biases project; needs pip install 'jaxrl[wandb]'",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_evaluations < 1:  # `train` allows 0
            number = self.num_evaluations
            raise InvalidValue(
                f"num_evaluations is {number}: it must be a whole number, at least 1"
            )

    def ends(self) -> "list[Callback]":
        """The callbacks that stop the run early."""
        from jaxrl.runs.callbacks import stop_at_return, time_budget

        ends: list[Callback] = []
        if self.stop_at_return is not None:
            ends.append(stop_at_return(self.stop_at_return))
        if self.time_budget is not None:
            ends.append(time_budget(self.time_budget))
        return ends
