"""`jaxrl sweep`: points, splitting, results and resuming."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from helpers.commands import run_in_process

from jaxrl.analysis import sweep_report
from jaxrl.analysis.curves import read_curves
from jaxrl.cli.command_line import parse_command_line
from jaxrl.cli.parsing import HYPER
from jaxrl.cli.sweep import points_of, sweep_of, sweep_of_words
from jaxrl.cli.train import run_config_of, train_agent
from jaxrl.registry import algorithms
from jaxrl.runs import sweeps
from jaxrl.runs.directory import plain, read_config, read_metrics
from jaxrl.runs.programs import Programs, memory_of
from jaxrl.value_text import ScheduleText

pytestmark = pytest.mark.thorough

ENV = "jaxrl/corridor"
BASE = ("sweep", "ppo", ENV)
SMALL = [
    *("--num-envs", 2, "--num-minibatches", 2, "--hidden-sizes", 4, "--total-steps", 64),
    *("--num-evaluations", 1, "--num-eval-episodes", 2, "--no-tensorboard"),
]


def points(*words):
    options = parse_command_line([*BASE, *map(str, words)])
    return points_of(options, algorithms()["ppo"])


def test_a_grid_is_every_combination_of_values_of_every_kind():
    found = points("--grid", "learning-rate=1e-3,1e-4", "--grid", "clip_value=true,false",
                   "--grid", "hidden_sizes=64,64/8", "--grid", "core=none,gru")  # fmt: skip
    assert len(found) == 16
    assert found[0] == {
        "learning_rate": 1e-3, "clip_value": True, "hidden_sizes": (64, 64), "core": "none",
    }  # fmt: skip
    assert found[1]["core"] == "gru"
    assert len({str(point) for point in found}) == 16


def test_random_points_lie_in_their_ranges_and_belong_to_their_seed():
    words = ["--random", 2000, "--range", "learning_rate=1e-5:1e-1:log",
             "--range", "discount=0.9:1", "--grid", "num_steps=16,32"]  # fmt: skip
    found = points(*words)
    assert found == points(*words)
    assert found != points(*words, "--seed", 1)
    rates = np.log10([point["learning_rate"] for point in found])
    assert (rates.min(), rates.max()) == pytest.approx((-5, -1), abs=0.05)
    np.testing.assert_allclose(np.quantile(rates, [0.25, 0.5, 0.75]), [-4, -3, -2], atol=0.15)
    discounts = [point["discount"] for point in found]
    np.testing.assert_allclose(np.mean(discounts), 0.95, atol=0.003)
    np.testing.assert_allclose(np.mean([point["num_steps"] for point in found]), 24, atol=0.8)


def test_one_program_for_each_choice_that_vmap_cannot_batch():
    schedule = ScheduleText("linear", (1e-3, 0.0))
    found = sweeps.split(
        sweeps.grid({
            "learning_rate": [1e-3, 1e-4, schedule], "target_kl": [None, 0.1, 0.2],
            "num_steps": [16, 32],
        }),
        ["learning_rate", "target_kl"],
    )  # fmt: skip
    sizes = {json.dumps([str(fixed)]): len(rest) for fixed, rest in found}
    # num_steps x (numbers or the schedule) x (none or numbers)
    assert sorted(sizes.values()) == [1, 1, 2, 2, 2, 2, 4, 4]
    assert {"learning_rate": schedule, "num_steps": 16, "target_kl": None} in [f for f, _ in found]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to sweep: add, for example, --grid"),
        (["--grid", "learning_rate"], "--grid learning_rate: write NAME=VALUE,VALUE"),
        (["--grid", "learning_rat=1"], "no hyper-parameter 'learning_rat': did you mean learning_"),
        (["--grid", "learning_rate=1,x"], "--grid learning_rate: 'x' is not a number"),
        (["--grid", "learning_rate=1,1.0"], "a value is repeated"),
        (["--grid", "core=gruu"], "'gruu' is not one of none, gru, lstm"),
        (["--grid", "clip_value=yes"], "'yes' is neither true nor false"),
        (["--grid", "discount=.9", "--grid", "discount=.8"], "given twice"),
        (["--range", "discount=0.9:1"], "--range needs --random N"),
        (["--range", "discount=0.9", "--random", 3], "write NAME=LOW:HIGH or NAME=LOW:HIGH:log"),
        (["--range", "discount=1:0.9", "--random", 3], "LOW must be below HIGH"),
        (["--range", "discount=0:0.9:log", "--random", 3], "above 0 with log"),
        (["--range", "num_steps=1:9", "--random", 3], "num_steps is not a real number"),
        (
            ["--grid", "discount=0.9", "--range", "discount=0:1", "--random", 2],
            "both give discount",
        ),
        (["--grid", "num_steps=16,33", "--num-envs", 3], "num_minibatches is 4, which does not"),
        (
            ["--grid", "discount=0.9", "--max-memory", 0],
            "0 is too small: give a positive number of GiB",
        ),
        (["--gird", "discount=0.9"], "there is no flag '--gird': did you mean --grid"),
    ],
)
def test_mistakes_are_one_line(tmp_path, words, message):
    status, _, err = run_in_process(*BASE, *words, "--sweep-dir", tmp_path / "sweep")
    assert status == 2
    assert len(err) == 1
    assert message in err[0]
    assert not (tmp_path / "sweep").exists()


def test_what_is_stored_is_what_was_asked():
    """Points of all kinds; the words of an older sweep.json give the same sweep."""
    words = [*BASE, "--grid", "learning_rate=linear:1e-3:0,1e-4", "--grid", "hidden_sizes=64,64/8",
             "--grid", "clip_value=true,false", "--grid", "target_kl=none,0.1", "--no-preset",
             "--max-memory=2", "--confirm-seeds=3", "--seed=4", "--seeds=2", "--pool-size=70",
             "--env-param=num_cells=7", "--entropy-coefficient=cosine:0.1:0"]  # fmt: skip
    asked = sweep_of(parse_command_line(words))
    assert len(asked.points) == 16
    content = json.loads(json.dumps(plain(asked.content())))
    assert sweeps.Sweep.of_content(content, Path("sweep")) == asked
    assert sweep_of_words(words) == asked


def test_a_file_of_another_kind_is_no_sweep(tmp_path):
    for content in ("{}", '{"config": {}}', "["):
        (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(ValueError, match=f"{tmp_path} is not a sweep: "):
            sweeps.SweepDirectory(tmp_path).read()


SWEPT = [*BASE, "--grid", "num_steps=16", "--grid", "learning_rate=1e-3,1e-2,1e-1",
         "--grid", "activation=tanh,relu", "--seeds", 2, *SMALL]  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two programs, the second split into two runs by memory; three runs of two seeds."""
    path = tmp_path_factory.mktemp("sweeps") / "sweep"
    status, out, err = run_in_process(*SWEPT, "--sweep-dir", path)
    assert (status, err) == (0, [])
    return path, out


