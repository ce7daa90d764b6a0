"""Protection from a deadlock of jaxlib's CPU kernels on hosts with few cores. Imports no jax.

Works around: a batched LAPACK call, such as the QR decomposition of orthogonal initialisation under
`vmap`, splits its batch over XLA's thread pool and waits in a thread of that pool. As many
independent calls as the pool has threads wait for each other forever, at 0% CPU. jaxrl itself makes
no batched call: `one_by_one` initialises vmapped seeds sequentially. Environments may (brax's
physics does). An XLA flag serialises such calls, which slows every program by a few percent, and
must be set before the backend starts: `protect` sets it for brax and for environments given by an
import path, and training warns if it is needed and missing. A value set by the user is kept, and
`JAXRL_NO_DEADLOCK_PROTECTION=1` turns flag and warning off.

Versions: jaxlib 0.10.0 to 0.11.0, CPUs with fewer than 16 threads.

Measured: `python -m benchmarks.workarounds deadlock` trains eight vmapped seeds on two threads;
without this file 6 of 6 processes hung.

Delete when: jaxlib 0.11.0 and older are no longer supported. `one_by_one(f)` becomes `f`;
`primitives` and `backend_has_started` are used elsewhere, too, and move.
"""

import importlib.metadata
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from jaxrl.devices.machine import cores

OPT_OUT = "JAXRL_NO_DEADLOCK_PROTECTION"
FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"
SMALL_HOST = 16
"""Threads. Hangs were seen at 2 with two hidden layers, and at 4 and 6 with four hidden layers."""
LAPACK = frozenset(
    [
        *("cholesky", "cholesky_update", "eig", "eigh", "geqrf", "hessenberg"),
        *("householder_product", "lu", "qr", "schur", "svd"),
        *("triangular_solve", "tridiagonal", "tridiagonal_solve"),
    ]
)
"""jax's primitives that call LAPACK on a CPU."""


def is_affected() -> bool:
    """Whether batched LAPACK calls can hang here: this jaxlib, this number of threads."""
    return jaxlib_is_affected(_jaxlib_version()) and host_is_small()


def protect() -> None:
    """Adds the flag to XLA_FLAGS where it is needed and can still have an effect."""
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if _leaves_us_out(flags) or not is_affected() or backend_has_started():
        return
    if not flags or flags.startswith("-"):  # else it names a file
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=false".strip()


def protect_or_warn(what: str, jaxpr: Any) -> None:
    """Protects from the LAPACK calls in a jaxpr, or warns with RuntimeWarning if it is too late.

    Args:
      what: name of the program for the message, such as "CartPole".
      jaxpr: the program.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if _leaves_us_out(flags) or not is_affected():
        return
    calls = sorted(set(primitives(jaxpr)) & LAPACK)
    if not calls:
        return
    protect()
    if FLAG in os.environ.get("XLA_FLAGS", ""):
        return
    where = f"add it to the file {flags}" if flags and not flags.startswith("-") else "set it"
    warnings.warn(
        f"{what} calls LAPACK ({', '.join(calls)}), which can hang with this version of jaxlib on "
        f"only {cores()} cores. XLA_FLAGS={FLAG}=false prevents it: {where} before jax starts, or "
        f"call jaxrl.xla.deadlock.protect() first. {OPT_OUT}=1 silences this warning.",
        RuntimeWarning,
        stacklevel=4,
    )


def one_by_one(function: Callable) -> Callable:
    """Runs a function sequentially under `vmap`, if batched LAPACK calls can hang here.

    The results are the same.
    """
    if not is_affected():
        return function
    import jax

    return jax.custom_batching.sequential_vmap(function)


def jaxlib_is_affected(version: tuple[int, ...] | None) -> bool:
    """Whether a version is known to hang: 0.10.0 to 0.11.0."""
    return version is not None and (0, 10) <= version < (0, 11, 1)


def host_is_small() -> bool:
    """Whether jax's CPU runtime would get fewer threads than are known to be safe."""
    threads = os.environ.get("NPROC", "")  # what XLA's own thread pool reads
    return (int(threads) if threads.isdigit() else cores()) < SMALL_HOST


def _leaves_us_out(flags: str) -> bool:
    """Whether the user has opted out or set the flag."""
    return os.environ.get(OPT_OUT, "0") not in ("", "0") or FLAG in flags


def _jaxlib_version() -> tuple[int, ...] | None:
    try:
        version = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def backend_has_started() -> bool:
    """Whether jax has started, and settings of its devices come too late."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge and getattr(bridge, "_backends", None))


def primitives(jaxpr: Any) -> Iterator[str]:
    """Names of the primitives in a jaxpr, including its loops and branches."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation.primitive.name
        for inner in jaxprs_inside(equation):
            yield from primitives(inner)


def jaxprs_inside(equation: Any) -> Iterator[Any]:
    """The jaxprs inside an equation, such as the body of a loop or the branches of a `cond`."""
    for value in equation.params.values():
        for inner in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield inner
