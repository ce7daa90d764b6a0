"""Learners: one training iteration for each plan.

A learner collects experience, passes batches of it to `Agent.update` and returns the new
`TrainState` with metrics. There is one loop over minibatches and one over replayed batches.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Agent, Offline, OnPolicy, Plan, Population, Replay, Update
from jaxrl.devices.deferred import with_local_metrics
from jaxrl.devices.shards import as_different, num_shards
from jaxrl.engine import across_shards
from jaxrl.engine.acting import policy_of, seen
from jaxrl.engine.candidates import play_candidates
from jaxrl.engine.metrics import IterationMetrics
from jaxrl.engine.rollout import rollout_of_episodes
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.losses import mean
from jaxrl.minibatches import minibatch, minibatch_indices
from jaxrl.normalization import Normalizer
from jaxrl.replay.buffer import ReplayBuffer
from jaxrl.types import (
    Array,
    Clock,
    EpisodeStats,
    Key,
    Mean,
    PyTree,
    Stream,
    Trajectory,
    Transition,
    stream,
)
from jaxrl.xla import layout
from jaxrl.xla.flatten import Flattened, flatten, unflatten
from jaxrl.xla.threefry import of_rows


class TrainState(struct.PyTreeNode):
    """Everything that training changes, as arrays; the caller keeps the clock and the key.

    Attributes:
      agent: the agent's state.
      envs: state of the environments, a `VectorState`; `()` for plans that keep none.
      carry: the policy's carry (recurrent state or noise), leaves `[N, ...]`.
      stats: running statistics of observations and rewards.
      buffer: state of the replay buffer, or `()`.
    """

    agent: PyTree
    envs: Any
    carry: PyTree
    stats: Normalizer
    buffer: Any


class Learned(struct.PyTreeNode):
    """The learned part of a run, from which another run can start.

    Attributes:
      agent: the agent's state.
      stats: statistics that normalise its observations and rewards; None if unknown.
    """

    agent: PyTree
    stats: Normalizer | None

    @classmethod
    def of(cls, start: Any) -> "Learned":
        """From a `TrainState`, or from an agent's state alone, without statistics."""
        if isinstance(start, Learned):
            return start
        return cls(start.agent, start.stats) if isinstance(start, TrainState) else cls(start, None)


def _steps_seen(agent: Agent, stats: Normalizer, steps: Transition) -> Transition:
    """Transitions with observations as the agent gets them."""
    return steps.replace(
        obs=seen(agent, stats, steps.obs), next_obs=seen(agent, stats, steps.next_obs)
    )


def _normalized(agent: Agent, stats: Normalizer, steps: Transition) -> Transition:
    """Transitions with normalised observations and rewards."""
    steps = _steps_seen(agent, stats, steps)
    return steps.replace(reward=stats.normalize_reward(steps.reward))


def _update(agent: Agent, state: PyTree, batch: Any, key: Key, clock: Clock) -> Update:
    """`agent.update`, with each metric as a `Mean`, to be pooled over shards."""

    def update(state, batch, key, clock):
        new = _measured(agent, "update", agent.update(state, batch, key, clock))
        across_shards.check_equal(agent, state, new.state)
        return (new.state, new.priorities), new.metrics

    (new_state, priorities), metrics = with_local_metrics(update)(state, batch, key, clock)
    return Update(new_state, metrics, priorities)


def _end_iteration(
    agent: Agent, plan: Plan, state: PyTree, batch: Any, key: Key, clock: Clock
) -> tuple[PyTree, dict[str, Mean]]:
    """`agent.end_iteration`, with each metric as a `Mean`."""
    now = clock.replace(update=clock.update + plan.updates_per_iteration)
    end = agent.end_iteration(state, batch, stream(key, Stream.END), now)
    new, metrics, _ = _measured(agent, "end_iteration", end)
    across_shards.check_equal(agent, state, new)
    return new, metrics


def _measured(agent: Agent, method: str, found: Any) -> Update:
    if not isinstance(found, Update):
        raise InvalidType(
            f"{type(agent).__name__}.{method} returned a {type(found).__name__}: return "
            "jaxrl.Update(state, metrics)"
        )
    return found._replace(metrics={name: Mean.of(x) for name, x in found.metrics.items()})


