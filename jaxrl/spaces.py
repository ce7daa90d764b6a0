"""Action spaces, random actions and action masks.

Spaces are validated when built: an invalid field raises ValueError with its name and value.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.validation import whole_number

MOST = 2**31 - 1
"""Largest number of actions: they are int32."""


@dataclasses.dataclass(frozen=True)
class Discrete:
    """One of `num` actions: an `int32[]` in `[0, num)`."""

    num: int

    def __post_init__(self) -> None:
        _set(self, num=whole_number("Discrete.num", self.num, most=MOST))


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """Several independent choices: an `int32[len(nums)]`, the i-th in `[0, nums[i])`."""

    nums: tuple[int, ...]

    def __post_init__(self) -> None:
        nums = _entries("MultiDiscrete.nums", self.nums, "MultiDiscrete((3, 2))")
        of = {i: whole_number(f"MultiDiscrete.nums[{i}]", n, most=MOST) for i, n in nums.items()}
        _set(self, nums=tuple(of.values()))


@dataclasses.dataclass(frozen=True)
class Box:
    """A `float32[*shape]` from `low` to `high`.

    Attributes:
      low: lower bound, a number or an array (nested tuples) that broadcasts to `shape`; `-inf` for
        unbounded entries.
      high: upper bound, likewise; every entry must be above that of `low`.
      shape: shape of an action.
    """

    low: Any
    high: Any
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = _shape("Box.shape", self.shape)
        low, high = (_bound(name, getattr(self, name), shape) for name in ("low", "high"))
        for name, bound in (("low", low), ("high", high)):
            if np.isnan(bound).any():
                raise InvalidValue(
                    f"Box.{name} is {getattr(self, name)!r}: a bound must not be NaN"
                )
        if not (low < high).all():
            first = tuple(int(i) for i in np.argwhere(~(low < high))[0])
            entry = f" in entry {first}" if first else ""
            ends = f"Box.low is {low[first]:g} and Box.high is {high[first]:g}{entry}"
            if low[first] == high[first]:
                raise InvalidValue(
                    f"{ends}: leave constant entries out of the action and let the environment add "
                    "them"
                )
            raise InvalidValue(f"{ends}: low must be below high")
        # A canonical form, so that equal boxes compare and hash equal however they were built.
        _set(self, low=_hashable(low), high=_hashable(high), shape=shape)

    @classmethod
    def of(cls, low: Any, high: Any, shape: tuple[int, ...]) -> "Box":
        """Builds a box from scalars or arrays."""
        return cls(low, high, shape)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds, both `float32[*shape]`."""
        low, high = (
            np.broadcast_to(np.asarray(b, np.float32), self.shape) for b in (self.low, self.high)
        )
        return low, high

    def clip(self, action: jax.Array) -> jax.Array:
        """Clips `action[*shape]` to the bounds."""
        low, high = self.bounds()
        return jnp.clip(action, jnp.asarray(low), jnp.asarray(high))


@dataclasses.dataclass(frozen=True)
class Mixed:
    """A product of spaces: an action is a tuple with one entry per space."""

    spaces: tuple["ActionSpace", ...]

    def __post_init__(self) -> None:
        spaces = _entries("Mixed.spaces", self.spaces, "Mixed((Discrete(2), Box.of(-1, 1, (3,))))")
        for i, space in spaces.items():
            check_space(space, f"Mixed.spaces[{i}]: ")
        _set(self, spaces=tuple(spaces.values()))


ActionSpace = Discrete | MultiDiscrete | Box | Mixed


def check_space(space: Any, where: str = "") -> None:
    """Raises TypeError unless `space` is an action space."""
    if not isinstance(space, ActionSpace):
        raise InvalidType(
            f"{where}{space!r} is not an action space: use Discrete, MultiDiscrete, Box or Mixed"
        )


def _set(space: Any, **fields: Any) -> None:
    """Sets fields of a frozen dataclass in its `__post_init__`."""
    for name, value in fields.items():
        object.__setattr__(space, name, value)


def _entries(name: str, values: Any, example: str) -> dict[int, Any]:
    """Entries of a non-empty tuple, list or array by index; raises ValueError otherwise."""
    if isinstance(values, np.ndarray | jax.Array) and values.ndim == 1:
        values = list(np.asarray(values))
    if not isinstance(values, tuple | list) or not values:
        raise InvalidValue(f"{name} is {values!r}: give a tuple with at least one entry, {example}")
    return dict(enumerate(values))


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    if isinstance(shape, int | np.integer):
        raise InvalidValue(f"{name} is {shape!r}: give a tuple, ({int(shape)},)")
    if not isinstance(shape, tuple | list):
        raise InvalidValue(f"{name} is {shape!r}: give a tuple of whole numbers")
    return tuple(whole_number(f"{name}[{i}]", n, 0) for i, n in enumerate(shape))


