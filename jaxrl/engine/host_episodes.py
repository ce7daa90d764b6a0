"""Evaluation on a host environment: a fixed number of episodes for each copy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.engine.checked_vector import Checked
from jaxrl.engine.collector import Shape
from jaxrl.engine.evaluate import PATIENCE, Episodes
from jaxrl.engine.hosted import act_with
from jaxrl.environment import HostEnvironment
from jaxrl.types import Key, PyTree, Stream, stream

MOST_COPIES = 64
"""Most copies of an environment with a time limit that an evaluation of a member starts."""


def copies_for(num_episodes: int, max_steps: int | None) -> int:
    """The number of copies that play `num_episodes` episodes.

    One for each where the environment has no time limit of its own (`max_steps` is None), since an
    episode that is cut off cannot be followed by another one.
    """
    return num_episodes if max_steps is None else min(num_episodes, MOST_COPIES)


ActToEvaluate = Callable[[PyTree, np.ndarray, PyTree, np.int32], tuple[PyTree, PyTree]]
"""(carry, first, obs, step) -> (carry, actions)."""


def play_with(
    policy: Any, host: HostEnvironment, key: Key, num_episodes: int, max_steps: int | None = None
) -> Episodes:
    """Plays whole episodes with a policy on raw observations; see `jaxrl.evaluate`.

    Args:
      policy: a `jaxrl.agent.Policy`, with `initial_carry` if it is recurrent.
      host: the environment.
      key: for resets and actions.
      num_episodes: how many.
      max_steps: step limit for an episode; None as in `jaxrl.evaluate`.
    """
    limit = host.spec.max_steps if max_steps is None else None
    shape = Shape(None, copies_for(num_episodes, limit), 0)
    start = getattr(policy, "initial_carry", lambda num: ())(shape.num_envs)

    @jax.jit
    def act(carry, first, obs, step):
        return act_with(policy, start, carry, first, obs, key, step)

    vector = Checked.start(host, shape.rows)
    try:
        seeds = seeds_of_copies(key, Stream.EVALUATE, 0, shape.num_envs)
        return play(vector, act, shape, start, seeds, num_episodes, max_steps)
    finally:
        vector.close()


def seeds_of_copies(key: Key, name: Stream, iteration: int, number: int) -> np.ndarray:
    """Seeds of copies, `int64[number]` for each key, different in each iteration."""

    def of_one(key: Key) -> jax.Array:
        key = jax.random.fold_in(stream(stream(key, Stream.STEP), name), iteration)
        return jax.random.bits(key, (number,), jnp.uint32) >> 1

    bits = of_one(key) if key.ndim == 0 else jax.vmap(of_one)(key)
    return np.asarray(bits, np.int64)


def play(
    vector: Checked,
    act: ActToEvaluate,
    shape: Shape,
    carry: PyTree,
    seeds: np.ndarray,
    num_episodes: int,
    max_steps: int | None = None,
) -> Episodes:
    """Plays `num_episodes` whole episodes of each member.

    Copy n plays episodes n, n + `num_envs`, ..., so that short episodes do not count more often.
    An episode that goes on at the step limit counts as unfinished.

    Args:
      vector: the copies.
      act: chooses actions.
      shape: sizes; `num_steps` is not used.
      carry: leaves `[*batch, ...]`; it starts afresh with each episode.
      seeds: `int[rows]`.
      num_episodes: of each member.
      max_steps: step limit for an episode; None for the environment's, or `PATIENCE`.
    """
    rows, limit = shape.rows, max_steps or vector.spec.max_steps or PATIENCE
    copy = np.arange(rows) % shape.num_envs
    member = np.arange(rows) // shape.num_envs
    episode = copy.copy()  # which one each row plays
    returns = np.zeros((shape.num_members or 1, num_episodes), np.float32)
    lengths, finished = np.zeros(returns.shape, np.int32), np.zeros(returns.shape, bool)
    obs, first = vector.reset(seeds), np.ones(rows, bool)
    length, step = np.zeros(rows, np.int32), 0
    while (playing := episode < num_episodes).any():
        start, batch = shape.in_batch((first, obs))
        carry, action = act(carry, start, batch, np.int32(step))
        now = vector.step(shape.in_rows(action))
        valid = np.ones(rows, bool) if now.valid is None else now.valid
        length += valid
        ended = valid & (now.terminated | now.truncated)
        playing &= valid
        at = member[playing], episode[playing]
        returns[at] += now.reward[playing]
        lengths[at] = length[playing]
        finished[at] = ended[playing]
        first = ended | ~valid
        over = ended | (length >= limit)
        episode[over] += shape.num_envs
        length[over] = 0
        obs, step = now.obs, step + 1
    if shape.num_members is None:
        returns, lengths, finished = returns[0], lengths[0], finished[0]
    found: Any = returns, lengths, finished
    return Episodes(*found)