def test_a_sweep_leaves_runs_a_ranking_and_a_picture(swept):
    path, out = swept
    assert sorted(p.name for p in path.iterdir()) == [
        "000", "001", "results.json", "sweep.json", "sweep.png",
    ]  # fmt: skip
    assert out[1] == f"6 points x 2 seeds, 2 programs, into {path}"
    results = json.loads((path / "results.json").read_text())
    assert len(results) == 6
    means = [row["return_mean"] for row in results]
    assert means == sorted(means, reverse=True)
    by_run = {}
    for run in ("000", "001"):
        hyper = read_config(path / run)["hyper_parameters"]
        for row in read_metrics(path / run):
            key = (hyper["activation"], row["learning_rate"])
            by_run.setdefault(key, []).append(row["return_mean"])
    for row in results:
        assert by_run[row["activation"], row["learning_rate"]] == row["per_seed"]
    ranked = [line.split() for line in out if line.strip()[:1].isdigit() and ". " in line]
    assert [float(words[4]) for words in ranked[-6:]] == pytest.approx(means, abs=0.06)
    assert results[0]["best_of"] == 6
    assert any("best of 6 on the same seeds that selected it" in line for line in out)
    (proposed,) = (line for line in out if line.startswith("On fresh seeds: "))
    options = parse_command_line(shlex.split(proposed)[4:])
    assert (options.run, options.env, options.seed, options.seeds) == (train_agent, ENV, 2, 5)
    chosen = {name.removeprefix(HYPER): x for name, x in vars(options).items()}
    assert {name: chosen[name] for name in ("learning_rate", "activation", "num_steps")} == {
        name: results[0][name] for name in ("learning_rate", "activation", "num_steps")
    }
    assert (chosen["num_envs"], options.total_steps) == (2, 64)  # as in the sweep
    picture = matplotlib.image.imread(path / "sweep.png")
    assert picture.std() > 0.01
    assert len(read_curves([path / "000", path / "001"])) == 6