def _update_many(
    agent: Agent,
    agent_state: PyTree,
    key: Key,
    clock: Clock,
    batch_of: Callable[[PyTree, Array, Key], Any],
    indices: Array,
) -> tuple[PyTree, dict[str, Mean]]:
    """Calls `agent.update` for each i in `indices`, on `batch_of(agent_state, i, key)`."""
    key = of_rows(stream(key, Stream.UPDATE))
    fields = agent.flattened if layout.is_cpu() else ()

    def one(carried, index):
        agent_state = unflatten(carried, fields)
        key_i = jax.random.fold_in(key, index)
        batch = batch_of(agent_state, index, stream(key_i, Stream.SAMPLE))
        now = clock.replace(update=clock.update + index)
        new = _update(agent, agent_state, batch, stream(key_i, Stream.UPDATE), now)
        return flatten(new.state, fields), Flattened.of(new.metrics)

    state, each = jax.lax.scan(one, flatten(agent_state, fields), indices)
    metrics = each.replace(vector=jnp.sum(each.vector, axis=0)).tree
    return unflatten(state, fields), {name: x.pooled() for name, x in metrics.items()}


def _collect(
    agent: Agent,
    plan: OnPolicy | Replay,
    envs: VectorEnv,
    state: TrainState,
    key: Key,
    clock: Clock,
) -> tuple[TrainState, Trajectory, EpisodeStats]:
    """One rollout of the exploring agent: raw transitions and episode statistics `[T, N]`."""
    policy = policy_of(agent, state.agent, state.stats, clock, explore=True)
    at_start = agent.initial_carry(envs.num_envs)
    env_state, carry, trajectory, episodes = rollout_of_episodes(
        policy, envs, state.envs, state.carry, at_start, key, plan.num_steps
    )
    return state.replace(envs=env_state, carry=carry), trajectory, episodes


def on_policy(
    agent: Agent, plan: OnPolicy, envs: VectorEnv, state: TrainState, key: Key, clock: Clock
) -> tuple[TrainState, IterationMetrics]:
    """A rollout, targets, then epochs of shuffled minibatches."""
    if plan.reset_each_iteration:
        state = state.replace(envs=envs.reset(key))
    if not plan.differentiable:
        state, trajectory, episodes = _collect(agent, plan, envs, state, key, clock)
        return learn_on_policy(agent, plan, state, trajectory, episodes, key, clock)
    state, trajectory, episodes, followed = _followed(agent, plan, envs, state, key, clock)
    state, metrics = learn_on_policy(agent, plan, state, trajectory, episodes, key, clock)
    return state, metrics.replace(updates=followed | metrics.updates)


def learn_on_policy(
    agent: Agent,
    plan: OnPolicy,
    state: TrainState,
    trajectory: Trajectory,
    episodes: EpisodeStats,
    key: Key,
    clock: Clock,
) -> tuple[TrainState, IterationMetrics]:
    """The second half of `on_policy`: learns from a raw trajectory `[T, N]`.

    Args:
      agent, plan, key, clock: as for `on_policy`.
      state: the state after the rollout.
      trajectory: as the environment returned it.
      episodes: entries `[T, N]`.
    """
    raw = trajectory.steps
    trajectory = trajectory.replace(steps=_normalized(agent, state.stats, raw))
    if agent.carry_only_explores:  # learning does not need it
        trajectory = trajectory.replace(carry=())
    if plan.reset_each_iteration:  # long episodes are cut: counting all would favour short ones
        episodes = episodes.first()
    prepared = agent.prepare(state.agent, trajectory, clock)
    report = {name: Mean.of(x) for name, x in agent.report(state.agent, prepared, clock).items()}
    agent_state, updates = _epochs(agent, plan, state.agent, trajectory, prepared, key, clock)
    agent_state, end = _end_iteration(agent, plan, agent_state, prepared, key, clock)
    # After learning, so that acting and learning use the same statistics.
    stats = state.stats.update(raw.obs, raw.reward, trajectory.first, agent.discount)
    metrics = across_shards.pooled(IterationMetrics(episodes.pooled(), report | updates | end))
    return state.replace(agent=agent_state, stats=stats), metrics


