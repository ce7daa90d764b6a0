"""Spaces of gymnasium, which EnvPool and ale-py use too, as those of jaxrl."""

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from jaxrl.errors import InvalidType
from jaxrl.types import ActionSpace, Box, Discrete, Mixed, MultiDiscrete, PyTree

DTYPES = {"f": np.float32, "b": np.bool_}
"""Dtypes of observations by kind; other numbers are int32, except bytes."""


def observation(space: spaces.Space, name: str) -> tuple[PyTree, Callable[[Any], PyTree]]:
    """Shapes of an observation, and a function from batches of gymnasium's to those of jaxrl.

    A `Discrete` becomes a one-hot vector, a `MultiDiscrete` several of them, one after the other.
    Floats become `float32`, whole numbers `int32`; bytes and booleans stay.

    Raises:
      TypeError: the space is not supported.
    """
    match space:
        case spaces.Box() | spaces.MultiBinary():
            dtype = _dtype(np.dtype(space.dtype))
            shape: Any = space.shape
            return jax.ShapeDtypeStruct(shape, dtype), lambda x: np.asarray(x, dtype)
        case spaces.Discrete():
            eye = np.eye(int(space.n), dtype=np.float32)
            start = int(space.start)
            return jax.ShapeDtypeStruct(eye.shape[:1], eye.dtype), lambda x: eye[
                np.asarray(x) - start
            ]
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            starts = np.asarray(space.start)
            eyes = [np.eye(n, dtype=np.float32) for n in space.nvec]
            one = jax.ShapeDtypeStruct((int(space.nvec.sum()),), np.float32)

            def encode(x: Any) -> np.ndarray:
                choices = np.asarray(x) - starts
                return np.concatenate([e[c] for e, c in zip(eyes, choices.T, strict=True)], -1)

            return one, encode
        case spaces.Dict():
            parts = {key: observation(each, name) for key, each in space.spaces.items()}
            shapes = {key: shape for key, (shape, _) in parts.items()}
            return shapes, lambda x: {key: read(x[key]) for key, (_, read) in parts.items()}
        case spaces.Tuple():
            each = [observation(part, name) for part in space.spaces]
            reads = [read for _, read in each]
            return tuple(shape for shape, _ in each), lambda x: tuple(
                read(part) for read, part in zip(reads, x, strict=True)
            )
    raise InvalidType(f"{name} has the observation space {space}, which jaxrl does not support")


def _dtype(dtype: np.dtype) -> Any:
    if dtype == np.uint8:
        return np.dtype(np.uint8)
    return np.dtype(DTYPES.get(dtype.kind, np.int32))


def action(space: spaces.Space, name: str) -> tuple[ActionSpace, Callable[[PyTree], Any]]:
    """The action space, and a function from batches of jaxrl's actions to gymnasium's.

    Raises:
      TypeError: the space is not supported.
    """
    match space:
        case spaces.Discrete():
            kind, first = space.dtype, int(space.start)
            return Discrete(int(space.n)), lambda x: np.asarray(x).astype(kind) + first
        case spaces.MultiDiscrete() | spaces.MultiBinary():
            nums = np.asarray(getattr(space, "nvec", np.full(space.shape, 2)))
            starts = np.asarray(getattr(space, "start", 0))
            dtype, shape = space.dtype, nums.shape

            def choose(x: Any) -> np.ndarray:
                return (np.asarray(x).reshape(-1, *shape) + starts).astype(dtype)

            return MultiDiscrete(tuple(int(n) for n in nums.ravel())), choose
        case spaces.Box() if np.issubdtype(space.dtype, np.floating):
            shape = space.shape
            box = Box.of(space.low, space.high, tuple(int(n) for n in shape))
            real, low, high = space.dtype, space.low, space.high
            return box, lambda x: np.clip(np.asarray(x).astype(real), low, high)
        case spaces.Tuple():
            parts = [action(part, name) for part in space.spaces]
            write = [convert for _, convert in parts]
            return Mixed(tuple(part for part, _ in parts)), lambda x: tuple(
                convert(each) for convert, each in zip(write, x, strict=True)
            )
        case spaces.Dict():
            named = {key: action(part, name) for key, part in space.spaces.items()}
            return Mixed(tuple(part for part, _ in named.values())), lambda x: {
                key: convert(each)
                for (key, (_, convert)), each in zip(named.items(), x, strict=True)
            }
    raise InvalidType(f"{name} has the action space {space}, which jaxrl does not support")


def mask_of(space: ActionSpace, info: Any) -> np.ndarray | None:
    """The mask of available actions in gymnasium's `info`, `bool[num]`; None if there is none."""
    mask = info.get("action_mask") if isinstance(info, dict) else None
    if mask is None or not isinstance(space, Discrete | MultiDiscrete):
        return None
    return np.asarray(mask, bool).reshape(-1)


def is_from_gymnasium(env: Any) -> bool:
    """Whether a class of an environment is one of gymnasium's own, whose time limits are known."""
    return type(env.unwrapped).__module__.startswith(f"{gymnasium.__name__}.envs.")
