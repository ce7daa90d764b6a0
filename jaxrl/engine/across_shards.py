"""What the learners check and pool where devices share the environments (`devices.shards`)."""

import jax

from jaxrl.agent import Agent
from jaxrl.devices.shards import as_different, differs, num_shards, sum_over_shards
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

    def pool(mean: Mean) -> Mean:
        if differs(mean.total) or differs(mean.count):
            return jax.tree.map(sum_over_shards, as_different(mean))
        return mean

    return jax.tree.map(pool, metrics, is_leaf=lambda x: isinstance(x, Mean))