def _followed(
    agent: Agent, plan: OnPolicy, envs: VectorEnv, state: TrainState, key: Key, clock: Clock
) -> tuple[TrainState, Trajectory, EpisodeStats, dict[str, Mean]]:
    """`_collect`, then a step of `Agent.follow`, with its metrics."""

    def objective(agent_state: PyTree) -> Any:
        acting = state.replace(agent=agent_state)
        new, trajectory, episodes = _collect(agent, plan, envs, acting, key, clock)
        steps = _normalized(agent, state.stats, trajectory.steps)
        found = agent.objective(agent_state, trajectory.replace(steps=steps), clock)
        return found, (new.replace(agent=()), trajectory, episodes)

    gradient, found = jax.grad(objective, has_aux=True, allow_int=True)(state.agent)
    new, trajectory, episodes = found
    after = _measured(agent, "follow", agent.follow(state.agent, gradient, clock))
    return new.replace(agent=after.state), trajectory, episodes, after.metrics


def _epochs(
    agent: Agent,
    plan: OnPolicy,
    agent_state: PyTree,
    trajectory: Trajectory,
    prepared: Trajectory,
    key: Key,
    clock: Clock,
) -> tuple[PyTree, dict[str, Mean]]:
    """`num_epochs` passes over the prepared trajectory in `num_minibatches` minibatches."""
    num_parts, (num_steps, num_envs) = plan.num_minibatches, trajectory.first.shape
    flat = plan.layout == "flat"
    axis, rows = (0, num_steps * num_envs) if flat else (1, num_envs)
    if flat and jax.tree.leaves(trajectory.carry):
        raise InvalidValue(
            "layout is 'flat', which breaks up sequences: a recurrent agent needs 'env'"
        )
    shuffle_key = of_rows(stream(key, Stream.SHUFFLE))
    parts = minibatch_indices(shuffle_key, rows, plan.num_epochs, num_parts)

    def passes(agent_state, prepared, indices):
        if flat:
            prepared = jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), prepared)

        def part(agent_state, index, key):
            return minibatch(prepared, parts[index], axis)

        return _update_many(agent, agent_state, key, clock, part, indices)

    indices = jnp.arange(parts.shape[0])
    if not plan.prepare_each_epoch:
        return passes(agent_state, prepared, indices)

    def one_pass(agent_state, indices):
        now = clock.replace(update=clock.update + indices[0])
        prepared = agent.prepare(agent_state, trajectory, now)
        return passes(agent_state, prepared, indices)

    agent_state, metrics = jax.lax.scan(one_pass, agent_state, indices.reshape(-1, num_parts))
    return agent_state, {name: x.pooled() for name, x in metrics.items()}


def replay(
    agent: Agent, plan: Replay, envs: VectorEnv, state: TrainState, key: Key, clock: Clock
) -> tuple[TrainState, IterationMetrics]:
    """A rollout into the replay buffer, then updates once it holds `warmup` transitions."""
    state, trajectory, episodes = _collect(agent, plan, envs, state, key, clock)
    return learn_replay(agent, plan, state, trajectory, episodes, key, clock)


