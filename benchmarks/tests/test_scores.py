"""The score table: what "reached" means, going on after an interruption, and what is written."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats

from benchmarks import rows, scores
from benchmarks.rows import Row
from benchmarks.scores import Batch, Result, Statistics
from jaxrl.cli.presets import preset

TINY = Row(
    id="T",
    env="gymnax/CartPole-v1",
    algorithm="ppo",
    hyper={"num_envs": 2, "num_steps": 8, "hidden_sizes": "4", "learning_rate": "linear:1e-3:0"},
    total_steps=32,
    num_seeds=3,
    published=5.0,
    source="nobody",
    env_params={"max_steps_in_episode": 12},
    num_eval_episodes=4,
    seeds_at_once=2,
)


@pytest.fixture
def place(monkeypatch, tmp_path):
    """The tiny row, and a directory of its own for results and table."""
    monkeypatch.setattr(scores, "ROWS", {"T": TINY})
    monkeypatch.setattr(scores, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(scores, "TABLE", tmp_path / "scores.md")
    (tmp_path / "scores.md").write_text(f"before\n\n{scores.BEGIN}\nold\n{scores.END}\n\nafter\n")
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """The batches that are asked for, with made-up returns instead of training."""
    batches = []

    def train_batch(row, seeds):
        batches.append(seeds)
        return a_batch(seeds, [float(seed) for seed in seeds])

    monkeypatch.setattr(scores, "train_batch", train_batch)
    return batches


def a_batch(seeds, returns, unfinished=0):
    return Batch(
        seeds=seeds,
        returns=returns,
        unfinished=[unfinished] * len(seeds),
        steps=[16, 32],
        curve=[returns, returns],
        train_seconds=1.5,
        compile_seconds=2.5,
        date="2026-01-02",
        machine="2 CPU cores",
        versions={"python": "3.11.7", "jax": "0.10.2", "flax": "0.12.7"},
    )


def statistics(mean, iqm, low, high):
    return Statistics(mean, 0.0, (low, high), iqm, (np.nan, np.nan))


# Reached ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "iqm", "low", "high", "reached"),
    [
        (11.0, 12.0, 10.5, 11.5, True),  # both above, the figure below the interval
        (10.0, 10.0, 10.0, 10.0, True),  # both at the figure
        (9.0, 8.0, 8.0, 10.0, True),  # both below, the figure inside
        (11.0, 9.0, 10.5, 11.5, False),  # the IQM below, the figure outside
        (9.0, 11.0, 8.0, 9.5, False),  # the mean below, the figure outside
        (11.0, 12.0, np.nan, np.nan, True),  # one seed has no interval
        (9.0, 9.0, np.nan, np.nan, False),
        (np.nan, np.nan, np.nan, np.nan, False),
    ],
)
def test_reached_is_what_the_protocol_says(mean, iqm, low, high, reached):
    assert statistics(mean, iqm, low, high).reached(10.0) is reached


def test_the_interval_of_the_iqm_resamples_whole_seeds():
    """And is the wider, the fewer seeds there are: Student's quantile, the variance over N - 1."""
    per_seed = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0])
    s = Statistics.of(per_seed)
    assert (s.mean, s.iqm) == (16.0, 4.5)
    draws = np.random.default_rng(0).integers(0, 8, (10_000, 8))
    middle = np.sort(per_seed[draws], axis=1)[:, 2:6].mean(axis=1)
    wider = scipy.stats.t.ppf(0.975, 7) / scipy.stats.norm.ppf(0.975) * np.sqrt(8 / 7)
    ends = s.iqm + wider * (np.quantile(middle, [0.025, 0.975]) - s.iqm)
    np.testing.assert_allclose(s.iqm_interval, ends, rtol=1e-9)
    assert s.mean_interval[1] > s.iqm_interval[1]  # the outlier pulls at the mean


@pytest.mark.parametrize(
    ("batch", "row", "said"),
    [
        (a_batch([100, 101, 102], [9.0, 9.0, 9.0]), TINY, "yes"),
        (a_batch([100, 101, 102], [1.0, 1.0, 1.0]), TINY, "**no**"),
        (a_batch([100], [9.0]), TINY, "1 of 3 seeds so far"),
        (a_batch([100, 101, 102], [9.0, None, 9.0], 1), TINY, "3 episodes did not finish"),
        (
            a_batch([100, 101, 102], [9.0, 9.0, 9.0]),
            dataclasses.replace(TINY, total_steps=64),
            "the row has changed",
        ),
    ],
)
def test_a_verdict_needs_every_seed_and_every_episode(batch, row, said):
    configuration = json.loads(json.dumps(TINY.configuration()))
    assert scores.verdict(row, Result(configuration, (batch,))) == said


# Resuming -----------------------------------------------------------------------------------------


def test_a_command_that_is_repeated_trains_what_is_missing(place, trained, monkeypatch):
    assert scores.main(["T", "--seeds", "2"]) == 0
    assert trained == [[100, 101]]
    assert scores.main(["T"]) == 0
    assert trained == [[100, 101], [102]]
    assert scores.main(["T"]) == 0
    assert len(trained) == 2  # nothing was missing
    assert scores.load(TINY).per_seed.tolist() == [100.0, 101.0, 102.0]
    assert scores.main(["T", "--again"]) == 0
    assert trained[2:] == [[100, 101], [102]]


def test_an_interruption_keeps_the_batches_before_it(place, trained, monkeypatch, capsys):
    whole = scores.train_batch

    def interrupted(row, seeds):
        if 102 in seeds:
            raise KeyboardInterrupt
        return whole(row, seeds)

    monkeypatch.setattr(scores, "train_batch", interrupted)
    assert scores.main(["T"]) == 130
    assert "2 seeds are saved" in capsys.readouterr().err
    assert scores.load(TINY).seeds == [100, 101]
    assert "2 of 3 seeds so far" in (place / "scores.md").read_text()
    monkeypatch.setattr(scores, "train_batch", whole)
    assert scores.main(["T"]) == 0
    assert trained == [[100, 101], [102]]
    assert [p.name for p in (place / "results").iterdir()] == ["T.json"]  # no half-written file


