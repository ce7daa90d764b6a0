"""Learners: one training iteration for each plan.

A learner collects experience, passes batches of it to `Agent.update` and returns the new
`TrainState` with metrics. There is one loop over minibatches and one over replayed batches.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Agent, Offline, OnPolicy, Policy, Population, Replay
from jaxrl.engine.evaluate import play_episodes
from jaxrl.engine.rollout import rollout_of_episodes
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.errors import InvalidValue
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
from jaxrl.xla.precision import in_float32


class TrainState(struct.PyTreeNode):
    """Everything that training changes, as arrays; the caller keeps the clock and the key.

    Attributes:
      agent: the agent's state.
      envs: state of the environments, a `VectorState`; `()` for plans that keep none.
      carry: the policy's recurrent state, leaves `[N, ...]`.
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


class IterationMetrics(struct.PyTreeNode):
    """Metrics of one iteration, or the sum of several.

    Attributes:
      episodes: statistics of the training episodes that ended.
      updates: the agent's own metrics, each a `Mean` over calls of `update` (or of `report`).
    """

    episodes: EpisodeStats
    updates: dict[str, Mean]

    def __add__(self, other: "IterationMetrics") -> "IterationMetrics":
        updates = {name: self.updates[name] + other.updates[name] for name in self.updates}
        return IterationMetrics(self.episodes + other.episodes, updates)


class Divergence(struct.PyTreeNode):
    """The first iteration with a non-finite metric.

    Attributes:
      iteration: `int32[]`; -1 as long as all metrics are finite.
      metrics: names to `bool[]`, true for those that were not finite in that iteration.
    """

    iteration: Array
    metrics: dict[str, Array]

    @classmethod
    def none(cls, metrics: IterationMetrics) -> "Divergence":
        """No divergence yet, for metrics with these names."""
        return cls(jnp.int32(-1), dict.fromkeys(_totals(metrics), jnp.bool_(False)))

    def watch(self, metrics: IterationMetrics, iteration: Array) -> "Divergence":
        """Adds an iteration; the first divergence is kept."""
        bad = ~jnp.isfinite(Flattened.of(_totals(metrics)).vector)
        fine = self.iteration < 0
        found: Any = self.metrics
        return Divergence(
            jnp.where(fine & jnp.any(bad), iteration, self.iteration),
            found.replace(vector=jnp.where(fine, bad, found.vector)),
        )


def _totals(metrics: IterationMetrics) -> dict[str, Array]:
    totals = {name: mean.total for name, mean in metrics.updates.items()}
    return {"training_return": metrics.episodes.returns.total, **totals}


def policy_of(
    agent: Agent, state: PyTree, stats: Normalizer, clock: Clock, *, explore: bool
) -> Policy:
    """The agent as a policy on raw observations, for rollout and evaluation."""

    @in_float32
    def policy(carry, obs, key):
        return agent.act(state, carry, stats.normalize_obs(obs), key, clock, explore=explore)

    policy.initial_carry = agent.initial_carry  # type: ignore[attr-defined]  # for `evaluate`
    return policy


def _normalized(stats: Normalizer, steps: Transition) -> Transition:
    """Transitions with normalised observations and rewards."""
    return steps.replace(
        obs=stats.normalize_obs(steps.obs),
        next_obs=stats.normalize_obs(steps.next_obs),
        reward=stats.normalize_reward(steps.reward),
    )


def _update_many(
    agent: Agent,
    agent_state: PyTree,
    key: Key,
    clock: Clock,
    batch_of: Callable[[PyTree, Array, Key], Any],
    length: int,
) -> tuple[PyTree, dict[str, Mean]]:
    """Calls `agent.update` `length` times, the i-th on `batch_of(agent_state, i, key)`."""
    key = stream(key, Stream.UPDATE)

    def one(agent_state, index):
        key_i = jax.random.fold_in(key, index)
        batch = batch_of(agent_state, index, stream(key_i, Stream.SAMPLE))
        now = clock.replace(update=clock.update + index)
        agent_state, new = agent.update(agent_state, batch, stream(key_i, Stream.UPDATE), now)
        return agent_state, Flattened.of({name: Mean.of(x) for name, x in new.items()})

    fields = agent.flattened if layout.is_cpu() else ()
    state, each = jax.lax.scan(one, flatten(agent_state, fields), jnp.arange(length))
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
    start_carry = agent.initial_carry(plan.num_envs)
    env_state, carry, trajectory, episodes = rollout_of_episodes(
        policy, envs, state.envs, state.carry, start_carry, key, plan.num_steps
    )
    return state.replace(envs=env_state, carry=carry), trajectory, episodes


def on_policy(
    agent: Agent, plan: OnPolicy, envs: VectorEnv, state: TrainState, key: Key, clock: Clock
) -> tuple[TrainState, IterationMetrics]:
    """A rollout, targets, then epochs of shuffled minibatches."""
    if plan.reset_each_iteration:
        state = state.replace(envs=envs.reset(key))
    state, trajectory, episodes = _collect(agent, plan, envs, state, key, clock)
    raw = trajectory.steps
    trajectory = trajectory.replace(steps=_normalized(state.stats, raw))
    if plan.reset_each_iteration:  # long episodes are cut: counting all would favour short ones
        episodes = episodes.first()
    prepared = agent.prepare(state.agent, trajectory, clock)
    report = {name: Mean.of(x) for name, x in agent.report(state.agent, prepared, clock).items()}
    agent_state, updates = _epochs(agent, plan, state.agent, prepared, key, clock)
    stats = _learn_statistics(agent, state.stats, trajectory.first, raw)
    metrics = IterationMetrics(episodes.pooled(), report | updates)
    return state.replace(agent=agent_state, stats=stats), metrics


