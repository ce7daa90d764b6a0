"""What a traced program consists of."""

from collections import Counter
from collections.abc import Iterator

import jax


def equations(jaxpr) -> Iterator:
    """All equations of a jaxpr, and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(tuple(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def primitives(jaxpr) -> Counter[str]:
    """How often each primitive occurs in a jaxpr, at any depth."""
    return Counter(equation.primitive.name for equation in equations(jaxpr))
