"""Protection from a deadlock of jaxlib's CPU kernels on hosts with few cores. Imports no jax.

In jaxlib 0.10.0 to 0.11.0 a batched LAPACK call (a QR decomposition of orthogonal initialisation,
vmapped over seeds) splits its batch over XLA's thread pool and waits, in a thread of that pool.
As many independent calls as the pool has threads wait for each other for ever, at 0% CPU. One XLA
flag schedules such calls one after the other; it has to be set before the backend starts.
`import jaxrl` does so on affected versions and hosts, unless the user has set that flag or
`JAXRL_NO_DEADLOCK_PROTECTION=1`.
"""

import importlib.metadata
import os
import re
import sys
import warnings

OPT_OUT = "JAXRL_NO_DEADLOCK_PROTECTION"
FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"
SMALL_HOST = 16
"""Threads. Seen to hang: 2 with networks of two hidden layers, 4 and 6 with four hidden layers."""


def protect() -> None:
    """Adds the flag to XLA_FLAGS where it is needed; warns where that is too late or impossible."""
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if os.environ.get(OPT_OUT, "0") not in ("", "0") or FLAG in flags:
        return
    if not (jaxlib_is_affected(_jaxlib_version()) and host_is_small()):
        return
    if _backend_has_started():
        _warn("jaxrl was imported after jax had started. Import jaxrl first, or set XLA_FLAGS to")
    elif flags and not flags.startswith("-"):
        _warn(f"XLA_FLAGS names the file {flags}. Add to that file")
    else:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=false".strip()


def jaxlib_is_affected(version: tuple[int, ...] | None) -> bool:
    """Whether that version is known to hang: 0.10.0 to 0.11.0."""
    return version is not None and (0, 10) <= version < (0, 11, 1)


def host_is_small() -> bool:
    """Whether jax's CPU runtime would get fewer threads than are known to be safe."""
    threads = os.environ.get("NPROC", "")  # what XLA's own thread pool reads
    return (int(threads) if threads.isdigit() else cores()) < SMALL_HOST


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _jaxlib_version() -> tuple[int, ...] | None:
    try:
        version = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _backend_has_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge and getattr(bridge, "_backends", None))


def _warn(cause_and_mend: str) -> None:
    warnings.warn(
        f"this version of jaxlib can hang on a host of {cores()} cores, in programs vmapped over "
        f"seeds; {cause_and_mend} {FLAG}=false. {OPT_OUT}=1 silences this warning.",
        RuntimeWarning,
        stacklevel=4,
    )
