"""Base class of agents that search over the parameters of a policy with a population."""

from typing import Any

import flax.linen as nn
import jax

from jaxrl.agent import Agent, Population
from jaxrl.agents.bases.learning import check_widths
from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.layers import Activation
from jaxrl.networks.own_modules import OneBatchAxis, call_directly, check_module
from jaxrl.networks.torsos import default_torso
from jaxrl.types import Clock, EnvSpec, Key, PyTree
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
    hidden_sizes: tuple[int, ...] = hyper(
        (32,), static=True, doc="Widths of the policy's hidden layers."
    )
    activation: Activation = hyper("tanh", static=True, doc="Activation function.")
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
        return Population(self.population_size, self.episodes_per_candidate, limit)

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if holds_anywhere(lambda discount: discount != 1.0, self.discount):
            raise InvalidValue(
                f"discount is {self.discount}, but the returns of a population are undiscounted "
                "sums of rewards: leave it at 1"
            )
        check_widths(self.hidden_sizes)
        check_module(self, "policy_network", spec, trains=False)

    @property
    def network(self) -> ActorCritic:
        """The policy, as the method `policy` of a flax module."""
        spec, module = self.bound_spec, self.policy_network

        def torso():
            return default_torso(spec, self.hidden_sizes, self.activation)

        call: Any = call_directly if module is None else OneBatchAxis.of(module, spec, trains=False)
        return ActorCritic(torso, spec.action, policy_network=module, call_policy=call)

    def init_params(self, key: Key) -> PyTree:
        """Initial parameters of the policy."""
        return self.network.init(key, self.bound_spec.dummy_observation(1), method="policy")

    def policy(self, params: PyTree, obs: PyTree) -> Distribution:
        """The distribution over actions `[N]`."""
        apply: Any = self.network.apply
        return apply(params, obs, method="policy")[0]

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        if not explore:
            return carry, self.policy(state.params, obs).mode(), ()
        number, rows = (jax.tree.leaves(x)[0].shape[0] for x in (state.candidates, obs))
        own = jax.tree.map(lambda x: x.reshape(number, x.shape[0] // number, *x.shape[1:]), obs)
        action = jax.vmap(lambda params, obs: self.policy(params, obs).mode())(
            state.candidates, own
        )
        return carry, jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), action), ()
