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
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jaxrl.engine.vector_env import VectorState
from jaxrl.environment import HostEnvironment, HostStep, HostVector
from jaxrl.errors import Unable
from jaxrl.types import EnvSpec, PyTree, Trajectory, Transition

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

    def in_batch(self, x: np.ndarray) -> np.ndarray:
        """`[rows, ...]` as `[*batch, ...]`."""
        return x.reshape(*self.batch, *x.shape[1:])

    def in_rows(self, x: Any) -> np.ndarray:
        """`[*batch, ...]` as `[rows, ...]`."""
        x = np.asarray(x)
        return x.reshape(self.rows, *x.shape[len(self.batch) :])

    def of_iteration(self, x: np.ndarray) -> np.ndarray:
        """`[T, rows, ...]` as `[T, n, ...]` or `[M, T, n, ...]`."""
        x = x.reshape(len(x), *self.batch, *x.shape[2:])
        return x if self.num_members is None else np.ascontiguousarray(np.moveaxis(x, 1, 0))


class Checked:
    """A `HostVector` whose results are checked against the spec.

    Raises:
      EnvironmentFault: it raised an error, or returned NaN or another shape or dtype.
    """

    def __init__(self, vector: HostVector, spec: EnvSpec, num_envs: int, name: str):
        self.vector, self.spec, self.num_envs, self.name = vector, spec, num_envs, name
        self.busy_since: float | None = None

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
        step = self._call("step", action)
        self._check_obs("step", step.obs)
        self._check_obs("step", step.next_obs)
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
        wanted = self.spec.observation
        structure: Any = jax.tree.structure(wanted)
        if structure != jax.tree.structure(obs):
            raise EnvironmentFault(f"{method} of {self.name} returned another structure")
        for x, like in zip(jax.tree.leaves(obs), jax.tree.leaves(wanted), strict=True):
            if x.shape != (self.num_envs, *like.shape) or x.dtype != like.dtype:
                raise EnvironmentFault(
                    f"{method} of {self.name} returned observations of {x.dtype}{list(x.shape)}, "
                    f"but its spec has {like.dtype}{[self.num_envs, *like.shape]}"
                )
            if x.dtype.kind == "f" and np.isnan(x).any():
                copies = np.unique(np.argwhere(np.isnan(x))[:, 0]).tolist()
                raise EnvironmentFault(f"{method} of {self.name} returned NaN in copies {copies}")


class Kept:
    """The steps of an iteration, `[T, rows, ...]`.

    Copies that are only reset in a step get another one, in which the others step as well. Those
    steps are too many and left out; the last one before them is then truncated, if it ends no
    episode, so that nobody takes the next row for its successor.
    """

    def __init__(self, num_steps: int, num_rows: int):
        self.num_steps, self.filled = num_steps, np.zeros(num_rows, int)
        self.tree: PyTree = None

    @property
    def full(self) -> bool:
        return bool((self.filled >= self.num_steps).all())

    def add(self, row: PyTree, valid: np.ndarray | None) -> None:
        """Adds a step, leaves `[rows, ...]`."""
        if self.tree is None:
            self.tree = jax.tree.map(lambda x: np.empty((self.num_steps, *x.shape), x.dtype), row)
            self.buffers = jax.tree.leaves(self.tree)
        if valid is None:
            at: Any = self.filled[0]
        else:
            left_out = np.flatnonzero(valid & (self.filled == self.num_steps))
            transition = self.tree[0]
            transition.truncated[-1, left_out] = ~transition.terminated[-1, left_out]
            rows = np.flatnonzero(valid & (self.filled < self.num_steps))
            at = self.filled[rows], rows
            row = jax.tree.map(lambda x: x[rows], row)
        for buffer, x in zip(self.buffers, jax.tree.leaves(row), strict=True):
            buffer[at] = x
        self.filled[slice(None) if valid is None else rows] += 1


Act = Callable[[PyTree, PyTree, np.ndarray, PyTree, np.int32, np.int32], Any]
"""(what to play with, carry, first, obs, iteration, step) -> `hosted.Acted`."""


class Collector:
    """Collects one iteration after another with some copies of a host environment."""

    def __init__(self, vector: Checked, act: Act, shape: Shape, *, resets: bool):
        self.vector, self.act, self.shape = vector, act, shape
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
        shape = self.shape
        if self.resets and iteration > 0:
            self._restart(None)
        start, kept, t = self.carry, Kept(shape.num_steps, shape.rows), 0
        while not kept.full:
            if stop():
                return None
            batch = jax.tree.map(shape.in_batch, self.obs)
            first = shape.in_batch(self.first)
            acted = self.act(played, self.carry, first, batch, np.int32(iteration), np.int32(t))
            step = self.vector.step(jax.tree.map(shape.in_rows, acted.bounded))
            reward: Any = np.asarray(step.reward, np.float32)
            returns, lengths = self.returns + reward, self.lengths + 1
            done, flags = step.terminated | step.truncated, cast(Any, step)
            action, extras = jax.tree.map(shape.in_rows, (acted.action, acted.extras))
            ends = {"terminated": flags.terminated, "truncated": flags.truncated}
            transition = Transition(
                self.obs, action, reward, next_obs=step.next_obs, extras=extras, **ends
            )
            kept.add((transition, self.first, returns, lengths), step.valid)
            if step.valid is not None:  # what was only reset starts an episode
                done = done | ~step.valid
            self.obs, self.first, self.carry = step.obs, done, acted.carry
            self.returns, self.lengths = np.where(done, 0, returns), np.where(done, 0, lengths)
            t += 1
        transitions, first, returns, lengths = jax.tree.map(shape.of_iteration, kept.tree)
        index = np.arange(shape.first_env, shape.first_env + shape.num_envs, dtype=np.int32)
        envs = (self.obs, self.first, self.returns.astype(np.float32), self.lengths)
        return Collected(
            Trajectory(transitions, first, start, np.broadcast_to(index, first.shape)),
            returns,
            lengths,
            VectorState((), *jax.tree.map(lambda x: shape.in_batch(np.array(x)), envs)),
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
