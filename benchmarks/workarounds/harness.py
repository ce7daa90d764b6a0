"""Compares a program with and without a workaround, by its time or by a fault.

A module of this package is run as a process of its own and prints a line of JSON for each `Row`.
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
"""From this ratio on a workaround is worth its lines."""
SECONDS = 5.0
"""What the rounds of one comparison may take."""
ROUNDS = range(5, 26)
FINE = "fine"
POLL, IDLE_POLLS, LONGEST = 5.0, 3, 240.0
"""A process hangs that took no processor time over this many looks, one every `POLL` seconds, or
that runs for `LONGEST` seconds."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table; what was not measured is "-"."""

    case: str
    with_it: str
    without_it: str
    ratio: str
    verdict: str

    def print(self) -> None:
        print(json.dumps(dataclasses.asdict(self)), flush=True)


def used_on(device: str) -> bool:
    """Whether the workaround, used on a "CPU" or an "accelerator" only, is used here; prints why
    nothing is measured where it is not."""
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
) -> None:
    """Compiles two functions and prints how long each runs.

    Args:
      case: what is computed.
      with_it, without_it: functions of `arguments`.
      tolerance: of the difference of their results relative to the largest; 0 for equal bits, None
        where the results are meant to differ.
    """
    programs = [
        jax.jit(lambda *x, f=f: f(*x)).lower(*arguments).compile() for f in (with_it, without_it)
    ]
    if tolerance is not None:
        _check_equal(*(program(*arguments) for program in programs), tolerance)

    def run(program: Callable[..., Any]) -> float:
        jax.block_until_ready(program(*arguments))  # after the other one has used the caches
        began = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        return time.perf_counter() - began

    _compare(case, [lambda program=program: run(program) for program in programs])


def compare_compile_times(
    case: str, with_it: Callable[..., Any], without_it: Callable[..., Any], *arguments: Any
) -> None:
    """Prints how long it takes to trace and compile each of two functions of `arguments`."""
    jax.config.update("jax_enable_compilation_cache", False)

    def run(function: Callable[..., Any]) -> float:
        began = time.perf_counter()
        jax.jit(lambda *x: function(*x)).lower(*arguments).compile()
        return time.perf_counter() - began

    _compare(case, [lambda f=f: run(f) for f in (with_it, without_it)])


def _compare(case: str, timed: list[Callable[[], float]]) -> None:
    """Runs the two in turns, each of them first in every other round, and prints the medians."""
    rounds: list[list[float]] = []
    began = time.perf_counter()
    while len(rounds) < ROUNDS.start or (
        len(rounds) < ROUNDS.stop and time.perf_counter() - began < SECONDS
    ):
        order = (0, 1) if len(rounds) % 2 else (1, 0)
        seconds = {i: timed[i]() for i in order}
        rounds.append([seconds[0], seconds[1]])
    low, ratio, high = statistics.quantiles([without / with_it for with_it, without in rounds], n=4)
    with_it, without = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    spread = f"{ratio:.2f} ({low:.2f} to {high:.2f})"
    Row(case, _duration(with_it), _duration(without), spread, _verdict(low, high)).print()


def _verdict(low: float, high: float) -> str:
    """From the quartiles of time without the workaround over time with it."""
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
    """Runs the calling module twice, with and without the workaround, and prints what went wrong.

    Args:
      case: what is computed.
      program: is called with whether to apply the workaround; returns the fault, None for none.
      environment: variables of the two processes.
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
    """The last line that a process prints. It hangs where it takes no processor time, or too
    long."""
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
    """What a process has used so far; where that is unknown, the time, as of one that works."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
