"""Which program layout suits the device, and how often to unroll the rollout's loop.

Works around: XLA runs a loop as it is written. On an accelerator every turn of a loop costs kernels
for its counters and copies, about as many as a small step of an environment. A CPU computes a step
in its cache, and unrolling would only lengthen compilation. `is_cpu` decides for the other modules
here, too.

Versions: jaxlib 0.11.2 on GPUs.

Measured: `JAX_PLATFORMS=cuda python -m benchmarks.workarounds layout`. On an H100 an iteration of
PPO with 4 x 128 steps took 3.09 ms instead of 5.16, with 64 x 128 steps 3.88 ms instead of 5.74.

Delete when: the command says so on every accelerator in use; `scan_unroll(jaxpr)` becomes 1. The
module goes when no other one asks for `is_cpu`.
"""

from typing import Any

import jax

from jaxrl.xla.deadlock import primitives

SCAN_UNROLL = 4
SMALL_STEP = 1000
"""Operations in a reset and a step up to which a loop is unrolled. gymnax's classic control has 100
to 600, MinAtar's Breakout 400 and Freeway 3,200, brax's bodies 5,000 and more."""


def is_cpu() -> bool:
    """Whether jax's default backend is a CPU."""
    return jax.default_backend() == "cpu"


def scan_unroll(jaxpr: Any) -> int:
    """How many steps of an environment each turn of the rollout's loop takes.

    Args:
      jaxpr: a reset and a step of one copy.

    Returns:
      `SCAN_UNROLL` on an accelerator; 1 on a CPU, and for large steps, which would take minutes to
      compile that often.
    """
    is_small = sum(1 for _ in primitives(jaxpr)) <= SMALL_STEP
    return SCAN_UNROLL if is_small and not is_cpu() else 1
