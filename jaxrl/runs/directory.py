"""The run directory: config.json, metrics.jsonl, summary.json, learning_curve.png, checkpoints/.

Imports no jax, so that a bad path is reported before anything slow happens.
"""

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
LIBRARIES = ("brax", "craftax", "jumanji", "navix")
"""Packages of environments that are not always there; each is an extra of its own name."""
PACKAGES = ("jaxrl", "jax", "jaxlib", "flax", "optax", "gymnax", *LIBRARIES, "numpy")


class RunDirectory:
    """A directory that belongs to one run, made new: nothing is ever overwritten."""

    def __init__(self, path: Path):
        self.path = path
        self._made: list[Path] = []  # directories that were not there before, the innermost first

    @classmethod
    def create(cls, path: Path | str) -> "RunDirectory":
        """Makes the directory.

        Raises:
          ValueError: it holds files already, or cannot be made or written to.
        """
        path = Path(path)
        directory = cls(path)
        try:
            if path.is_dir() and any(path.iterdir()):
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
    def plot(self) -> Path:
        return self.path / "learning_curve.png"

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes config.json: what was asked, and the versions it ran on."""
        self._write("config.json", {**config, "versions": versions()})

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json, when the run is complete."""
        self._write("summary.json", summary)

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Appends a line each to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(_jsonable(row), allow_nan=False) + "\n" for row in rows)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        content = _jsonable({"schema_version": SCHEMA_VERSION, **content})
        text = json.dumps(content, indent=2, allow_nan=False)
        partial = self.path / f".{name}.partial"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(self.path / name)


def read_metrics(path: Path | str) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    with (Path(path) / "metrics.jsonl").open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def versions() -> dict[str, str]:
    """Python and the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _jsonable(x: Any) -> Any:
    """Plain JSON values; NaN and infinities, which JSON lacks, become null."""
    if isinstance(x, dict):
        return {str(k): _jsonable(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_jsonable(v) for v in x]
    if hasattr(x, "tolist"):  # a scalar or an array, of NumPy or jax
        return _jsonable(x.tolist())
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    return x if isinstance(x, str | int | None) else str(x)
