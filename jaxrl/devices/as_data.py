"""Runs code that knows nothing of shards on data that differ between them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from jaxrl.devices.shards import as_different, differs, num_shards

INLINED = {
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "custom_vmap_call",
    "jit",
    "pjit",
    "remat2",
}
"""Primitives that call a program, which is run in their place."""


def as_data(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, all of whose values may differ between shards.

    JAX wants to know of each value whether it may, and refuses a loop that starts from zeros and
    adds data to them, or a branch that returns zeros. An environment is not to be written for
    shards, so it is traced as for one device, and each step of the trace is repeated with operands
    that are declared to differ. The function must not communicate between shards.
    """
    if num_shards() == 1:
        return function

    def call(*args: Any) -> Any:
        leaves, treedef = jax.tree.flatten(args)
        if not any(map(differs, leaves)):
            return function(*args)
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
        traced, out = jax.make_jaxpr(function, return_shape=True)(
            *jax.tree.unflatten(treedef, shapes)
        )
        return jax.tree.unflatten(jax.tree.structure(out), _run(traced, leaves))

    return call


def _run(closed: Any, args: Sequence[Any]) -> list[Any]:
    """The results of a closed jaxpr, all declared to differ."""
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *args], strict=True))

    def read(variable: Any) -> Any:
        is_literal = isinstance(variable, core.Literal)
        return as_different(variable.val if is_literal else values[variable])

    for equation in jaxpr.eqns:
        results = _apply(equation, [read(x) for x in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _apply(equation: Any, args: list[Any]) -> list[Any]:
    """The results of one step of a trace; loops and branches are made anew from their parts."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        # Of what the body takes and gives, only parts of stacks have another rank than outside.
        body = params["jaxpr"].jaxpr
        stacks = sum(map(_ranks_differ, equation.invars, body.invars))
        num_carry = len(body.outvars) - sum(map(_ranks_differ, equation.outvars, body.outvars))
        constants, rest = _split(args, len(args) - stacks - num_carry)
        start, xs = _split(rest, num_carry)
        carry, stacked = jax.lax.scan(
            lambda carry, x: _split(_run(params["jaxpr"], [*constants, *carry, *x]), num_carry),
            start,
            xs,
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        return [*carry, *stacked]
    if name == "while":
        of_condition, of_body = params["cond_nconsts"], params["body_nconsts"]
        condition, rest = _split(args, of_condition)
        body, carry = _split(rest, of_body)
        return jax.lax.while_loop(
            lambda carry: _run(params["cond_jaxpr"], [*condition, *carry])[0],
            lambda carry: _run(params["body_jaxpr"], [*body, *carry]),
            carry,
        )
    if name == "cond":
        branches = [
            lambda *args, branch=branch: _run(branch, args) for branch in params["branches"]
        ]
        return jax.lax.switch(args[0], branches, *args[1:])
    if name in INLINED:
        inner = next(
            value
            for value in params.values()
            if isinstance(value, core.ClosedJaxpr) or hasattr(value, "eqns")
        )
        return _run(inner, args)
    found = equation.primitive.bind(*args, **params)
    return found if equation.primitive.multiple_results else [found]


def _ranks_differ(outside: Any, inside: Any) -> bool:
    return outside.aval.ndim != inside.aval.ndim


def _split(values: list[Any], number: int) -> tuple[list[Any], list[Any]]:
    return values[:number], values[number:]
