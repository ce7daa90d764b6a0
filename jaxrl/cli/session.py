"""Prepares the process for jax."""

import logging
import os
import sys
from pathlib import Path

from jaxrl.cli import terminal


def find_own_modules() -> None:
    """Lets an environment of one's own be imported from here, where `python -m` would look, too."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def keep_compiled_programs() -> None:
    """Lets jax keep what it compiles, so that the second start of a run need not wait.

    A setting of the user's wins; JAX_ENABLE_COMPILATION_CACHE=false turns it off. Where there is no
    place for them, a container without a home directory say, a line says so.
    """
    if "jax" in sys.modules:  # which reads its settings when it is imported
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
                f"note: compiled programs are not kept ({why}): set XDG_CACHE_HOME to a directory "
                "that can be written"
            )
            logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would say the same
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
