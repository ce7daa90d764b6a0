"""Training in float32, also under `jax_enable_x64`, and under strict promotion of dtypes.

Works around: `jax_enable_x64` changes the dtype of every array without an explicit one, in this
library, in flax and optax, and in users' environments and agents; an int64 draw also consumes other
random bits than an int32 one. `jax_numpy_dtype_promotion="strict"` rejects arithmetic in optax and
in third-party environments. Code that traces a training program switches both off while tracing, so
that programs and results have the same bits as without these settings.

Versions: all of jax; it is how the settings are meant to work.

Measured: `python -m benchmarks.workarounds precision` traces PPO under `jax_enable_x64`.

Delete when: the command says so for every supported jax, or jax has dtypes by scope instead of one
setting for a process; `in_float32(f)` becomes `f`.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import numpy as np

from jaxrl.types import PyTree

P = ParamSpec("P")
T = TypeVar("T")


def in_float32(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: traces the function in 32 bits and with standard dtype promotion."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        config = jax.config
        if not config.jax_enable_x64 and config.jax_numpy_dtype_promotion == "standard":
            return function(*args, **kwargs)
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return run


def narrow(tree: PyTree) -> PyTree:
    """Casts the 64-bit arrays of a tree to 32 bits, which is what `in_float32` computes with."""

    def one(x):
        if not hasattr(x, "dtype") or jax.numpy.issubdtype(x.dtype, jax.dtypes.extended):
            return x
        dtype = np.dtype(jax.dtypes.canonicalize_dtype(x.dtype))
        return x if x.dtype == dtype else x.astype(dtype)

    return jax.tree.map(one, tree)
