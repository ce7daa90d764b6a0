"""What came of a sweep: its points ranked, as a table and as a picture."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.analysis import statistics
from jaxrl.registry import ScheduleText
from jaxrl.runs.directory import plain, read_summary
from jaxrl.runs.disk import replace, writing
from jaxrl.runs.sweeps import Point
from jaxrl.runs.text import aligned


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a point reached.

    Attributes:
      point: its hyper-parameters.
      path: the run that it was part of.
      returns: `float64[seeds]` at the end; NaN where no episode finished.
      diverged: seeds, by their index, that do not count.
    """

    point: Point
    path: Path
    returns: np.ndarray
    diverged: tuple[int, ...] = ()

    @property
    def counted(self) -> np.ndarray:
        """The returns of the seeds that have not diverged; one NaN where none is left."""
        return statistics.counted(self.returns, self.diverged)

    @property
    def mean(self) -> float:
        """Over the seeds that have not diverged; NaN where one of them is, or none is left."""
        return float(self.counted.mean())

    @property
    def rank(self) -> tuple[bool, int, float]:
        """The least is the best: a point of which a seed diverged comes after all whole ones."""
        return bool(np.isnan(self.mean)), len(self.diverged), -self.mean


def outcomes(runs: Sequence[tuple[Path, Point, Sequence[Point]]]) -> list[Outcome]:
    """The outcomes of complete runs: (directory, what it fixed, its points); the best first."""
    found = []
    for path, fixed, points in runs:
        summary = read_summary(path)
        assert summary is not None, path
        final = summary["final_return"]
        per_seed = [np.nan if x is None else x for x in final["per_seed"]]
        rows = np.array(per_seed, float).reshape(max(len(points), 1), -1)
        lost = np.isin(np.arange(rows.size), final.get("diverged", [])).reshape(rows.shape)
        for point, row, gone in zip(points or [{}], rows, lost, strict=True):
            diverged = tuple(np.flatnonzero(gone).tolist())
            found.append(Outcome({**fixed, **point}, path, row, diverged))
    return sorted(found, key=lambda x: x.rank)


