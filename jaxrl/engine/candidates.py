"""The episodes of a population's candidates."""

import jax
import jax.numpy as jnp

from jaxrl.agent import Agent, Population
from jaxrl.engine import across_shards
from jaxrl.engine.acting import policy_of
from jaxrl.engine.evaluate import Episodes, play_and_observe
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.normalization import Normalizer
from jaxrl.types import Array, Clock, Key, PyTree


def play_candidates(
    agent: Agent,
    plan: Population,
    envs: VectorEnv,
    state: PyTree,
    stats: Normalizer,
    key: Key,
    clock: Clock,
) -> tuple[Episodes, Normalizer]:
    """The episodes of this device's candidates, some at a time, and the statistics after them."""
    state = across_shards.own_candidates(agent, state)

    def play(new: Normalizer, state: PyTree, envs: VectorEnv) -> tuple[Episodes, Normalizer]:
        policy = policy_of(agent, state, stats, clock, explore=True)
        carry = agent.initial_carry(envs.num_envs)
        return play_and_observe(policy, envs, carry, key, new, plan.max_episode_steps)

    num_parts = plan.population_size // (plan.candidates_at_once or plan.population_size)
    if num_parts == 1:
        return play(stats, state, envs)

    def one_part(new: Normalizer, part: Array) -> tuple[Normalizer, Episodes]:
        some = across_shards.some_candidates(agent, state, num_parts, part)
        played, new = play(new, some, envs.part_of(num_parts, part))
        return new, played

    new, played = jax.lax.scan(one_part, stats, jnp.arange(num_parts))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), played), new
