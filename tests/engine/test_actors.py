"""Actors under load: a thousand faults, and slow threads."""

import threading
import time

import numpy as np
import pytest
from helpers.hosted import Counting

from jaxrl.engine.actors import Actors
from jaxrl.engine.checked_vector import Checked, EnvironmentFault
from jaxrl.engine.collector import Collector, Shape

NUM_ENVS, NUM_STEPS, ITERATIONS = 2, 4, 6


def act(played, carry, first, obs, at):
    """Without a program: actions and log-probabilities of zero."""
    num = len(first)
    return carry, np.zeros(num, np.int32), {"log_prob": np.full(num, played, np.float32)}


def actors_of(hosts, lag, timeout=5.0):
    collectors = []
    for number, host in enumerate(hosts):
        shape = Shape(None, NUM_ENVS, NUM_STEPS, NUM_ENVS * number)
        vector = Checked.start(host, NUM_ENVS)
        given = {"seeds": np.arange(NUM_ENVS), "carry": (), "resets": False}
        collectors.append(Collector(vector, act, shape, number, **given))
    return Actors(collectors, lag, timeout)


def played(actors):
    """All iterations, as the learner gets them; iteration i is published as i."""
    actors.start(0, ITERATIONS)
    try:
        for iteration in range(ITERATIONS):
            actors.publish(iteration, iteration)
            yield actors.collected(members=False)
    finally:
        actors.close()


def threads():
    return [x for x in threading.enumerate() if x.name.startswith("jaxrl-actor")]


def raise_error(step):
    raise OSError("the simulator has gone")


FAULTS = (
    raise_error,
    lambda step: step._replace(obs=step.obs * np.nan),
    lambda step: step._replace(reward=step.reward[1:]),
    lambda step: step._replace(next_obs=None),
    lambda step: step._replace(obs=step.obs.astype(np.float16)),
)


def test_a_thousand_faults_end_all_threads():
    random = np.random.default_rng(0)
    for _ in range(1000):
        num_actors, lag = random.integers(1, 4), int(random.integers(0, 3))
        fault = FAULTS[random.integers(len(FAULTS))]
        at_step = random.integers(1, NUM_STEPS * ITERATIONS + 1)

        def fail(vector, step, fault=fault, at_step=at_step):
            return fault(step) if vector.steps == at_step else None

        bad = random.integers(num_actors)
        hosts = [Counting(fail=fail) if i == bad else Counting() for i in range(num_actors)]
        with pytest.raises(EnvironmentFault, match="counting"):
            list(played(actors_of(hosts, lag)))
        assert not threads()
        assert all(vector.closed for host in hosts for vector in host.vectors)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_slow_actors_play_with_what_is_exactly_as_old(lag):
    def slow(vector, step):
        time.sleep(0.002 * (vector.steps % 3))

    hosts = [Counting(fail=slow), Counting(), Counting(fail=slow)]
    found = list(played(actors_of(hosts, lag)))
    versions = [x.trajectory.steps.extras["log_prob"] for x in found]
    for iteration, version in enumerate(versions):
        np.testing.assert_array_equal(version, max(0, iteration - lag))
        assert version.shape == (NUM_STEPS, 3 * NUM_ENVS)
    assert not threads()


def test_what_is_published_is_not_kept():
    actors = actors_of([Counting()], lag=1)
    list(played(actors))
    assert len(actors.published) <= 3
