"""How many devices share the environments of each member of a run."""

import jax

from jaxrl.agent import Offline, OnPolicy
from jaxrl.devices import hosts
from jaxrl.engine.training import Training
from jaxrl.errors import InvalidValue

ROWS_EACH = 8192
"""Rows of an update on each core from which sharing pays without a request.

Devices exchange a gradient in each update, which takes tens of microseconds on a CPU, whatever the
number of rows (`python -m benchmarks.devices --one-member`).
"""


def shards(
    training: Training, member_devices: int, available: int, asked_for: int | None
) -> tuple[int, str]:
    """The number of devices that share the environments of a member, and why it is one.

    Members come first: only what they leave over is shared. A single member gets as many devices as
    requested, several get the most that divide their environments. Without a request, the cores of
    a CPU share the environments of an on-policy agent if each gets `ROWS_EACH` rows of an update.

    Args:
      training: the setup.
      member_devices: number of devices over which members are spread.
      available: number of devices that there are.
      asked_for: the number that the user wants, at most `available`; None without a wish.

    Raises:
      ValueError: that number does not divide environments or minibatches of a single member.
    """
    agent, most = training.agent, (asked_for or available) // member_devices
    if most < 2:
        return 1, ""
    if isinstance(agent.plan, Offline):
        return 1, f"the plan of {type(agent).__name__} keeps one member on one device"
    if training.envs.batched:
        return 1, "batched_env keeps one member on one device"
    if asked_for is None:
        most = min(most, _worthwhile(training))
        if most < 2:
            return 1, "one member stays on one device unless devices are requested"
    fits = [1, *(n for n in range(2, available + 1) if _problem(training, n) is None)]
    if member_devices > 1 or asked_for is None:
        return max(n for n in fits if n <= most), ""
    if problem := _problem(training, asked_for):
        even = [n for n in fits if n % hosts.count() == 0]
        nearest = max(even, key=lambda n: (-abs(n - asked_for), n), default=None)
        remedy = "" if nearest is None else f". Use devices={nearest}"
        raise InvalidValue(f"devices is {asked_for}: {problem}{remedy}")
    return asked_for, ""


def _worthwhile(training: Training) -> int:
    """Number of devices with enough rows of each update."""
    plan = training.agent.plan
    if jax.default_backend() != "cpu" or not isinstance(plan, OnPolicy) or hosts.count() > 1:
        return 1
    return plan.steps_per_iteration // plan.num_minibatches // ROWS_EACH


def _problem(training: Training, number: int) -> str | None:
    """Why that many devices cannot share the environments; None if they can."""
    try:
        training.agent.check_shards(number)
    except ValueError as error:
        return str(error)
    return None
