"""A corridor under a time limit, and what is learned by taking the limit for the end.

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
    """Builds a row of cells, entered at the left; actions are left (0) and right (1).

    A step into a wall stays. Without a terminal goal and with `goal_reward` 0 every state is worth
    step_reward / (1 - discount), whatever the policy.

    Args:
      num_cells: at least 2.
      max_steps: the time limit in steps, which truncates; None for none.
      step_reward: paid for every step.
      goal_reward: paid besides for a step that ends in the last cell.
      terminal_goal: whether the last cell ends the episode.

    Raises:
      ValueError: a corridor of less than two cells.
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
    """V `[S]` of who takes truncation for termination: the fixed point of TD(lambda).

    The learner sees the state but not the time that is left, so that it finds an average over the
    ages at which the rollouts are there: the system of Boyan 1999, "Least-squares temporal
    difference learning", over pairs of age and state. NaN in states that no episode visits.

    Args:
      mdp: any finite MDP with a time limit.
      policy: `[S, A]`.
      discount: at most 1.
      gae_lambda: 0 bootstraps after one step, 1 averages the returns.

    Raises:
      ValueError: an environment without a time limit.
    """
    limit = mdp.spec.max_steps
    if limit is None:
        raise InvalidValue("there is no mistake to make without a time limit: set max_steps")
    survive, reward = chain(mdp, policy)
    weights = episode_states(mdp, policy, limit)  # [age, S]
    seen = weights.sum(0) > 0
    # Onwards from (age, s) to (age + 1, s'); nothing follows the last age.
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
