"""What an agent needs to solve a problem, from stored curves."""

import numpy as np
import pytest

from benchmarks import choosing, scores
from benchmarks.choosing import Need
from benchmarks.rows import Row
from benchmarks.scores import Batch, Result

ROW = Row(
    id="T",
    env="gymnax/CartPole-v1",
    algorithm="dqn",
    hyper={"head": "c51"},
    total_steps=40,
    num_seeds=3,
    published=None,
    source="nobody",
)


def result(curve, seconds=6.0):
    batch = Batch(
        seeds=[100, 101, 102],
        returns=curve[-1],
        unfinished=[0, 0, 0],
        steps=[10, 20, 30, 40],
        curve=curve,
        train_seconds=seconds,
        compile_seconds=0.0,
        date="2026-01-02",
        machine="2 CPU cores",
        versions={},
    )
    return Result(ROW.configuration(), (batch,))


def test_the_median_seed_counts_at_its_first_evaluation_at_the_goal():
    """Seeds reach 5 at steps 20, 30 and never; the second falls back below."""
    need = Need.of(ROW, result([[1, None, 1], [5, 4, 1], [5, 6, 1], [7, 2, 1]]), goal=5)
    assert (need.steps, need.solved, need.seeds) == (30, 1, 3)
    assert need.seconds == pytest.approx(6.0 / 3 * 30 / 40)
    assert need.name == "DQN, c51"


def test_what_most_seeds_do_not_reach_is_not_reached():
    need = Need.of(ROW, result([[1, 1, 1], [1, 1, 1], [1, 1, 1], [9, 1, 1]]), goal=5)
    assert np.isinf(need.steps)
    text = choosing.table({choosing.PROBLEMS[0]: [need]})
    assert "| DQN, c51 | T | not reached |  | 1 of 3 |" in text


def test_the_page_shows_each_measured_row_of_its_problems():
    """The table in the docs is the one that the stored results give."""
    found = {problem: choosing.needs(problem) for problem in choosing.PROBLEMS}
    assert choosing.table({p: rows for p, rows in found.items() if rows}) in (
        choosing.PAGE.read_text(encoding="utf-8")
    )
    assert {n.row for rows in found.values() for n in rows} <= set(scores.ROWS)
