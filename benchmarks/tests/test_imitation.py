"""Cloning's cost grows with the square of the horizon, DAgger's linearly."""

import numpy as np

from benchmarks import imitation
from jaxrl_envs.exact import drift

SHORT, LONG = 8, 64


def test_cloning_errs_more_the_longer_the_episode():
    """Ross, Gordon and Bagnell (2011): 64 times the cost for 8 times the steps, against 8 times."""
    for cost_of, power in ((imitation.cloned, 2), (imitation.taught, 1)):
        costs = [cost_of(drift.make(horizon=t), 0, 1000) for t in (SHORT, LONG)]
        grown = np.log(costs[1] / costs[0]) / np.log(LONG / SHORT)
        assert abs(grown - power) < 0.15, (cost_of.__name__, costs)


def test_with_equal_labels_dagger_costs_less():
    env = drift.make(horizon=LONG)
    assert imitation.taught(env, 1, 500) < 0.1 * imitation.cloned(env, 1, 500)