def text_of(value: Any) -> str:
    """A hyper-parameter as the command line writes it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def table(found: Sequence[Outcome]) -> str:
    """The ranked outcomes as lines of text, with the 95% interval of each mean."""
    names = list(found[0].point)
    rows = [["", *names, "mean", "95% interval", "IQM", "run"]]
    if any(outcome.diverged for outcome in found):
        rows[0].append("seeds that did not diverge")
    for rank, outcome in enumerate(found, 1):
        low, high = statistics.interval(statistics.mean, outcome.counted)
        ends = "too few seeds" if np.isnan(low) else f"{low:.1f} to {high:.1f}"
        values = [text_of(outcome.point[name]) for name in names]
        middle = f"{statistics.iqm(outcome.counted):.1f}"
        rows.append([f"{rank}.", *values, f"{outcome.mean:.1f}", ends, middle, outcome.path.name])
        if len(rows[0]) > len(rows[-1]):
            rows[-1].append(
                f"{outcome.returns.size - len(outcome.diverged)} of {outcome.returns.size}"
            )
    return aligned(rows)


def caveat(found: Sequence[Outcome]) -> str:
    """What one should know of the number that leads the ranking; empty where nothing was chosen.

    The highest of K noisy means is likely too high: with points that are all alike, of ten by 1.5
    standard errors.
    """
    if len(found) < 2 or np.isnan(found[0].mean):
        return ""
    return (
        f"The first is the best of {len(found)} by the seeds that chose it, so its mean is likely "
        "too high."
    )


def write_results(found: Sequence[Outcome], path: Path) -> None:
    """Writes results.json: every point, the best first."""
    rows = [
        {
            **{name: plain(_writable(value)) for name, value in outcome.point.items()},
            "return_mean": outcome.mean,
            "per_seed": outcome.returns,
            "diverged": outcome.diverged,
            "run": outcome.path.name,
        }
        for outcome in found
    ]
    if len(rows) > 1:
        rows[0]["best_of"] = len(rows)  # chosen for its mean, which is likely too high
    replace(path / "results.json", json.dumps(plain(rows), indent=2) + "\n")


def _writable(value: Any) -> Any:
    return str(value) if isinstance(value, ScheduleText) else value


def draw(found: Sequence[Outcome], path: Path, *, title: str = "") -> None:
    """Draws the outcomes over the two hyper-parameters that took the most values.

    Where others varied, too, a field shows the best of them. One hyper-parameter alone is drawn as
    a curve with a point for each seed; numbers that were drawn at random as coloured points.
    """
    from matplotlib.figure import Figure

    from jaxrl.analysis.plots import COLOUR, finish_axes

    values = {
        name: list(dict.fromkeys(text_of(x.point[name]) for x in found)) for name in found[0].point
    }
    names = sorted(values, key=lambda name: -len(values[name]))[:2]
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    axes.set_xlabel(names[0])
    if len(names) < 2 or len(values[names[1]]) < 2:
        _draw_curve(axes, found, names[0], COLOUR)
        finish_axes(axes)
    elif _are_scattered(found, names):
        axes.set_ylabel(names[1])
        x, y = ([outcome.point[name] for outcome in found] for name in names)
        shown = axes.scatter(x, y, c=[outcome.mean for outcome in found], cmap="viridis")
        figure.colorbar(shown, label="mean return at the end")
        for scale, numbers in ((axes.set_xscale, x), (axes.set_yscale, y)):
            if min(numbers) > 0 and max(numbers) > 20 * min(numbers):
                scale("log")
        finish_axes(axes)
    else:
        axes.set_ylabel(names[1])
        _draw_map(figure, axes, found, names)
    with writing(path):
        figure.savefig(path, dpi=120)


def _are_scattered(found: Sequence[Outcome], names: Sequence[str]) -> bool:
    """Whether these are two numbers that were drawn at random, and no grid."""
    values = [{text_of(x.point[name]) for x in found} for name in names]
    numbers = all(
        isinstance(x.point[name], int | float) and not isinstance(x.point[name], bool)
        for x in found
        for name in names
    )
    return numbers and len(values[0]) * len(values[1]) > 4 * len(found)


def _order(found: Sequence[Outcome], name: str) -> list[Any]:
    """The values that a hyper-parameter took, numbers in their order."""
    values = list({text_of(x.point[name]): x.point[name] for x in found}.values())
    numbers = all(isinstance(x, int | float) for x in values)
    return sorted(values) if numbers else values


def _draw_curve(axes: Any, found: Sequence[Outcome], name: str, colour: str) -> None:
    order = _order(found, name)
    places = {text_of(value): i for i, value in enumerate(order)}
    best: dict[int, Outcome] = {}
    for outcome in reversed(found):  # the best comes last, and stays
        best[places[text_of(outcome.point[name])]] = outcome
    at = sorted(best)
    axes.plot(at, [best[i].mean for i in at], color=colour, marker="o")
    for i in at:
        axes.plot([i] * best[i].returns.size, best[i].returns, ".", color=colour, alpha=0.4)
    axes.set_xticks(range(len(order)), [text_of(value) for value in order])
    axes.set_ylabel("mean return at the end; dots: seeds")


def _draw_map(figure: Any, axes: Any, found: Sequence[Outcome], names: Sequence[str]) -> None:
    columns, rows = (_order(found, name) for name in names)
    best = np.full((len(rows), len(columns)), np.nan)
    for outcome in found:
        i = [text_of(x) for x in rows].index(text_of(outcome.point[names[1]]))
        j = [text_of(x) for x in columns].index(text_of(outcome.point[names[0]]))
        best[i, j] = np.fmax(best[i, j], outcome.mean)
    image = axes.imshow(best, cmap="viridis", origin="lower", aspect="auto")
    others = [name for name in found[0].point if name not in names]
    best_of = f", the best over {', '.join(others)}" if others else ""
    figure.colorbar(image, label=f"mean return at the end{best_of}")
    axes.set_xticks(range(len(columns)), [text_of(x) for x in columns])
    axes.set_yticks(range(len(rows)), [text_of(x) for x in rows])
    middle = (np.nanmax(best) + np.nanmin(best)) / 2 if np.isfinite(best).any() else 0.0
    for (i, j), mean in np.ndenumerate(best):
        if np.isfinite(mean):
            colour = "black" if mean > middle else "white"
            axes.text(j, i, f"{mean:.4g}", ha="center", va="center", color=colour)
