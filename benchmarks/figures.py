"""Helpers for plots with matplotlib."""

import contextlib
from collections.abc import Iterator
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
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    canvas, axes = plt.subplots(figsize=size, layout="constrained")
    yield axes
    axes.set(**settings)
    axes.grid(alpha=0.3)
    axes.legend(**(legend or {}))
    canvas.savefig(path, dpi=120)
    plt.close(canvas)


def label_ticks(axes: Any, values: Any) -> None:
    """Makes the x axis logarithmic, with ticks only at these values."""
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
