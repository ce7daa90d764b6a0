"""A replay buffer inside the compiled program that stores each observation once.

The ring buffer is `[slots, num_envs]`, time-major, so the observation after a step is in the next
slot. After a truncated episode that slot holds the next episode's first observation, so the final
one is stored separately: in a smaller ring for each copy if the environment declares that only its
time limit truncates (`EnvSpec.truncates`), which bounds their number, and otherwise for every step.
The write position depends only on the iteration count, which vmap never batches, so writes stay in
place for any number of seeds.

Devices that share the environments each have a buffer for their own copies and sample their part of
a batch from it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Replay
from jaxrl.devices.shards import as_different, max_over_shards
from jaxrl.replay.sum_tree import SumTree
from jaxrl.trees import tree_where
from jaxrl.types import Array, EnvSpec, Key, PyTree, Scalar, Transition


class BufferState(struct.PyTreeNode):
    """Contents of a replay buffer.

    Attributes:
      steps: `Transition`s with `next_obs=None`, leaves `[L, N, ...]`.
      final_obs: last observations of truncated episodes, leaves `[F, N, ...]`; if any step may be
        truncated, the observation after every step, leaves `[L, N, ...]`.
      final_index: `int32[L, N]`, running number of the copy's truncation at each step; or `()`.
      num_truncated: `int32[N]`, truncations of each copy so far; or `()`.
      priorities: a sum tree over slots and copies; `()` with uniform sampling.
      top_priority: `float32[]`, the largest priority so far, given to new steps; or `()`.
    """

    steps: Transition
    final_obs: PyTree
    final_index: Any
    num_truncated: Any
    priorities: Any
    top_priority: Any


class Replayed(Transition, kw_only=True):
    """Sampled n-step transitions, `[B, ...]`.

    `reward` is the discounted sum over the steps; `terminated`, `truncated` and `next_obs` belong
    to the last one. Where it terminated, `next_obs` equals `obs`, since no value is bootstrapped.

    Attributes:
      num_steps: `int32[B]`, steps to `next_obs`, whose value is discounted by discount**num_steps.
      relative_probability: `float32[B]`, sampling probability relative to a uniform draw.
      valid: `bool[B]`, False if `next_obs` was overwritten (see `ReplayBuffer.can_drop`) or all
        priorities are zero: ignore such rows.
      index: `int32[B]`, position of the step in the buffer.
      env_index: `int32[B]`, the copy of the environment that the step comes from.
    """

    num_steps: Array
    relative_probability: Array
    valid: Array
    index: Array
    env_index: Array

    @classmethod
    def once(cls, steps: Transition) -> "Replayed":
        """One-step transitions `[B, ...]`, all valid; `env_index` is 0."""
        shape = steps.reward.shape
        fields = {name: getattr(steps, name) for name in Transition.__dataclass_fields__}
        fields["next_obs"] = tree_where(steps.terminated, steps.obs, steps.next_obs)
        return cls(
            **fields,
            num_steps=jnp.ones(shape, jnp.int32),
            relative_probability=jnp.ones(shape, jnp.float32),
            valid=jnp.ones(shape, bool),
            index=jnp.arange(shape[0]),
            env_index=jnp.zeros(shape, jnp.int32),
        )


@dataclasses.dataclass(frozen=True)
class ReplayBuffer:
    """A replay buffer for an agent's plan: static sizes, and pure functions of a `BufferState`.

    Attributes:
      plan: how much is collected, stored and sampled.
      num_kept: time slots whose steps can be sampled.
      num_slots: L, all time slots: `num_kept` and those that the next iteration writes, of which
        the first holds the newest observation.
      num_final_slots: F, final observations kept for truncated episodes of a copy; None for all.
      num_shards: number of devices that have such a buffer each, for their part of the copies.
    """

    plan: Replay
    num_kept: int
    num_slots: int
    num_final_slots: int | None
    num_shards: int = 1

    @classmethod
    def of(cls, plan: Replay, spec: EnvSpec, num_shards: int = 1) -> Self:
        """A buffer for `plan.capacity` steps, rounded up to whole iterations.

        It has room for the final observation of every step that may be truncated: any step, unless
        the spec declares that only its time limit truncates. Then at most ceil(L / max_steps) of
        a copy's L slots are truncated.
        """
        kept = -(-plan.capacity // plan.steps_per_iteration) * plan.num_steps
        slots = kept + plan.num_steps
        if spec.truncates != "at_max_steps":
            return cls(plan, kept, slots, None, num_shards)
        truncations = 0 if spec.max_steps is None else -(-slots // spec.max_steps)
        room = max(truncations + 1, plan.num_steps)
        return cls(plan, kept, slots, room if room < slots else None, num_shards)

    @property
    def num_envs(self) -> int:
        """N, the copies of this buffer."""
        return self.plan.num_envs // self.num_shards

    @property
    def can_drop(self) -> bool:
        """Whether rows can lose their final observation.

        This happens if the environment truncates before `max_steps` but declares that it does not.
        """
        return self.num_final_slots is not None

    def init(self, like: Transition) -> BufferState:
        """An empty buffer for transitions shaped like `like`, unbatched."""
        shape = (self.num_slots, self.num_envs)

        def room(x: Array, *leading: int) -> Array:
            return jnp.zeros((*leading, *x.shape), x.dtype)

        steps = jax.tree.map(lambda x: room(x, *shape), like.replace(next_obs=None))
        of_all = self.num_final_slots is None
        final_shape = (self.num_final_slots or self.num_slots, self.num_envs)
        state = BufferState(
            steps=steps,
            final_obs=jax.tree.map(lambda x: room(x, *final_shape), like.next_obs),
            final_index=() if of_all else jnp.zeros(shape, jnp.int32),
            num_truncated=() if of_all else jnp.zeros(self.num_envs, jnp.int32),
            priorities=SumTree.zeros(shape[0] * shape[1]) if self.plan.prioritized else (),
            top_priority=(),
        )
        top_priority: Any = jnp.float32(1.0) if self.plan.prioritized else ()
        return as_different(state).replace(top_priority=top_priority)

    def num_written(self, iterations: Array) -> Array:
        """Number of slots that can be sampled after that many iterations, `int32[]`."""
        num_steps = self.plan.num_steps
        return jnp.minimum(iterations, self.num_kept // num_steps) * num_steps

    def is_ready(self, iterations: Array) -> Array:
        """Whether there are `warmup` steps and at least one to sample: `bool[]`, not batched."""
        slots = max(-(-self.plan.warmup // self.plan.num_envs), self.plan.n_step)
        return self.num_written(iterations) >= slots

    def head(self, iterations: Array) -> Array:
        """The slot of the newest observation, which has no step yet."""
        rounds = self.num_slots // self.plan.num_steps
        return iterations % rounds * self.plan.num_steps

    def add(
        self, state: BufferState, steps: Transition, obs: PyTree, iteration: Array
    ) -> BufferState:
        """Overwrites the oldest steps with a rollout.

        Args:
          state: the current contents.
          steps: `[T, N, ...]`.
          obs: observations after the rollout, and after any reset, `[N, ...]`.
          iteration: `int32[]`, counted from 0, not batched.
        """
        start, head = self.head(iteration), self.head(iteration + 1)

        def write(ring: Array, rows: Array, slot: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(ring, rows, slot, axis=0)

        stored = jax.tree.map(
            lambda ring, rows: write(ring, rows, start), state.steps, steps.replace(next_obs=None)
        )
        newest = jax.tree.map(lambda ring, x: write(ring, x[None], head), stored.obs, obs)
        state = state.replace(steps=stored.replace(obs=newest))
        if self.num_final_slots is None:
            final_obs = jax.tree.map(
                lambda x, y: write(x, y, start), state.final_obs, steps.next_obs
            )
            state = state.replace(final_obs=final_obs)
        else:
            state, number = self._add_finals(state, steps, self.num_final_slots)
            state = state.replace(final_index=write(state.final_index, number, start))
        return self._prioritize_new(state, iteration) if self.plan.prioritized else state

    def _add_finals(
        self, state: BufferState, steps: Transition, num_slots: int
    ) -> tuple[BufferState, Array]:
        """Stores the final observations of truncated episodes and numbers the truncations."""
        cut = steps.truncated & ~steps.terminated
        number = state.num_truncated[None] + jnp.cumsum(cut, axis=0, dtype=jnp.int32) - 1
        where = jnp.where(cut, number % num_slots, num_slots)
        copies = jnp.broadcast_to(jnp.arange(self.num_envs)[None], where.shape)

        def keep(final_obs: Array, next_obs: Array) -> Array:
            return final_obs.at[where, copies].set(next_obs, mode="drop")

        kept = state.replace(
            final_obs=jax.tree.map(keep, state.final_obs, steps.next_obs),
            num_truncated=state.num_truncated + jnp.sum(cut, axis=0, dtype=jnp.int32),
        )
        return kept, number

    def _prioritize_new(self, state: BufferState, iteration: Array) -> BufferState:
        """Sets the priorities of an iteration's slots.

        Steps that can be sampled from now on get the top priority. Steps without `n_step` steps
        after them, and those that are overwritten next, get 0.
        """
        num_steps, n_step = self.plan.num_steps, self.plan.n_step
        # Relative to the slot written first; no slot occurs twice, however few there are.
        offsets = jnp.arange(max(1 - n_step, num_steps - self.num_kept), 2 * num_steps)
        new = (offsets <= num_steps - n_step) & (offsets >= -self.num_written(iteration))
        slots = (self.head(iteration) + offsets) % self.num_slots
        leaves = self._leaf(slots[:, None], jnp.arange(self.num_envs)[None])
        value = jnp.broadcast_to(jnp.where(new[:, None], state.top_priority, 0.0), leaves.shape)
        return state.replace(priorities=state.priorities.set(leaves.ravel(), value.ravel()))

    def _leaf(self, slot: Array, copy: Array) -> Array:
        return slot * self.num_envs + copy

    def sample(
        self,
        state: BufferState,
        key: Key,
        iterations: Array,
        discount: Scalar,
        reward_of: Callable[[Array], Array] = lambda reward: reward,
    ) -> Replayed:
        """Samples a batch of transitions over `n_step` steps, fewer at the end of an episode.

        Args:
          state: the current contents.
          key: random key.
          iterations: `int32[]`, iterations added so far, not batched; see `is_ready`.
          discount: discount of the rewards within a row.
          reward_of: applied to stored rewards before they are summed, to normalise them.
        """
        plan, size = self.plan, (self.plan.batch_size // self.num_shards,)
        num_starts = self.num_written(iterations) - (plan.n_step - 1)
        number_of_starts = (num_starts * self.num_envs).astype(jnp.float32)
        if plan.prioritized:
            tree: SumTree = state.priorities
            index = tree.sample(key, *size)
            index = jnp.minimum(index, self.num_slots * self.num_envs - 1)
            slot, copy = jnp.divmod(index, self.num_envs)
            has_mass = tree[index] > 0  # false only if all priorities are 0
            probability = jnp.where(has_mass, tree[index] / tree.total * number_of_starts, 1.0)
        else:
            age_key, copy_key = jax.random.split(key)
            age = jax.random.randint(age_key, size, 0, jnp.maximum(num_starts, 1))
            copy = jax.random.randint(copy_key, size, 0, self.num_envs)
            oldest = self.head(iterations) - self.num_written(iterations)
            slot = (oldest + age) % self.num_slots
            index, probability = self._leaf(slot, copy), jnp.ones(size, jnp.float32)
            has_mass = jnp.ones(size, bool)

        def at(x: Array, slot: Array) -> Array:
            return x[slot % self.num_slots, copy]

        steps = state.steps
        reward = jnp.zeros(size, jnp.float32)
        num_steps = jnp.zeros(size, jnp.int32)
        goes_on, weight = jnp.ones(size, bool), 1.0
        for k in range(plan.n_step):
            reward = reward + jnp.where(goes_on, weight * reward_of(at(steps.reward, slot + k)), 0)
            num_steps = num_steps + goes_on
            ended = at(steps.terminated, slot + k) | at(steps.truncated, slot + k)
            goes_on, weight = goes_on & ~ended, weight * discount
        last = slot + num_steps - 1
        terminated = at(steps.terminated, last)
        truncated = at(steps.truncated, last) & ~terminated
        first = jax.tree.map(lambda x: at(x, slot), steps.replace(next_obs=None))
        if self.num_final_slots is None:
            following = jax.tree.map(lambda x: at(x, last), state.final_obs)
            lost = jnp.zeros(size, bool)
        else:
            number = at(state.final_index, last)
            where = number % self.num_final_slots
            cut = jax.tree.map(lambda x: x[where, copy], state.final_obs)
            following = jax.tree.map(lambda x: at(x, last + 1), steps.obs)
            following = tree_where(truncated, cut, following)
            lost = truncated & (state.num_truncated[copy] - number > self.num_final_slots)
        next_obs = tree_where(terminated, first.obs, following)
        return Replayed(
            obs=first.obs,
            action=first.action,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            next_obs=next_obs,
            extras=first.extras,
            info=first.info,
            num_steps=num_steps,
            relative_probability=probability,
            valid=has_mass & ~lost,
            index=index,
            env_index=copy,
        )

    def prioritize(self, state: BufferState, rows: Replayed, priorities: Array) -> BufferState:
        """Sets the priorities `float32[B]` of sampled rows; invalid rows get 0."""
        sound = jnp.where(jnp.isfinite(priorities) & rows.valid, priorities, 0.0)
        return state.replace(
            priorities=state.priorities.set(rows.index, sound),
            top_priority=jnp.maximum(state.top_priority, jnp.max(sound)),
        )

    def shared(self, state: BufferState) -> BufferState:
        """The same after updates, with the top priority of all devices."""
        if not self.plan.prioritized:
            return state
        return state.replace(top_priority=max_over_shards(state.top_priority))