def learn_replay(
    agent: Agent,
    plan: Replay,
    state: TrainState,
    trajectory: Trajectory,
    episodes: EpisodeStats,
    key: Key,
    clock: Clock,
) -> tuple[TrainState, IterationMetrics]:
    """The second half of `replay`: stores a raw trajectory and learns, as `learn_on_policy`."""
    buffer = ReplayBuffer.of(plan, agent.bound_spec, num_shards())
    contents = buffer.add(state.buffer, trajectory.steps, state.envs.obs, clock.iteration)
    update_key = of_rows(stream(key, Stream.UPDATE))
    stats, iterations = state.stats, clock.iteration + 1

    def learn(index, agent_state, contents):
        key_i = jax.random.fold_in(update_key, index)
        now = clock.replace(update=clock.update + index)
        rows = buffer.sample(
            contents,
            stream(key_i, Stream.SAMPLE),
            iterations,
            agent.discount,
            stats.normalize_reward,
        )
        batch = agent.prepare(agent_state, _steps_seen(agent, stats, rows), now)
        agent_state, new, priorities = _update(
            agent, agent_state, batch, stream(key_i, Stream.UPDATE), now
        )
        if plan.prioritized:
            contents = buffer.prioritize(contents, rows, _given(agent, priorities))
        if buffer.can_drop:
            _, dropped = with_local_metrics(lambda rows: ((), mean(~rows.valid)))(rows)
            new = {**new, "dropped": Mean.of(dropped)}
        return agent_state, contents, as_different(new)

    def one(index, loop):
        agent_state, contents, metrics = loop
        agent_state, contents, new = learn(index, agent_state, contents)
        return agent_state, contents, {name: metrics[name] + x for name, x in new.items()}

    # The warmup sets the loop's length: with a branch, XLA would copy the whole buffer.
    contents = as_different(contents)
    *_, shapes = jax.eval_shape(learn, jnp.int32(0), state.agent, contents)
    none = as_different(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
    length = jnp.where(buffer.is_ready(iterations), plan.num_updates, 0)
    agent_state, contents, updates = jax.lax.fori_loop(
        0, length, one, (state.agent, contents, none)
    )
    agent_state, end = _end_iteration(agent, plan, agent_state, None, key, clock)
    raw = trajectory.steps
    stats = stats.update(raw.obs, raw.reward, trajectory.first, agent.discount)
    state = state.replace(agent=agent_state, stats=stats, buffer=buffer.shared(contents))
    return state, across_shards.pooled(IterationMetrics(episodes.pooled(), updates | end))


def _given(agent: Agent, priorities: Array | None) -> Array:
    if priorities is None:
        raise InvalidType(
            f"{type(agent).__name__}.update returned no priorities, which its plan, "
            "Replay(prioritized=True), needs: return jaxrl.Update(state, metrics, priorities)"
        )
    return priorities


def offline(
    agent: Agent, plan: Offline, data: Transition, state: TrainState, key: Key, clock: Clock
) -> tuple[TrainState, IterationMetrics]:
    """Updates on `data`, transitions `[D, ...]`."""
    num_rows = data.reward.shape[0]

    def sample(agent_state, index, key):
        batch = data
        if plan.batch_size is not None:
            rows = jax.random.randint(key, (plan.batch_size,), 0, num_rows)
            batch = jax.tree.map(lambda x: x[rows], data)
        now = clock.replace(update=clock.update + index)
        return agent.prepare(agent_state, _normalized(agent, state.stats, batch), now)

    indices = jnp.arange(plan.num_updates)
    agent_state, updates = _update_many(agent, state.agent, key, clock, sample, indices)
    agent_state, end = _end_iteration(agent, plan, agent_state, None, key, clock)
    return state.replace(agent=agent_state), IterationMetrics(EpisodeStats.none(), updates | end)


def population(
    agent: Agent, plan: Population, envs: VectorEnv, state: TrainState, key: Key, clock: Clock
) -> tuple[TrainState, IterationMetrics]:
    """One episode per copy, then one update on the candidates' returns."""
    if plan.common_random_numbers:
        envs = envs.replace(num_distinct=plan.episodes_per_candidate)
    played, stats = play_candidates(agent, plan, envs, state.agent, state.stats, key, clock)
    played = across_shards.gathered(played)
    returns = played.returns.reshape(plan.population_size, plan.episodes_per_candidate)
    prepared = agent.prepare(state.agent, returns, clock)
    update_key = stream(key, Stream.UPDATE)
    agent_state, updates, _ = _update(agent, state.agent, prepared, update_key, clock)
    agent_state, end = _end_iteration(agent, plan, agent_state, prepared, key, clock)
    ended = EpisodeStats.of(played.returns, played.lengths, played.finished, played.info).pooled()
    return state.replace(agent=agent_state, stats=stats), IterationMetrics(ended, updates | end)
