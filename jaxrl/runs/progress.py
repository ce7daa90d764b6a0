"""Signs of life on the terminal: a live line where there is a terminal, plain lines elsewhere."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from jaxrl.runs.fit import Compiled, Evaluation, Event, Progress

SECONDS_BETWEEN_LINES = 5.0


@contextlib.contextmanager
def reporter(num_seeds: int) -> Iterator[Callable[[Event], None]]:
    """Shows events while the block runs: compile time apart, return, steps a second, time left."""
    console = Console(file=sys.stdout, highlight=False)
    lines = _Lines(num_seeds)
    if not console.is_terminal:
        print("tracing and compiling ...", flush=True)

        def show(event: Event) -> None:
            line = lines.of(event)
            if line is not None:
                print(line, flush=True)

        yield show
        return

    spinner = _Spinner("tracing and compiling")
    with Live(spinner, console=console, refresh_per_second=8, transient=True) as live:

        def show_live(event: Event) -> None:
            if isinstance(event, Progress):
                spinner.text = lines.progress(event)
                return
            live.console.print(lines.of(event))
            if isinstance(event, Compiled):
                spinner.text = "training"

        yield show_live


class _Spinner:
    """The live line: a turning sign and the latest text; turns by itself while jax compiles."""

    def __init__(self, text: str):
        self.text = text
        self.began = time.perf_counter()

    def __rich__(self) -> Text:
        seconds = time.perf_counter() - self.began
        sign = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(seconds * 8) % 10]
        return Text(f"{sign} {self.text} ({seconds:.0f} s)")


class _Lines:
    """Events as lines of text; progress between evaluations only now and then."""

    def __init__(self, num_seeds: int):
        self.num_seeds = num_seeds
        self.last = time.perf_counter()
        self.speed = 0.0

    def of(self, event: Event) -> str | None:
        now = time.perf_counter()
        if isinstance(event, Progress):
            self.speed = event.steps_per_second
            if now - self.last < SECONDS_BETWEEN_LINES:
                return None
            self.last = now
            return "  " + self.progress(event)
        self.last = now
        if isinstance(event, Compiled):
            return (
                f"compiled in {event.trace_seconds + event.compile_seconds:.1f} s "
                f"(tracing {event.trace_seconds:.1f}, XLA {event.compile_seconds:.1f}); training"
            )
        return self.evaluation(event)

    def progress(self, event: Progress) -> str:
        share = event.steps / event.total_steps
        seen = "" if math.isnan(event.return_mean) else f"  training return {event.return_mean:.1f}"
        return (
            f"{share:4.0%}  {event.steps:,} / {event.total_steps:,} steps{seen}"
            f"  {event.steps_per_second:,.0f} steps/s  {_duration(event.seconds_left)} left"
        )

    def evaluation(self, event: Evaluation) -> str:
        finished = np.isfinite(event.returns)
        if not finished.any():
            return f"step {event.steps:>12,}  return: no episode finished"
        per_seed = [row[ok].mean() for row, ok in zip(event.returns, finished, strict=True) if ok.any()]
        spread = f" ± {np.std(per_seed):.1f} ({self.num_seeds} seeds)" if self.num_seeds > 1 else ""
        return (
            f"step {event.steps:>12,}  return {np.mean(per_seed):8.1f}{spread}"
            f"  {self.speed:,.0f} steps/s"
        )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
