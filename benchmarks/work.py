"""Counted work of the programs in `tests/helpers/programs.py`, and its budgets.

    python -m benchmarks.work              count the programs, next to their budgets
    python -m benchmarks.work ppo sac      only these
    python -m benchmarks.work --write      and write the budgets of this version of jax
    python -m benchmarks.work --traced     without XLA's quantities, which take minutes

No clock is read, so a busy machine gives the same numbers. `tests/engine/test_work.py` fails if a
program does more, or much less, than its budget in `tests/data/work.json`. Versions of jax trace
and compile differently, so each minor version has its own budgets: write them on each Python.
"""

import argparse
import json
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # as pytest does

from helpers import work
from helpers.programs import MORE_PROGRAMS, PROGRAMS

ALL = PROGRAMS | MORE_PROGRAMS


def measure(name: str, *, compiles: bool) -> dict[str, int]:
    """The quantities of a program."""
    program, found = work.traced(ALL[name])
    if compiles and ALL[name].num_devices == 1:
        found |= work.compiled(program)
    return found


def write(name: str, found: dict[str, int]) -> None:
    """Replaces the budget of a program for this version of jax; drops programs that are no more."""
    budgets = work.budgets() if work.BUDGETS.exists() else {}
    there = budgets.get(work.version(), {})
    there[name] = there.get(name, {}) | found
    budgets[work.version()] = {known: there[known] for known in ALL if known in there}
    text = json.dumps(dict(sorted(budgets.items())), indent=2)
    work.BUDGETS.write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "programs", nargs="*", metavar="PROGRAM", help="one of " + "; ".join(map(repr, ALL))
    )
    parser.add_argument("--write", action="store_true", help="write what is counted as budgets")
    parser.add_argument("--traced", action="store_true", help="only what a trace shows")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.programs if name not in ALL]:
        parser.error(f"no program is called {unknown[0]!r}: choose from {', '.join(ALL)}")
    jax.config.update("jax_platforms", "cpu")  # budgets are of a CPU's layout
    budgets = work.budgets().get(work.version(), {}) if work.BUDGETS.exists() else {}
    print(f"jax {jax.__version__}\n{'program':26} {'quantity':14} {'counted':>13} {'budget':>13}")
    for name in options.programs or ALL:
        found = measure(name, compiles=not options.traced)
        for quantity, number in found.items():
            there = budgets.get(name, {}).get(quantity)
            if not number and not there:
                continue
            change = "" if not there or number == there else f"  {number / there:.3f} x"
            text = "none" if there is None else f"{there:,}"
            print(f"{name:26} {quantity:14} {number:>13,} {text:>13}{change}", flush=True)
        if options.write:
            write(name, found)


if __name__ == "__main__":
    main()
