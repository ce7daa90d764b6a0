"""Helpers for plots with matplotlib."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def figure(
    path: Path,
    size: tuple[float, float] = (7, 4.2),
    legend: dict[str, Any] | None = None,
    **settings,
) -> Iterator[Any]:
    """Yields axes to draw on, then adds settings, grid and legend, and saves the figure.

    Args:
      path: image file to write.
      size: width and height in inches.
      legend: arguments of `axes.legend`.
      **settings: arguments of `axes.set`.
    """
    with panels(path, size, legend, [{}], **settings) as (axes,):
        yield axes


@contextlib.contextmanager
def panels(
    path: Path,
    size: tuple[float, float],
    legend: dict[str, Any] | None,
    each: Sequence[dict[str, Any]],
    **settings,
) -> Iterator[list[Any]]:
    """Like `figure`, with several axes side by side.

    Args:
      path, size: as for `figure`.
      legend: arguments of `axes.legend`, for the last axes if something there has a label.
      each: arguments of `axes.set` for each of the axes, from left to right.
      **settings: arguments of `axes.set` for all.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    canvas, row = plt.subplots(1, len(each), figsize=size, layout="constrained", squeeze=False)
    yield list(row[0])
    for axes, its in zip(row[0], each, strict=True):
        axes.set(**settings, **its)
        axes.grid(alpha=0.3)
    if row[0, -1].get_legend_handles_labels()[0]:
        row[0, -1].legend(**(legend or {}))
    canvas.savefig(path, dpi=120)
    plt.close(canvas)


def label_ticks(axes: Any, values: Any) -> None:
    """Makes the x axis logarithmic, with ticks only at these values."""
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
