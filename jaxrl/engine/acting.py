"""The agent as a policy on raw observations."""

import functools

from jaxrl.agent import Agent, Policy
from jaxrl.normalization import Normalizer
from jaxrl.types import Clock, Observed, PyTree
from jaxrl.xla.precision import in_float32


def policy_of(
    agent: Agent, state: PyTree, stats: Normalizer, clock: Clock, *, explore: bool
) -> Policy:
    """The agent as a policy on raw observations, for rollout and evaluation."""

    @in_float32
    def policy(carry, obs, key):
        return agent.act(state, carry, seen(agent, stats, obs), key, clock, explore=explore)

    start = functools.partial(start_carry, agent, explore=explore)
    policy.initial_carry = start  # type: ignore[attr-defined]  # for `evaluate`
    return policy


def start_carry(agent: Agent, num_envs: int, *, explore: bool) -> PyTree:
    """The carry at the start of an episode that a policy needs, exploring or not."""
    return () if agent.carry_only_explores and not explore else agent.initial_carry(num_envs)


def seen(agent: Agent, stats: Normalizer, obs: PyTree) -> PyTree:
    """Observations as the agent gets them."""
    normalized = stats.normalize_obs(obs)
    return Observed(normalized, obs) if agent.raw_observations else normalized
