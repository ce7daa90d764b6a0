"""Rock-paper-scissors against one who answers your habits: only a mixed policy does not lose.

The opponent plays the best answer to what the agent has played most often in this episode. The
agent sees nothing of it, so that a policy without memory is three probabilities p.
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
    """Rock 0, paper 1, scissors 2; each beats the one before it, and rock scissors.

    The state counts the agent's past actions, `int32[3]`; a tie for the most frequent one is broken
    at random, so the first move of the opponent is uniform. The observation is always 1. The
    episode terminates after `num_rounds` rounds.

    Attributes:
      stake: `float32[]`, what a won round pays and a lost one costs.
      num_rounds: H, at least 1.
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
        # The answer is habit + 1: it beats the habit and loses to habit + 2.
        outcome = jnp.stack([-1.0, 0.0, 1.0])[(action - habit) % 3]
        state = state.at[action].add(1)
        over = jnp.sum(state) >= self.num_rounds
        reward = jnp.asarray(self.stake * outcome, jnp.float32)
        return state, Timestep(jnp.ones(1, jnp.float32), reward, over, jnp.bool_(False))


def make(num_rounds: int = 10, stake: float = 1.0) -> RockPaperScissors:
    """Builds the game.

    Args:
      num_rounds: rounds an episode.
      stake: what a won round pays and a lost one costs.

    Raises:
      ValueError: less than one round.
    """
    if num_rounds < 1:
        raise InvalidValue(f"num_rounds is {num_rounds}: it must be at least 1")
    return RockPaperScissors(jnp.float32(stake), num_rounds)


def expected_return(env: RockPaperScissors, policy: Floats) -> float:
    """The expected undiscounted return of playing p `[3]` in every round.

    At most 0, and 0 only for the uniform policy (from two rounds on). Round t pays
    sum_m P(m) (p[m + 2] - p[m]), P(m) being the chance that m was most frequent. Where p[i] > p[j]
    the counts favour i, so P is ordered as p is, and by the rearrangement inequality no permuted
    sum_m P(m) p[m + 2] exceeds sum_m P(m) p[m]. A pure policy loses every round but the first,
    which is worth 0 whatever is played. A policy that remembers its own moves wins instead, by
    playing m + 2.
    """
    return _return_and_gradient(env, policy)[0]


def policy_gradient(env: RockPaperScissors, policy: Floats) -> Floats:
    """The gradient of `expected_return` with respect to the logits of p, `[3]`."""
    return _return_and_gradient(env, policy)[1]


def _return_and_gradient(env: RockPaperScissors, policy: Floats) -> tuple[float, Floats]:
    """Sums over all counts n before each round: P(n) is multinomial, its score n - t p."""
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
