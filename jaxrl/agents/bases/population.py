"""Base class of agents that search over the parameters of a policy with a population."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl.agent import Agent, Population
from jaxrl.agents.bases.learning import check_widths
from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.layers import Activation
from jaxrl.networks.own_modules import OneBatchAxis, call_directly, check_module
from jaxrl.networks.recurrent import CoreName
from jaxrl.networks.torsos import default_torso
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree
from jaxrl.validation import holds_anywhere


class PopulationAgent(Agent):
    """Candidates are parameters of a policy, which acts by its most likely action or mean.

    Subclasses keep `params`, the parameters to deploy, and `candidates`, leaves
    `[population_size, ...]`, in their state.
    """

    population_size: int = hyper(32, static=True, doc="Candidates per iteration.")
    episodes_per_candidate: int = hyper(
        1, static=True, doc="Episodes that each candidate plays per iteration."
    )
    max_episode_steps: int | None = hyper(
        None,
        low=1,
        static=True,
        doc="Steps after which an episode is cut off; none for the environment's limit.",
    )
    candidates_at_once: int | None = hyper(
        None,
        low=1,
        static=True,
        doc="Candidates that play at the same time, which saves memory; none for all.",
    )
    common_random_numbers: bool = hyper(
        False,
        static=True,
        doc="Whether all candidates play with the same random numbers: equal starts and noise.",
    )
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

    candidates = ("candidates",)

    @property
    def plan(self) -> Population:
        limit = self.max_episode_steps or self.bound_spec.max_steps
        if limit is None:
            raise InvalidValue(
                "max_episode_steps is none, and the environment has no limit of its own: set it"
            )
        return Population(
            self.population_size,
            self.episodes_per_candidate,
            limit,
            self.candidates_at_once,
            self.common_random_numbers,
        )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if holds_anywhere(lambda discount: discount != 1.0, self.discount):
            raise InvalidValue(
                f"discount is {self.discount}, but the returns of a population are undiscounted "
                "sums of rewards: leave it at 1"
            )
        if self.policy_network is not None and self.core != "none":
            raise InvalidValue("policy_network is the whole policy: leave core as it is")
        check_widths(self.hidden_sizes)
        check_module(self, "policy_network", spec, trains=False)

    @property
    def network(self) -> ActorCritic:
        """The policy, as the method `policy` of a flax module."""
        spec, module = self.bound_spec, self.policy_network

        def torso():
            return default_torso(spec, self.hidden_sizes, self.activation)

        call: Any = call_directly if module is None else OneBatchAxis.of(module, spec, trains=False)
        return ActorCritic(
            torso,
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

    def gains(self, returns: Array) -> tuple[Array, dict[str, Array]]:
        """Mean returns of the candidates `[population_size]`, -inf for NaN, and their metrics."""
        gain = mean(returns, axis=1)
        gain = jnp.where(jnp.isnan(gain), -jnp.inf, gain)
        return gain, {"mean_return": mean(returns), "best_return": jnp.max(gain)}

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        def one(params: PyTree, obs: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
            policy, carry = self.policy(params, obs, carry)
            return carry, policy.mode()

        if not explore:
            return *one(state.params, obs, carry), ()
        number, rows = (jax.tree.leaves(x)[0].shape[0] for x in (state.candidates, obs))
        own = jax.tree.map(lambda x: x.reshape(number, rows // number, *x.shape[1:]), (obs, carry))
        found = jax.vmap(one)(state.candidates, *own)
        return *jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), found), ()


def drawn(params: PyTree, std: PyTree, key: Key, number: int) -> PyTree:
    """Draws of a Gaussian in which parameters are independent, leaves `[number, ...]`.

    Args:
      params: the means.
      std: standard deviations, structured like `params`, or one for all.
    """
    vector, restore = ravel_pytree(params)
    noise = jax.random.normal(key, (number, vector.size), vector.dtype)
    return jax.vmap(restore)(vector[None] + ravel_pytree(std)[0][None] * noise)
