"""Recurrent cores, whose state is reset at episode starts."""

from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl.errors import InvalidValue
from jaxrl.trees import tree_where
from jaxrl.types import Array, PyTree

CoreName = Literal["none", "gru", "lstm"]


def cell(name: CoreName, size: int) -> nn.RNNCellBase | None:
    """Builds a recurrent cell by name; None for "none"."""
    match name:
        case "none":
            return None
        case "gru":
            return nn.GRUCell(size)
        case "lstm":
            return nn.OptimizedLSTMCell(size)
    raise InvalidValue(f"core is {name!r}: use one of {', '.join(get_args(CoreName))}")


def initial_carry(name: CoreName, size: int, num_envs: int) -> PyTree:
    """The recurrent state at the start of an episode: zeros, leaves `[num_envs, size]`."""
    zeros = jnp.zeros((num_envs, size), jnp.float32)
    return {"none": (), "gru": zeros, "lstm": (zeros, zeros)}[name]


class Core(nn.Module):
    """Runs a recurrent cell over time and resets its state at episode starts.

    Attributes:
      name_: the cell.
      size: size of its state.
      truncate_every: no gradient flows through the state before every n-th step (Williams and
        Peng, 1990); None for all steps.
    """

    name_: CoreName
    size: int
    truncate_every: int | None = None

    @nn.compact
    def __call__(self, carry: PyTree, x: Array, first: Array) -> tuple[PyTree, Array, PyTree]:
        """Unrolls the cell.

        Args:
          carry: the state before step 0, leaves `[N, size]`.
          x: features `[T, N, F]`.
          first: `bool[T, N]`, episode starts.

        Returns:
          The state after the last step, the outputs `[T, N, size]`, and the state after each step,
          leaves `[T, N, size]`.
        """
        start = initial_carry(self.name_, self.size, x.shape[1])

        def one_step(cell, carry, inputs):
            x, first, *cut = inputs
            if cut:
                carry = tree_where(cut[0], jax.lax.stop_gradient(carry), carry)
            carry, y = cell(tree_where(first, start, carry), x)
            return carry, (y, carry)

        inputs: tuple[Array, ...] = (x, first)
        if self.truncate_every is not None:
            inputs = (*inputs, jnp.arange(x.shape[0]) % self.truncate_every == 0)

        scan = nn.scan(one_step, variable_broadcast="params", split_rngs={"params": False})
        carry, (outputs, carries) = scan(cell(self.name_, self.size), carry, inputs)
        return carry, outputs, carries
