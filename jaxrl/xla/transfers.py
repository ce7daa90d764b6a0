"""Transfers between host and device, also where `jax.transfer_guard` forbids them.

Hyper-parameters are Python's numbers, metrics end on the host: a run has to move a few numbers
around its compiled loop. The guard is for a user's own code, and holds on there.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def transfers_allowed(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, whose transfers no guard forbids."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return run
