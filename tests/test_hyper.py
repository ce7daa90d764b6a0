"""Hyper-parameters are declared with their fields and checked by `bind`."""

import re
from typing import Literal

import jax
import jax.numpy as jnp
import pytest
from helpers.environments import Counter

from jaxrl.agent import Agent
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.hyper import declarations, hyper
from jaxrl.schedules import Linear
from jaxrl.types import Scalar, static

SPEC = Counter().spec


class Declared(Agent):
    rate: Scalar | None = hyper(0.5, low=0.0, high=1.0, open_low=True, doc="A rate.")
    any_number: Scalar = hyper(-5.0)
    size: int = hyper(4, static=True, doc="A size.")
    count: int | None = hyper(None, low=0, high=9, static=True)
    kind: Literal["a", "b"] = hyper("a", static=True)
    flag: bool = hyper(True, static=True)
    free: Scalar = -1.0


class OtherDefaults(Declared):
    rate: Scalar | None = 0.25
    size: int = static(default=8)
    kind: Literal["a", "b", "c"] = "c"


class AsText(Declared):
    rate: "Scalar" = 0.1
    size: "int" = 2


@pytest.mark.parametrize("kind", [Declared, OtherDefaults, AsText])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0: it must be finite, above 0 and at most 1"),
        ({"rate": Linear(1.0, 2.0)}, "rate is Linear(start=1.0, end=2.0, share=1.0): it must be"),
        ({"any_number": float("inf")}, "any_number is inf: it must be finite"),
        ({"size": 0}, "size is 0: it must be a whole number, at least 1"),
        ({"size": 2.0}, "size is 2.0: it must be a whole number"),
        ({"count": -1}, "count is -1: it must be a whole number, at least 0, or None"),
        ({"count": 10}, "count is 10: it must be at most 9, or None"),
        ({"kind": "d"}, "kind is 'd': use "),
    ],
)
def test_declarations_are_checked(kind, options, message):
    with pytest.raises(InvalidValue, match=re.escape(message)):
        kind(**options).bind(SPEC)
    with pytest.raises(InvalidType, match="rate is 'x': it must be a number or a schedule"):
        kind(rate="x").bind(SPEC)


@pytest.mark.parametrize("kind", [Declared, OtherDefaults, AsText])
def test_valid_values_are_accepted(kind):
    kind().bind(SPEC)
    kind(rate=None, count=0, free=-9.0).bind(SPEC)
    kind(rate=jnp.array([0.1, 1.0]), any_number=Linear(-1.0)).bind(SPEC)
    jax.jit(lambda x: kind(rate=x).bind(SPEC).rate)(9.0)  # traced: not known yet


def test_overriding_a_default_keeps_the_declaration():
    base, other = declarations(Declared), declarations(OtherDefaults)
    assert other == base
    assert (OtherDefaults().rate, OtherDefaults().size, OtherDefaults().kind) == (0.25, 8, "c")
    assert len(jax.tree.leaves(OtherDefaults())) == len(jax.tree.leaves(Declared())) == 4
    assert "free" not in base


def test_cross_field_checks_run_last():
    class Joined(Declared):
        def check(self, spec):
            super().check(spec)
            if self.count is not None and self.size % self.count:
                raise InvalidValue("count does not divide size")

    with pytest.raises(InvalidValue, match="size is 0"):
        Joined(size=0, count=3).bind(SPEC)
    with pytest.raises(InvalidValue, match="count does not divide"):
        Joined(count=3).bind(SPEC)
