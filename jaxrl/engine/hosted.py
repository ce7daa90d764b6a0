"""Compiled parts of training on host environments, which step outside JAX.

A rollout is a Python loop (`jaxrl.engine.collector`) over a compiled `act`; `learn` is the second
half of an iteration, the same as in `Training.iteration`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agent import Offline, OnPolicy, Population, Replay
from jaxrl.engine import learners
from jaxrl.engine.acting import policy_of
from jaxrl.engine.learners import TrainState
from jaxrl.engine.metrics import IterationMetrics
from jaxrl.environment import Hosted
from jaxrl.errors import InvalidValue
from jaxrl.normalization import Normalizer
from jaxrl.trees import tree_where
from jaxrl.types import (
    Array,
    EpisodeStats,
    Key,
    PyTree,
    Stream,
    Trajectory,
    stream,
)
from jaxrl.xla.flatten import Flattened
from jaxrl.xla.precision import in_float32
from jaxrl.xla.threefry import fast

OF_COPIES = ("epsilon_power", "num_workers")
"""Fields of agents whose actions depend on the index of a copy, which an actor does not know."""


def check(name: str, agent: Any, batched: bool = False) -> None:
    """Raises ValueError if an agent cannot learn from the host environment called `name`."""
    plan, who = agent.plan, type(agent).__name__
    why = None
    if isinstance(plan, Population):
        why = "plays whole episodes with thousands of candidates"
    elif isinstance(plan, OnPolicy) and plan.differentiable:
        why = "differentiates through the environment"
    elif agent.info:
        why = f"needs the entries {', '.join(agent.info)} of Timestep.info"
    if batched:
        raise InvalidValue(
            f"batched_env needs an environment of JAX arrays: leave it off for {name}"
        )
    if why is not None:
        raise InvalidValue(
            f"{who} {why}, which {name} does not support, as it steps outside jax: use an agent "
            "such as ppo, dqn or sac"
        )


@in_float32
def act(
    training: Any,
    agent_state: PyTree,
    stats: Normalizer,
    carry: PyTree,
    first: Array,
    obs: PyTree,
    key: Key,
    at: Array,
    *,
    num_actors: int = 1,
) -> tuple[PyTree, PyTree, PyTree]:
    """Chooses the actions of one step of a rollout, like `rollout` with the same keys.

    Args:
      training: the setup.
      agent_state, stats: what the actor plays with.
      carry: the policy's carry, leaves `[n, ...]`.
      first: `bool[n]`, where to start from the initial carry.
      obs: raw observations, leaves `[n, ...]`.
      key: the key of the run.
      at: iteration, step of it, and actor, of `num_actors`: `int32[3]`.

    Returns:
      The carry, actions and extras, leaves `[n, ...]`.
    """
    iteration, step, actor = at
    agent, plan = training.agent, training.agent.plan
    start = agent.initial_carry(first.shape[0])
    carry = tree_where(first, start, carry)
    policy = policy_of(agent, agent_state, stats, training.clock(iteration), explore=True)
    act_key = stream(stream(_iteration_key(key, iteration), Stream.ROLLOUT), Stream.ACT)
    in_turn = jax.random.split(act_key, plan.num_steps)[step % plan.num_steps]
    # More steps than usual, if copies take a step to reset.
    act_key = jnp.where(step < plan.num_steps, in_turn, jax.random.fold_in(in_turn, step))
    if num_actors > 1:
        act_key = jax.random.fold_in(act_key, actor)
    carry, action, extras = policy(carry, obs, act_key)
    return carry, action, extras


@in_float32
def act_to_evaluate(
    training: Any,
    agent_state: PyTree,
    stats: Normalizer,
    carry: PyTree,
    first: Array,
    obs: PyTree,
    key: Key,
    iteration: Array,
    step: Array,
) -> tuple[PyTree, PyTree]:
    """Chooses the actions of one step of an evaluation; returns the carry and actions."""
    clock, explore = training.clock(iteration), training.options.eval_mode == "sample"
    policy: Any = policy_of(training.agent, agent_state, stats, clock, explore=explore)
    carry = tree_where(first, policy.initial_carry(first.shape[0]), carry)
    key = jax.random.fold_in(stream(fast(key), Stream.EVALUATE), iteration)
    act_key = jax.random.fold_in(stream(key, Stream.ACT), step)
    carry, action, _ = policy(carry, obs, act_key)
    return carry, action


@in_float32
def learn(
    training: Any,
    state: TrainState,
    trajectory: Trajectory,
    returns: Array,
    lengths: Array,
    ended: Array,
    key: Key,
    iteration: Array,
) -> tuple[TrainState, IterationMetrics]:
    """The second half of an iteration, after the rollout.

    Args:
      training: the setup.
      state: the state after the rollout.
      trajectory: raw steps `[T, N]`.
      returns, lengths: of the running episodes, `[T, N]`, each step included.
      ended: where an episode ended, `bool[T, N]`.
      key: the key of the run.
      iteration: number of finished iterations, `int32[]`.
    """
    key, clock = _iteration_key(key, iteration), training.clock(iteration)
    agent, plan = training.agent, training.agent.plan
    episodes = EpisodeStats.of(returns, lengths, ended)
    if agent.carry_only_explores:  # learning does not need it
        trajectory = trajectory.replace(carry=())
    if isinstance(plan, OnPolicy):
        return learners.learn_on_policy(agent, plan, state, trajectory, episodes, key, clock)
    assert isinstance(plan, Replay), plan  # `check`; Offline needs no experience
    return learners.learn_replay(agent, plan, state, trajectory, episodes, key, clock)


def _iteration_key(key: Key, iteration: Array) -> Key:
    return jax.random.fold_in(stream(fast(key), Stream.ITERATION), iteration)


def learn_in_short(
    training: Any,
    state: TrainState,
    trajectory: Trajectory,
    returns: Array,
    lengths: Array,
    ended: Array,
    key: Key,
    iteration: Array,
) -> tuple[TrainState, Array]:
    """`learn`, with all leaves of the metrics in one vector, which is cheaper to read."""
    state, metrics = learn(training, state, trajectory, returns, lengths, ended, key, iteration)
    return state, Flattened.of(metrics).vector


def collects(training: Any) -> bool:
    """Whether a training steps a host environment, rather than a compiled one or none."""
    hosted = isinstance(training.envs.env, Hosted)
    return hosted and not isinstance(training.agent.plan, Offline)


def check_actors(training: Any, actors: int, actor_lag: int) -> None:
    """Raises ValueError unless `actors` and `actor_lag` fit a training; see `RunOptions`."""
    if not collects(training):
        for name, value, default in (("actors", actors, 1), ("actor_lag", actor_lag, 0)):
            if value != default:
                raise InvalidValue(
                    f"{name} is {value}, but only environments that step outside jax have actors: "
                    "leave it out"
                )
    elif (num_envs := training.envs.num_envs) % actors:
        raise InvalidValue(f"actors is {actors}, which does not divide num_envs = {num_envs}")
    elif actors > 1 and (
        field := next((x for x in OF_COPIES if getattr(training.agent, x, None) is not None), None)
    ):
        raise InvalidValue(
            f"actors is {actors}, but {type(training.agent).__name__} treats each copy of the "
            f"environment in its own way ({field}): use one actor"
        )
