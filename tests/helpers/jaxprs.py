"""Contents of traced programs."""

import math
from collections import Counter
from collections.abc import Iterator

import jax


def equations(jaxpr) -> Iterator:
    """All equations of a jaxpr, including nested ones."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inside(equation):
            yield from equations(inner)


def _inside(equation) -> list:
    values = jax.tree.leaves(tuple(equation.params.values()))
    return [x for x in (getattr(value, "jaxpr", value) for value in values) if hasattr(x, "eqns")]


def primitives(jaxpr) -> Counter[str]:
    """Counts of the primitives in a jaxpr, including nested ones."""
    return Counter(equation.primitive.name for equation in equations(jaxpr))


def executed(jaxpr, times: int = 1) -> Iterator[tuple]:
    """Equations without inner programs, with the number of times that they run.

    The body of a scan runs as often as it is long. Each branch of a `cond` counts, and the body of
    a `while` loop counts once, since its length is unknown.
    """
    for equation in jaxpr.eqns:
        inner = _inside(equation)
        if not inner:
            yield equation, times
        length = equation.params["length"] if equation.primitive.name == "scan" else 1
        for nested in inner:
            yield from executed(nested, times * length)


def num_bytes(variables) -> int:
    """The size of variables of a jaxpr, literals included."""
    arrays = [v.aval for v in variables if hasattr(v.aval, "dtype")]
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)
