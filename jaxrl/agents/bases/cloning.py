"""Base class of agents that learn a policy from the actions of an expert."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxrl.agent import EvalMode
from jaxrl.agents.bases.learning import AdamAgent
from jaxrl.agents.bases.policy import PolicyLearner
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.policies import MixturePolicy
from jaxrl.types import Array, Box, EnvSpec, PyTree
from jaxrl.validation import UNROLLED


class CloningAgent(PolicyLearner, AdamAgent):
    """A policy that maximises the likelihood of an expert's actions."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    num_components: int = hyper(
        1,
        high=UNROLLED,
        static=True,
        doc="Gaussians whose mixture is the policy over a box: several for an expert that acts in "
        "several ways, whose mean would be none of them.",
    )

    eval_modes: ClassVar[tuple[EvalMode, ...]] = ("greedy", "sample")

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.core != "none":
            raise InvalidValue(
                f"core is {self.core!r}, but {type(self).__name__} learns from single "
                "transitions: leave it at 'none'"
            )
        if self.num_components > 1 and not isinstance(spec.action, Box):
            raise InvalidValue(
                f"num_components is {self.num_components}, but the action space is {spec.action}: "
                "mixtures are for a Box; leave it at 1"
            )
        if self.num_components > 1 and self.policy_network is not None:
            raise InvalidValue("policy_network is the whole policy: leave num_components at 1")

    @property
    def network(self) -> ActorCritic:
        space: Any = self.bound_spec.action
        if self.num_components == 1:
            return super().network
        policy = MixturePolicy(self.new_torso, space, self.num_components)
        return ActorCritic(self.new_torso, space, shared=True, policy_network=policy)


def mistakes(wanted: PyTree, found: PyTree) -> Array:
    """The share of actions that differ, or for boxes their mean squared distance; parts added."""
    total: Any = 0.0
    for x, y in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        is_box = jnp.issubdtype(x.dtype, jnp.floating)
        rows = jnp.square(x - y) if is_box else (x != y).astype(jnp.float32)
        rows = jnp.sum(rows.reshape(rows.shape[0], -1), axis=1)
        total = total + mean(rows)
    return total
