"""Sweeps: points of hyper-parameters, split into vmapped runs, in a directory.

sweep.json     configuration of the runs, points, and how they are split
000/, 001/     runs, each with some of the points and all seeds
results.json   all points with their results, the best first
confirmed/     the best point trained with new seeds (--confirm-seeds)
sweep.png      a heat map of two hyper-parameters, or a curve of one
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from jaxrl.errors import InvalidValue
from jaxrl.registry import algorithm
from jaxrl.runs.directory import SWEEP, RunDirectory, plain, read_summary
from jaxrl.runs.disk import user_path
from jaxrl.runs.run_config import RunConfig, parsed
from jaxrl.runs.text import resume_command
from jaxrl.value_text import ScheduleText

Point = dict[str, Any]
"""Hyper-parameters by name, as `value_text.parse` returns them."""


def grid(choices: Mapping[str, Sequence[Any]]) -> list[Point]:
    """The Cartesian product; the last name varies fastest."""
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The configuration of a sweep.

    Attributes:
      run_config: the configuration that its runs share.
      points: hyper-parameters, in the order of training.
      max_memory: memory limit of a program in GiB; None for half of the memory.
      confirm_seeds: number of new seeds with which to train the best point again; None for none.
    """

    run_config: RunConfig
    points: tuple[Point, ...]
    max_memory: float | None = None
    confirm_seeds: int | None = None

    def content(self) -> dict[str, Any]:
        """The content of sweep.json."""
        return {
            "config": self.run_config.config(),
            "points": self.points,
            "max_memory": self.max_memory,
            "confirm_seeds": self.confirm_seeds,
        }

    @classmethod
    def of_content(cls, content: Mapping[str, Any], path: Path) -> Self:
        """The sweep with this content of sweep.json; `path` is for messages."""
        run_config = RunConfig.of_config(content["config"], path)
        of = algorithm(run_config.algorithm)
        return cls(
            run_config,
            tuple(parsed(of, point) for point in content["points"]),
            content.get("max_memory"),
            content.get("confirm_seeds"),
        )


@dataclasses.dataclass(frozen=True)
class Range:
    """A range to sample from, uniformly or, with `log`, uniformly in the logarithm."""

    low: float
    high: float
    log: bool = False

    def draw(self, rng: np.random.Generator) -> float:
        if self.log:
            return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return float(rng.uniform(self.low, self.high))


def random_points(
    ranges: Mapping[str, Range], choices: Mapping[str, Sequence[Any]], num: int, seed: int
) -> list[Point]:
    """Samples `num` points from ranges and choices; duplicates are dropped.

    The same seed gives the same points.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        {name: among[int(rng.integers(len(among)))] for name, among in choices.items()}
        | {name: float(f"{span.draw(rng):.6g}") for name, span in ranges.items()}
        for _ in range(num)
    ]
    return list({json.dumps(plain(point)): point for point in drawn}.values())


def split(points: Sequence[Point], batched: Sequence[str]) -> list[tuple[Point, list[Point]]]:
    """Groups points that can be vmapped in one program.

    Args:
      points: the points.
      batched: hyper-parameters that vmap can batch if they are numbers, not schedules or None.

    Returns:
      For each program, the values that its points share and the rest of each point.
    """
    found: dict[str, tuple[Point, list[Point]]] = {}
    for point in points:
        rest = {
            name: value
            for name, value in point.items()
            if name in batched and value is not None and not isinstance(value, ScheduleText)
        }
        fixed = {name: value for name, value in point.items() if name not in rest}
        key = json.dumps([sorted(rest), plain(fixed)], sort_keys=True)
        found.setdefault(key, (fixed, []))[1].append(rest)
    return list(found.values())


def memory_budget() -> int:
    """The default memory limit of a sweep, in bytes: half of the device's memory."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def batches(run_config: RunConfig, points: Sequence[Point], budget: int) -> list[list[Point]]:
    """Splits points evenly into parts whose programs take at most `budget` bytes each."""
    from jaxrl.runs.host_programs import programs_of
    from jaxrl.runs.load import build
    from jaxrl.runs.programs import memory_of

    if len(points) == 1:
        return [list(points)]
    members = build(dataclasses.replace(run_config, points=tuple(points)))
    programs = programs_of(members, run_config.options)
    size = sum(memory_of(programs.largest) or (0,))  # of a device
    if programs.placement.devices[0].platform == "cpu":  # whose devices share one memory
        size *= len(programs.placement.devices)
    num = min(len(points), max(1, -(-size // max(budget, 1))))
    edges = [len(points) * i // num for i in range(num + 1)]
    return [list(points[a:b]) for a, b in itertools.pairwise(edges)]


class SweepDirectory(RunDirectory):
    """The directory of a sweep and its runs, claimed like a `RunDirectory`."""

    @classmethod
    def create(cls, path: Path | str) -> Self:
        """Creates the directory, or uses an empty one, and claims it.

        Raises:
          ValueError: it is not empty, another process is using it, or it cannot be written to.
        """
        if (user_path(path) / SWEEP).exists():
            go_on = resume_command(user_path(path))
            raise InvalidValue(f"{path} contains a sweep: resume it with {go_on}")
        return super().create(path)

    @classmethod
    def resume(cls, path: Path | str) -> Self:
        """Claims the directory of an earlier sweep.

        Raises:
          ValueError: another process is using it.
        """
        directory = cls(path)
        directory.lock()
        return directory

    def begin(self, sweep: Sweep) -> None:
        """Writes sweep.json if it does not exist."""
        if not (self.path / SWEEP).exists():
            self._write_sweep({**sweep.content(), "batches": {}})

    def read(self) -> Sweep | list[str]:
        """The sweep, or the command-line words that an older sweep.json stores instead.

        Raises:
          ValueError: the directory contains no sweep.
        """
        content = self._read()
        if "words" in content:
            return content["words"]
        if missing := {"config", "points"} - content.keys():
            raise InvalidValue(f"{self.path} is not a sweep: its {SWEEP} has no {min(missing)}")
        return Sweep.of_content(content, self.path)

    def batches(self, group: int, make: Any) -> list[list[Point]]:
        """The parts of a group's points, stored on first use so that its runs can be resumed."""
        content = self._read()
        if str(group) not in content["batches"]:
            content["batches"][str(group)] = make()
            self._write_sweep(content)
        return content["batches"][str(group)]

    def run(self, number: int) -> tuple[Path, bool]:
        """The directory of a run, and whether the run has ended."""
        path = self.path / f"{number:03}"
        return path, read_summary(path) is not None

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads((self.path / SWEEP).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidValue(f"{self.path} is not a sweep: {error}") from None

    def _write_sweep(self, content: dict[str, Any]) -> None:
        self.replace(SWEEP, json.dumps(plain(content), indent=2) + "\n")
