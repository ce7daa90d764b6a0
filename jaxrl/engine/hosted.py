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
from jaxrl.engine.learners import Learned, TrainState
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

OF_COPIES = ("epsilon_power", "num_workers")
"""Fields of agents whose actions depend on the index of a copy, which an actor does not know."""


def check(name: str, agent: Any, batched: bool = False) -> None:
    """Raises ValueError if an agent cannot learn from the host environment called `name`."""
    if batched:
        raise InvalidValue(
            f"batched_env needs an environment of JAX arrays: leave it off for {name}"
        )
    plan, who = agent.plan, type(agent).__name__
    why = None
    if isinstance(plan, Population):
        why = "plays whole episodes with thousands of candidates"
    elif isinstance(plan, OnPolicy) and plan.differentiable:
        why = "differentiates through the environment"
    elif agent.info:
        why = f"needs the entries {', '.join(agent.info)} of Timestep.info"
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
    key = training.key_of(Stream.ITERATION, key, iteration)
    agent, plan = training.agent, training.agent.plan
    start = agent.initial_carry(first.shape[0])
    carry = tree_where(first, start, carry)
    policy = policy_of(agent, agent_state, stats, training.clock(iteration), explore=True)
    act_key = stream(stream(key, Stream.ROLLOUT), Stream.ACT)
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
    policy = training.policy(Learned(agent_state, stats), iteration)
    key = training.key_of(Stream.EVALUATE, key, iteration)
    start = policy.initial_carry(first.shape[0])
    return act_with(policy, start, carry, first, obs, key, step)


def act_with(
    policy: Any, start: PyTree, carry: PyTree, first: Array, obs: PyTree, key: Key, step: Array
) -> tuple[PyTree, PyTree]:
    """One step of an evaluation with any policy, whose carry begins with `start`."""
    carry = tree_where(first, start, carry)
    carry, action, _ = policy(carry, obs, jax.random.fold_in(stream(key, Stream.ACT), step))
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
    key = training.key_of(Stream.ITERATION, key, iteration)
    clock = training.clock(iteration)
    agent, plan = training.agent, training.agent.plan
    episodes = EpisodeStats.of(returns, lengths, ended)
    if isinstance(plan, OnPolicy):
        return learners.learn_on_policy(agent, plan, state, trajectory, episodes, key, clock)
    assert isinstance(plan, Replay), plan  # `check`; Offline needs no experience
    return learners.learn_replay(agent, plan, state, trajectory, episodes, key, clock)


def learn_in_short(*given: Any) -> tuple[TrainState, Array]:
    """`learn`, with all leaves of the metrics in one vector, which is cheaper to read."""
    state, metrics = learn(*given)
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
