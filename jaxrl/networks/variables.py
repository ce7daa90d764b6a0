"""Variables of flax modules: `params` are trained, other collections are carried along.

Variables are the dict of collections that `module.init` returns, `{"params": ..., ...}`. The
functions here also take trees of such dicts, such as a pair of networks. Other collections, such as
BatchNorm's `batch_stats`, come from the last learning pass; optimisers do not see them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from jaxrl.types import PyTree, Scalar


def carried_names(variables: PyTree) -> list[str]:
    """Names of the collections that are not trained, in any of the dicts."""
    found = jax.tree.leaves(variables, is_leaf=_is_variables)
    return sorted({name for x in found if _is_variables(x) for name in x} - {"params"})


def trained(variables: PyTree) -> PyTree:
    """The variables without carried collections: what an optimiser sees."""

    def one(x: Any) -> Any:
        return {"params": x["params"]} if _is_variables(x) else x

    return jax.tree.map(one, variables, is_leaf=_is_variables)


def merged(variables: PyTree, *newer: PyTree) -> PyTree:
    """Replaces collections by those in `newer`; the last one wins."""

    def one(x: Any, *others: Any) -> Any:
        for other in others:
            x = x | other
        return x

    return jax.tree.map(one, variables, *newer, is_leaf=_is_variables)


def polyak_update(variables: PyTree, target: PyTree, tau: Scalar) -> PyTree:
    """Polyak averaging: (1 - tau) * target + tau * variables.

    Carried collections are copied: batch statistics are averages already, and others may be counts
    (as in Stable-Baselines3, see its issue 996).
    """

    def one(x: Any, target: Any) -> Any:
        if not _is_variables(x):
            return optax.incremental_update(x, target, tau)
        return x | {"params": optax.incremental_update(x["params"], target["params"], tau)}

    return jax.tree.map(one, variables, target, is_leaf=_is_variables)


def _is_variables(x: Any) -> bool:
    return isinstance(x, Mapping) and "params" in x
