"""Evaluation on a host environment: a fixed number of episodes for each copy."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrl.engine.actors import Checked, Shape
from jaxrl.engine.evaluate import PATIENCE, Episodes
from jaxrl.types import PyTree

ActToEvaluate = Callable[[PyTree, np.ndarray, PyTree, np.int32], tuple[PyTree, PyTree]]
"""(carry, first, obs, step) -> (carry, bounded actions)."""


def play(
    vector: Checked,
    act: ActToEvaluate,
    shape: Shape,
    carry: PyTree,
    seeds: np.ndarray,
    num_episodes: int,
) -> Episodes:
    """Plays `num_episodes` whole episodes of each member.

    Copy n plays episodes n, n + `num_envs`, ..., so that short episodes do not count more often.
    An episode ends unfinished at the environment's time limit, or after `PATIENCE` steps.

    Args:
      vector: the copies.
      act: chooses actions.
      shape: sizes; `num_steps` is not used.
      carry: leaves `[*batch, ...]`; it starts afresh with each episode.
      seeds: `int[rows]`.
      num_episodes: of each member.
    """
    rows, limit = shape.rows, vector.spec.max_steps or PATIENCE
    copy = np.arange(rows) % shape.num_envs
    member = np.arange(rows) // shape.num_envs
    episode = copy.copy()  # which one each row plays
    returns = np.zeros((shape.num_members or 1, num_episodes), np.float32)
    lengths, finished = np.zeros(returns.shape, np.int32), np.zeros(returns.shape, bool)
    obs, first = vector.reset(seeds), np.ones(rows, bool)
    length, step = np.zeros(rows, np.int32), 0
    while (playing := episode < num_episodes).any():
        batch = jax.tree.map(shape.in_batch, obs)
        carry, action = act(carry, shape.in_batch(first), batch, np.int32(step))
        now = vector.step(jax.tree.map(shape.in_rows, action))
        length += 1
        ended = now.terminated | now.truncated
        at = member[playing], episode[playing]
        returns[at] += now.reward[playing]
        lengths[at] = length[playing]
        finished[at] = ended[playing]
        first = ended
        over = ended | (length >= limit)
        episode[over] += shape.num_envs
        length[over] = 0
        obs, step = now.obs, step + 1
    if shape.num_members is None:
        returns, lengths, finished = returns[0], lengths[0], finished[0]
    found: Any = returns, lengths, finished
    return Episodes(*found)
