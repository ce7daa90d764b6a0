"""Progress output: a live line on a terminal, plain lines elsewhere.

The first and last lines of a run are printed by `cli/train.py`.
"""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from jaxrl.runs.events import Compiled, Diverged, Evaluation, Event, Progress, Resumed, Saved

SECONDS_BETWEEN_LINES = 5.0
SECONDS_OF_SILENCE = 10.0
"""After this long without output (a long compilation, a slow iteration), a line is printed."""

Show = Callable[[Event], None]


@contextlib.contextmanager
def reporter(num_members: int, who: str = "seeds") -> Iterator[Show]:
    """Shows events within the block: compile time, return, steps per second, time left."""
    console = Console(file=sys.stdout, highlight=False)
    lines = _Lines(num_members, who)
    with _live(console, lines) if console.is_terminal else _plain(lines) as show:
        yield show


@contextlib.contextmanager
def _plain(lines: "_Lines") -> Iterator[Show]:
    print("tracing and compiling ...", flush=True)

    def show(event: Event) -> None:
        if isinstance(event, Saved):
            return
        now = time.perf_counter()
        if isinstance(event, Progress) and now - lines.last < SECONDS_BETWEEN_LINES:
            lines.progress(event)
            return
        lines.last = now
        print(lines.of(event), flush=True)

    def watch() -> None:
        while not over.wait(SECONDS_OF_SILENCE / 20):
            now = time.perf_counter()
            if now - lines.last > SECONDS_OF_SILENCE:
                lines.last = now
                print(f"  still {lines.doing} ({_duration(lines.elapsed)})", flush=True)

    over = threading.Event()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield show
    finally:
        over.set()
        watcher.join()


@contextlib.contextmanager
def _live(console: Console, lines: "_Lines") -> Iterator[Show]:
    with Live(_Spinner(lines), console=console, refresh_per_second=8, transient=True) as live:

        def show(event: Event) -> None:
            if isinstance(event, Saved):
                return
            line = lines.of(event)
            if not isinstance(event, Progress):
                live.console.print(line, soft_wrap=True)

        yield show


class _Spinner:
    """The live line: a spinner, which also turns while jax compiles, and the latest progress."""

    def __init__(self, lines: "_Lines"):
        self.lines = lines

    def __rich__(self) -> Text:
        sign = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(time.perf_counter() * 8) % 10]
        text = self.lines.latest or f"{self.lines.doing} ({_duration(self.lines.elapsed)})"
        return Text(f"{sign} {text}", no_wrap=True, overflow="ellipsis")


class _Lines:
    """Formats events as lines of text and keeps track of the current phase."""

    def __init__(self, num_members: int, who: str):
        self.num_members, self.who = num_members, who
        self.doing = "tracing and compiling"
        self.began = self.last = time.perf_counter()  # start of the phase; time of the last line
        self.latest = ""  # latest progress
        self.pace = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the current phase began."""
        return time.perf_counter() - self.began

    def of(self, event: Event) -> str:
        match event:
            case Compiled():
                return self.compiled(event)
            case Progress():
                return self.progress(event)
            case Evaluation():
                return self.evaluation(event)
            case Diverged():
                return f"warning: {event}"
            case Resumed():
                return "\n".join([*event.notes, f"resuming after {event.steps:,} steps"])
        return ""

    def compiled(self, event: Compiled) -> str:
        self.doing, self.began = "training", time.perf_counter()
        on = "" if event.devices == "1" else f" on devices: {event.devices}"
        if event.compile_seconds == 0:  # jax_disable_jit
            return "not compiled because jit is disabled, which is slow; training"
        return (
            f"compiled in {event.trace_seconds + event.compile_seconds:.1f} s "
            f"(tracing {event.trace_seconds:.1f}, XLA {event.compile_seconds:.1f}); training{on}"
        )

    def progress(self, event: Progress) -> str:
        share = event.steps / event.total_steps
        seen = "" if math.isnan(event.return_mean) else f"  training return {event.return_mean:.1f}"
        self.pace = f"{event.steps_per_second:,.0f} steps/s"
        self.latest = (
            f"{share:4.0%}  {event.steps:,} / {event.total_steps:,} steps{seen}  {self.pace}  "
            f"{_duration(event.seconds_left)} left"
        )
        return f"  {self.latest}"

    def evaluation(self, event: Evaluation) -> str:
        means = event.return_means[np.isfinite(event.return_means)]
        pace = f"{self.pace}  {_duration(event.seconds_left)} left"
        if means.size == 0:
            return f"step {event.steps:>12,}  return: no episode finished  {pace}"
        some = f"{means.size} of " if means.size < self.num_members else ""
        members = f"{some}{self.num_members} {self.who}"
        spread = f" ± {means.std():.1f} ({members})" if self.num_members > 1 else ""
        return f"step {event.steps:>12,}  return {means.mean():8.1f}{spread}  {pace}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
