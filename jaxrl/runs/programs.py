"""The compiled programs of a run and their memory."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.devices.placement import SHARED, Placement
from jaxrl.engine.learners import TrainState
from jaxrl.engine.metrics import IterationMetrics
from jaxrl.engine.training import Training
from jaxrl.runs.events import Compiled
from jaxrl.runs.members import Members
from jaxrl.types import PyTree


class Programs:
    """The three compiled programs of a run, vmapped over its members and spread over devices.

    Arguments and results are those of the members' placement: `training` and `key` are kept here,
    `place` brings others there, and `trim` drops what only fills up a device.

    Under `jax_disable_jit` they are plain functions, for debuggers and `print`.
    """

    def __init__(self, members: Members):
        placement = self.placement = members.placement
        self.training = placement.place(members.training, members.batched)
        self.key = placement.place(members.key)
        self._compile(members)

    def _compile(self, members: Members) -> None:
        placement, training, key = self.placement, self.training, self.key
        batched, of_envs = placement.batched, placement.axis_of_envs(vmapped=key.ndim > 0)
        of_state = self._of_state = training.specs(batched, of_envs)
        divides = training.eval_envs.num_envs % placement.shares == 0
        init = placement.spread(
            members.vmap(Training.init, 0), (members.batched, batched), of_state
        )
        chunk = placement.spread(
            members.vmap(Training.chunk, 0, 0, None, None),
            (members.batched, of_state, batched, SHARED, SHARED),
            (of_state, batched, batched),
        )
        evaluate = placement.spread(
            members.vmap(Training.evaluate, 0, 0, None),
            (members.batched, of_state, batched, SHARED),
            of_envs if divides else batched,
        )
        began = time.perf_counter()
        zero = jnp.int32(0)
        state = placement.shapes(jax.eval_shape(init, training, key), of_state)
        if jax.config.jax_disable_jit:
            self._metrics = jax.eval_shape(chunk, training, state, key, zero, zero)[1]
            self._hold(init, chunk, evaluate)
            self.compiled = Compiled(time.perf_counter() - began, 0.0, str(placement))
            return
        with _explained(placement):
            lowered = (
                jax.jit(init).lower(training, key),
                jax.jit(chunk, donate_argnums=1).lower(training, state, key, zero, zero),
                jax.jit(evaluate).lower(training, state, key, zero),
            )
        self._metrics = lowered[1].out_info[1]
        traced = time.perf_counter()
        self._hold(*(x.compile() for x in lowered))
        self.compiled = Compiled(traced - began, time.perf_counter() - traced, str(placement))

    def _hold(self, init: Any, chunk: Any, evaluate: Any) -> None:
        self.init, self.chunk, self.evaluate = init, chunk, evaluate

    fault: Exception | None = None
    """Why the last chunk ended early, at `reached`; only with a host environment."""

    reached: int
    """Finished iterations after a chunk that ended early."""

    def close(self) -> None:
        """Ends what runs beside the programs."""

    @property
    def largest(self) -> Any:
        """The program that needs the most memory."""
        return self.chunk

    def named(self) -> dict[str, Any]:
        """The compiled programs that do the work, by what they are for."""
        return {"training": self.chunk, "evaluation": self.evaluate}

    def no_metrics(self) -> IterationMetrics:
        """Metrics of no iterations, the start of a sum."""
        return self.trim(jax.tree.map(lambda x: np.zeros(x.shape, np.float64), self._metrics))

    def place(self, tree: PyTree) -> PyTree:
        """Arrays with an axis of members, as the programs take them."""
        return self.placement.place(tree)

    def place_state(self, state: TrainState) -> TrainState:
        """The state of training, as the programs take it."""
        return self.placement.place(state, self._of_state)

    def trim(self, tree: PyTree) -> PyTree:
        """Results of the programs, without what only fills up a device."""
        return self.placement.trim(tree)

    def readable(self, tree: PyTree) -> PyTree:
        """Results of the programs that this process can read."""
        return self.placement.readable(tree)


@contextlib.contextmanager
def _explained(placement: Placement) -> Iterator[None]:
    """Adds a note to JAX's message about a loop that is not written for shards."""
    try:
        yield
    except TypeError as error:
        if placement.is_shared:
            error.add_note(
                "Devices share the environments of this member. If the message is about manual "
                "axes: start loops over data from data, such as jnp.zeros_like(x), or train with "
                "devices=1."
            )
        raise


class ProgramMemory(NamedTuple):
    """Memory of a compiled program, in bytes.

    Attributes:
      kept: arguments and results; donated arguments count once.
      temporary: temporary buffers.
    """

    kept: int
    temporary: int


def memory_of(program: Any) -> ProgramMemory | None:
    """Memory of a compiled program; None if the device does not report it or it is not compiled."""
    stats = program.memory_analysis() if hasattr(program, "memory_analysis") else None
    if stats is None:
        return None
    kept = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return ProgramMemory(kept, stats.temp_size_in_bytes)
