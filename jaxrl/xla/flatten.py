"""Keep parameters flattened across consecutive updates on a CPU.

Works around: a loop over updates that carries a tree of parameters copies and adds a dozen small
arrays in each iteration, all at the same time. XLA's CPU backend then wakes a second thread for
tasks of a microsecond each. A vector needs a single operation.

Versions: jaxlib 0.10.2 to 0.11.2 on CPUs. Accelerators keep the tree: it is as fast for one agent,
and 2,048 vmapped agents took 32.3 ms an iteration with vectors and 29.5 ms with trees (H100).

Measured: `python -m benchmarks.workarounds flatten`; `python -m benchmarks.threads` shows when XLA
uses a second thread.

Delete when: the command says so for every supported jax; the tree itself replaces `Flattened`, and
`Agent.flattened` goes.
"""

from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from jaxrl.types import Array, PyTree, static


class Flattened(struct.PyTreeNode):
    """A tree of arrays, stored as one vector; a network reads its arrays out of the vector.

    Attributes:
      vector: `[P]`, the entries of all leaves in order, in the dtype to which theirs promote.
      restore: vector -> tree.
    """

    vector: Array
    restore: Callable[[Array], PyTree] = static()

    @classmethod
    def of(cls, tree: PyTree) -> Self:
        """Flattens a tree."""
        return cls(*ravel_pytree(tree))

    @property
    def tree(self) -> PyTree:
        """The tree, each leaf with its own shape and dtype."""
        return self.restore(self.vector)


def flatten(state: PyTree, fields: tuple[str, ...]) -> PyTree:
    """Replaces these fields of a state by `Flattened` ones.

    A tree that mixes floats with other numbers stays: a count would lose digits as a float.
    """

    def one(tree: PyTree) -> PyTree:
        dtypes = {x.dtype for x in jax.tree.leaves(tree)}
        floats = {jnp.issubdtype(dtype, jnp.inexact) for dtype in dtypes}
        return tree if floats == {True, False} else Flattened.of(tree)

    if not fields:
        return state
    return state.replace(**{name: one(getattr(state, name)) for name in fields})


def unflatten(state: PyTree, fields: tuple[str, ...]) -> PyTree:
    """The inverse of `flatten`."""
    if not fields:
        return state
    return state.replace(**{name: as_tree(getattr(state, name)) for name in fields})


def sum_of_vectors(params: PyTree, updates: PyTree) -> PyTree:
    """`optax.apply_updates`, by one sum of two vectors: of parameters that a loop carries as one.

    Arrays of different dtypes are added each by itself, as their vector would have another dtype.
    """
    if len({x.dtype for x in jax.tree.leaves((params, updates))}) > 1:
        return optax.apply_updates(params, updates)
    flat = Flattened.of(params)
    return flat.restore(flat.vector + Flattened.of(updates).vector)


def as_tree(params: PyTree) -> PyTree:
    """The tree of `Flattened` parameters; any other tree unchanged."""
    return params.tree if isinstance(params, Flattened) else params
