"""Whether XLA trains an agent faster with one thread than with one for each core of the CPU.

XLA hands work to a second thread where more than eight operations could begin at once. With few
rows an operation takes less time than that (`python -m benchmarks.threads`). Nothing here starts
jax's backend, which reads the number of threads when it starts.
"""

import dataclasses
import itertools

from flax import linen as nn

from jaxrl.agent import Agent, OnPolicy, Replay
from jaxrl.errors import InvalidValue

FEW_ROWS = 512
"""Rows of an update up to which one thread is faster (`python -m benchmarks.threads --sizes`)."""
FEW_PRODUCTS = 128 * 256 * 256
"""Multiplications in the largest hidden layer, rows x inputs x outputs, up to which it is."""


def rows_for_one_thread(agent: Agent) -> int | None:
    """Rows of an update, where they are so few that one thread is faster; else None.

    Assumes that an environment's step and its observations are small.

    Args:
      agent: with or without an environment.
    """
    values = {field.name: getattr(agent, field.name) for field in dataclasses.fields(agent)}
    if any(isinstance(value, nn.Module) for value in values.values()):
        return None  # whose work is unknown
    try:
        plan = agent.plan
    except InvalidValue:  # it depends on the environment
        return None
    match plan:
        case OnPolicy():
            rows = plan.steps_per_iteration // plan.num_minibatches
        case Replay():
            rows = plan.batch_size
        case _:
            return None
    widths = [sizes for name, sizes in values.items() if name.endswith("hidden_sizes") and sizes]
    largest = max((x * y for sizes in widths for x, y in itertools.pairwise(sizes)), default=1)
    return rows if rows <= FEW_ROWS and rows * largest <= FEW_PRODUCTS else None
