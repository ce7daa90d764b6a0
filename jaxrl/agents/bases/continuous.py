"""Base class of off-policy agents with a replay buffer and critics Q(s, a)."""

from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.bases.prioritized import PrioritizedAgent
from jaxrl.agents.bases.q_critics import QCriticsAgent
from jaxrl.distributions import Categorical
from jaxrl.types import Array, Clock, Key, PyTree, sample_action, split_mask


class ContinuousAgent(PrioritizedAgent, QCriticsAgent):
    """Replay, critics and exploration; subclasses add the algorithm."""

    num_envs: int = 1
    batch_size: int = 256
    capacity: int = 100_000

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Greedy actions; to explore, those of `explore`, or uniformly random ones in warmup."""
        if not explore:
            return carry, self.choose(state, obs), ()
        random_key, key = jax.random.split(key)
        carry, chosen = self.explore(state, carry, obs, key, clock)
        at_random = self.random_actions(obs, random_key)
        warm_iterations = -(-self.warmup // self.plan.steps_per_iteration)
        return carry, jnp.where(clock.iteration < warm_iterations, at_random, chosen), ()

    def random_actions(self, obs: PyTree, key: Key) -> Array:
        """Uniformly random available actions, `[N, *shape]`."""
        mask, space = split_mask(obs)[1], self.bound_spec.action
        if mask is not None:
            return Categorical(jnp.zeros(mask.shape), mask).sample(key)
        num = jax.tree.leaves(obs)[0].shape[0]
        return jax.vmap(lambda k: sample_action(space, k))(jax.random.split(key, num))

    @abstractmethod
    def choose(self, state: Any, obs: PyTree) -> Array:
        """Greedy actions, `[N, *shape]`."""

    @abstractmethod
    def explore(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock
    ) -> tuple[PyTree, Array]:
        """Exploring actions, `[N, *shape]`; `carry` keeps noise that depends on earlier steps."""
