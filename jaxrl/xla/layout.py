"""How a program is laid out for the device that runs it: the same numbers, but for rounding.

On a CPU data should stay in the cache from one layer to the next, and a small operation costs the
waking of a thread. An accelerator runs one kernel after the other, each of microseconds: what
counts is how many there are, and then the bytes that they move.
"""

from typing import Any

import jax

from jaxrl.xla.deadlock import primitives

SCAN_UNROLL = 4
SMALL_STEP = 1000
"""Operations of a start and a step: gymnax's classic control has 100 to 600, MinAtar's Breakout 400
and Freeway 3,200, brax's bodies 5,000 and more."""


def is_cpu() -> bool:
    """Whether jax's default backend is a CPU."""
    return jax.default_backend() == "cpu"


def scan_unroll(jaxpr: Any) -> int:
    """How many steps of an environment each turn of the rollout's loop should take.

    Args:
      jaxpr: a start and a step of one copy.

    Returns:
      Four on an accelerator, where a turn's own copies and counters are as many kernels as a small
      step; one on a CPU, and where compiling a large step four times (or seven: a last turn that is
      not whole is compiled by itself) would take minutes.
    """
    is_small = sum(1 for _ in primitives(jaxpr)) <= SMALL_STEP
    return SCAN_UNROLL if is_small and not is_cpu() else 1
