"""Checks of an offline data set before anything is compiled."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.engine.first_step import differences
from jaxrl.errors import InvalidValue
from jaxrl.trees import named_leaves
from jaxrl.types import (
    ActionSpace,
    Box,
    Discrete,
    EnvSpec,
    Mixed,
    MultiDiscrete,
    PyTree,
    Transition,
    sample_action,
    split_mask,
)


def check_data(spec: EnvSpec, data: PyTree) -> None:
    """Raises ValueError unless `data` are transitions `[D, ...]` that match the spec.

    A reward of shape `[D, 1]`, for example, would silently broadcast against `[D]`.
    """
    if not isinstance(data, Transition) or jnp.ndim(data.reward) < 1:
        raise InvalidValue("data is not a Transition with leaves [num_transitions, ...]")
    if not jnp.shape(data.reward)[0]:
        raise InvalidValue("data has no transitions: give at least one")
    problems = (
        [*_differences(spec, data), *_extra_leaves(data)]
        or list(_not_finite(data))
        or list(_unknown_actions(spec.action, data.action, "data.action"))
        or list(_unavailable(spec.action, data.action, split_mask(data.obs)[1], "data.action"))
    )
    if problems:
        raise InvalidValue(
            "data does not fit the environment:" + "".join(f"\n{x}" for x in problems)
        )


def _extra_leaves(data: Transition) -> Iterator[str]:
    """A line for each entry of `extras` and `info` that has not a row for each transition."""
    number = jnp.shape(data.reward)[0]
    for name in ("extras", "info"):
        for leaf, x in named_leaves(getattr(data, name)).items():
            if jnp.shape(x)[:1] != (number,):
                yield f"- data.{name}, {leaf}, has the shape {jnp.shape(x)}: it needs {number} rows"


def _not_finite(data: Transition) -> Iterator[str]:
    """A line for each leaf with NaN or infinity; traced data pass.

    What follows a terminated step is never used.
    """
    for name in ("obs", "reward", "next_obs"):
        for leaf, x in named_leaves(getattr(data, name)).items():
            if not jnp.issubdtype(x.dtype, jnp.floating) or isinstance(x, jax.core.Tracer):
                continue
            bad = ~np.isfinite(np.asarray(x)).reshape(len(x), -1).all(axis=1)
            if name == "next_obs" and not isinstance(data.terminated, jax.core.Tracer):
                bad &= ~np.asarray(data.terminated)
            if bad.any():
                where = f"{name}.{leaf}" if leaf else name
                row = int(np.argmax(bad))
                yield f"- data.{where} is not finite in row {row}: leave out that episode"


def _differences(spec: EnvSpec, data: Transition) -> Iterator[str]:
    number = jnp.shape(data.reward)[0]

    def found(x):
        return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))

    def rows(x):
        return jax.ShapeDtypeStruct((number, *x.shape), x.dtype)

    key = jax.eval_shape(lambda: jax.random.key(0))  # a real one would start the backend
    end = jax.ShapeDtypeStruct((), jnp.bool_)
    wanted = {
        "obs": spec.observation,
        "action": jax.eval_shape(lambda key: sample_action(spec.action, key), key),
        "reward": jax.ShapeDtypeStruct((), jnp.float32),
        "terminated": end,
        "truncated": end,
        "next_obs": spec.observation,
    }
    for name, one in wanted.items():
        leaves = jax.tree.map(found, getattr(data, name))
        yield from differences(f"data.{name}", leaves, "but must be", jax.tree.map(rows, one))


def _unknown_actions(space: ActionSpace, actions: PyTree, where: str) -> Iterator[str]:
    """A line for each invalid action; traced data pass.

    Box actions are clipped when executed, so only non-finite ones are invalid.
    """
    match space:
        case Mixed(spaces):
            for i, (part, x) in enumerate(zip(spaces, actions, strict=True)):
                yield from _unknown_actions(part, x, f"{where}[{i}]")
            return
        case _ if isinstance(actions, jax.core.Tracer):
            return
        case Box():
            if not np.isfinite(np.asarray(actions)).all():
                yield f"- {where} is not finite everywhere: leave those rows out"
            return
        case Discrete(num):
            columns, nums, names = [np.asarray(actions)], (num,), [where]
        case MultiDiscrete(nums):
            columns = list(np.moveaxis(np.asarray(actions), -1, 0))
            names = [f"{where}[:, {i}]" for i in range(len(nums))]
    for column, num, name in zip(columns, nums, names, strict=True):
        if ((column < 0) | (column >= num)).any():
            yield (
                f"- {name} ranges from {column.min()} to {column.max()}, but the environment's "
                f"actions range from 0 to {num - 1}"
            )


def _unavailable(space: ActionSpace, actions: PyTree, mask: PyTree, where: str) -> Iterator[str]:
    """A line for each part with actions that the masks of their observations do not allow."""
    match space:
        case _ if mask is None:
            return
        case Mixed(spaces):
            for i, parts in enumerate(zip(spaces, actions, mask, strict=True)):
                yield from _unavailable(*parts, f"{where}[{i}]")
            return
        case _ if isinstance(actions, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
            return
        case Discrete():
            columns, ends = np.asarray(actions)[:, None], np.array([], int)
        case MultiDiscrete(nums):
            ends = np.cumsum(nums)[:-1]
            columns = np.asarray(actions) + np.concatenate([[0], ends])
    mask = np.asarray(mask)
    blocks = np.split(mask, ends, axis=1)
    free = np.stack([~block.any(axis=1) for block in blocks], axis=1)  # no mask at all
    allowed = (np.take_along_axis(mask, columns, axis=1) | free).all(axis=1)
    if not allowed.all():
        row = int(np.argmin(allowed))
        yield (
            f"- {where} has {(~allowed).sum()} actions that the action mask of their observation "
            f"does not allow, the first in row {row}: leave those rows out"
        )
