"""Results of a sweep: its points ranked, as a table and as a plot."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.analysis import statistics
from jaxrl.runs.directory import plain, read_summary
from jaxrl.runs.disk import replace, writing
from jaxrl.runs.sweeps import Point
from jaxrl.runs.text import aligned
from jaxrl.value_text import ScheduleText


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of a point of a sweep.

    Attributes:
      point: its hyper-parameters.
      path: the run that trained it.
      returns: `float64[seeds]`, final returns; NaN where no episode finished.
      diverged: indices of diverged seeds, which are left out.
    """

    point: Point
    path: Path
    returns: np.ndarray
    diverged: tuple[int, ...] = ()

    @property
    def counted(self) -> np.ndarray:
        """Returns of the seeds that did not diverge; a single NaN if none is left."""
        return statistics.counted(self.returns, self.diverged)

    @property
    def mean(self) -> float:
        """Mean over the seeds that did not diverge; NaN if any of them is NaN or none is left."""
        return float(self.counted.mean())

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Sort key, lower is better: points with diverged seeds come after all others."""
        return bool(np.isnan(self.mean)), len(self.diverged), -self.mean


def outcomes(runs: Sequence[tuple[Path, Point, Sequence[Point]]]) -> list[Outcome]:
    """Outcomes of complete runs, given as (directory, fixed values, points); the best first."""
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
    """A hyper-parameter in the syntax of the command line."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def table(found: Sequence[Outcome]) -> str:
    """The ranked outcomes as a text table, with the 95% interval of each mean."""
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
    """A warning about selection bias in the best mean; empty if nothing was selected.

    The highest of K noisy means is biased upwards: by 1.5 standard errors for ten equal points.
    """
    if len(found) < 2 or np.isnan(found[0].mean):
        return ""
    return (
        f"The first is the best of {len(found)} on the same seeds that selected it, so its mean is "
        "likely too high."
    )


def write_results(found: Sequence[Outcome], path: Path) -> None:
    """Writes results.json with all points, the best first."""
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
        rows[0]["best_of"] = len(rows)  # selected for its mean, which is likely too high
    replace(path / "results.json", json.dumps(plain(rows), indent=2) + "\n")


def _writable(value: Any) -> Any:
    return str(value) if isinstance(value, ScheduleText) else value


def draw(found: Sequence[Outcome], path: Path, *, title: str = "") -> None:
    """Plots the outcomes over the two hyper-parameters with the most values.

    The plot is a heat map; if other hyper-parameters vary, a cell shows the best of them. A single
    hyper-parameter is plotted as a curve with a dot per seed, and randomly sampled numbers as a
    scatter plot.
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
    """Whether these two are randomly sampled numbers rather than a grid."""
    values = [{text_of(x.point[name]) for x in found} for name in names]
    numbers = all(
        isinstance(x.point[name], int | float) and not isinstance(x.point[name], bool)
        for x in found
        for name in names
    )
    return numbers and len(values[0]) * len(values[1]) > 4 * len(found)


def _order(found: Sequence[Outcome], name: str) -> list[Any]:
    """The values of a hyper-parameter, sorted if they are numbers."""
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
