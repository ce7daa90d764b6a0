"""Learning curves read from run directories, with members grouped by configuration."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.analysis.statistics import counted
from jaxrl.engine.options import Role
from jaxrl.errors import InvalidValue
from jaxrl.runs.directory import read_config, read_metrics, read_summary
from jaxrl.runs.disk import user_path
from jaxrl.runs.run_config import completed, role_of

AFRESH = "return_mean afresh"
"""An additional column, taken from summary.json."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """The curves of all members with one configuration: seeds of one or several runs.

    Attributes:
      label: the settings in which it differs from the other curves.
      algorithm, environment: their names.
      steps: `int64[E]`, environment steps per member.
      seconds: `float64[E]`, training time until then, of all members of a run together.
      values: `float64[E, members]`, a column of metrics.jsonl; NaN for null.
      diverged: `bool[E, members]`, whether a member had diverged; from then on it is left out.
      ends: `float64[members]`, the last values; if the last evaluation ended the run and is
        therefore biased upwards, returns of new episodes instead.
    """

    label: str
    algorithm: str
    environment: str
    steps: np.ndarray
    seconds: np.ndarray
    values: np.ndarray
    diverged: np.ndarray
    ends: np.ndarray

    @property
    def counted(self) -> list[np.ndarray]:
        """For each evaluation, the values of members that had not diverged; NaN if none is left."""
        rows = zip(self.values, self.diverged, strict=True)
        return [counted(row, np.flatnonzero(lost)) for row, lost in rows]

    @property
    def means(self) -> np.ndarray:
        """`float64[E]`, means over members that had not diverged; NaN if a value is missing."""
        return np.array([row.mean() for row in self.counted])

    @property
    def final(self) -> np.ndarray:
        """The `ends` of the members that have not diverged."""
        return counted(self.ends, np.flatnonzero(self.diverged[-1]))

    @property
    def size(self) -> str:
        """The number of members at the end: "5", or "4 of 5" if one has diverged."""
        members, lost = self.values.shape[1], self.diverged[-1].sum()
        return f"{members - lost} of {members}" if lost else f"{members}"


def read_curves(paths: Sequence[Path | str], metric: str = "return_mean") -> list[Curve]:
    """Reads the curves of runs, in the order of `paths`.

    Args:
      paths: run directories.
      metric: a column of metrics.jsonl.

    Raises:
      ValueError: a path is not a run, or has no evaluation yet, or lacks the column.
    """
    found: dict[str, tuple[dict[str, Any], list[list[dict[str, Any]]]]] = {}
    for path in dict.fromkeys(map(user_path, paths)):
        config = read_config(path)
        for point, members in _members(path, config, metric):
            told = {k: x for k, x in completed(config).items() if _distinguishes_curves(k, x)}
            configuration = _flat(told)
            configuration |= {f"hyper_parameters.{name}": x for name, x in point.items()}
            key = json.dumps(configuration, sort_keys=True)
            found.setdefault(key, (configuration, []))[1].extend(members)
    labels = _labels([configuration for configuration, _ in found.values()])
    return [
        _curve(label, configuration, members, metric)
        for label, (configuration, members) in zip(labels, found.values(), strict=True)
    ]


def _members(
    path: Path, config: Mapping[str, Any], metric: str
) -> Iterable[tuple[dict[str, Any], list[list[dict[str, Any]]]]]:
    """The rows of each member, for each point of a sweep."""
    try:
        rows = list(read_metrics(path))
    except FileNotFoundError:
        rows = []
    if not rows:
        raise InvalidValue(f"{path} has no evaluation yet")
    if metric not in rows[0]:
        numbers = [
            name
            for name, x in rows[0].items()
            if isinstance(x, int | float) and name not in ("seed", "diverged")
        ]
        raise InvalidValue(f"{path} has no {metric!r}: it has {', '.join(numbers)}")
    if metric == "return_mean":
        _judge_afresh(path, rows)
    points: list[dict[str, Any]] = config.get("points") or [{}]
    for point in points:
        of_point = [row for row in rows if all(row[k] == x for k, x in point.items())]
        seeds = dict.fromkeys(row["seed"] for row in of_point)
        yield point, [[row for row in of_point if row["seed"] == seed] for seed in seeds]


def _judge_afresh(path: Path, rows: list[dict[str, Any]]) -> None:
    """Adds the evaluation on new episodes to the last rows of a run that its return ended."""
    summary = read_summary(path) or {}
    final = summary.get("final_return", {})
    members = len(final.get("per_seed", ()))
    if final.get("afresh") and summary["env_steps"] == members * rows[-1]["step"]:
        for row, value in zip(rows[-members:], final["per_seed"], strict=True):
            row[AFRESH] = value


def _curve(
    label: str, configuration: dict[str, Any], members: list[list[dict[str, Any]]], metric: str
) -> Curve:
    """Builds the curve at steps that all members have; a seed trained twice counts once."""
    members = list({rows[0]["seed"]: rows for rows in reversed(members)}.values())[::-1]
    common = set.intersection(*({row["step"] for row in rows} for rows in members))
    if not common:
        raise InvalidValue(f"runs of {label} have no common step: plot or compare them separately")
    members = [[row for row in rows if row["step"] in common] for rows in members]

    def column(name: str) -> np.ndarray:
        rows = [[row[name] for row in rows] for rows in members]
        return np.array([[np.nan if x is None else x for x in row] for row in rows], float).T

    ends = [rows[-1].get(AFRESH, rows[-1][metric]) for rows in members]

    return Curve(
        label=label,
        algorithm=configuration["algorithm"],
        environment=configuration["environment"],
        steps=np.array(sorted(common)),
        seconds=column("train_seconds").mean(axis=1),
        values=column(metric),
        diverged=np.array([[row.get("diverged", False) for row in rows] for rows in members]).T,
        ends=np.array([np.nan if x is None else x for x in ends], float),
    )


def _distinguishes_curves(name: str, value: Any) -> bool:
    """Whether runs that differ in this entry of config.json are different curves."""
    return role_of(name) is Role.TRAINING and value is not None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and name.endswith("parameters"):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _labels(configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings in which each configuration differs from the others, or else the algorithm.

    The environment is left out, since tables and plots have a part for each.
    """
    names = dict.fromkeys(name for c in configurations for name in c if name != "environment")
    # Algorithms have different hyper-parameters, so these say nothing between them.
    one_algorithm = len({c["algorithm"] for c in configurations}) == 1
    differing = [
        name
        for name in names
        if len({json.dumps(c.get(name), sort_keys=True) for c in configurations}) > 1
        and (one_algorithm or not name.startswith("hyper_parameters."))
    ]

    def part(name: str, value: Any) -> str:
        if name == "algorithm":
            return str(value)
        return f"{name.rpartition('.')[2]}={_short(value)}"

    labels = [
        ", ".join(part(name, c[name]) for name in differing if name in c) or c["algorithm"]
        for c in configurations
    ]
    places = [(label, c["environment"]) for label, c in zip(labels, configurations, strict=True)]
    return [
        label if places.count(place) == 1 else f"{label} ({places[: i + 1].count(place)})"
        for i, (label, place) in enumerate(zip(labels, places, strict=True))
    ]


def _short(value: Any) -> str:
    if isinstance(value, Mapping):  # a schedule
        ((kind, numbers),) = value.items()
        return ":".join([kind, *(f"{x:g}" for x in numbers.values())])
    return f"{value:g}" if isinstance(value, float) else str(value)
