"""A corridor with a time limit, and the values learned if truncation counts as termination.

Pardo, Tavakoli, Levdik and Kormushev 2018, "Time limits in reinforcement learning".
"""

import numpy as np

from jaxrl.errors import InvalidValue
from jaxrl_envs.exact.tabular import TabularMDP
from jaxrl_envs.exact.values import Floats, chain, episode_states


def make(
    num_cells: int = 5,
    max_steps: int | None = 10,
    step_reward: float = 1.0,
    goal_reward: float = 0.0,
    terminal_goal: bool = False,
) -> TabularMDP:
    """Builds a row of cells; episodes start at the left, actions are left (0) and right (1).

    A step into a wall has no effect. Without a terminal goal and with `goal_reward` 0, every state
    has value step_reward / (1 - discount) under any policy.

    Args:
      num_cells: at least 2.
      max_steps: the time limit in steps, which truncates; None for none.
      step_reward: reward of every step.
      goal_reward: extra reward of a step that ends in the last cell.
      terminal_goal: whether the last cell ends the episode.

    Raises:
      ValueError: `num_cells` is below 2.
    """
    if num_cells < 2:
        raise InvalidValue(f"num_cells is {num_cells}: it must be at least 2")
    cells = np.arange(num_cells)
    to = np.clip(cells[:, None] + np.array([-1, 1]), 0, num_cells - 1)  # [S, A]
    at_goal = cells == num_cells - 1
    return TabularMDP.of(
        transition=np.eye(num_cells)[to],
        reward=step_reward + goal_reward * at_goal[to],
        start=np.eye(num_cells)[0],
        termination=at_goal * float(terminal_goal),
        max_steps=max_steps,
    )


def mistaken_value(
    mdp: TabularMDP, policy: Floats, discount: float, gae_lambda: float = 0.0
) -> Floats:
    """V `[S]` if truncation counts as termination: the fixed point of TD(lambda).

    The learner observes the state but not the remaining time, so it finds an average over the ages
    at which rollouts visit the state: the linear system of Boyan 1999, "Least-squares temporal
    difference learning", over pairs of age and state. NaN in unvisited states.

    Args:
      mdp: any finite MDP with a time limit.
      policy: `[S, A]`.
      discount: at most 1.
      gae_lambda: 0 bootstraps after one step, 1 averages returns.

    Raises:
      ValueError: the environment has no time limit.
    """
    limit = mdp.spec.max_steps
    if limit is None:
        raise InvalidValue("the environment has no time limit: set max_steps")
    survive, reward = chain(mdp, policy)
    weights = episode_states(mdp, policy, limit)  # [age, S]
    seen = weights.sum(0) > 0
    # Transitions from (age, s) to (age + 1, s'); nothing follows the last age.
    onwards = np.kron(np.eye(limit, k=1), survive)
    features = np.tile(np.eye(len(reward)), (limit, 1))[:, seen]  # [age S, seen]
    identity = np.eye(len(onwards))
    trace = np.linalg.solve(
        (identity - discount * gae_lambda * onwards).T, weights.reshape(-1, 1) * features
    )
    value = np.full(len(reward), np.nan)
    value[seen] = np.linalg.solve(
        trace.T @ (identity - discount * onwards) @ features, trace.T @ np.tile(reward, limit)
    )
    return value
