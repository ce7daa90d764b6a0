"""Process setup before jax is imported."""

import importlib.util
import logging
import os
import sys
from pathlib import Path

from jaxrl.cli import terminal
from jaxrl.devices import machine
from jaxrl.runs.run_config import RunConfig
from jaxrl.xla import deadlock

CPU_DEVICES = "JAX_NUM_CPU_DEVICES"
THREADS = "NPROC"
"""From which XLA takes the number of its threads."""
ACCELERATORS = ("jax_plugins", "libtpu")
"""Packages by which jax finds accelerators."""


def find_own_modules() -> None:
    """Makes modules in the current directory importable, as `python -m` does."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def use_cores(num_members: int, devices: int | None) -> None:
    """Makes each core of a CPU a device of jax, but no more than there are members.

    Other numbers if the user wants them, and all cores for a single member: they may share its
    environments (`engine.split`). See `devices.placement` for what they do.

    The user's settings take precedence, and nothing happens once jax has started. Other devices,
    such as GPUs, are not affected.
    """
    most = num_members if num_members > 1 else machine.cores()
    wanted = min(machine.cores(), devices or most)
    asked_for = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if wanted < 2 or asked_for or os.environ.get(CPU_DEVICES) or deadlock.backend_has_started():
        return
    if "jax" in sys.modules:
        import jax

        jax.config.update("jax_num_cpu_devices", wanted)
    else:
        os.environ[CPU_DEVICES] = str(wanted)


def use_one_thread(run_config: RunConfig) -> str | None:
    """Gives XLA a single thread where that is faster; returns why, or None.

    That is a single member with small updates, on a CPU. The user's settings take precedence, and
    nothing happens once jax has started. Versions of jaxlib that can hang with few threads keep
    them all.
    """
    from jaxrl_envs.registry import steps_are_small  # deferred: `--help` does not need it

    asked_for = any(os.environ.get(name) for name in (THREADS, CPU_DEVICES, "XLA_FLAGS"))
    if (
        run_config.num_members > 1
        or run_config.options.devices is not None
        or asked_for
        or not _only_cpus()
        or not steps_are_small(run_config.environment)
        or deadlock.is_affected()
        or deadlock.backend_has_started()
    ):
        return None
    from jaxrl.engine.threads import rows_for_one_thread  # deferred: it imports jax

    rows = rows_for_one_thread(run_config.build_agent())
    if rows is None:
        return None
    os.environ[THREADS] = "1"
    return f"1, as updates have only {rows} rows (set {THREADS} to override)"


def _only_cpus() -> bool:
    """Whether jax will find no accelerator."""
    if chosen := os.environ.get("JAX_PLATFORMS"):
        return chosen == "cpu"
    return not any(importlib.util.find_spec(name) for name in ACCELERATORS)


def keep_compiled_programs() -> None:
    """Turns on jax's compilation cache, so that a run starts faster the second time.

    The user's settings take precedence; JAX_ENABLE_COMPILATION_CACHE=false turns it off. If there
    is no place for the cache, as in a container without a home directory, a note is printed.
    """
    if "jax" in sys.modules:  # it reads its settings on import
        return
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            cache = Path(home) / "jaxrl" / "xla"
            cache.mkdir(parents=True, exist_ok=True)
            (cache / ".writable").touch()
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
            why = str(error).rstrip(".")
            terminal.say(
                f"note: compiled programs are not cached ({why}): set XDG_CACHE_HOME to a writable "
                "directory"
            )
            logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would warn as well
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
