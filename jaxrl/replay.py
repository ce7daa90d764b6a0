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
from jaxrl.sum_tree import SumTree
from jaxrl.types import Array, EnvSpec, Key, PyTree, Scalar, Transition, tree_where


class Memory(struct.PyTreeNode):
    """What a ring holds.

    Attributes:
      steps: `Transition`s without their next observation (None), leaves `[L, N, ...]`.
      finals: observations in which truncated episodes ended, leaves `[F, ...]`; where any step may
        be truncated those after every step, leaves `[L, N, ...]`.
      final: `int32[L, N]`, the number of the truncation that ended the step; or `()`.
      num_finals: `int32[]`, truncations so far; or `()`.
      priorities: a tree over slots and copies, `()` where sampling is uniform.
      top_priority: `float32[]`, the largest priority so far, which new steps get; or `()`.
    """

    steps: Transition
    finals: PyTree
    final: Any
    num_finals: Any
    priorities: Any
    top_priority: Any


class Replayed(Transition, kw_only=True):
    """Transitions over one or several steps, `[B, ...]`.

    `reward` is the discounted sum over the steps, `terminated`, `truncated` and `next_obs` are of
    the last. Where it terminated, next_obs is obs: there is no value to look up.

    Attributes:
      num_steps: `int32[B]`, steps up to next_obs: its value is discounted by discount**num_steps.
      relative_probability: `float32[B]`, of having been drawn, against a uniform draw.
      counts: `bool[B]`, False where next_obs is no longer there (see `Ring.can_drop`) or nothing
        has a priority: leave the row out.
      index: `int32[B]`, where the step lies.
    """

    num_steps: Array
    relative_probability: Array
    counts: Array
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
            counts=jnp.ones(shape, bool),
            index=jnp.arange(shape[0]),
        )


@dataclasses.dataclass(frozen=True)
class Ring:
    """A ring for the plan of an agent: pure functions of a `Memory`. Static.

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
        finals = max((of_a_copy + 1) * plan.num_envs, plan.steps_per_iteration)
        return cls(plan, kept, slots, finals if finals < slots * plan.num_envs else None)

    @property
    def can_drop(self) -> bool:
        """Whether rows can lose their final observation: where the environment truncates before
        `max_steps`, and declares that it never does."""
        return self.num_final_slots is not None

    def init(self, like: Transition) -> Memory:
        """An empty memory for transitions shaped as `like`, unbatched."""
        shape = (self.num_slots, self.plan.num_envs)

        def room(x: Array, *leading: int) -> Array:
            return jnp.zeros((*leading, *x.shape), x.dtype)

        steps = jax.tree.map(lambda x: room(x, *shape), like.replace(next_obs=None))
        of_all = self.num_final_slots is None
        final_shape = shape if self.num_final_slots is None else (self.num_final_slots,)
        return Memory(
            steps=steps,
            finals=jax.tree.map(lambda x: room(x, *final_shape), like.next_obs),
            final=() if of_all else jnp.zeros(shape, jnp.int32),
            num_finals=() if of_all else jnp.int32(0),
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

    def add(self, memory: Memory, steps: Transition, obs: PyTree, iteration: Array) -> Memory:
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
            lambda ring, rows: write(ring, rows, start), memory.steps, steps.replace(next_obs=None)
        )
        newest = jax.tree.map(lambda ring, x: write(ring, x[None], head), stored.obs, obs)
        memory = memory.replace(steps=stored.replace(obs=newest))
        if self.num_final_slots is None:
            finals = jax.tree.map(lambda x, y: write(x, y, start), memory.finals, steps.next_obs)
            memory = memory.replace(finals=finals)
        else:
            memory, number = self._add_finals(memory, steps, self.num_final_slots)
            memory = memory.replace(final=write(memory.final, number, start))
        return self._prioritize_new(memory, iteration) if self.plan.prioritized else memory

    def _add_finals(
        self, memory: Memory, steps: Transition, num_slots: int
    ) -> tuple[Memory, Array]:
        """Keeps the observations in which truncated episodes ended; the number of each cut."""
        cut = steps.truncated & ~steps.terminated
        number = memory.num_finals + jnp.cumsum(cut.ravel(), dtype=jnp.int32).reshape(cut.shape) - 1
        where = jnp.where(cut, number % num_slots, num_slots).ravel()

        def keep(finals: Array, next_obs: Array) -> Array:
            rows = next_obs.reshape(where.size, *next_obs.shape[2:])
            return finals.at[where].set(rows, mode="drop")

        kept = memory.replace(
            finals=jax.tree.map(keep, memory.finals, steps.next_obs),
            num_finals=memory.num_finals + jnp.sum(cut, dtype=jnp.int32),
        )
        return kept, number

    def _prioritize_new(self, memory: Memory, iteration: Array) -> Memory:
        """The top priority for steps that can be drawn since this iteration, and none for those
        that do not see `n_step` steps ahead yet or will be written over next."""
        num_steps, n_step = self.plan.num_steps, self.plan.n_step
        # From the slot that was written first; no slot twice, however few there are.
        offsets = jnp.arange(max(1 - n_step, num_steps - self.num_kept), 2 * num_steps)
        new = (offsets <= num_steps - n_step) & (offsets >= -self.num_written(iteration))
        slots = (self.head(iteration) + offsets) % self.num_slots
        leaves = self._leaf(slots[:, None], jnp.arange(self.plan.num_envs)[None])
        value = jnp.broadcast_to(jnp.where(new[:, None], memory.top_priority, 0.0), leaves.shape)
        return memory.replace(priorities=memory.priorities.set(leaves.ravel(), value.ravel()))

    def _leaf(self, slot: Array, copy: Array) -> Array:
        return slot * self.plan.num_envs + copy

    def sample(
        self,
        memory: Memory,
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
            tree: SumTree = memory.priorities
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

        steps = memory.steps
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
            following = jax.tree.map(lambda x: at(x, last), memory.finals)
            lost = jnp.zeros(size, bool)
        else:
            number = at(memory.final, last)
            where = number % self.num_final_slots
            cut = jax.tree.map(lambda x: x[where], memory.finals)
            following = jax.tree.map(lambda x: at(x, last + 1), steps.obs)
            following = tree_where(truncated, cut, following)
            lost = truncated & (memory.num_finals - number > self.num_final_slots)
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
            counts=has_mass & ~lost,
            index=index,
        )

    def prioritize(self, memory: Memory, rows: Replayed, priorities: Array) -> Memory:
        """Gives the drawn steps new priorities `float32[B]`; rows that do not count get 0."""
        sound = jnp.where(jnp.isfinite(priorities) & rows.counts, priorities, 0.0)
        return memory.replace(
            priorities=memory.priorities.set(rows.index, sound),
            top_priority=jnp.maximum(memory.top_priority, jnp.max(sound)),
        )
