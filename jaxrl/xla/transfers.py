"""Allows jaxrl's own transfers between host and device under `jax.transfer_guard`.

Works around: the guard forbids implicit transfers, but hyper-parameters are Python numbers and
metrics end on the host. The guard still applies to the user's own code.

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
    """Decorator: allows transfers within the function."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return run
