"""Eligibility traces of each copy of the environment."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.losses import mean
from jaxrl.types import Array, PyTree


def no_traces(params: PyTree, num_envs: int) -> PyTree:
    """Zeros, leaves `[N, ...]`."""
    return jax.tree.map(lambda x: jnp.zeros((num_envs, *x.shape), x.dtype), params)


def along_traces(
    function: Callable[[PyTree, Any], Array],
    params: PyTree,
    rows: Any,
    td_error: Array,
    scale: Array,
    traces: PyTree,
    fade: Array | None,
) -> tuple[PyTree, PyTree]:
    """The mean of delta z over copies, and the traces z <- fade z + scale grad function.

    Args:
      function: maps parameters and rows to `float32[N]`.
      params: its parameters.
      rows: one step of each copy, leaves `[N, ...]`.
      td_error: delta, `float32[N]`.
      scale: factor of the new gradient, `float32[N]`.
      traces: z before the step, leaves `[N, ...]`; unused if `fade` is None.
      fade: discount * lambda, or 0 in an episode's first step, `float32[N]`. None for no traces: z
        is the gradient of the step alone, and no gradient per copy is needed.

    Source: Sutton and Barto, 2018, p. 332 (box: actor-critic with eligibility traces, episodic).
    """
    if fade is None:
        weight = td_error * scale
        return jax.grad(lambda params: mean(weight * function(params, rows)))(params), ()

    def of_copy(params: PyTree, row: Any) -> Array:
        return function(params, jax.tree.map(lambda x: x[None], row))[0]

    gradients = jax.vmap(jax.grad(of_copy), (None, 0))(params, rows)
    times = jax.vmap(jnp.multiply)
    traces = jax.tree.map(lambda z, g: times(fade, z) + times(scale, g), traces, gradients)
    return jax.tree.map(lambda z: mean(times(td_error, z), axis=0), traces), traces
