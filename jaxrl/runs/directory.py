"""The run directory: config.json, metrics.jsonl, summary.json, checkpoints/, plots and logs.

It does not import jax, so that bad paths are reported quickly.
"""

import contextlib
import errno
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
from typing import Any, Self

from jaxrl.errors import InvalidValue
from jaxrl.runs.disk import replace, sync, user_path, writing
from jaxrl.runs.text import resume_command
from jaxrl_envs.libraries import EXTRAS

SCHEMA_VERSION = 2
"""Schema of config.json, summary.json and metrics.jsonl; 1 had neither revision nor settings."""
METRICS = "metrics.jsonl"
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of file systems without locks, such as Lustre as it is often mounted."""
SWEEP = "sweep.json"
"""The file that marks a directory as a sweep; its runs are subdirectories."""
PACKAGES = ("jaxrl", "jax", "jaxlib", "flax", "optax", "gymnax", *EXTRAS.values(), "numpy")


class _Taken(Exception):
    """A directory that should be new exists already."""


class RunDirectory:
    """The directory of one run; once claimed, it belongs to one process.

    `create` and `resume` claim it: they lock the directory before they read it. The lock lasts
    until `unlock`, `discard` or the end of the process, even if it is killed. It works on one
    machine; if several machines share a disk, only one can write config.json.

    As a context manager, it unlocks the directory at the end and removes it if it is empty.
    """

    def __init__(self, path: Path | str):
        self.path = user_path(path)
        self._made: list[Path] = []  # directories created by this object, innermost first
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path | str) -> Self:
        """Creates the directory, or uses an empty one, and claims it.

        Raises:
          ValueError: it is not empty, another process is using it, or it cannot be created or
            written to.
        """
        directory = cls(path)
        directory._create()
        return directory

    @classmethod
    def create_numbered(cls, path: Path | str) -> Self:
        """Creates and claims a new directory: `path`, or else `path-2`, `path-3`, ...

        It is for default names: processes that choose the same name get separate directories.

        Raises:
          ValueError: it cannot be created or written to.
        """
        path, number = user_path(path), 1
        while True:
            directory = cls(path if number == 1 else path.with_name(f"{path.name}-{number}"))
            with contextlib.suppress(_Taken):
                directory._create(is_new=True)
                return directory
            number += 1

    @classmethod
    def resume(cls, path: Path | str) -> Self:
        """Claims the directory of an earlier run to continue it.

        Raises:
          ValueError: it contains no run, cannot be written to, or another process is using it.
        """
        directory = cls(path)
        read_config(directory.path)
        try:
            directory.lock()
        except OSError as error:
            raise InvalidValue(f"cannot write to the run {path}: {error.strerror}") from error
        return directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.discard()

    def _create(self, *, is_new: bool = False) -> None:
        path = self.path
        try:
            self._make_and_lock(is_new)
            if not all(map(_is_leftover, path.iterdir())):
                raise InvalidValue(f"the run directory {path} is not empty: {_way_out(path)}")
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            self.discard()
            raise InvalidValue(
                f"cannot write to the run directory {path}: {error.strerror}"
            ) from error
        except BaseException:
            self.discard()
            raise

    def _make_and_lock(self, is_new: bool, attempts: int = 100) -> None:
        """Creates and locks the directory; retries if another process removes it meanwhile."""
        missing = [p for p in (self.path, *self.path.parents) if not p.exists()]
        self._made += [p for p in missing if p not in self._made]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.path.mkdir()
            except FileExistsError:
                if is_new:
                    raise _Taken from None
                self.path.mkdir(exist_ok=True)  # raises if it is not a directory
            self.lock()
            assert self._lock is not None
            if os.path.samestat(os.fstat(self._lock), self.path.stat()):
                return
        except (FileNotFoundError, FileExistsError):
            if attempts == 0:
                raise
        self.unlock()
        self._make_and_lock(is_new, attempts - 1)

    def lock(self) -> None:
        """Keeps other processes from claiming this directory.

        Raises:
          ValueError: another process has claimed it.
        """
        if self._lock is not None:
            return
        try:
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise InvalidValue(
                f"another process is writing to the run {self.path}: wait until it ends, or choose "
                "another directory"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                self.unlock()
                raise

    def unlock(self) -> None:
        """Releases the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Removes what `create` made, unless something was written into it, and unlocks.

        A directory that is not locked is left alone: it may belong to another process by now.
        """
        if self._lock is not None:
            with contextlib.suppress(OSError):  # not empty
                for path in self._made:
                    path.rmdir()
        self.unlock()

    @property
    def resume_command(self) -> str:
        """The command that resumes this run, or the sweep that it belongs to."""
        is_of_sweep = (self.path.parent / SWEEP).exists()
        return resume_command(self.path.parent if is_of_sweep else self.path)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def plot(self) -> Path:
        return self.path / "learning_curve.png"

    def write_config(self, config: dict[str, Any], *, new: bool = False) -> None:
        """Writes config.json: the configuration, package versions and the git revision.

        Args:
          config: the configuration.
          new: whether the run is new, so that the file must not exist yet.

        Raises:
          ValueError: a process on another machine has started a run here.
        """
        content = {**config, "versions": versions(), "revision": revision()}
        try:
            self._write("config.json", content, new=new)
        except FileExistsError:
            raise InvalidValue(
                f"another process has started a run in {self.path}: choose another directory"
            ) from None

    def retract_config(self) -> None:
        """Removes the config.json of a run that did not start."""
        (self.path / "config.json").unlink(missing_ok=True)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json, which marks the run as complete."""
        self._write("summary.json", summary)

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Appends one line per row to metrics.jsonl and syncs it to disk."""
        path = self.path / METRICS
        lines = [json.dumps(plain(row), allow_nan=False) + "\n" for row in rows]
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
            sync(file)

    def keep_metrics(self, until: int) -> int:
        """Drops the lines of metrics.jsonl after step `until`, and a truncated last line.

        Returns the last remaining step, or -1.
        """
        if not (self.path / METRICS).exists():
            return -1
        rows = [row for row in read_metrics(self.path) if row["step"] <= until]
        self.replace(METRICS, "".join(json.dumps(row) + "\n" for row in rows))
        return rows[-1]["step"] if rows else -1

    def copy_metrics(self, folder: Path) -> None:
        """Copies metrics.jsonl into `folder`, next to something that was put aside."""
        if (self.path / METRICS).exists():
            with writing(folder / METRICS):
                shutil.copy(self.path / METRICS, folder / METRICS)

    def _write(self, name: str, content: dict[str, Any], *, new: bool = False) -> None:
        content = plain({"schema_version": SCHEMA_VERSION, **content})
        self.replace(name, json.dumps(content, indent=2, allow_nan=False) + "\n", new=new)

    def replace(self, name: str, text: str, *, new: bool = False) -> None:
        """Writes a file atomically; see `disk.replace`."""
        replace(self.path / name, text, new=new)


def _is_leftover(path: Path) -> bool:
    """Whether this was left by a process that was killed before its run started."""
    partial = path.name == ".writable" or re.fullmatch(r"\..+\.partial", path.name) is not None
    empty = path.name == "checkpoints" and path.is_dir() and not any(path.iterdir())
    return partial or empty


def _way_out(path: Path) -> str:
    """The remedy for a directory that is not empty."""
    is_unfinished = (path / "config.json").exists() and not (path / "summary.json").exists()
    go_on = f"continue its run with {resume_command(path)}, or " if is_unfinished else ""
    return f"{go_on}choose another"


def read_config(path: Path | str) -> dict[str, Any]:
    """A run's config.json.

    Raises:
      ValueError: it is missing, cannot be read, or was written by a newer jaxrl.
    """
    path = user_path(path)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "it has no config.json" if path.is_dir() else "there is no such directory"
        raise InvalidValue(f"{path} is not a run: {what}") from None
    except (OSError, ValueError) as error:
        raise InvalidValue(f"cannot read {path / 'config.json'}: {error}") from None
    if not isinstance(config, dict) or "algorithm" not in config:
        raise InvalidValue(f"{path} is not a run: its config.json names no algorithm")
    if config.get("schema_version", 0) > SCHEMA_VERSION:
        raise InvalidValue(f"{path} was written by a newer jaxrl: use that one")
    return config


def read_summary(path: Path | str) -> dict[str, Any] | None:
    """A run's summary.json; None if the run is not complete."""
    try:
        return json.loads((Path(path) / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def read_metrics(path: Path | str) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, without a truncated last line."""
    with (Path(path) / METRICS).open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                return


def revision() -> dict[str, Any] | None:
    """The git commit of the working directory and whether it is dirty; None outside of git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def other_versions(then: dict[str, str]) -> str:
    """A text that lists versions that have changed since `then`; empty if none."""
    now = versions()
    return ", ".join(
        f"{name} {old} (now {now.get(name, 'missing')})"
        for name, old in then.items()
        if now.get(name) != old
    )


def plain(x: Any) -> Any:
    """Converts to plain JSON values; NaN and infinities become null."""
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
    return re.sub(r" at 0x[0-9a-f]+", "", str(x))  # without memory addresses
