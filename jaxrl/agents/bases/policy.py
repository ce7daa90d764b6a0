"""Base class of agents with a policy network and no critic."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl.agent import Agent
from jaxrl.agents.bases.learning import LearningAgent, check_widths
from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.layers import Activation
from jaxrl.networks.own_modules import OneBatchAxis, call_directly, check_module
from jaxrl.networks.recurrent import CoreName
from jaxrl.networks.torsos import default_torso
from jaxrl.types import EnvSpec, Key, PyTree


class PolicyAgent(Agent):
    """A policy from observations, and from a recurrent state if it has a core, to actions."""

    hidden_sizes: tuple[int, ...] = hyper(
        (32,), static=True, doc="Widths of the policy's hidden layers."
    )
    activation: Activation = hyper("tanh", static=True, doc="Activation function.")
    core: CoreName = hyper(
        "none",
        static=True,
        doc="Recurrent cell between torso and head, for environments that need memory.",
    )
    core_size: int = hyper(32, static=True, doc="Size of the recurrent state.")
    policy_network: nn.Module | None = hyper(
        None,
        static=True,
        doc="Your own flax module from (obs, mask), `[B, ...]`, to a distribution over actions, "
        "with params alone; None for an MLP of hidden_sizes.",
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.policy_network is not None and self.core != "none":
            raise InvalidValue("policy_network is the whole policy: leave core as it is")
        check_widths(self.hidden_sizes)
        check_module(self, "policy_network", spec, trains=False)

    def new_torso(self) -> nn.Module:
        """A new module from observations to features."""
        return default_torso(self.bound_spec, self.hidden_sizes, self.activation)

    @property
    def network(self) -> ActorCritic:
        """The policy, as the method `policy` of a flax module."""
        spec, module = self.bound_spec, self.policy_network
        call: Any = call_directly if module is None else OneBatchAxis.of(module, spec, trains=False)
        return ActorCritic(
            self.new_torso,
            spec.action,
            shared=True,  # there is no critic
            core=self.core,
            core_size=self.core_size,
            policy_network=module,
            call_policy=call,
        )

    def dummy_inputs(self) -> tuple[Any, ...]:
        """What `policy` of the network gets, for `init`."""
        if self.core == "none":
            return (self.bound_spec.dummy_observation(1),)
        carry = self.initial_carry(1)
        return self.bound_spec.dummy_observation(1, 1), carry, jnp.ones((1, 1), bool)

    def init_params(self, key: Key) -> PyTree:
        """Initial parameters of the policy."""
        return self.network.init(key, *self.dummy_inputs(), method="policy")

    def initial_carry(self, num_envs: int) -> PyTree:
        return self.network.initial_carry(num_envs)

    def policy(self, params: PyTree, obs: PyTree, carry: PyTree) -> tuple[Distribution, PyTree]:
        """The distribution over actions `[N]`, and the recurrent state after it."""
        apply: Any = self.network.apply
        if self.core == "none":
            return apply(params, obs, method="policy")[0], carry
        # A sequence of one step, whose carry is already reset.
        obs = jax.tree.map(lambda x: x[None], obs)
        first = jnp.zeros(jax.tree.leaves(obs)[0].shape[:2], bool)
        found = apply(params, obs, carry, first, method="policy")
        return jax.tree.map(lambda x: x[0], found)


class PolicyLearner(PolicyAgent, LearningAgent):
    """A policy with an optimiser and a choice of initial parameters."""

    def init_params(self, key: Key) -> PyTree:
        return self.new_params(self.network, key, *self.dummy_inputs(), method="policy")
