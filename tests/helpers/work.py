"""Counted work of training programs against budgets: regressions that no clock is needed for."""

import contextlib
import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax

from helpers.jaxprs import executed, num_bytes
from helpers.paths import DATA
from helpers.programs import Program
from jaxrl.runs.dry_run import operations_in_products
from jaxrl.xla import deadlock

BUDGETS = DATA / "work.json"
RENEW = "python -m benchmarks.work --write"
COLLECTIVE = re.compile(r"psum|pmax|pmin|ppermute|all_gather|all_to_all|reduce_scatter")
QUANTITIES = {
    "products": (0.0, "FLOP in matrix products and convolutions"),
    "bytes": (0.02, "bytes that all operations read and write, without fusion"),
    "equations": (0.02, "operations in the program as JAX traces it"),
    "act traces": (0.0, "times that JAX traces `Agent.act`"),
    "update traces": (0.0, "times that JAX traces `Agent.update`"),
    "collectives": (0.0, "arrays that devices exchange"),
    "exchanged": (0.0, "bytes that devices exchange"),
    "instructions": (0.03, "instructions that XLA's optimised program has"),
    "accesses": (0.05, "bytes that XLA's optimised program reads and writes, loops once"),
}
"""How far each quantity may be from its budget, as a fraction of it, and what it is."""


def traced(program: Program) -> tuple[jax.stages.Traced, dict[str, int]]:
    """A program, and the quantities that its trace shows."""
    # The program must not depend on the number of cores: see `jaxrl.xla.deadlock`.
    with (
        mock.patch.object(deadlock, "is_affected", return_value=False),
        _calls(type(program.agent), "act", "update") as calls,
    ):
        found = program.trace()
    of_calls = {f"{name} traces": calls[name] for name in ("act", "update")}
    return found, of_jaxpr(found.jaxpr.jaxpr) | of_calls


def compiled(program: jax.stages.Traced) -> dict[str, int]:
    """The quantities of a traced program that XLA's optimised program shows."""
    done = program.lower().compile()
    instructions = re.findall(r"^\s+(?:ROOT )?%?[\w.-]+ = ", done.as_text(), re.MULTILINE)
    accesses = done.cost_analysis()["bytes accessed"]
    return {"instructions": len(instructions), "accesses": int(accesses)}


def of_jaxpr(jaxpr: Any) -> dict[str, int]:
    """The quantities of a jaxpr."""
    found = dict.fromkeys(("bytes", "equations", "collectives", "exchanged"), 0)
    for equation, times in executed(jaxpr):
        found["equations"] += 1
        found["bytes"] += times * num_bytes((*equation.invars, *equation.outvars))
        if COLLECTIVE.match(equation.primitive.name):
            found["collectives"] += times * len(equation.invars)
            found["exchanged"] += times * num_bytes(equation.invars)
    return {"products": int(operations_in_products(jaxpr)), **found}


@contextlib.contextmanager
def _calls(kind: type, *names: str) -> Iterator[Counter[str]]:
    """Counts the calls of these methods of a class."""
    calls: Counter[str] = Counter()

    def counting(name, method):
        @functools.wraps(method)
        def call(*args, **kwargs):
            calls[name] += 1
            return method(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(kind, name, counting(name, getattr(kind, name))))
        yield calls


def version() -> str:
    """The minor version of jax, such as "0.11": each traces and compiles a little differently."""
    return ".".join(jax.__version__.split(".")[:2])


def budgets() -> dict[str, dict[str, dict[str, int]]]:
    """The budgets of each minor version of jax: program, quantity, number."""
    return json.loads(BUDGETS.read_text(encoding="utf-8"))


def complaints(name: str, found: dict[str, int], budget: dict[str, int]) -> list[str]:
    """What a program does more or less than its budget says, a sentence for each quantity."""
    said = []
    for quantity, number in found.items():
        tolerance, meaning = QUANTITIES[quantity]
        if quantity not in budget:
            said.append(f"{name}: {quantity} has no budget. To set it: {RENEW} {name!r}")
        elif abs(number - budget[quantity]) > tolerance * budget[quantity]:
            ratio = f" ({number / budget[quantity]:.3g} x)" if budget[quantity] else ""
            allowed = f" +- {tolerance:.0%}" if tolerance else ""
            said.append(
                f"{name}: {quantity} is {number:,}{ratio}, the budget "
                f"{budget[quantity]:,}{allowed} ({meaning}). "
                f"If the change is meant: {RENEW} {name!r}"
            )
    return said
