"""What the learners check and pool where devices share the environments (`devices.shards`)."""

import jax
import jax.numpy as jnp

from jaxrl.agent import Agent
from jaxrl.devices.shards import (
    as_different,
    differs,
    num_shards,
    shard_index,
    shard_of,
    sum_of_tree,
    sum_over_shards,
)
from jaxrl.errors import Unable
from jaxrl.types import Array, Mean, PyTree


def check_equal(agent: Agent, old: PyTree, new: PyTree) -> None:
    """Raises `Unable` if devices would go on with different states of the agent."""
    if num_shards() == 1:
        return
    leaves = jax.tree_util.tree_leaves_with_path(new)
    for (path, x), y in zip(leaves, jax.tree.leaves(old), strict=True):
        if differs(x) and not differs(y):
            raise Unable(
                f"{type(agent).__name__}'s state{jax.tree_util.keystr(path)} would differ between "
                "devices that share the environments: take means over data with "
                "jaxrl.losses.mean, or train with devices=1"
            )


def pooled(metrics: PyTree) -> PyTree:
    """Metrics whose `Mean`s are pooled over devices, where these have different ones."""
    if num_shards() == 1:
        return metrics
    means, treedef = jax.tree.flatten(metrics, is_leaf=lambda x: isinstance(x, Mean))
    different = [differs(mean.total) or differs(mean.count) for mean in means]
    sums = sum_of_tree([x for x, differ in zip(means, different, strict=True) if differ])
    rest = iter(sums)
    pooled = [next(rest) if differ else x for x, differ in zip(means, different, strict=True)]
    return jax.tree.unflatten(treedef, pooled)


def own_candidates(agent: Agent, state: PyTree) -> PyTree:
    """The state of a population's agent with this device's candidates alone."""
    if num_shards() == 1:
        return state
    own = {x: jax.tree.map(shard_of, getattr(state, x)) for x in agent.candidates}
    return state.replace(**own)


def some_candidates(agent: Agent, state: PyTree, num_parts: int, part: Array) -> PyTree:
    """The state of a population's agent with part number `part` of its candidates."""

    def one(x: Array) -> Array:
        size = x.shape[0] // num_parts
        return jax.lax.dynamic_slice_in_dim(x, part * size, size)

    some = {x: jax.tree.map(one, getattr(state, x)) for x in agent.candidates}
    return state.replace(**some)


def gathered(tree: PyTree) -> PyTree:
    """Arrays `[N, ...]` of all devices' copies, equal on all devices, from those of each."""
    if num_shards() == 1:
        return tree

    def one(x: Array) -> Array:
        rows = jnp.zeros((num_shards(), *x.shape), jnp.promote_types(x.dtype, jnp.int8))
        whole = sum_over_shards(as_different(rows).at[shard_index()].set(x))
        return whole.astype(x.dtype).reshape(-1, *x.shape[1:])

    return jax.tree.map(one, tree)
