"""Base class of agents that search over the parameters of a policy with a population."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl.agent import Population
from jaxrl.agents.bases.policy import PolicyAgent
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar
from jaxrl.validation import holds_anywhere


class PopulationAgent(PolicyAgent):
    """Candidates are parameters of a policy, which acts by its most likely action or mean.

    Subclasses keep `params`, the parameters to deploy, and `candidates`, leaves
    `[population_size, ...]`, in their state.
    """

    discount: Scalar = hyper(
        1.0, low=0.0, high=1.0, doc="Discount factor; returns of candidates are undiscounted: 1."
    )
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

    def gains(self, returns: Array) -> tuple[Array, dict[str, Array]]:
        """Mean returns of the candidates `[population_size]`, and metrics; -inf instead of NaN."""
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
