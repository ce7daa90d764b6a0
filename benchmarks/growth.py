"""How training speed grows with each size: writes docs/growth.png.

    python -m benchmarks.growth                          measure what is missing, then draw
    python -m benchmarks.growth environments width       only these axes
    python -m benchmarks.growth --peer-python PYTHON --peer-path CHECKOUT_OF_PUREJAXRL
    python -m benchmarks.growth environments --at-most 64 --seconds 1
    python -m benchmarks.growth --again width            replace existing points
    python -m benchmarks.growth --draw                   only draw

A point is one program of `benchmarks/worker.py` in a process of its own: a run to warm up, then the
median of runs for about `--seconds`, without compilation. If the run to warm up takes more than
LIMIT seconds, it is the measurement, and larger values of that program are left out. Points are
stored in benchmarks/results/growth.json with their settings, by machine; a repeated command
measures only what is missing or has changed. Measure on an idle machine. The other libraries are
those of `benchmarks/throughput.py`; of PureJaxRL the width is fixed. Points on several devices are
on a CPU, with a core for each.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import devices
from benchmarks.scores import machine
from benchmarks.throughput import Worker
from benchmarks.workloads import DQN_CARTPOLE, Workload
from jaxrl.devices.machine import cores
from jaxrl.runs.directory import versions

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "growth.json"
FIGURE = ROOT / "docs" / "growth.png"
STEPS = 50_000
"""Environment steps of a run; at least two iterations."""
LIMIT = 20.0
"""Seconds of a run after which no larger value is measured."""
RUNS = 5
"""Runs for a median, at most."""
JAX = ("jaxrl", "rejax", "purejaxrl")


@dataclasses.dataclass(frozen=True)
class Axis:
    """A size that grows while all others stay.

    Attributes:
      label: what the values are.
      values: the values, in increasing order.
      setup: what stays.
      programs: libraries that can be measured.
      work: the workload of a value.
    """

    label: str
    values: tuple[int, ...]
    setup: str
    programs: tuple[str, ...]
    work: Callable[[int], Workload]


def ppo(num_envs: int, num_steps: int, steps: int = STEPS, **others) -> Workload:
    """PPO on CartPole for about this many steps of all seeds together."""
    at_once = num_envs * num_steps * others.get("num_seeds", 1)
    return Workload("ppo", num_envs, num_steps, max(2, round(steps / at_once)), **others)


def on_devices(number: int) -> Workload:
    """16 seeds on several devices; the number is no part of a workload."""
    return Workload("ppo", 4, 128, 100, num_seeds=16)


def sharing(number: int) -> Workload:
    """One seed, whose environments several devices share."""
    return Workload("ppo", 2048, 32, 16)


_DEVICES = tuple(sorted({1, *(2**k for k in range(1, 9) if 2**k < cores()), cores()}))
AXES = {
    "environments": Axis(
        "environments",
        (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536),
        "PPO, 16 steps",
        JAX,
        lambda n: ppo(n, 16),
    ),
    "seeds": Axis(
        "seeds under one vmap",
        (1, 2, 4, 8, 16, 32, 64, 128, 256),
        "PPO, 4 x 128 steps",
        JAX,
        lambda n: ppo(4, 128, num_seeds=n),
    ),
    "devices": Axis(
        "CPU devices, 16 seeds", _DEVICES, "PPO, 4 x 128 steps", ("jaxrl",), on_devices
    ),
    "sharing": Axis("CPU devices, one seed", _DEVICES, "PPO, 2048 x 32 steps", ("jaxrl",), sharing),
    "width": Axis(
        "width of two hidden layers",
        (16, 32, 64, 128, 256, 512, 1024),
        "PPO, 64 x 32 steps",
        ("jaxrl", "rejax"),
        lambda n: ppo(64, 32, STEPS * 64 // max(n, 64), width=n),
    ),
    "capacity": Axis(
        "replay capacity",
        (2_000, 10_000, 100_000, 1_000_000),
        "DQN, 10 updates after 10 steps",
        ("jaxrl", "rejax"),
        lambda n: dataclasses.replace(DQN_CARTPOLE, num_iterations=1_000, capacity=n),
    ),
    "steps": Axis(
        "total steps",
        tuple(8192 * 4**k for k in range(5)),
        "PPO, 64 x 128 steps",
        JAX,
        lambda n: Workload("ppo", 64, 128, n // 8192),
    ),
}
ON_DEVICES = ("devices", "sharing")
"""Axes that `benchmarks/devices.py` measures."""


# Measuring ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Point:
    """One value of an axis, for one program."""

    axis: str
    program: str
    value: int

    @property
    def name(self) -> str:
        return f"{self.axis}, {self.program}, {self.value}"

    @property
    def work(self) -> Workload:
        return AXES[self.axis].work(self.value)


def measure(point: Point, python: str, path: str, seconds: float) -> list[float]:
    """Steps a second of all seeds together, in each run; the first run is left out if it can be.

    Raises:
      RuntimeError, OSError, SubprocessError: the program cannot run.
    """
    work = point.work
    if point.axis in ON_DEVICES:
        if point.axis == "sharing" and work.num_envs % point.value:
            raise RuntimeError(f"{work.num_envs} environments cannot be shared by {point.value}")
        sizes = (work.num_seeds, work.steps_per_seed, work.num_envs, work.num_steps)
        return [devices.measure(point.value, *sizes)]
    worker = Worker(point.program, python, json.dumps(dataclasses.asdict(work)), path)
    worker.run(0)
    if worker.seconds[0] <= LIMIT:
        while len(worker.seconds) <= RUNS and sum(worker.seconds[1:]) < seconds:
            worker.run(len(worker.seconds))
    worker.quit()
    timed = worker.seconds[1:] or worker.seconds
    return [work.env_steps / each for each in timed]


def load() -> dict[str, dict[str, dict]]:
    """All points by machine and name."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def save(here: str, point: Point, speeds: list[float]) -> None:
    """Stores a point before the next one is measured."""
    found = load()
    found.setdefault(here, {})[point.name] = {
        "work": settings(point),
        "steps_per_second": [round(speed, 1) for speed in speeds],
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def settings(point: Point) -> dict:
    """Everything that a point's speed depends on, as JSON has it."""
    return json.loads(json.dumps(dataclasses.asdict(point.work)))


def points(axes: list[str], programs: dict[str, tuple[str, str]], at_most: int) -> Iterator[Point]:
    """What there is to measure."""
    for axis in axes:
        for program in AXES[axis].programs:
            for value in AXES[axis].values if program in programs else ():
                if value <= at_most:
                    yield Point(axis, program, value)


def fill(options: argparse.Namespace, programs: dict[str, tuple[str, str]], here: str) -> None:
    """Measures the points that are missing."""
    too_slow = set()
    for point in points(options.axes or list(AXES), programs, options.at_most):
        there = load().get(here, {}).get(point.name)
        if there and there["work"] == settings(point) and not options.again:
            speeds = there["steps_per_second"]
        elif (point.axis, point.program) in too_slow:
            print(f"{point.name}: left out, since a smaller value takes {LIMIT:.0f} s", flush=True)
            continue
        else:
            try:
                speeds = measure(point, *programs[point.program], options.seconds)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                print(f"{point.name}: skipped ({error})", file=sys.stderr)
                continue
            save(here, point, speeds)
            median = statistics.median(speeds)
            print(f"{point.name}: {median:,.0f} steps/s, {len(speeds)} runs", flush=True)
        takes = point.work.env_steps / statistics.median(speeds)
        if takes > LIMIT and point.axis not in ON_DEVICES:  # more devices take less
            too_slow.add((point.axis, point.program))


# Drawing ------------------------------------------------------------------------------------------


def draw(there: dict[str, dict], here: str) -> None:
    """A panel for each axis, with a line for each library."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    from jaxrl.analysis.plots import COLOURS, finish_axes

    figure = Figure(figsize=(13, 6.4), layout="constrained")
    panels = list(figure.subplots(2, 4).flat)
    for panel, (name, axis) in zip(panels, AXES.items(), strict=False):
        drawn = []
        for program, colour in zip(JAX, COLOURS, strict=False):
            names = {value: Point(name, program, value).name for value in axis.values}
            speeds = {
                value: there[point]["steps_per_second"]
                for value, point in names.items()
                if point in there
            }
            if not speeds:
                continue
            drawn += speeds
            middle = [statistics.median(runs) for runs in speeds.values()]
            low, high = ([end(runs) for runs in speeds.values()] for end in (min, max))
            panel.plot(list(speeds), middle, "o-", color=colour, ms=4, label=program)
            panel.fill_between(list(speeds), low, high, color=colour, alpha=0.18, linewidth=0)
        panel.set(xscale="log", yscale="log", xlabel=axis.label)
        panel.set_title(axis.setup, loc="left", fontsize=10)
        for ticks in (panel.xaxis, panel.yaxis):
            ticks.set_major_formatter(EngFormatter(sep=""))
            ticks.set_minor_formatter("")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        if 0 < len(set(drawn)) <= 4:  # decades alone would leave few ticks or none
            panel.set_xticks(sorted(set(drawn)))
            panel.xaxis.set_minor_locator(NullLocator())
        if drawn:
            low, high = panel.get_ylim()
            panel.set_ylim(min(low, high / 10), high * 1.2)  # noise fills no panel
        finish_axes(panel)
    for panel in panels[len(AXES) :]:
        panel.axis("off")
    for panel in panels[::4]:
        panel.set_ylabel("steps a second, all seeds")
    labels = {}
    for panel in panels:
        labels |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    panels[-1].legend(labels.values(), labels, loc="center", frameon=False)
    jax = sorted({point["versions"].get("jax", "?") for point in there.values()})
    title = f"Training speed on {here}, jax {' and '.join(jax)}; shaded: slowest to fastest run"
    figure.suptitle(title, x=0.01, ha="left")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(AXES)
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"of {names}; all unless given")
    parser.add_argument("--at-most", type=int, default=2**31, help="leave out larger values")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of the runs of a point (default: 3)"
    )
    parser.add_argument("--again", action="store_true", help="replace existing points")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--peer-path", default="", help="checkout of PureJaxRL")
    parser.add_argument("--peer-python", default="", help="interpreter with the other libraries")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.axes if name not in AXES]:
        parser.error(f"no axis is called {unknown[0]!r}: choose from {names}")
    programs = {"jaxrl": (sys.executable, "")}
    if options.peer_python:
        programs["rejax"] = (options.peer_python, "")
        if options.peer_path:
            programs["purejaxrl"] = (options.peer_python, options.peer_path)
    # To name a GPU, this process starts jax, too, which would take three quarters of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    here = machine()
    if not options.draw:
        fill(options, programs, here)
    there = load().get(here, {})
    if not there:
        parser.error(f"no point has been measured on {here}")
    draw(there, here)


if __name__ == "__main__":
    main()
