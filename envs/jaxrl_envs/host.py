"""Helpers for adapters of environments that step outside JAX."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from jaxrl.errors import InvalidType
from jaxrl.types import PyTree


def channels_last(shape: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """Moves the first axis of images to the end.

    That is how flax's convolutions take them.

    Args:
      shape: shapes of an observation; bytes with three axes are images `[channels, height, width]`.

    Returns:
      The new shapes, and a function of batches of observations.
    """
    is_image = jax.tree.map(lambda x: x.dtype == np.uint8 and len(x.shape) == 3, shape)

    def shape_of(image: bool, x: Any) -> Any:
        return jax.ShapeDtypeStruct((*x.shape[1:], x.shape[0]), x.dtype) if image else x

    def turn(obs: PyTree) -> PyTree:
        return jax.tree.map(lambda image, x: np.moveaxis(x, 1, -1) if image else x, is_image, obs)

    return jax.tree.map(shape_of, is_image, shape), turn


def check_not_set(name: str, params: Iterable[str], by_jaxrl: Iterable[str]) -> None:
    """Raises TypeError for parameters of the environment called `name` that jaxrl sets itself."""
    if given := [param for param in by_jaxrl if param in params]:
        raise InvalidType(f"{', '.join(given)} of {name} is set by jaxrl: leave it out")


def replaced(tree: PyTree, rows: np.ndarray, new: PyTree) -> PyTree:
    """A copy of leaves `[N, ...]` with these rows replaced."""
    tree = jax.tree.map(np.copy, tree)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(new), strict=True):
        x[rows] = y
    return tree
