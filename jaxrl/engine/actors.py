"""Actors: threads that step host environments while the learner trains.

Each actor has a part of the environments and collects its part of each iteration. What it plays
with is exactly `lag` iterations old (less at the start), so the same seed gives the same run
whatever the threads do. With a lag of 0 the actors wait for the learner; with 1, both work at the
same time, as in Cleanba (Huang et al., 2023).
"""

import dataclasses
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.engine.vector_env import VectorState
from jaxrl.environment import HostEnvironment, HostStep, HostVector
from jaxrl.errors import Unable
from jaxrl.types import ActionSpace, Box, EnvSpec, Mixed, PyTree, Trajectory, Transition

WAKE_SECONDS = 0.1
"""How often a waiting thread looks for the end of the run."""
GRACE_SECONDS = 5.0
"""How long to wait for a thread that is told to end."""


class EnvironmentFault(Unable):
    """A host environment has raised an error, returned invalid values, or not returned."""


class Collected(NamedTuple):
    """The experience of an iteration, NumPy arrays `[T, n, ...]`, or `[M, T, n, ...]` for members.

    Attributes:
      trajectory: raw steps.
      returns, lengths: of the running episodes, each step included.
      envs: bookkeeping after the last step.
      carry: the policy's carry after the last step.
    """

    trajectory: Trajectory
    returns: np.ndarray
    lengths: np.ndarray
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


class Checked:
    """A `HostVector` whose results are checked against the spec, and its actions bounded.

    Raises:
      EnvironmentFault: it raised an error, or returned NaN or another shape or dtype.
    """

    def __init__(self, vector: HostVector, spec: EnvSpec, num_envs: int, name: str):
        self.vector, self.spec, self.num_envs, self.name = vector, spec, num_envs, name
        self.busy_since: float | None = None
        leaves, structure = jax.tree.flatten(spec.observation)
        self.structure: Any = structure
        self.wanted = [((num_envs, *x.shape), x.dtype, x.dtype.kind == "f") for x in leaves]

    @classmethod
    def start(cls, host: HostEnvironment, num_envs: int) -> "Checked":
        """Starts copies of a host environment."""
        try:
            vector = host.vector(num_envs)
        except Exception as error:
            raise EnvironmentFault(
                f"{host.name} could not be started: {type(error).__name__}: {error}"
            ) from error
        return cls(vector, host.spec, num_envs, host.name)

    def reset(self, seeds: np.ndarray | None = None) -> PyTree:
        obs = self._call("reset", seeds)
        self._check_obs("reset", obs)
        return obs

    def step(self, action: PyTree) -> HostStep:
        step = self._call("step", bounded(self.spec.action, action))
        self._check_obs("step", step.next_obs)
        if step.obs is not step.next_obs:
            self._check_obs("step", step.obs)
        if not np.isfinite(step.reward).all():
            copies = np.flatnonzero(~np.isfinite(step.reward)).tolist()
            raise EnvironmentFault(f"{self.name} returned a reward of NaN or inf in {copies}")
        if step.reward.shape != (self.num_envs,):
            raise EnvironmentFault(
                f"{self.name} returned rewards of shape {step.reward.shape}, not ({self.num_envs},)"
            )
        return step

    def close(self) -> None:
        self.vector.close()

    def _call(self, method: str, *arguments: Any) -> Any:
        self.busy_since = time.monotonic()
        try:
            return getattr(self.vector, method)(*arguments)
        except Exception as error:
            raise EnvironmentFault(
                f"{self.name} has failed in {method}: {type(error).__name__}: {error}"
            ) from error
        finally:
            self.busy_since = None

    def _check_obs(self, method: str, obs: PyTree) -> None:
        leaves, structure = jax.tree.flatten(obs)
        if structure != self.structure:
            raise EnvironmentFault(f"{method} of {self.name} returned another structure")
        for x, (shape, dtype, is_float) in zip(leaves, self.wanted, strict=True):
            if x.shape != shape or x.dtype != dtype:
                raise EnvironmentFault(
                    f"{method} of {self.name} returned observations of {x.dtype}{list(x.shape)}, "
                    f"but its spec has {dtype}{list(shape)}"
                )
            if is_float and np.isnan(x.sum()) and np.isnan(x).any():  # the sum is fast
                copies = np.unique(np.argwhere(np.isnan(x))[:, 0]).tolist()
                raise EnvironmentFault(f"{method} of {self.name} returned NaN in copies {copies}")


