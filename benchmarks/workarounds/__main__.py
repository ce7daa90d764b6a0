"""Measures whether jaxrl's workarounds for XLA and JAX are still needed.

    python -m benchmarks.workarounds                      all of them, some minutes
    python -m benchmarks.workarounds convolution blocks   only these
    python -m benchmarks.workarounds --list               names, and what each compares
    JAX_PLATFORMS=cuda python -m benchmarks.workarounds   those for accelerators

Each file of jaxrl/xla works around a weakness of the compiler or of JAX. For each of them, a small
program runs with and without it. For speed, the two alternate, and the table shows the median times
and the median ratio "without / with" with its quartiles. For correctness, each variant runs in its
own process, and the table shows the fault.

verdicts:
  keeps paying       without it, the program is at least 5% slower
  still needed       without it, the fault occurs
  could be deleted   neither; the file says what replaces it
  unclear            the quartiles disagree: repeat on an idle machine
  does not help      the fault occurs in spite of it
  only used on ...   not used on jax's current device

Delete a workaround when the verdict is "could be deleted" with the oldest and the newest supported
jax on each device that uses it. docs/workarounds.md has past measurements.
"""

import argparse
import ast
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

MODULES = {
    path.stem: path
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if path.stem not in ("__init__", "__main__", "harness")
}
COLUMNS = ("workaround", "case", "with", "without", "ratio", "verdict")
TIMEOUT = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workarounds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(MODULES)}; default: all"
    )
    parser.add_argument("--list", action="store_true", help="list the workarounds and exit")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in MODULES]:
        parser.error(f"unknown workaround {unknown[0]!r}: use one of {', '.join(MODULES)}")
    names = options.names or list(MODULES)
    if options.list:
        for name in names:
            source = MODULES[name].read_text(encoding="utf-8")
            print(f"{name:<13} {(ast.get_docstring(ast.parse(source)) or '').splitlines()[0]}")
        return 0
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib")]
    print(f"{', '.join(versions)}, Python {sys.version.split()[0]}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    return max(measure(name) for name in names)


def measure(name: str) -> int:
    """Prints the rows of one workaround; returns 1 if it could not be measured, otherwise 0."""
    command = [sys.executable, "-m", f"benchmarks.workarounds.{name}"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        print(f"| {name} | not measured: still running after {TIMEOUT:.0f} s |", flush=True)
        return 1
    for line in run.stdout.splitlines():
        print(f"| {name} | {' | '.join(json.loads(line).values())} |", flush=True)
    if run.returncode:
        print(f"{name} failed:\n{run.stderr}", file=sys.stderr)
    return min(run.returncode, 1)


if __name__ == "__main__":
    sys.exit(main())
