"""Schedules of hyper-parameters, and their validation."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.hyper import check_range
from jaxrl.schedules import Cosine, Exponential, Linear, at, bounds
from jaxrl.types import Clock


def clock(fraction):
    return Clock(jnp.int32(7), jnp.int32(9), jnp.float32(fraction))


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Linear(8.0), (8, 6, 4, 0)),
        (Linear(2.0, 10.0), (2, 4, 6, 10)),
        (Linear(8.0, 2.0, share=0.5), (8, 5, 2, 2)),
        (Linear(8.0, 4.0, share=0.25), (8, 4, 4, 4)),
        (Exponential(16.0, 1.0), (16, 8, 4, 1)),
        (Exponential(1.0, 16.0), (1, 2, 4, 16)),
        (Cosine(10.0, 2.0), (10, 2 + 8 * (1 + np.sqrt(0.5)) / 2, 6, 2)),
        (Cosine(1.0), (1, (1 + np.sqrt(0.5)) / 2, 0.5, 0)),
    ],
    ids=repr,
)
def test_schedules_match_hand_computed_values(schedule, values):
    for fraction, value in zip((0.0, 0.25, 0.5, 1.0), values, strict=True):
        np.testing.assert_allclose(at(schedule, clock(fraction)), value, rtol=1e-6, atol=1e-6)


def test_numbers_are_constant_schedules():
    assert at(0.25, clock(0.7)) == 0.25
    assert at(None, clock(0.7)) is None
    array = jnp.arange(3.0)
    assert at(array, clock(0.7)) is array


def test_schedules_are_swept_like_numbers():
    """Their fields are leaves: one program for all rates, and the clock is not batched."""
    rates = Linear(jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]), jnp.array([1.0, 0.5]))
    values = jax.vmap(at, in_axes=(0, None))(rates, clock(0.25))
    np.testing.assert_allclose(values, [0.75, 1.5])
    starts = Exponential(jnp.array([4.0, 16.0]), 1.0)
    values = jax.vmap(at, in_axes=(Exponential(0, None), None))(starts, clock(0.5))
    np.testing.assert_allclose(values, [2.0, 4.0], rtol=1e-6)
    values = jax.vmap(lambda start: at(Cosine(start), clock(0.5)))(jnp.array([4.0, 16.0]))
    np.testing.assert_allclose(values, [2.0, 8.0], rtol=1e-6)


def test_bounds():
    assert bounds(3.0) == (3.0,)
    for schedule in (Linear(1.0, 2.0, 0.5), Exponential(1.0, 2.0), Cosine(1.0, 2.0)):
        assert bounds(schedule) == (1.0, 2.0)


# Checks -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Owner:
    rate: Any


FINE = [0.0, 0.5, 1.0, 1, np.float64(0.3), jnp.float32(0.3), jnp.bfloat16(0.5), None]
FINE += [np.array([0.0, 1.0]), jnp.array([0.0, 1.0]), Linear(1.0), Cosine(1.0), Linear(0, 1)]
FINE += [Exponential(1.0, 0.1), Linear(jnp.array([0.0, 1.0]), share=jnp.array([0.1, 1.0]))]


@pytest.mark.parametrize("value", FINE, ids=repr)
def test_values_in_range_are_accepted(value):
    check_range(Owner(value), "rate", 0.0, 1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "rate is nan: it must be finite, at least 0 and at most 1"),
        (float("inf"), "rate is inf: it must be finite"),
        (-0.1, "rate is -0.1: it must be finite, at least 0"),
        (1.5, "rate is 1.5: it must be finite"),
        (np.array([0.5, -1.0]), "rate is array([ 0.5, -1. ]): it must be"),
        (jnp.array([0.5, np.nan]), "rate is Array([0.5, nan], dtype=float32): it must be"),
        (Linear(-1.0), "rate is Linear(start=-1.0, end=0.0, share=1.0): it must be"),
        (Linear(1.0, float("nan")), "rate is Linear(start=1.0, end=nan"),
        (Cosine(0.5, jnp.array([0.1, 2.0])), "rate is Cosine(start=0.5"),
        # valid bounds, but 0 / 0 in between
        (Linear(1.0, 0.0, share=0.0), "its share must be finite, above 0 and at most 1"),
        (Linear(1.0, 0.0, share=float("nan")), "its share must be"),
        (Linear(1.0, 0.0, share=1.5), "its share must be"),
        (Exponential(0.0, 1.0), "either end must be finite, above 0"),
        (Exponential(1.0, 0.0), "either end must be finite, above 0"),
    ],
)
def test_values_out_of_range_are_rejected(value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_range(Owner(value), "rate", 0.0, 1.0)


def test_the_lower_bound_may_be_excluded():
    check_range(Owner(1e-9), "rate", open_low=True)
    for value in (0.0, Linear(1.0), jnp.array([1.0, 0.0])):
        with pytest.raises(ValueError, match=r"must be finite, above 0$"):
            check_range(Owner(value), "rate", open_low=True)
    for value in (Linear(1.0), Cosine(0.1, jnp.array([0.0, 0.1]))):
        check_range(Owner(value), "rate", open_low=True, may_end_low=True)
    for value in (0.0, Linear(0.0, 1.0), Linear(1.0, -0.1), Exponential(1.0, 0.0)):
        with pytest.raises(ValueError, match="must be finite, "):
            check_range(Owner(value), "rate", open_low=True, may_end_low=True)


@pytest.mark.parametrize("value", ["1e-4", True, [1.0, "a"], {}], ids=repr)
def test_non_numbers_are_rejected(value):
    with pytest.raises(TypeError, match=r"rate is .*: it must be a number or a schedule"):
        check_range(Owner(value), "rate")


def test_traced_values_pass():
    def inside(x):
        check_range(Owner(x), "rate", 0.0, 1.0)
        check_range(Owner(Linear(x, x, x)), "rate", 0.0, 1.0)
        check_range(Owner(Exponential(1.0, x)), "rate", 0.0, 1.0)
        return x

    jax.jit(inside)(-1.0)
    jax.vmap(inside)(jnp.array([-1.0, 5.0]))
    jax.grad(inside)(-1.0)
