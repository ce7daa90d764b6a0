"""Actors: threads that step host environments while the learner trains.

Each actor has a part of the environments and collects its part of each iteration. What it plays
with is exactly `lag` iterations old (less at the start), so the same seed gives the same run
whatever the threads do. With a lag of 0 the actors wait for the learner; with 1, both work at the
same time, as in Cleanba (Huang et al., 2023).
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from jaxrl.engine.checked_vector import Checked
from jaxrl.engine.collector import Collected, Collector, joined
from jaxrl.types import PyTree
from jaxrl.xla.transfers import transfers_allowed

R = TypeVar("R")

WAKE_SECONDS = 0.1
"""How often a waiting thread looks for the end of the run."""
GRACE_SECONDS = 3.0
"""How long to wait for threads that are told to end, and again once environments are closed."""


class Actors:
    """Threads that collect iterations in order, at most `lag` ahead of the learner.

    The learner calls `publish` with what iteration i may be played with, and `collected(i)`.
    """

    def __init__(self, collectors: list[Collector], lag: int, timeout: float):
        self.collectors, self.lag, self.timeout = collectors, lag, timeout
        self.changed = threading.Condition()
        self.published: dict[int, PyTree] = {}
        self.ended = False
        self.faults: list[BaseException] = []
        self.finished: list[deque[Collected]] = [deque() for _ in collectors]
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
        return joined([self._next(number) for number in range(len(self.finished))], members)

    def _next(self, number: int) -> Collected:
        vector = self.collectors[number].vector
        with self.changed:
            while not self.finished[number]:
                if self.faults:
                    raise self.faults[0]
                vector.check_hanging(self.timeout)
                self.changed.wait(WAKE_SECONDS)
            return self.finished[number].popleft()

    @transfers_allowed
    def _run(self, number: int, last: int) -> None:
        collector = self.collectors[number]
        try:
            collector.begin()
            for iteration in range(self.first, last):
                played = self._wait_for(max(self.first, iteration - self.lag))
                found = collector.collect(played, iteration, lambda: self.ended)
                if found is None:
                    return
                with self.changed:
                    self.finished[number].append(found)
                    self.changed.notify_all()
        except _Ended:
            pass
        except BaseException as error:  # raised again by the learner
            with self.changed:
                self.faults.append(error)
                self.changed.notify_all()

    def _wait_for(self, iteration: int) -> PyTree:
        with self.changed:
            while iteration not in self.published:
                if self.ended:
                    raise _Ended
                self.changed.wait(WAKE_SECONDS)
            return self.published[iteration]

    def close(self) -> None:
        """Ends the threads and closes the environments.

        A thread that hangs in an environment ends if closing the environment ends that, as with
        processes, and else with the program.
        """
        with self.changed:
            self.ended = True
            self.changed.notify_all()
        _join(self.threads)
        close_all([collector.vector for collector in self.collectors])
        _join(self.threads)


def close_all(vectors: list[Checked]) -> None:
    """Closes environments, without waiting long for one that hangs."""
    closing = [threading.Thread(target=_close, args=(x,), daemon=True) for x in vectors]
    for thread in closing:
        thread.start()
    _join(closing)


def watched(vector: Checked, timeout: float, function: Callable[[], R]) -> R:
    """The result of a function that steps an environment, called in a thread.

    Raises:
      EnvironmentFault: the environment has failed, or has not returned for `timeout` seconds.
    """
    results: list[R] = []
    errors: list[BaseException] = []

    @transfers_allowed  # a setting of each thread
    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=call, name="jaxrl-actor-evaluation", daemon=True)
    thread.start()
    while thread.is_alive():
        vector.check_hanging(timeout)
        thread.join(WAKE_SECONDS)
    if errors:
        raise errors[0]
    return results[0]


def _join(threads: list[threading.Thread]) -> None:
    until = time.monotonic() + GRACE_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _close(vector: Checked) -> None:
    with contextlib.suppress(Exception):  # it may have failed before
        vector.close()


class _Ended(Exception):
    """The run has ended."""
