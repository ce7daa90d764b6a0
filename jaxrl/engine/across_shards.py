"""What the learners check and pool where devices share the environments (`devices.shards`)."""

import jax

from jaxrl.agent import Agent
from jaxrl.devices.shards import differs, num_shards, sum_of_tree
from jaxrl.errors import Unable
from jaxrl.types import Mean, PyTree


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
