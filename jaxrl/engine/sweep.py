"""Grids of hyper-parameters as one agent with stacked leaves, for vmap."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxrl.errors import InvalidValue
from jaxrl.xla.precision import in_float32, narrow

T = TypeVar("T")


@in_float32
def sweep(base: T, /, **values: Sequence[Any]) -> T:
    """The Cartesian product of field values, as one pytree to vmap over.

    Args:
      base: an agent, or any other dataclass that is a pytree.
      **values: field names to lists of values; the last name varies fastest.

    Returns:
      `base` with every leaf `[K]`, K the size of the grid: `vmap(train, in_axes=(0, None, None))`.

    Raises:
      ValueError: an unknown field, no values, or a static field (it sets a shape or a loop length,
        so each of its values needs its own compiled program).
    """
    if not values:
        raise InvalidValue("sweep needs at least one field, for example learning_rate=[1e-4, 3e-4]")
    for name, choices in values.items():
        if len(choices) == 0:
            raise InvalidValue(f"{name} has no values to sweep over")
    points = itertools.product(*values.values())
    grid = stacked(variants(base, [dict(zip(values, point, strict=True)) for point in points]))
    return narrow(grid)


def variants(base: T, points: Sequence[Mapping[str, Any]]) -> list[T]:
    """One copy of `base` for each point; its fields must be leaves that vmap can batch.

    Raises:
      ValueError: an unknown field, or a static one.
    """
    fields = {f.name: f for f in dataclasses.fields(base)}  # type: ignore[arg-type]
    floats = [n for n, f in fields.items() if f.metadata.get("pytree_node", True)]
    for name in {name: None for point in points for name in point}:
        if name not in fields:
            raise InvalidValue(
                f"{type(base).__name__} has no field {name!r}; it can sweep: {', '.join(floats)}"
            )
        if name not in floats:
            raise InvalidValue(
                f"{name} is static, because it shapes the compiled program: "
                f"train once for each value; sweep can take: {', '.join(floats)}"
            )
    return [base.replace(**point) for point in points]  # type: ignore[attr-defined]


def stacked(variants: Sequence[T]) -> T:
    """Stacks trees of the same structure into one with leaves `[len(variants), ...]`.

    Raises:
      ValueError: their structures differ.
    """
    if len({jax.tree.structure(variant) for variant in variants}) > 1:
        raise InvalidValue(
            "all values of a field must be of the same kind: all numbers, or all the same schedule"
        )
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *variants)
