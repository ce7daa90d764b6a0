"""The run directory: config.json, metrics.jsonl, summary.json, checkpoints/, pictures and logs.

Imports no jax, so that a bad path is reported before anything slow happens.
"""

import fcntl
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 2
"""Of config.json, summary.json and metrics.jsonl; 1 had neither revision nor settings."""
LIBRARIES = ("brax", "craftax", "jumanji", "navix")
"""Packages of environments that are not always there; each is an extra of its own name."""
METRICS = "metrics.jsonl"
PACKAGES = ("jaxrl", "jax", "jaxlib", "flax", "optax", "gymnax", *LIBRARIES, "numpy")


class RunDirectory:
    """A directory that belongs to one run and, while it is written, to one process."""

    def __init__(self, path: Path):
        self.path = path
        self._made: list[Path] = []  # directories that were not there before, the innermost first
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path | str) -> "RunDirectory":
        """Makes the directory.

        Raises:
          ValueError: it holds files already, or cannot be made or written to.
        """
        path = Path(path)
        directory = cls(path)
        try:
            if path.is_dir() and not all(map(_is_leftover, path.iterdir())):
                raise ValueError(f"the run directory {path} is not empty: choose another")
            directory._made = [p for p in (path, *path.parents) if not p.exists()]
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            directory.discard()
            raise ValueError(f"cannot write the run directory {path}: {error.strerror}") from error
        return directory

    @classmethod
    def resume(cls, path: Path | str) -> "RunDirectory":
        """Opens the directory of an earlier run, to write on in it.

        Raises:
          ValueError: it holds no run, cannot be written, or another process writes it.
        """
        directory = cls(Path(path))
        read_config(path)
        directory.lock()
        return directory

    def lock(self) -> None:
        """Keeps other processes from writing this run, as long as this one lives or `unlock`.

        Raises:
          ValueError: another process writes it.
        """
        if self._lock is not None:
            return
        try:
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise ValueError(f"another process is writing the run {self.path}") from None
        except OSError as error:
            raise ValueError(f"cannot write the run {self.path}: {error.strerror}") from error

    def unlock(self) -> None:
        """Lets others write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Takes away what `create` made, unless something was written into it."""
        for path in self._made:
            try:
                path.rmdir()
            except OSError:
                return

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def plot(self) -> Path:
        return self.path / "learning_curve.png"

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes config.json: what was asked, and the versions and the code it ran on."""
        self._write("config.json", {**config, "versions": versions(), "revision": revision()})

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json, when the run is complete."""
        self._write("summary.json", summary)

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Appends a line each to metrics.jsonl; on the disk when this returns."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(plain(row), allow_nan=False) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())

    def keep_metrics(self, until: int) -> int:
        """Drops the lines of metrics.jsonl after step `until`, and a torn one at its end.

        Returns the last step that is left, -1 without any.
        """
        if not (self.path / METRICS).exists():
            return -1
        rows = [row for row in read_metrics(self.path) if row["step"] <= until]
        self.replace(METRICS, "".join(json.dumps(row) + "\n" for row in rows))
        return rows[-1]["step"] if rows else -1

    def copy_metrics(self, folder: Path) -> None:
        """Keeps what metrics.jsonl has now beside something that was put aside."""
        if (self.path / METRICS).exists():
            shutil.copy(self.path / METRICS, folder / METRICS)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        content = plain({"schema_version": SCHEMA_VERSION, **content})
        self.replace(name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def replace(self, name: str, text: str) -> None:
        """Writes a file anew, whole or not at all."""
        partial = self.path / f".{name}.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path / name)


def _is_leftover(path: Path) -> bool:
    """Whether a process that was killed before its run began left this behind."""
    names = (".writable", ".config.json.partial")
    empty = path.name == "checkpoints" and path.is_dir() and not any(path.iterdir())
    return empty or path.name in names


def read_config(path: Path | str) -> dict[str, Any]:
    """A run's config.json.

    Raises:
      ValueError: there is none, or it cannot be read, or a newer jaxrl wrote it.
    """
    path = Path(path)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "it has no config.json" if path.is_dir() else "there is no such directory"
        raise ValueError(f"{path} is no run: {what}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path / 'config.json'}: {error}") from None
    if not isinstance(config, dict) or config.get("schema_version", 0) > SCHEMA_VERSION:
        raise ValueError(f"{path} was written by a newer jaxrl: use that one")
    return config


def read_summary(path: Path | str) -> dict[str, Any] | None:
    """A run's summary.json; None for a run that is not complete."""
    try:
        return json.loads((Path(path) / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def read_metrics(path: Path | str) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, without one that was torn by the end of its process."""
    with (Path(path) / METRICS).open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                return


def revision() -> dict[str, Any] | None:
    """The git commit of the working directory, and whether files differ from it; None outside."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Python and the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def other_versions(then: dict[str, str]) -> str:
    """Versions of an earlier time that are not those of today, in words; empty for none."""
    now = versions()
    return ", ".join(
        f"{name} {old} (now {now.get(name, 'missing')})"
        for name, old in then.items()
        if now.get(name) != old
    )


def plain(x: Any) -> Any:
    """Plain JSON values; NaN and infinities, which JSON lacks, become null."""
    if isinstance(x, dict):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [plain(v) for v in x]
    if hasattr(x, "tolist"):  # a scalar or an array, of NumPy or jax
        return plain(x.tolist())
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    if isinstance(x, str | int | None):
        return x
    return re.sub(r" at 0x[0-9a-f]+", "", str(x))  # where a function lies this time
