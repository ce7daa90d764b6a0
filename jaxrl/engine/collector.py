"""The rollout on a host environment: one iteration after another with some of its copies."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxrl.engine.checked_vector import Checked
from jaxrl.engine.vector_env import VectorState
from jaxrl.types import PyTree, Trajectory, Transition


class Collected(NamedTuple):
    """The experience of an iteration, NumPy arrays `[T, n, ...]`, or `[M, T, n, ...]` for members.

    Attributes:
      trajectory: raw steps.
      returns, lengths: of the running episodes, each step included.
      ended: whether an episode ended, unlike a truncation where steps are left out.
      envs: bookkeeping after the last step.
      carry: the policy's carry after the last step.
    """

    trajectory: Trajectory
    returns: np.ndarray
    lengths: np.ndarray
    ended: np.ndarray
    envs: VectorState
    carry: PyTree


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of what an actor collects.

    Attributes:
      num_members: members that are trained side by side; None for one without an axis of members.
      num_envs: environments of each member, of this actor.
      num_steps: steps of an iteration.
      first_env: index of the first of these environments among those of a member.
    """

    num_members: int | None
    num_envs: int
    num_steps: int
    first_env: int = 0

    @property
    def batch(self) -> tuple[int, ...]:
        """Leading axes of what the agent gets in a step."""
        return (self.num_envs,) if self.num_members is None else (self.num_members, self.num_envs)

    @property
    def rows(self) -> int:
        """Copies of the environment."""
        return self.num_envs * (self.num_members or 1)

    def in_batch(self, tree: PyTree) -> PyTree:
        """`[rows, ...]` as `[*batch, ...]`."""
        if self.num_members is None:
            return tree
        return jax.tree.map(lambda x: x.reshape(*self.batch, *x.shape[1:]), tree)

    def in_rows(self, tree: PyTree) -> PyTree:
        """`[*batch, ...]` as NumPy arrays `[rows, ...]`."""
        tree = jax.tree.map(np.asarray, tree)
        if self.num_members is None:
            return tree
        return jax.tree.map(lambda x: x.reshape(self.rows, *x.shape[2:]), tree)

    def of_iteration(self, x: np.ndarray) -> np.ndarray:
        """`[T, rows, ...]` as `[T, n, ...]` or `[M, T, n, ...]`."""
        x = x.reshape(len(x), *self.batch, *x.shape[2:])
        return x if self.num_members is None else np.ascontiguousarray(np.moveaxis(x, 1, 0))


class Kept:
    """The steps of an iteration, leaves `[T, rows, ...]` of a tree.

    Copies that are only reset in a step get another one, in which the others step as well. Those
    steps are too many and left out; the last one before them is then truncated, if it ends no
    episode, so that nobody takes the next row for its successor.
    """

    def __init__(self, num_steps: int, num_rows: int):
        self.num_steps, self.filled = num_steps, np.zeros(num_rows, int)
        self.in_step = 0  # while all copies have as many steps
        self.buffers: list[np.ndarray] | None = None

    @property
    def full(self) -> bool:
        return self.in_step == self.num_steps or bool((self.filled >= self.num_steps).all())

    def add(self, row: PyTree) -> None:
        """Adds a step of all copies, leaves `[rows, ...]`."""
        leaves = self._leaves(row)
        for buffer, x in zip(self.buffers or (), leaves, strict=True):
            buffer[self.in_step] = x
        self.in_step += 1

    def add_valid(self, row: PyTree, valid: np.ndarray) -> None:
        """Adds a step of the copies that took one."""
        leaves = self._leaves(row)
        if self.in_step:
            self.filled[:], self.in_step = self.in_step, 0
        full = valid & (self.filled == self.num_steps)
        terminated, truncated = self.tree["terminated"], self.tree["truncated"]
        truncated[-1, full] = ~terminated[-1, full]
        rows = np.flatnonzero(valid & (self.filled < self.num_steps))
        for buffer, x in zip(self.buffers or (), leaves, strict=True):
            buffer[self.filled[rows], rows] = x[rows]
        self.filled[rows] += 1

    def _leaves(self, row: PyTree) -> list[np.ndarray]:
        leaves, structure = jax.tree.flatten(row)
        if self.buffers is None:
            self.buffers = [np.empty((self.num_steps, *x.shape), x.dtype) for x in leaves]
            self.tree = jax.tree.unflatten(structure, self.buffers)
        return leaves


