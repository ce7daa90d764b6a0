"""Training in float32, also inside a program that has `jax_enable_x64` on.

That setting changes what jax takes for a float or an integer nobody gave a dtype: in this library,
in flax and optax, in environments and in agents of users. An int64 draw consumes other random bits
than an int32 one, besides. So what traces a program of training switches the setting off for as
long as it traces: the program, and with it every result, is the one that is made without it.

So it does with strict promotion of dtypes (`jax_numpy_dtype_promotion="strict"`), which optax and
environments of others do not keep to.
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
    """The same function, which computes in 32 bits whatever `jax_enable_x64` says, and promotes
    dtypes whatever `jax_numpy_dtype_promotion` says."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        config = jax.config
        if not config.jax_enable_x64 and config.jax_numpy_dtype_promotion == "standard":
            return function(*args, **kwargs)
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return run


def narrow(tree: PyTree) -> PyTree:
    """The tree with its 64-bit arrays in 32 bits; inside of `in_float32` there should be none."""

    def one(x):
        if not hasattr(x, "dtype") or jax.numpy.issubdtype(x.dtype, jax.dtypes.extended):
            return x
        dtype = np.dtype(jax.dtypes.canonicalize_dtype(x.dtype))
        return x if x.dtype == dtype else x.astype(dtype)

    return jax.tree.map(one, tree)
