"""Garnet: random finite MDPs ("generic average reward non-stationary environment testbed").

Archibald, McKinnon and Thomas 1995, "On the generation of Markov decision processes"; Bhatnagar,
Sutton, Ghavamzadeh and Lee 2009, "Natural actor-critic algorithms".
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxrl.errors import InvalidValue
from jaxrl_envs.exact.tabular import TabularMDP


def make(
    num_states: int = 10,
    num_actions: int = 3,
    branching: int = 3,
    seed: int = 0,
    reward_std: float = 0.0,
    termination: ArrayLike = 0.0,
    max_steps: int | None = None,
) -> TabularMDP:
    """Draws a random stationary finite MDP; equal arguments give equal MDPs.

    Each pair of state and action has `branching` successors, drawn without replacement, whose
    probabilities are the pieces of the unit interval cut at uniform points; start states are drawn
    likewise. Expected rewards are standard normal for each pair.

    Args:
      num_states: S.
      num_actions: A.
      branching: successors of a state and action, 1 to S; 1 gives deterministic transitions.
      seed: random seed of the MDP.
      reward_std: standard deviation of the reward noise.
      termination: probability that a step into a state ends the episode, `[S]` or one for all.
      max_steps: the time limit in steps; None for none.

    Raises:
      ValueError: `branching` is out of range.
    """
    if not 1 <= branching <= num_states:
        raise InvalidValue(
            f"branching is {branching}: it must be from 1 to num_states, {num_states}"
        )
    rng = np.random.default_rng(seed)

    def row():
        cuts = np.sort(rng.uniform(size=branching - 1))
        probabilities = np.zeros(num_states)
        successors = rng.choice(num_states, branching, replace=False)
        probabilities[successors] = np.diff(cuts, prepend=0.0, append=1.0)
        return probabilities

    transition = np.empty((num_states, num_actions, num_states))  # fails at once if it is too large
    for state, action in np.ndindex(num_states, num_actions):
        transition[state, action] = row()
    reward = rng.normal(size=(num_states, num_actions))
    return TabularMDP.of(transition, reward, row(), termination, reward_std, max_steps)
