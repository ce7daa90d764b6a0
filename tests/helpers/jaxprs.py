"""Contents of traced programs."""

from collections import Counter
from collections.abc import Iterator

import jax


def equations(jaxpr) -> Iterator:
    """All equations of a jaxpr, including nested ones."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(tuple(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def primitives(jaxpr) -> Counter[str]:
    """Counts of the primitives in a jaxpr, including nested ones."""
    return Counter(equation.primitive.name for equation in equations(jaxpr))