def _epochs(
    agent: Agent,
    plan: OnPolicy,
    agent_state: PyTree,
    trajectory: Trajectory,
    key: Key,
    clock: Clock,
) -> tuple[PyTree, dict[str, Mean]]:
    """`num_epochs` passes over the trajectory in `num_minibatches` minibatches."""
    num_parts, (num_steps, num_envs) = plan.num_minibatches, trajectory.first.shape
    flat = plan.layout == "flat"
    axis, rows = (0, num_steps * num_envs) if flat else (1, num_envs)
    if flat and jax.tree.leaves(trajectory.carry):
        raise InvalidValue(
            "layout is 'flat', which breaks up sequences: a recurrent agent needs 'env'"
        )
    if flat:
        trajectory = jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), trajectory)

    parts = minibatch_indices(stream(key, Stream.SHUFFLE), rows, plan.num_epochs, num_parts)

    def part(agent_state, index, key):
        return minibatch(trajectory, parts[index], axis)

    return _update_many(agent, agent_state, key, clock, part, parts.shape[0])


def _learn_statistics(agent: Agent, stats: Normalizer, first: Array, raw: Transition) -> Normalizer:
    """Updates statistics after learning, so that acting and learning use the same ones."""
    return stats.update(raw.obs, raw.reward, first, getattr(agent, "discount", 1.0))


def replay(
    agent: Agent, plan: Replay, envs: VectorEnv, state: TrainState, key: Key, clock: Clock
) -> tuple[TrainState, IterationMetrics]:
    """A rollout into the replay buffer, then updates once it holds `warmup` transitions."""
    buffer = ReplayBuffer.of(plan, envs.spec)
    state, trajectory, episodes = _collect(agent, plan, envs, state, key, clock)
    memory = buffer.add(state.buffer, trajectory.steps, state.envs.obs, clock.iteration)
    stats, discount = state.stats, getattr(agent, "discount", 1.0)
    update_key, iterations = stream(key, Stream.UPDATE), clock.iteration + 1

    def learn(index, agent_state, memory):
        key_i = jax.random.fold_in(update_key, index)
        now = clock.replace(update=clock.update + index)
        rows = buffer.sample(
            memory, stream(key_i, Stream.SAMPLE), iterations, discount, stats.normalize_reward
        )
        rows = rows.replace(
            obs=stats.normalize_obs(rows.obs), next_obs=stats.normalize_obs(rows.next_obs)
        )
        batch = agent.prepare(agent_state, rows, now)
        agent_state, new, *priorities = agent.update(
            agent_state, batch, stream(key_i, Stream.UPDATE), now
        )
        if plan.prioritized:
            memory = buffer.prioritize(memory, rows, *priorities)
        if buffer.can_drop:
            new = {**new, "dropped": mean(~rows.valid)}
        return agent_state, memory, {name: Mean.of(x) for name, x in new.items()}

    def one(index, loop):
        agent_state, memory, metrics = loop
        agent_state, memory, new = learn(index, agent_state, memory)
        return agent_state, memory, {name: metrics[name] + x for name, x in new.items()}

    # The warmup sets the loop's length: with a branch, XLA would copy the whole buffer.
    *_, shapes = jax.eval_shape(learn, jnp.int32(0), state.agent, memory)
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    length = jnp.where(buffer.is_ready(iterations), plan.num_updates, 0)
    agent_state, memory, updates = jax.lax.fori_loop(0, length, one, (state.agent, memory, none))
    stats = _learn_statistics(agent, stats, trajectory.first, trajectory.steps)
    state = state.replace(agent=agent_state, stats=stats, buffer=memory)
    return state, IterationMetrics(episodes.pooled(), updates)


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
        return agent.prepare(agent_state, _normalized(state.stats, batch), now)

    agent_state, updates = _update_many(agent, state.agent, key, clock, sample, plan.num_updates)
    return state.replace(agent=agent_state), IterationMetrics(EpisodeStats.none(), updates)


def population(
    agent: Agent, plan: Population, envs: VectorEnv, state: TrainState, key: Key, clock: Clock
) -> tuple[TrainState, IterationMetrics]:
    """One episode per copy, then one update on the candidates' returns."""
    policy = policy_of(agent, state.agent, state.stats, clock, explore=True)
    played = play_episodes(
        policy, envs, agent.initial_carry(plan.num_envs), key, plan.max_episode_steps
    )
    returns = played.returns.reshape(plan.population_size, plan.episodes_per_candidate)
    prepared = agent.prepare(state.agent, returns, clock)
    agent_state, metrics = agent.update(state.agent, prepared, stream(key, Stream.UPDATE), clock)
    ended = EpisodeStats.of(played.returns, played.lengths, played.finished, played.info).pooled()
    updates = {name: Mean.of(value) for name, value in metrics.items()}
    return state.replace(agent=agent_state), IterationMetrics(ended, updates)