Act = Callable[[PyTree, PyTree, np.ndarray, PyTree, np.ndarray], tuple[PyTree, PyTree, PyTree]]
"""(what to play with, carry, first, obs, (iteration, step, actor)) -> (carry, action, extras)."""


class Collector:
    """Collects one iteration after another with some copies of a host environment."""

    def __init__(
        self,
        vector: Checked,
        act: Act,
        shape: Shape,
        number: int,
        *,
        seeds: np.ndarray,
        carry: PyTree,
        resets: bool,
    ):
        self.vector, self.act, self.shape, self.number = vector, act, shape, number
        self.seeds, self.carry = seeds, carry
        self.resets = resets  # in each iteration

    def begin(self) -> None:
        """Starts the first episodes."""
        self._restart(self.seeds)

    def _restart(self, seeds: np.ndarray | None) -> None:
        rows = self.shape.rows
        self.obs = self.vector.reset(seeds)
        self.first = np.ones(rows, bool)
        self.returns, self.lengths = np.zeros(rows, np.float32), np.zeros(rows, np.int32)

    def collect(self, played: PyTree, iteration: int, stop: Callable[[], bool]) -> Collected | None:
        """The experience of an iteration; None if told to stop."""
        shape, ragged = self.shape, False
        if self.resets and iteration > 0:
            self._restart(None)
        start, kept = self.carry, Kept(shape.num_steps, shape.rows)
        at = np.array([iteration, 0, self.number], np.int32)
        while not kept.full:
            if stop():
                return None
            first, obs = shape.in_batch((self.first, self.obs))
            self.carry, *acted = self.act(played, self.carry, first, obs, at)
            action, extras = shape.in_rows(acted)
            before = jax.tree.map(np.copy, self.obs)  # a simulator may use its buffer again
            step = self.vector.step(action)
            returns, lengths = self.returns + step.reward, self.lengths + 1
            done = step.terminated | step.truncated
            row = {
                "obs": before,
                "action": action,
                "reward": step.reward,
                "terminated": step.terminated,
                "truncated": step.truncated,
                "next_obs": step.next_obs,
                "extras": extras,
                "first": self.first,
                "returns": returns,
                "lengths": lengths,
                "ended": done,
            }
            ragged |= step.valid is not None
            if ragged:
                valid = np.ones(shape.rows, bool) if step.valid is None else step.valid
                kept.add_valid(row, valid)
                done = done | ~valid  # what was only reset starts an episode
            else:
                kept.add(row)
            self.obs, self.first = step.obs, done
            if done.any():
                returns, lengths = np.where(done, 0, returns), np.where(done, 0, lengths)
            self.returns, self.lengths = returns, lengths
            at = at + np.array([0, 1, 0], np.int32)
        found = jax.tree.map(shape.of_iteration, kept.tree)
        names = ("first", "returns", "lengths", "ended")
        first, returns, lengths, ended = (found.pop(name) for name in names)
        index = np.arange(shape.first_env, shape.first_env + shape.num_envs, dtype=np.int32)
        envs = (self.obs, self.first, self.returns, self.lengths)
        return Collected(
            Trajectory(Transition(**found), first, start, np.broadcast_to(index, first.shape)),
            returns,
            lengths,
            ended,
            VectorState((), *shape.in_batch(jax.tree.map(np.array, envs))),
            self.carry,
        )


def joined(parts: list[Collected], members: bool) -> Collected:
    """The parts of all actors, one after the other along the axis of environments."""
    if len(parts) == 1:
        return parts[0]
    wide, narrow = (2, 1) if members else (1, 0)

    def along(axis: int, *trees: PyTree) -> PyTree:
        return jax.tree.map(lambda *x: np.concatenate(x, axis), *trees)

    def part(pick: Callable[[Collected], PyTree], axis: int) -> PyTree:
        return along(axis, *map(pick, parts))

    return Collected(
        Trajectory(
            part(lambda x: x.trajectory.steps, wide),
            part(lambda x: x.trajectory.first, wide),
            part(lambda x: x.trajectory.carry, narrow),
            part(lambda x: x.trajectory.env_index, wide),
        ),
        part(lambda x: x.returns, wide),
        part(lambda x: x.lengths, wide),
        part(lambda x: x.ended, wide),
        part(lambda x: x.envs, narrow),
        part(lambda x: x.carry, narrow),
    )
