"""Base class of agents that learn a policy from the actions of an expert."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxrl.agent import EvalMode
from jaxrl.agents.bases.learning import AdamAgent
from jaxrl.agents.bases.policy import PolicyLearner
from jaxrl.errors import InvalidValue
from jaxrl.losses import mean
from jaxrl.types import Array, EnvSpec, PyTree


class CloningAgent(PolicyLearner, AdamAgent):
    """A policy that maximises the likelihood of an expert's actions."""

    hidden_sizes: tuple[int, ...] = (64, 64)

    eval_modes: ClassVar[tuple[EvalMode, ...]] = ("greedy", "sample")

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.core != "none":
            raise InvalidValue(
                f"core is {self.core!r}, but {type(self).__name__} learns from single "
                "transitions: leave it at 'none'"
            )


def mistakes(wanted: PyTree, found: PyTree) -> Array:
    """The share of actions that differ, or for boxes their mean squared distance; parts added."""
    total: Any = 0.0
    for x, y in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        is_box = jnp.issubdtype(x.dtype, jnp.floating)
        rows = jnp.square(x - y) if is_box else (x != y).astype(jnp.float32)
        rows = jnp.sum(rows.reshape(rows.shape[0], -1), axis=1)
        total = total + mean(rows)
    return total
