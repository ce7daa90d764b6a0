"""The compiled programs of a run, and the memory that they take."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.engine.learners import IterationMetrics
from jaxrl.engine.training import Training
from jaxrl.runs.events import Compiled
from jaxrl.runs.members import Members


class Programs:
    """The three compiled programs of a run, vmapped where there are several members.

    Under `jax_disable_jit` they are plain functions: nothing is compiled, and a debugger or a
    `print` sees every step.
    """

    def __init__(self, members: Members):
        training, key = members.training, members.key
        init = members.vmap(Training.init, 0)
        chunk = members.vmap(Training.chunk, 0, 0, None, None)
        evaluate = members.vmap(Training.evaluate, 0, 0, None)
        began = time.perf_counter()
        zero = jnp.int32(0)
        state = jax.eval_shape(init, training, key)
        if jax.config.jax_disable_jit:
            self._metrics = jax.eval_shape(chunk, training, state, key, zero, zero)[1]
            self._hold(init, chunk, evaluate)
            self.compiled = Compiled(time.perf_counter() - began, 0.0)
            return
        lowered = (
            jax.jit(init).lower(training, key),
            jax.jit(chunk, donate_argnums=1).lower(training, state, key, zero, zero),
            jax.jit(evaluate).lower(training, state, key, zero),
        )
        self._metrics = lowered[1].out_info[1]
        traced = time.perf_counter()
        self._hold(*(x.compile() for x in lowered))
        self.compiled = Compiled(traced - began, time.perf_counter() - traced)

    def _hold(self, init: Any, chunk: Any, evaluate: Any) -> None:
        self.init, self.chunk, self.evaluate = init, chunk, evaluate

    def no_metrics(self) -> IterationMetrics:
        """Of no iteration: to add to."""
        return jax.tree.map(lambda x: np.zeros(x.shape, np.float64), self._metrics)


class ProgramMemory(NamedTuple):
    """Bytes of a compiled program.

    Attributes:
      kept: arguments and results; results written over arguments count once.
      temporary: what lies between them.
    """

    kept: int
    temporary: int


def memory_of(program: Any) -> ProgramMemory | None:
    """The memory of a compiled program; None where the device does not tell, or it is a function
    that nothing compiled."""
    stats = program.memory_analysis() if hasattr(program, "memory_analysis") else None
    if stats is None:
        return None
    kept = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return ProgramMemory(kept, stats.temp_size_in_bytes)