def test_a_sweep_goes_on_with_what_is_missing(swept, tmp_path):
    """Of two runs, one is deleted: only that one is trained again, with the same result."""
    path, _ = swept
    again = tmp_path / "again"
    shutil.copytree(path, again)
    shutil.rmtree(again / "001")
    before = (again / "000" / "summary.json").stat().st_mtime_ns
    status, more, err = run_in_process("resume", again)
    assert (status, err) == (0, [])
    assert (again / "000" / "summary.json").stat().st_mtime_ns == before
    assert not any(line.startswith("000:") for line in more)
    assert any(line.startswith("001: ") for line in more)
    assert (again / "results.json").read_text() == (path / "results.json").read_text()
    status, _, err = run_in_process(*BASE, "--grid", "discount=0.9", "--sweep-dir", again)
    assert status == 2
    assert err == [f"jaxrl: error: {again} contains a sweep: resume it with jaxrl resume {again}"]
    status, _, err = run_in_process("resume", again, "--total-steps", 999)
    assert status == 2
    assert "--total-steps is for single runs" in err[0]
    stored = json.loads((again / "sweep.json").read_text())
    of_older = {"words": [str(word) for word in SWEPT], "batches": stored["batches"]}
    (again / "sweep.json").write_text(json.dumps(of_older))
    (again / "results.json").unlink()
    status, more, err = run_in_process("resume", again)
    assert (status, err) == (0, [])
    assert not any(line.startswith(("000:", "001:")) for line in more)
    assert (again / "results.json").read_text() == (path / "results.json").read_text()


def test_the_best_point_is_trained_again_with_fresh_seeds(tmp_path):
    path = tmp_path / "sweep"
    words = ["--grid", "learning_rate=1e-2", "--seed", 7, "--confirm-seeds", 3,
             "--sweep-dir", path, "--num-steps", 16, *SMALL]  # fmt: skip
    status, out, err = run_in_process(*BASE, *words)
    assert (status, err) == (0, [])
    best = json.loads((path / "results.json").read_text())[0]
    confirmed = read_config(path / "confirmed")
    assert confirmed["seeds"] == [8, 9, 10]  # not 7, by which it was chosen
    assert confirmed["hyper_parameters"]["learning_rate"] == best["learning_rate"]
    assert not any("On fresh seeds:" in line for line in out)
    shutil.rmtree(path / "confirmed")
    status, out, _ = run_in_process("resume", path)
    assert status == 0
    assert sum("compiled in" in line for line in out) == 1
    assert read_config(path / "confirmed")["seeds"] == [8, 9, 10]


