"""Variables of flax modules: `params` are trained, other collections are carried beside them.

Variables are the dict of collections that `module.init` returns, `{"params": ..., ...}`. Functions
take a tree of such dicts, too: a pair of networks, say. Another collection, BatchNorm's
`batch_stats` for instance, is what the last learning pass made of it; no optimiser sees it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from jaxrl.types import PyTree, Scalar


def carried_names(variables: PyTree) -> list[str]:
    """The collections that are not trained, in any of the dicts."""
    found = jax.tree.leaves(variables, is_leaf=_is_variables)
    return sorted({name for x in found if _is_variables(x) for name in x} - {"params"})


def trained(variables: PyTree) -> PyTree:
    """The variables without the collections that are carried: what an optimiser is to see."""

    def one(x: Any) -> Any:
        return {"params": x["params"]} if _is_variables(x) else x

    return jax.tree.map(one, variables, is_leaf=_is_variables)


def merged(variables: PyTree, *newer: PyTree) -> PyTree:
    """The variables with the collections that `newer` has in their place; the last one wins."""

    def one(x: Any, *others: Any) -> Any:
        for other in others:
            x = x | other
        return x

    return jax.tree.map(one, variables, *newer, is_leaf=_is_variables)


def polyak_update(variables: PyTree, target: PyTree, tau: Scalar) -> PyTree:
    """The target's variables, moved the share `tau` of the way to `variables`.

    Collections that are carried are taken over whole: batch statistics are averages already, and
    others may be counts (Stable-Baselines3 does the same, see its issue 996).
    """

    def one(x: Any, target: Any) -> Any:
        if not _is_variables(x):
            return optax.incremental_update(x, target, tau)
        return x | {"params": optax.incremental_update(x["params"], target["params"], tau)}

    return jax.tree.map(one, variables, target, is_leaf=_is_variables)


def _is_variables(x: Any) -> bool:
    return isinstance(x, Mapping) and "params" in x
