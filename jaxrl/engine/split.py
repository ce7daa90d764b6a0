"""How many devices share the environments of the only member of a run."""

from jaxrl.agent import OnPolicy, Replay
from jaxrl.engine.training import Training
from jaxrl.errors import InvalidValue


def shards(training: Training, available: int, asked_for: int | None) -> tuple[int, str]:
    """The number of devices that share the environments, and why it is one.

    Only on request: on CPUs it pays with many environments only (`python -m benchmarks.devices
    --one-member`).

    Args:
      training: the setup.
      available: number of devices that there are.
      asked_for: the number that the user wants, at most `available`; None without a wish.

    Raises:
      ValueError: that number does not divide environments or minibatches.
    """
    agent = training.agent
    if available == 1:
        return 1, ""
    if not isinstance(agent.plan, OnPolicy | Replay):
        return 1, f"the plan of {type(agent).__name__} keeps one member on one device"
    if training.envs.batched:
        return 1, "batched_env keeps one member on one device"
    if asked_for is None:
        return 1, "one member stays on one device unless devices are requested"
    if asked_for == 1:
        return 1, "as requested"
    if problem := _problem(training, asked_for):
        fits = [1, *(n for n in range(2, available + 1) if _problem(training, n) is None)]
        nearest = max(fits, key=lambda n: (-abs(n - asked_for), n))
        raise InvalidValue(f"devices is {asked_for}: {problem}. Use devices={nearest}")
    return asked_for, ""


def _problem(training: Training, number: int) -> str | None:
    """Why that many devices cannot share the environments; None if they can."""
    try:
        training.agent.check_shards(number)
    except ValueError as error:
        return str(error)
    return None