def test_a_point_of_which_a_seed_diverged_ranks_after_whole_ones():
    def outcome(returns, diverged=()):
        return sweep_report.Outcome({}, Path("000"), np.array(returns), diverged)

    whole, poor = outcome([1.0, 2.0]), outcome([0.0, 1.0])
    lost, gone = outcome([np.nan, 9.0], (0,)), outcome([np.nan, np.nan], (0, 1))
    unfinished = outcome([5.0, np.nan])
    assert (lost.mean, whole.mean) == (9.0, 1.5)
    every = [gone, unfinished, lost, poor, whole]
    assert sorted(every, key=lambda x: x.rank)[:3] == [whole, poor, lost]
    head, first, second = sweep_report.table([whole, lost]).splitlines()
    assert head.split()[-6:] == ["run", *["seeds", "that", "did", "not", "diverge"]]
    assert [line.split()[-3:] for line in (first, second)] == [["2", "of", "2"], ["1", "of", "2"]]


def test_a_run_that_diverges_ends_no_sweep(tmp_path):
    path = tmp_path / "sweep"
    words = [
        *BASE,
        "--grid",
        "learning_rate=linear:1e38:1e38,1e-3",
        "--grid",
        "num_steps=16",
        *SMALL,
    ]
    status, out, err = run_in_process(*words, "--seeds", 2, "--sweep-dir", path)
    assert (status, err) == (0, [])
    assert any("diverged in iteration" in line for line in out)
    results = json.loads((path / "results.json").read_text())
    assert [row["return_mean"] is None for row in results] == [False, True]
    status, out, _ = run_in_process("resume", path)
    assert status == 0
    assert not any("compiled in" in line for line in out)


def test_a_point_that_is_drawn_twice_is_there_once():
    assert len(points("--random", 50, "--grid", "activation=tanh,relu")) == 2


def test_a_program_that_is_too_large_is_split(swept):
    path, _ = swept
    options = parse_command_line([*BASE, "--grid", "learning_rate=1e-3,1e-2,1e-1,1",
                                      *map(str, SMALL)])  # fmt: skip
    run_config = run_config_of(options)
    found = points("--grid", "learning_rate=1e-3,1e-2,1e-1,1")
    assert sweeps.batches(run_config, found, 2**40) == [found]
    assert sweeps.batches(run_config, found, 1) == [[point] for point in found]
    programs = Programs(dataclasses.replace(run_config, points=tuple(found)).build())
    whole = sum(memory_of(programs.chunk))
    assert sweeps.batches(run_config, found, whole - 1) == [found[:2], found[2:]]
    stored = json.loads((path / "sweep.json").read_text())["batches"]
    assert [[len(part) for part in stored[curve]] for curve in ("0", "1")] == [[3], [3]]


@pytest.mark.parametrize("kind", ["one", "grid", "three", "random", "words", "nan"])
def test_every_sweep_can_be_drawn(tmp_path, kind):
    rng = np.random.default_rng(0)
    found = {
        "one": sweeps.grid({"a": [1.0, 2.0, 3.0]}),
        "grid": sweeps.grid({"a": [1.0, 2.0], "b": [0.1, 0.2, 0.3]}),
        "three": sweeps.grid({"a": [1, 2], "b": [True, False], "c": ["x", "y", "z"]}),
        "random": [{"a": 10.0 ** rng.uniform(-5, -1), "b": rng.uniform()} for _ in range(30)],
        "words": sweeps.grid({"a": [(64, 64), (8,)], "b": [None, 0.5]}),
        "nan": sweeps.grid({"a": [1.0, 2.0], "b": [0.1, 0.2]}),
    }[kind]
    returns = [rng.normal(size=3) * (np.nan if kind == "nan" else 1.0) for _ in found]
    outcomes = [sweep_report.Outcome(p, tmp_path, r) for p, r in zip(found, returns, strict=True)]
    sweep_report.draw(outcomes, tmp_path / "sweep.png", title=kind)
    assert matplotlib.image.imread(tmp_path / "sweep.png").std() > 0.01
    assert len(sweep_report.table(outcomes).splitlines()) == 1 + len(found)