def _bound(name: str, bound: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A bound of a box as `float32[*shape]`."""
    try:
        with np.errstate(over="ignore"):  # bounds beyond float32's range become infinite
            array = np.asarray(bound, np.float32)
    except (TypeError, ValueError) as error:
        if isinstance(bound, jax.core.Tracer):
            raise
        raise InvalidValue(f"Box.{name} is {bound!r}: give a number or an array of them") from error
    try:
        return np.broadcast_to(array, shape)
    except ValueError as error:
        raise InvalidValue(
            f"Box.{name} has the shape {array.shape}, which does not broadcast to Box.shape {shape}"
        ) from error


def _hashable(bound: np.ndarray) -> Any:
    """A float if all entries are equal, else nested tuples."""
    same = bound.size > 0 and (bound == bound.flat[0]).all()
    return float(bound.flat[0]) if same else _nested_tuple(bound.tolist())


def _nested_tuple(x: Any) -> Any:
    return tuple(_nested_tuple(item) for item in x) if isinstance(x, list) else x


# Actions ------------------------------------------------------------------------------------------


def into_bounds(space: ActionSpace, action: Any) -> Any:
    """Clips the continuous parts of one unbatched `action` to the bounds of their boxes."""
    if isinstance(space, Box):
        return space.clip(action)
    if isinstance(space, Mixed):
        return tuple(into_bounds(s, a) for s, a in zip(space.spaces, action, strict=True))
    return action


def sample_action(space: ActionSpace, key: jax.Array) -> Any:
    """Draws one unbatched action: uniformly, or from a normal distribution if a box is unbounded.

    With only one finite bound, the normal is centred and folded there.
    """
    match space:
        case Discrete(num):
            return jax.random.randint(key, (), 0, num)
        case MultiDiscrete(nums):
            return jax.random.randint(key, (len(nums),), 0, jnp.asarray(nums))
        case Box():
            return _sample_box(space, key)
        case Mixed(spaces):
            keys = jax.random.split(key, len(spaces))
            return tuple(sample_action(s, k) for s, k in zip(spaces, keys, strict=True))
    check_space(space)


def _sample_box(box: Box, key: jax.Array) -> jax.Array:
    low, high = box.bounds()
    with np.errstate(over="ignore"):  # the width of float32's full range overflows
        bounded = np.isfinite(high - low)
    if bounded.all():
        return jax.random.uniform(key, box.shape, minval=jnp.asarray(low), maxval=jnp.asarray(high))
    uniform_key, normal_key = jax.random.split(key)
    ends = jnp.asarray(np.where(bounded, low, 0.0)), jnp.asarray(np.where(bounded, high, 1.0))
    uniform = jax.random.uniform(uniform_key, box.shape, minval=ends[0], maxval=ends[1])
    normal = jax.random.normal(normal_key, box.shape)
    folded = jnp.select(
        [np.isfinite(low) & np.isinf(high), np.isinf(low) & np.isfinite(high)],
        [low + jnp.abs(normal), high - jnp.abs(normal)],
        normal,
    )
    return box.clip(jnp.where(bounded, uniform, folded))


# Masks --------------------------------------------------------------------------------------------


def mask_problems(space: ActionSpace, mask: Any, name: str = "action_mask") -> Iterator[str]:
    """Yields a sentence for each part of an action mask that does not match the action space.

    Args:
      space: the action space.
      mask: one unbatched mask, arrays or their shapes: `bool[num]` for Discrete, `bool[sum(nums)]`
        for MultiDiscrete, one entry per space for Mixed. None allows everything; a Box accepts
        nothing else.
      name: name of the mask in the sentences.
    """
    if mask is None:
        return
    match space:
        case Mixed(spaces):
            if not isinstance(mask, tuple | list) or len(mask) != len(spaces):
                found = f"{len(mask)} entries" if isinstance(mask, tuple | list) else _kind(mask)
                yield f"{name} is {found}, but {space!r} needs a tuple of {len(spaces)} entries"
                return
            for i, (part, its) in enumerate(zip(spaces, mask, strict=True)):
                yield from mask_problems(part, its, f"{name}[{i}]")
        case Box():
            yield f"{name} is {_kind(mask)}, but {space!r} takes no mask: use None"
        case Discrete() | MultiDiscrete():
            size = space.num if isinstance(space, Discrete) else sum(space.nums)
            if getattr(mask, "shape", None) != (size,) or mask.dtype != np.bool_:
                yield f"{name} is {_kind(mask)}, but {space!r} needs bool[{size}]"


def _kind(x: Any) -> str:
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}{list(x.shape)}"
    return f"a {type(x).__name__}"
