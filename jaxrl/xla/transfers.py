"""Lets jaxrl move its own numbers between host and device under `jax.transfer_guard`.

Works around: the guard forbids implicit transfers of Python's numbers, and hyper-parameters are
Python's numbers and metrics end on the host. The guard stays in force for the user's own code.

Versions: all of jax; it is how the guard is meant to work.

Measured: `python -m benchmarks.workarounds transfers` makes an environment under the guard.

Delete when: the command says so for every supported jax, or every transfer of a run is an explicit
`jax.device_put` or `jax.device_get`; `transfers_allowed(f)` becomes `f`.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def transfers_allowed(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, with its transfers allowed."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return run
