"""Replay memory inside the compiled program: a ring of steps in which each observation lies once.

The ring is `[slots, num_envs]`, time-major, so that the observation after a step is the one in the
next slot. Where an episode was truncated that is the next episode's first, and the observation in
which the truncated one ended is kept apart: in a smaller ring where the environment declares that
only its time limit truncates (`EnvSpec.truncates`), which bounds how many there can be; otherwise
beside each step. Where in the ring of steps to write is decided by the number of the iteration
alone, which vmap never batches: its writes stay updates in place for any number of seeds.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Replay
from jaxrl.replay.sum_tree import SumTree
from jaxrl.trees import tree_where
from jaxrl.types import Array, EnvSpec, Key, PyTree, Scalar, Transition


class BufferState(struct.PyTreeNode):
    """What a ring holds.

    Attributes:
      steps: `Transition`s without their next observation (None), leaves `[L, N, ...]`.
      finals: observations in which truncated episodes ended, leaves `[F, ...]`; where any step may
        be truncated those after every step, leaves `[L, N, ...]`.
      final_index: `int32[L, N]`, the number of the truncation that ended the step; or `()`.
      num_finals: `int32[]`, truncations so far; or `()`.
      priorities: a tree over slots and copies, `()` where sampling is uniform.
      top_priority: `float32[]`, the largest priority so far, which new steps get; or `()`.
    """

    steps: Transition
    final_obs: PyTree
    final_index: Any
    num_truncated: Any
    priorities: Any
    top_priority: Any


class Replayed(Transition, kw_only=True):
    """Transitions over one or several steps, `[B, ...]`.

    `reward` is the discounted sum over the steps, `terminated`, `truncated` and `next_obs` are of
    the last. Where it terminated, next_obs is obs: there is no value to look up.

    Attributes:
      num_steps: `int32[B]`, steps up to next_obs: its value is discounted by discount**num_steps.
      relative_probability: `float32[B]`, of having been drawn, against a uniform draw.
      valid: `bool[B]`, False where next_obs is no longer there (see `ReplayBuffer.can_drop`) or
        nothing has a priority: leave the row out.
      index: `int32[B]`, where the step lies.
    """

    num_steps: Array
    relative_probability: Array
    valid: Array
    index: Array

    @classmethod
    def once(cls, steps: Transition) -> "Replayed":
        """Single steps `[B, ...]`, each of which counts."""
        shape = steps.reward.shape
        fields = {name: getattr(steps, name) for name in Transition.__dataclass_fields__}
        fields["next_obs"] = tree_where(steps.terminated, steps.obs, steps.next_obs)
        return cls(
            **fields,
            num_steps=jnp.ones(shape, jnp.int32),
            relative_probability=jnp.ones(shape, jnp.float32),
            valid=jnp.ones(shape, bool),
            index=jnp.arange(shape[0]),
        )


@dataclasses.dataclass(frozen=True)
class ReplayBuffer:
    """A ring for the plan of an agent: pure functions of a `BufferState`. Static.

    Attributes:
      plan: how much is collected, kept and drawn.
      num_kept: slots of time whose steps can be drawn.
      num_slots: L, slots that there are: those, and room for the iteration that is written next,
        the first of which holds the newest observation.
      num_final_slots: F, truncated episodes whose last observation is kept; None: of all.
    """

    plan: Replay
    num_kept: int
    num_slots: int
    num_final_slots: int | None

    @classmethod
    def of(cls, plan: Replay, spec: EnvSpec) -> Self:
        """Room for `plan.capacity` steps, rounded up to whole iterations.

        And for the final observation of each of them that may be truncated: of any, unless the
        spec declares that only its time limit truncates. Then there are at most
        ceil(L / max_steps) in L slots of a copy.
        """
        kept = -(-plan.capacity // plan.steps_per_iteration) * plan.num_steps
        slots = kept + plan.num_steps
        if spec.truncates != "at_max_steps":
            return cls(plan, kept, slots, None)
        of_a_copy = 0 if spec.max_steps is None else -(-slots // spec.max_steps)
        final_obs = max((of_a_copy + 1) * plan.num_envs, plan.steps_per_iteration)
        return cls(plan, kept, slots, final_obs if final_obs < slots * plan.num_envs else None)

    @property
    def can_drop(self) -> bool:
        """Whether rows can lose their final observation: where the environment truncates before
        `max_steps`, and declares that it never does."""
        return self.num_final_slots is not None

    def init(self, like: Transition) -> BufferState:
        """An empty memory for transitions shaped as `like`, unbatched."""
        shape = (self.num_slots, self.plan.num_envs)

        def room(x: Array, *leading: int) -> Array:
            return jnp.zeros((*leading, *x.shape), x.dtype)

        steps = jax.tree.map(lambda x: room(x, *shape), like.replace(next_obs=None))
        of_all = self.num_final_slots is None
        final_shape = shape if self.num_final_slots is None else (self.num_final_slots,)
        return BufferState(
            steps=steps,
            final_obs=jax.tree.map(lambda x: room(x, *final_shape), like.next_obs),
            final_index=() if of_all else jnp.zeros(shape, jnp.int32),
            num_truncated=() if of_all else jnp.int32(0),
            priorities=SumTree.zeros(shape[0] * shape[1]) if self.plan.prioritized else (),
            top_priority=jnp.float32(1.0) if self.plan.prioritized else (),
        )

    def num_written(self, iterations: Array) -> Array:
        """Slots whose steps can be drawn after that many iterations, `int32[]`."""
        num_steps = self.plan.num_steps
        return jnp.minimum(iterations, self.num_kept // num_steps) * num_steps

    def is_ready(self, iterations: Array) -> Array:
        """Whether `warmup` steps are there, and one that can be drawn: `bool[]`, not batched."""
        slots = max(-(-self.plan.warmup // self.plan.num_envs), self.plan.n_step)
        return self.num_written(iterations) >= slots

    def head(self, iterations: Array) -> Array:
        """The slot of the newest observation, which has no step yet."""
        rounds = self.num_slots // self.plan.num_steps
        return iterations % rounds * self.plan.num_steps

    def add(
        self, state: BufferState, steps: Transition, obs: PyTree, iteration: Array
    ) -> BufferState:
        """Writes the rollout of an iteration over the oldest steps.

        Args:
          memory: what is there.
          steps: `[T, N, ...]`.
          obs: the observations after it, `[N, ...]`, to which the next actions answer.
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
        """Keeps the observations in which truncated episodes ended; the number of each cut."""
        cut = steps.truncated & ~steps.terminated
        number = (
            state.num_truncated + jnp.cumsum(cut.ravel(), dtype=jnp.int32).reshape(cut.shape) - 1
        )
        where = jnp.where(cut, number % num_slots, num_slots).ravel()

        def keep(final_obs: Array, next_obs: Array) -> Array:
            rows = next_obs.reshape(where.size, *next_obs.shape[2:])
            return final_obs.at[where].set(rows, mode="drop")

        kept = state.replace(
            final_obs=jax.tree.map(keep, state.final_obs, steps.next_obs),
            num_truncated=state.num_truncated + jnp.sum(cut, dtype=jnp.int32),
        )
        return kept, number

    def _prioritize_new(self, state: BufferState, iteration: Array) -> BufferState:
        """The top priority for steps that can be drawn since this iteration, and none for those
        that do not see `n_step` steps ahead yet or will be written over next."""
        num_steps, n_step = self.plan.num_steps, self.plan.n_step
        # From the slot that was written first; no slot twice, however few there are.
        offsets = jnp.arange(max(1 - n_step, num_steps - self.num_kept), 2 * num_steps)
        new = (offsets <= num_steps - n_step) & (offsets >= -self.num_written(iteration))
        slots = (self.head(iteration) + offsets) % self.num_slots
        leaves = self._leaf(slots[:, None], jnp.arange(self.plan.num_envs)[None])
        value = jnp.broadcast_to(jnp.where(new[:, None], state.top_priority, 0.0), leaves.shape)
        return state.replace(priorities=state.priorities.set(leaves.ravel(), value.ravel()))

    def _leaf(self, slot: Array, copy: Array) -> Array:
        return slot * self.plan.num_envs + copy

    def sample(
        self,
        state: BufferState,
        key: Key,
        iterations: Array,
        discount: Scalar,
        reward_of: Callable[[Array], Array] = lambda reward: reward,
    ) -> Replayed:
        """Draws a batch, each step with `n_step` steps ahead of it or the end of its episode.

        Args:
          memory: what is there.
          key: of the draw.
          iterations: `int32[]`, those added so far, not batched; see `is_ready`.
          discount: of the rewards within a row.
          reward_of: from stored rewards to those that are summed.
        """
        plan, size = self.plan, (self.plan.batch_size,)
        num_starts = self.num_written(iterations) - (plan.n_step - 1)
        number_of_starts = (num_starts * plan.num_envs).astype(jnp.float32)
        if plan.prioritized:
            tree: SumTree = state.priorities
            index = tree.sample(key, plan.batch_size)
            index = jnp.minimum(index, self.num_slots * plan.num_envs - 1)
            slot, copy = jnp.divmod(index, plan.num_envs)
            has_mass = tree[index] > 0  # false only where nothing has
            probability = jnp.where(has_mass, tree[index] / tree.total * number_of_starts, 1.0)
        else:
            age_key, copy_key = jax.random.split(key)
            age = jax.random.randint(age_key, size, 0, jnp.maximum(num_starts, 1))
            copy = jax.random.randint(copy_key, size, 0, plan.num_envs)
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
            cut = jax.tree.map(lambda x: x[where], state.final_obs)
            following = jax.tree.map(lambda x: at(x, last + 1), steps.obs)
            following = tree_where(truncated, cut, following)
            lost = truncated & (state.num_truncated - number > self.num_final_slots)
        next_obs = tree_where(terminated, first.obs, following)
        return Replayed(
            obs=first.obs,
            action=first.action,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            next_obs=next_obs,
            extras=first.extras,
            num_steps=num_steps,
            relative_probability=probability,
            valid=has_mass & ~lost,
            index=index,
        )

    def prioritize(self, state: BufferState, rows: Replayed, priorities: Array) -> BufferState:
        """Gives the drawn steps new priorities `float32[B]`; rows that do not count get 0."""
        sound = jnp.where(jnp.isfinite(priorities) & rows.valid, priorities, 0.0)
        return state.replace(
            priorities=state.priorities.set(rows.index, sound),
            top_priority=jnp.maximum(state.top_priority, jnp.max(sound)),
        )