def test_results_of_two_configurations_are_not_mixed(place, trained, monkeypatch, capsys):
    assert scores.main(["T"]) == 0
    monkeypatch.setattr(scores, "ROWS", {"T": dataclasses.replace(TINY, total_steps=64)})
    assert scores.main(["T"]) == 1
    assert "--again replaces it" in capsys.readouterr().err
    assert len(trained) == 2
    assert scores.main(["T", "--again"]) == 0
    assert len(trained) == 4


@pytest.mark.thorough  # a change of the library is noticed by the tests of the library
def test_a_row_is_really_trained_and_scored(place, capsys):
    assert scores.main(["T", "--seeds", "2"]) == 0
    result = scores.load(TINY)
    assert [batch.seeds for batch in result.batches] == [[100, 101]]
    assert ((result.per_seed >= 1) & (result.per_seed <= 12)).all()
    assert result.unfinished == 0
    for batch in result.batches:
        assert batch.steps == [16, 32]
        assert batch.curve[-1] == batch.returns
        assert batch.versions["gymnax"]
    out = capsys.readouterr().out
    assert "T: ppo on gymnax/CartPole-v1, seeds 100 to 101, 32 steps each" in out
    assert f"reached: {scores.verdict(TINY, result).strip('*')}" in out


# The table and the command ------------------------------------------------------------------------


def test_the_table_stands_between_the_markers(place, trained):
    assert scores.main([]) == 0
    empty = (place / "scores.md").read_text()
    assert empty.startswith(f"before\n\n{scores.BEGIN}\n")
    assert empty.endswith(f"{scores.END}\n\nafter\n")
    assert "not measured" in empty
    assert "old" not in empty
    scores.main(["T"])
    lines = (place / "scores.md").read_text().splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if "| T " in line]
    assert cells[0] == [
        "T", "CartPole-v1, max_steps_in_episode 12", "PPO", "32", "3", "101.0 ± 0.8",
        "[98.5, 103.5]", "101.0", "[98.3, 103.7]", "100.0 (seed 100)", "5: nobody", "yes",
    ]  # fmt: skip
    assert cells[1] == [
        "T", "`python -m benchmarks.scores T --again`", "2026-01-02", "2 CPU cores", "3 s",
        "python 3.11.7, jax 0.10.2",
    ]  # fmt: skip
    tables = [line.count("|") for line in lines if line.startswith("|")]
    assert tables == [13] * 3 + [7] * 3


def test_as_many_seeds_at_once_as_one_says(place, trained):
    assert scores.main(["T", "--at-once", "3"]) == 0
    assert trained == [[100, 101, 102]]


@pytest.mark.parametrize(
    ("batches", "options"),
    [
        ([[100, 101], [102]], ""),
        ([[100, 101, 102]], " --at-once 3"),
        ([[100, 101], [102, 103]], " --seeds 4"),
        ([[100]], " --seeds 1"),
    ],
)
def test_the_command_that_repeats_a_row_has_its_options(place, batches, options):
    result = Result({}, tuple(a_batch(seeds, [1.0] * len(seeds)) for seeds in batches))
    assert f"`python -m benchmarks.scores T --again{options}`" in scores.table({"T": result})


def test_a_wrong_word_is_named(place, capsys):
    for argv, said in (
        (["S99"], "unknown row 'S99'"),
        (["T", "--seeds", "0"], "--seeds is 0: it must be at least 1"),
        (["T", "--at-once", "0"], "--at-once is 0: it must be at least 1"),
    ):
        with pytest.raises(SystemExit, match="2"):
            scores.main(argv)
        assert said in capsys.readouterr().err


def test_a_row_for_gpus_waits_for_one(place, trained, monkeypatch, capsys):
    monkeypatch.setattr(scores, "ROWS", {"T": dataclasses.replace(TINY, needs_gpu=True)})
    assert scores.main(["T"]) == 1
    assert "needs a GPU" in capsys.readouterr().err
    assert trained == []
    assert scores.main(["T", "--force"]) == 0
    assert trained


# The rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows.ROWS.values(), ids=list(rows.ROWS))
def test_a_row_keeps_to_the_protocol(row):
    assert row.num_eval_episodes >= (300 if "Pendulum" in row.env else 100)
    agent = scores.agent_of(row)
    for name, value in row.hyper.items():
        assert (getattr(agent, name) is None) == (value is None)


def test_the_first_row_is_the_published_configuration():
    import jaxrl

    agent = scores.agent_of(rows.ROWS["S1"])
    schedule = jaxrl.schedules.Linear(2.5e-4, 0.0)
    assert agent == jaxrl.agents.PPO(learning_rate=schedule)


def test_the_score_table_trains_by_presets():
    """So a score in the docs is what `jaxrl train` gives, but for rows with their own settings."""
    own = {
        row.id for row in rows.ROWS.values()
        if {k: x for k, x in preset(row.algorithm, row.env).items() if k in row.hyper
            and x != "none"} != {k: x for k, x in row.hyper.items() if x is not None}
    }  # fmt: skip
    blind = ("cartpole", "cartpole-a2c", "cartpole-trpo", "pendulum", "chain")
    memory = {f"S15-{x}{y}" for x in blind for y in ("", "-blind")}
    assert own == {
        "S5-c51",
        "S6",
        "S11",
        "S21-cma",
        *memory,
    }  # memory: environments of the benchmark alone
