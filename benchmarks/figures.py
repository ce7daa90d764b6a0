"""One way to draw a figure into a file."""

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
    """Axes to draw on, in inches; what they are set to, a grid, a legend and the file follow."""
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
    """Just these ticks on the first axis, as they are; for a logarithmic one."""
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
