"""Rock-paper-scissors against an opponent that exploits habits: only the uniform policy ties.

The opponent plays the best response to the agent's most frequent action in the episode. The agent
observes nothing, so a memoryless policy is a vector of three probabilities p.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.types import Array, Discrete, EnvSpec, Key, static

Floats = np.ndarray


class RockPaperScissors(struct.PyTreeNode):
    """Actions are rock 0, paper 1 and scissors 2; each beats the one before it, cyclically.

    The state counts the agent's past actions, `int32[3]`; ties for the most frequent one are broken
    at random, so the opponent's first move is uniform. The observation is always 1. The episode
    terminates after `num_rounds` rounds.

    Attributes:
      stake: `float32[]`, reward of a won round and cost of a lost one.
      num_rounds: rounds per episode, H, at least 1.
    """

    stake: Any
    num_rounds: int = static(default=10)

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            jax.ShapeDtypeStruct((1,), jnp.float32),
            Discrete(3),
            self.num_rounds,
            truncates="at_max_steps",
        )

    def reset(self, key: Key) -> tuple[Array, Array]:
        return jnp.zeros(3, jnp.int32), jnp.ones(1, jnp.float32)

    def step(self, key: Key, state: Array, action: Array) -> tuple[Array, Timestep]:
        most = (state == jnp.max(state)).astype(jnp.float32)
        habit = jax.random.choice(key, 3, p=most / jnp.sum(most))
        # The opponent plays habit + 1, which beats the habit and loses to habit + 2.
        outcome = jnp.stack([-1.0, 0.0, 1.0])[(action - habit) % 3]
        state = state.at[action].add(1)
        over = jnp.sum(state) >= self.num_rounds
        reward = jnp.asarray(self.stake * outcome, jnp.float32)
        return state, Timestep(jnp.ones(1, jnp.float32), reward, over, jnp.bool_(False))


def make(num_rounds: int = 10, stake: float = 1.0) -> RockPaperScissors:
    """Builds the game.

    Args:
      num_rounds: rounds per episode.
      stake: reward of a won round and cost of a lost one.

    Raises:
      ValueError: `num_rounds` is below 1.
    """
    if num_rounds < 1:
        raise InvalidValue(f"num_rounds is {num_rounds}: it must be at least 1")
    return RockPaperScissors(jnp.float32(stake), num_rounds)


def expected_return(env: RockPaperScissors, policy: Floats) -> float:
    """The expected undiscounted return of playing p `[3]` in every round.

    It is at most 0, and 0 only for the uniform policy (with two rounds or more). Round t pays
    sum_m P(m) (p[m + 2] - p[m]), where P(m) is the probability that m is most frequent. If
    p[i] > p[j], the counts favour i, so P is ordered like p, and by the rearrangement inequality
    sum_m P(m) p[m + 2] is at most sum_m P(m) p[m]. A pure policy loses every round but the first,
    which is worth 0 for any policy. A policy with memory of its own moves can win by playing m + 2.
    """
    return _return_and_gradient(env, policy)[0]


def policy_gradient(env: RockPaperScissors, policy: Floats) -> Floats:
    """The gradient of `expected_return` with respect to the logits of p, `[3]`."""
    return _return_and_gradient(env, policy)[1]


def _return_and_gradient(env: RockPaperScissors, policy: Floats) -> tuple[float, Floats]:
    """Sums over all counts n before each round: P(n) is multinomial, with score n - t p."""
    total, gradient = 0.0, np.zeros(3)
    for t in range(env.num_rounds):
        for rock in range(t + 1):
            for paper in range(t + 1 - rock):
                counts = np.array([rock, paper, t - rock - paper])
                ways = math.factorial(t) // math.prod(math.factorial(n) for n in counts.tolist())
                chance = ways * np.prod(policy**counts)
                habit = (counts == counts.max()) / (counts == counts.max()).sum()
                reward = np.roll(habit, 2) - habit  # of each action
                mean = policy @ reward
                total += chance * mean
                gradient += chance * (mean * (counts - t * policy) + policy * (reward - mean))
    stake = float(env.stake)
    return stake * total, stake * gradient
