"""Compares a program with and without a workaround, by its speed or its correctness.

Each module of this package runs in its own process and prints a line of JSON for each `Row`.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

PAYS = 1.05
"""Minimum speed-up for which a workaround is worth keeping."""
SECONDS = 5.0
"""Time limit for the rounds of a comparison."""
ROUNDS = range(5, 26)
FINE = "fine"
POLL, IDLE_POLLS, LONGEST = 5.0, 3, 240.0
"""A process counts as hanging if it uses no processor time over `IDLE_POLLS` polls, one every
`POLL` seconds, or if it runs longer than `LONGEST` seconds."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table; "-" means not measured."""

    case: str
    with_it: str
    without_it: str
    ratio: str
    verdict: str

    def print(self) -> None:
        print(json.dumps(dataclasses.asdict(self)), flush=True)


def used_on(device: str) -> bool:
    """Whether a workaround for "CPU" or "accelerator" is used here; prints a row if it is not."""
    is_used = (jax.default_backend() == "cpu") == (device == "CPU")
    if not is_used:
        Row("-", "-", "-", "-", f"only used on {device}s").print()
    return is_used


def compare_times(
    case: str,
    with_it: Callable[..., Any],
    without_it: Callable[..., Any],
    *arguments: Any,
    tolerance: float | None = 1e-3,
    seconds: float = SECONDS,
) -> None:
    """Compiles two functions and prints the run time of each.

    Args:
      case: name of the computation.
      with_it, without_it: functions of `arguments`.
      tolerance: allowed difference of their results, relative to the largest; 0 for equal bits,
        None if the results may differ.
      seconds: how long the rounds may take.
    """
    programs = [
        jax.jit(lambda *x, f=f: f(*x)).lower(*arguments).compile() for f in (with_it, without_it)
    ]
    if tolerance is not None:
        _check_equal(*(program(*arguments) for program in programs), tolerance)

    def run(program: Callable[..., Any]) -> float:
        jax.block_until_ready(program(*arguments))  # refills the caches
        began = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        return time.perf_counter() - began

    _compare(case, [lambda program=program: run(program) for program in programs], seconds)


def compare_compile_times(
    case: str, with_it: Callable[..., Any], without_it: Callable[..., Any], *arguments: Any
) -> None:
    """Prints the time to trace and compile each of two functions of `arguments`."""
    jax.config.update("jax_enable_compilation_cache", False)

    def run(function: Callable[..., Any]) -> float:
        began = time.perf_counter()
        jax.jit(lambda *x: function(*x)).lower(*arguments).compile()
        return time.perf_counter() - began

    _compare(case, [lambda f=f: run(f) for f in (with_it, without_it)])


def _compare(case: str, timed: list[Callable[[], float]], limit: float = SECONDS) -> None:
    """Runs the two alternately, starting each round with the other one, and prints medians."""
    rounds: list[list[float]] = []
    began = time.perf_counter()
    while len(rounds) < ROUNDS.start or (
        len(rounds) < ROUNDS.stop and time.perf_counter() - began < limit
    ):
        order = (0, 1) if len(rounds) % 2 else (1, 0)
        seconds = {i: timed[i]() for i in order}
        rounds.append([seconds[0], seconds[1]])
    low, ratio, high = statistics.quantiles([without / with_it for with_it, without in rounds], n=4)
    with_it, without = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    spread = f"{ratio:.2f} ({low:.2f} to {high:.2f})"
    Row(case, _duration(with_it), _duration(without), spread, _verdict(low, high)).print()


def _verdict(low: float, high: float) -> str:
    """The verdict for quartiles of the time without the workaround over the time with it."""
    if low >= PAYS:
        return "keeps paying"
    return "could be deleted" if high < PAYS else "unclear: repeat on an idle machine"


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def _check_equal(x: Any, y: Any, tolerance: float) -> None:
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if not np.all(np.abs(a - b) <= tolerance * np.max(np.abs(a), initial=0.0)):
            raise AssertionError("the two programs compute different numbers")


def compare_faults(case: str, program: Callable[[bool], str | None], **environment: str) -> None:
    """Runs the calling module twice, with and without the workaround, and prints the faults.

    Args:
      case: name of the computation.
      program: takes whether to apply the workaround; returns a fault, or None.
      environment: environment variables of the two processes.
    """
    if sys.argv[1:]:  # one of the two processes
        if sys.argv[1] == case:
            print(program(sys.argv[2] == "with") or FINE)
        return
    module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
    found = [
        _outcome([sys.executable, "-m", module, case, which], os.environ | environment)
        for which in ("with", "without")
    ]
    if found[0] != FINE:
        verdict = "does not help"
    else:
        verdict = "could be deleted" if found[1] == FINE else "still needed"
    Row(case, *found, "-", verdict).print()


def _outcome(command: list[str], environment: dict[str, str]) -> str:
    """The last line that a process prints, or "hangs"."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
    began, used = time.monotonic(), [-1.0]
    while True:
        try:
            out, error = process.communicate(timeout=POLL)
            break
        except subprocess.TimeoutExpired:
            used.append(_processor_seconds(process.pid))
            idle = len(used) > IDLE_POLLS and used[-1] - used[-1 - IDLE_POLLS] < 0.1
            if idle or time.monotonic() - began > LONGEST:
                process.kill()
                process.communicate()
                return "hangs"
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{error}")
    return out.strip().splitlines()[-1]


def _processor_seconds(pid: int) -> float:
    """Processor time of a process; if unknown, the current time, as if it were busy."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
