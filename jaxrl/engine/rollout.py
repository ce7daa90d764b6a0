"""The rollout: the only loop over environment steps."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.agent import Policy
from jaxrl.devices.shards import as_different
from jaxrl.engine.vector_env import VectorEnv, VectorState
from jaxrl.environment import named_info, scalars
from jaxrl.trees import tree_where
from jaxrl.types import Array, EpisodeStats, Key, PyTree, Stream, Trajectory, Transition, stream
from jaxrl.xla.precision import in_float32


class Step(NamedTuple):
    """One step of all copies.

    Attributes:
      transition: leaves `[N, ...]`.
      first: `bool[N]`, whether it is the first of its episode.
      episode: return `float32[N]` and length `int32[N]` of the episode so far, this step included.
      info: scalars of `Timestep.info` by name, `float32[N]`.
    """

    transition: Transition
    first: Array
    episode: tuple[Array, Array]
    info: dict[str, Array]


@in_float32
def rollout(
    policy: Policy,
    envs: VectorEnv,
    env_state: VectorState,
    carry: PyTree,
    initial_carry: PyTree,
    key: Key,
    num_steps: int,
) -> tuple[VectorState, PyTree, Trajectory, EpisodeStats]:
    """Steps every copy of the environment `num_steps` times.

    Args:
      policy: chooses actions for all copies at once.
      envs: N copies.
      env_state: their current state.
      carry: the policy's recurrent state, leaves `[N, ...]`.
      initial_carry: its value at the start of an episode, leaves `[N, ...]`.
      key: for actions, steps and resets.
      num_steps: T.

    Returns:
      The new environment state and recurrent state, the trajectory `[T, N]`, and statistics of the
      episodes that ended.
    """
    env_state, carry, trajectory, ended = rollout_of_episodes(
        policy, envs, env_state, carry, initial_carry, key, num_steps
    )
    return env_state, carry, trajectory, ended.pooled()


def rollout_of_episodes(
    policy: Policy,
    envs: VectorEnv,
    env_state: VectorState,
    carry: PyTree,
    initial_carry: PyTree,
    key: Key,
    num_steps: int,
) -> tuple[VectorState, PyTree, Trajectory, EpisodeStats]:
    """Like `rollout`, but with per-step statistics `[T, N]` of the episodes that ended."""

    def kept(nothing: PyTree, step: Step) -> tuple[PyTree, Step]:
        return nothing, step

    env_state, carry_after, _, (steps, first, (returns, lengths), info) = fold_steps(
        policy, envs, env_state, carry, initial_carry, key, num_steps, kept, ()
    )
    ended = EpisodeStats.of(returns, lengths, steps.terminated | steps.truncated, info)
    env_index = jnp.broadcast_to(envs.indices, first.shape)
    return env_state, carry_after, Trajectory(steps, first, carry, env_index), ended


def fold_steps(
    policy: Policy,
    envs: VectorEnv,
    env_state: VectorState,
    carry: PyTree,
    initial_carry: PyTree,
    key: Key,
    num_steps: int,
    fold: Callable[[PyTree, Step], tuple[PyTree, PyTree]],
    so_far: PyTree,
) -> tuple[VectorState, PyTree, PyTree, PyTree]:
    """Steps every copy and gives each step to a function, without keeping more than it returns.

    Args:
      policy, envs, env_state, carry, initial_carry, key, num_steps: as for `rollout`.
      fold: (so far, step) -> (so far, what to keep of the step).
      so_far: what `fold` gets with the first step.

    Returns:
      The new environment state, recurrent state, what `fold` returned last, and what it kept, with
      a leading axis `[T]`.
    """
    key = stream(key, Stream.ROLLOUT)
    restarts, start_of = envs.restarts(stream(key, Stream.AUTO_RESET), num_steps)
    draws = (
        jax.random.split(envs.act_key(stream(key, Stream.ACT)), num_steps),
        envs.step_keys(stream(key, Stream.STEP), num_steps),
        restarts,
    )

    def one_step(loop, draws):
        env_state, carry, so_far = loop
        act_key, step_keys, restart = draws
        carry = tree_where(env_state.first, initial_carry, carry)
        carry, action, extras = policy(carry, env_state.obs, act_key)
        if envs.num_shards > 1:  # a carry may be constant
            carry = as_different(carry)
        next_state, timestep, episode = envs.step(step_keys, env_state, action, start_of(restart))
        transition = Transition(
            obs=env_state.obs,
            action=action,
            reward=timestep.reward,
            terminated=timestep.terminated,
            truncated=timestep.truncated,
            next_obs=timestep.obs,
            extras=extras,
            info=_kept(timestep.info, envs.kept_info),
        )
        info = scalars(timestep.info, batch_ndim=1)
        so_far, kept = fold(so_far, Step(transition, env_state.first, episode, info))
        return (next_state, carry, so_far), kept

    loop, kept = jax.lax.scan(one_step, (env_state, carry, so_far), draws, unroll=envs.scan_unroll)
    return *loop, kept


def _kept(info: PyTree, names: tuple[str, ...]) -> dict[str, Array]:
    found = named_info(info) if names else {}
    return {name: found[name] for name in names}
