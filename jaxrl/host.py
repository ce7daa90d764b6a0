"""Protection of small hosts from a deadlock of jax 0.10's CPU runtime. Imports no jax.

On a host of two cores, jax 0.10.2 hangs at 0% CPU in about half the runs of a program that is
vmapped over seeds; jax 0.11 does not. One XLA flag avoids it, and has to be set before the backend
starts. `import jaxrl` does so on affected versions and hosts, unless the user has set that flag or
`JAXRL_NO_DEADLOCK_PROTECTION=1`.
"""

import importlib.metadata
import os
import sys
import warnings

OPT_OUT = "JAXRL_NO_DEADLOCK_PROTECTION"
FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"
SMALL_HOST = 4  # cores; the hang was seen on 2 and not with 4


def protect() -> None:
    """Adds the flag to XLA_FLAGS where it is needed; warns where it comes too late."""
    flags = os.environ.get("XLA_FLAGS", "")
    if os.environ.get(OPT_OUT, "0") not in ("", "0") or FLAG in flags:
        return
    if not (jaxlib_is_affected(_jaxlib_version()) and host_is_small()):
        return
    if _backend_has_started():
        warnings.warn(
            f"jaxrl was imported after jax started its backend: on this host ({cores()} cores) this "
            f"version of jax can hang in vmapped programs. Import jaxrl first, or set "
            f"XLA_FLAGS={FLAG}=false; {OPT_OUT}=1 silences this warning.",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=false".strip()


def jaxlib_is_affected(version: tuple[int, ...] | None) -> bool:
    """Whether that version is known to hang: 0.10."""
    return version is not None and (0, 10) <= version < (0, 11)


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
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _backend_has_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge and getattr(bridge, "_backends", None))