def bounded(space: ActionSpace, action: PyTree) -> PyTree:
    """Clips the continuous parts of actions `[N, ...]`, as `jaxrl.types.into_bounds`."""
    if isinstance(space, Box):
        return np.clip(action, *space.bounds())
    if isinstance(space, Mixed):
        return tuple(bounded(s, a) for s, a in zip(space.spaces, action, strict=True))
    return action


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

    def __init__(self, vector: Checked, act: Act, shape: Shape, number: int, *, resets: bool):
        self.vector, self.act, self.shape, self.number = vector, act, shape, number
        self.resets = resets  # in each iteration

    def begin(self, seeds: np.ndarray, carry: PyTree) -> None:
        """Starts new episodes."""
        self.carry = carry
        self._restart(seeds)

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
            step = self.vector.step(action)
            returns, lengths = self.returns + step.reward, self.lengths + 1
            row = {
                "obs": self.obs,
                "action": action,
                "reward": step.reward,
                "terminated": step.terminated,
                "truncated": step.truncated,
                "next_obs": step.next_obs,
                "extras": extras,
                "first": self.first,
                "returns": returns,
                "lengths": lengths,
            }
            done = step.terminated | step.truncated
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
        first, returns, lengths = (found.pop(name) for name in ("first", "returns", "lengths"))
        index = np.arange(shape.first_env, shape.first_env + shape.num_envs, dtype=np.int32)
        envs = (self.obs, self.first, self.returns, self.lengths)
        return Collected(
            Trajectory(Transition(**found), first, start, np.broadcast_to(index, first.shape)),
            returns,
            lengths,
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
        part(lambda x: x.envs, narrow),
        part(lambda x: x.carry, narrow),
    )


class Actors:
    """Threads that collect iterations in order, at most `lag` ahead of the learner.

    The learner calls `publish` with what iteration i may be played with, and `collected(i)`.
    """

    def __init__(self, collectors: list[Collector], lag: int, timeout: float):
        self.collectors, self.lag, self.timeout = collectors, lag, timeout
        self.changed = threading.Condition()
        self.published: dict[int, PyTree] = {}
        self.ended = False
        self.faults: list[Exception] = []
        self.queues: list[queue.Queue[Collected]] = [queue.Queue(lag + 1) for _ in collectors]
        self.threads: list[threading.Thread] = []

    def start(self, first: int, last: int) -> None:
        """Starts the threads, which collect iterations `first` to `last - 1`."""
        self.first = first
        for number in range(len(self.collectors)):
            thread = threading.Thread(
                target=self._run, args=(number, last), name=f"jaxrl-actor-{number}", daemon=True
            )
            thread.start()
            self.threads.append(thread)

    def publish(self, iteration: int, played: PyTree) -> None:
        """Sets what to play iteration `iteration + lag` with, and earlier ones at the start."""
        with self.changed:
            self.published[iteration] = played
            for old in [i for i in self.published if i < iteration - self.lag - 1]:
                del self.published[old]
            self.changed.notify_all()

    def collected(self, members: bool) -> Collected:
        """The next iteration.

        Raises:
          EnvironmentFault: an environment has failed, or has not returned for `timeout` seconds.
        """
        return joined([self._next(number) for number in range(len(self.queues))], members)

    def _next(self, number: int) -> Collected:
        while True:
            try:
                return self.queues[number].get(timeout=WAKE_SECONDS)
            except queue.Empty:
                pass
            if self.faults:
                raise self.faults[0]
            since = self.collectors[number].vector.busy_since
            if since is not None and time.monotonic() - since > self.timeout:
                name = self.collectors[number].vector.name
                raise EnvironmentFault(
                    f"{name} has not returned for {self.timeout:g} s: raise env_timeout if it is "
                    "just slow"
                )

    def _run(self, number: int, last: int) -> None:
        collector = self.collectors[number]
        try:
            for iteration in range(self.first, last):
                played = self._wait_for(max(self.first, iteration - self.lag))
                found = collector.collect(played, iteration, lambda: self.ended)
                if found is None:
                    return
                self._put(number, found)
        except _Ended:
            pass
        except Exception as error:  # raised again by the learner
            self.faults.append(error)

    def _wait_for(self, iteration: int) -> PyTree:
        with self.changed:
            while iteration not in self.published:
                if self.ended:
                    raise _Ended
                self.changed.wait(WAKE_SECONDS)
            return self.published[iteration]

    def _put(self, number: int, found: Collected) -> None:
        while not self.ended:
            try:
                return self.queues[number].put(found, timeout=WAKE_SECONDS)
            except queue.Full:
                pass
        raise _Ended

    def close(self) -> list[str]:
        """Ends the threads and closes the environments; returns the names of those that hang."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()
        until, hanging = time.monotonic() + GRACE_SECONDS, []
        for thread, collector in zip(self.threads, self.collectors, strict=False):
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                hanging.append(collector.vector.name)
        for collector in self.collectors:
            if collector.vector.name not in hanging:
                collector.vector.close()
        return hanging


class _Ended(Exception):
    """The run has ended."""
