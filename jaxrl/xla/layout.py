"""Device-specific program layout: whether jax runs on a CPU, and how far to unroll rollouts.

Works around: XLA does not unroll loops. On an accelerator, each iteration of a loop costs kernels
for its counters and copies, about as many as a small environment step. A CPU computes a step in its
cache, so unrolling would only lengthen compilation. Other modules here use `is_cpu`, too.

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
"""Maximum number of operations in a reset and a step for which a loop is unrolled. gymnax's classic
control has 100 to 600, MinAtar's Breakout 400 and Freeway 3,200, brax 5,000 and more."""


def is_cpu() -> bool:
    """Whether jax's default backend is a CPU."""
    return jax.default_backend() == "cpu"


def scan_unroll(jaxpr: Any) -> int:
    """The number of environment steps per iteration of the rollout's loop.

    Args:
      jaxpr: a reset and a step of one copy.

    Returns:
      `SCAN_UNROLL` on an accelerator; 1 on a CPU, and for large steps, which would take minutes to
      compile if unrolled.
    """
    is_small = sum(1 for _ in primitives(jaxpr)) <= SMALL_STEP
    return SCAN_UNROLL if is_small and not is_cpu() else 1
