"""Evaluation: exactly one episode per copy, so short episodes are not over-represented."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Policy
from jaxrl.devices.shards import as_different, sum_over_shards
from jaxrl.engine import sizes
from jaxrl.engine.first_step import FirstStep, differences
from jaxrl.engine.rollout import fold_steps
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.environment import Environment, Hosted, scalars
from jaxrl.errors import InvalidValue
from jaxrl.types import Array, Key, PyTree, Stream, stream
from jaxrl.xla.precision import in_float32
from jaxrl.xla.transfers import transfers_allowed
from jaxrl_envs.objects import as_environment

STEPS_BETWEEN_LOOKS = 32
PATIENCE = 10_000  # steps, if neither the caller nor the environment sets a limit


class Episodes(struct.PyTreeNode):
    """Results of one episode per copy.

    Attributes:
      returns: `float32[N]`, undiscounted.
      lengths: `int32[N]`, in steps.
      finished: `bool[N]`; false if the episode was still running at the step limit.
      info: scalars of `Timestep.info` in the last step by name, `float32[N]`; 0 if unfinished.
    """

    returns: Array
    lengths: Array
    finished: Array
    info: dict[str, Array] = struct.field(default_factory=dict)


@transfers_allowed
@in_float32
def evaluate(
    policy: Policy,
    env: Environment,
    key: Key,
    *,
    num_episodes: int = 100,
    initial_carry: PyTree = (),
    max_steps: int | None = None,
) -> Episodes:
    """Plays `num_episodes` whole episodes in parallel. Pure, so it can be jitted and vmapped.

    Args:
      policy: acts on raw observations: any function of this type, for example
        `Training.policy(state, iteration)` of a trained agent.
      env: one environment, or an object that `jaxrl_envs.adapt` accepts.
      key: for resets, actions and steps.
      num_episodes: N.
      initial_carry: for recurrent policies, leaves `[N, ...]`. Policies of `Training.policy`
        bring their own.
      max_steps: step limit for an episode; None for the environment's limit, or 10,000 if it has
        none.

    Raises:
      ValueError: `num_episodes` or `max_steps` is below 1, that many copies do not fit into memory,
        or `initial_carry` does not match the policy's recurrent state.
      TypeError: `env` is not an environment.
    """
    if max_steps is not None and max_steps < 1:
        raise InvalidValue(f"max_steps is {max_steps}: it must be at least 1")
    env = as_environment(env)
    sizes.check_episodes(env, num_episodes)
    if isinstance(env, Hosted):
        from jaxrl.engine.host_episodes import play_with  # deferred: it needs this module

        return play_with(policy, env.host, key, num_episodes, max_steps)
    if not jax.tree.leaves(initial_carry):
        initial_carry = getattr(policy, "initial_carry", lambda num: ())(num_episodes)
    _check_carry(policy, env, initial_carry, num_episodes)
    return play_episodes(policy, VectorEnv(env, num_episodes), initial_carry, key, max_steps)


def _check_carry(policy: Policy, env: Environment, carry: PyTree, num_episodes: int) -> None:
    """Raises ValueError unless the policy returns a recurrent state like the one it was given."""
    obs = jax.eval_shape(lambda: env.spec.dummy_observation(num_episodes))
    key = jax.eval_shape(lambda: jax.random.key(0))
    remedy = "for a recurrent policy, pass initial_carry=agent.initial_carry(num_episodes)"
    try:
        after = jax.eval_shape(policy, carry, obs, key)[0]
    except Exception as error:
        if not jax.tree.leaves(carry):
            error.add_note(f"The policy was called without a recurrent state: {remedy}.")
        raise
    carry = jax.eval_shape(lambda: carry)
    lines = differences("the policy's recurrent state", after, "initial_carry", carry)
    if problems := list(lines):
        raise InvalidValue(
            "\n".join([f"initial_carry does not fit the policy: {remedy}", *problems])
        )


@in_float32
def play_episodes(
    policy: Policy,
    envs: VectorEnv,
    initial_carry: PyTree,
    key: Key,
    max_steps: int | None = None,
) -> Episodes:
    """Plays one episode of at most `max_steps` steps in every copy and stops when all have ended.

    Args:
      policy: chooses the actions.
      envs: N copies.
      initial_carry: the policy's recurrent state at the start of an episode, leaves `[N, ...]`.
      key: for resets, actions and steps.
      max_steps: step limit for an episode; None as in `evaluate`.
    """
    return play_and_observe(policy, envs, initial_carry, key, (), max_steps)[0]


def play_and_observe(
    policy: Policy,
    envs: VectorEnv,
    initial_carry: PyTree,
    key: Key,
    stats: Any,
    max_steps: int | None = None,
) -> tuple[Episodes, Any]:
    """Like `play_episodes`, and adds the observations of these episodes to `stats`.

    Args:
      stats: a `Normalizer`, which the policy does not read; `()` for none.
    """
    max_steps = max_steps or envs.spec.max_steps or PATIENCE
    # Everything after a copy's first episode is ignored, so the cheapest resets will do.
    envs = envs.replace(reset_policy="pool", pool_size=1)
    key, watches = stream(key, Stream.EVALUATE), stats != () and stats.obs != ()
    stride = min(STEPS_BETWEEN_LOOKS, max_steps)

    def unfinished(loop):
        step, _, _, played, _ = loop
        return (step < max_steps) & (sum_over_shards(jnp.sum(~played.finished)) > 0)

    def count(loop, now):
        step, played = loop
        steps = now.transition
        counts = ~played.finished & (step < max_steps)  # [N]
        ends = counts & (steps.terminated | steps.truncated)
        played = Episodes(
            returns=played.returns + jnp.where(counts, steps.reward, 0.0),
            lengths=played.lengths + counts.astype(jnp.int32),
            finished=played.finished | ends,
            info={x: y + jnp.where(ends, now.info[x], 0.0) for x, y in played.info.items()},
        )
        return (step + 1, played), (steps.obs, counts) if watches else ()

    def play_on(loop):
        step, env_state, carry, played, stats = loop
        step_key = jax.random.fold_in(stream(key, Stream.ROLLOUT), step)
        env_state, carry, (step, played), seen = fold_steps(
            policy, envs, env_state, carry, initial_carry, step_key, stride, count, (step, played)
        )
        if watches:
            stats = stats.observe(*seen)
        return step, env_state, carry, played, stats

    n = envs.num_envs
    names = _info_names(envs.env, envs.batched) if envs.info is None else envs.info
    nothing = Episodes(
        jnp.zeros(n, jnp.float32),
        jnp.zeros(n, jnp.int32),
        jnp.zeros(n, bool),
        {name: jnp.zeros(n, jnp.float32) for name in names},
    )
    start = initial_carry, nothing
    carry, nothing = as_different(start) if envs.num_shards > 1 else start
    loop = (jnp.int32(0), envs.reset(key), carry, nothing, stats)
    *_, played, stats = jax.lax.while_loop(unfinished, play_on, loop)
    return played, stats


def _info_names(env: Environment, batched: bool) -> tuple[str, ...]:
    return tuple(scalars(FirstStep.of(env, batched).timestep.info))
