"""Comparison of runs: pooling, curves, tables and plots."""

import json
import warnings

import matplotlib.image
import numpy as np
import pytest
from helpers.commands import run_in_process

from jaxrl.analysis import comparison
from jaxrl.analysis.curves import read_curves
from jaxrl.analysis.plots import learning_curves

CONFIG = {
    "schema_version": 2, "algorithm": "ppo", "environment": "gymnax/CartPole-v1",
    "environment_parameters": {}, "total_steps": 30,
    "hyper_parameters": {"learning_rate": 1e-3, "discount": 0.99},
}  # fmt: skip


def make_run(path, returns, *, steps=(10, 20, 30), seed=0, points=None, hyper=None, **config):
    """A run directory with `returns[evaluations][members]`."""
    path.mkdir()
    members = [{"seed": seed + i} for i in range(np.shape(returns)[1])]
    if points:
        members = [{"seed": seed, **point} for point in points]
    hyper = CONFIG["hyper_parameters"] | (hyper or {})
    content = {**CONFIG, "hyper_parameters": hyper, "seeds": [m["seed"] for m in members], **config}
    if points:
        content["points"] = points
    (path / "config.json").write_text(json.dumps(content))
    rows = [
        {"step": step, **member, "return_mean": value, "train_seconds": step / 10, "loss": 1.0}
        for step, row in zip(steps, returns, strict=True)
        for member, value in zip(members, row, strict=True)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


RETURNS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]


def test_seeds_of_one_configuration_are_one_group(tmp_path):
    """Also across runs, at common steps; options that do not affect training do not matter."""
    a = make_run(tmp_path / "a", RETURNS)
    b = make_run(tmp_path / "b", RETURNS[:2], steps=(10, 30), seed=3, device="other", time_budget=9)
    (curve,) = read_curves([a, b])
    assert (curve.label, curve.algorithm, curve.environment) == ("ppo", "ppo", "gymnax/CartPole-v1")
    np.testing.assert_array_equal(curve.steps, [10, 30])
    np.testing.assert_array_equal(curve.seconds, [1.0, 3.0])
    np.testing.assert_array_equal(curve.values, [[1, 2, 3, 1, 2, 3], [7, 8, 9, 4, 5, 6]])
    np.testing.assert_array_equal(curve.final, [7, 8, 9, 4, 5, 6])


def test_groups_are_named_by_what_differs(tmp_path):
    a = make_run(tmp_path / "a", RETURNS)
    b = make_run(tmp_path / "b", RETURNS, hyper={"learning_rate": 3e-4})
    schedule = {"linear": {"start": 1e-3, "end": 0.0, "share": 1.0}}
    c = make_run(tmp_path / "c", RETURNS, hyper={"learning_rate": schedule})
    d = make_run(tmp_path / "d", RETURNS, algorithm="dqn", hyper={"tau": 0.1})
    e = make_run(tmp_path / "e", RETURNS, environment_parameters={"length": 0.7})
    assert [g.label for g in read_curves([a, b, c])] == [
        "learning_rate=0.001", "learning_rate=0.0003", "learning_rate=linear:0.001:0:1",
    ]  # fmt: skip
    assert [g.label for g in read_curves([a, d])] == ["ppo", "dqn"]
    assert [g.label for g in read_curves([a, e])] == ["ppo", "length=0.7"]
    assert [g.label for g in read_curves([a, b, d])] == ["ppo (1)", "ppo (2)", "dqn"]


def test_points_of_a_sweep_are_groups(tmp_path):
    points = [{"learning_rate": 1e-3}, {"learning_rate": 1e-2}]
    a = make_run(tmp_path / "a", [[1.0, 2.0], [3.0, 4.0], [5.0, None]], points=points)
    first, second = read_curves([a])
    assert (first.label, second.label) == ("learning_rate=0.001", "learning_rate=0.01")
    np.testing.assert_array_equal(first.values, [[1.0], [3.0], [5.0]])
    np.testing.assert_array_equal(second.values, [[2.0], [4.0], [np.nan]])


def test_what_cannot_be_read_is_named(tmp_path):
    a = make_run(tmp_path / "a", RETURNS)
    (tmp_path / "empty").mkdir()
    b = make_run(tmp_path / "b", np.zeros((0, 1)), steps=())
    for words, message in (
        (["plot", tmp_path / "none"], "none is not a run: there is no such directory"),
        (["compare", a, tmp_path / "empty"], "empty is not a run: it has no config.json"),
        (["plot", b], "b has no evaluation yet"),
        (["plot", a, "--metric", "los"], "has no 'los': it has step, return_mean"),
        (["plot", a, "--out", tmp_path / "x.nothing"], "cannot write"),
        (["plot", a, "--out", tmp_path / "none" / "x.png"], "cannot write"),
    ):
        status, _, err = run_in_process(*words)
        assert status == 2
        assert len(err) == 1
        assert message in err[0]


def test_the_table_has_the_right_numbers(tmp_path):
    a = make_run(tmp_path / "a", RETURNS)
    b = make_run(tmp_path / "b", np.array(RETURNS) + 1.0, hyper={"discount": 0.9})
    c = make_run(tmp_path / "c", [[1.0], [2.0], [3.5]], environment="jaxrl/corridor")
    status, out, _ = run_in_process("compare", a, b, c, "--goal", 8.5)
    assert status == 0
    head, env, first, second, other, third, few = out
    assert head.split() == ["seeds", "steps", "mean", "median", "IQM", "optimality", "gap",
                            "P(better", "than", "first)", "training"]  # fmt: skip
    assert env == "gymnax/CartPole-v1"
    assert first.split()[:4] == ["discount=0.99", "3", "30", "8.0"]
    # (1.5 + 0.5 + 0) / 3; the bootstrap's upper end is 1.5, a resample of one seed alone: 1 in 27;
    # expanded 2.69 times, t / z * sqrt(3 / 2): 0.67 + 2.69 * (1.5 - 0.67). No gap is below 0.
    assert "0.7 [0.0, 2.9]" in first
    assert "8.0 [5.5, 10.5]" in first  # Student's of 7, 8, 9: 4.30 / sqrt(3) on each side
    # 8, 9, 10 against 7, 8, 9: of nine pairs six are better and two are ties
    assert "0.78 [" in second
    assert other == "jaxrl/corridor"
    assert third.split()[-3:] == ["5.0", "3.0", "s"]
    assert few.startswith("fewer than three seeds are too few for an interval: ")


def test_what_ended_a_run_is_not_compared(tmp_path):
    """The evaluation on new episodes is compared instead; the curve is unchanged."""
    a, b = (make_run(tmp_path / name, RETURNS) for name in "ab")
    final = {"per_seed": [6.0, None, 8.5], "afresh": True}
    for path, steps in ((a, 90), (b, 60)):
        summary = {"env_steps": steps, "final_return": final}
        (path / "summary.json").write_text(json.dumps(summary))
    (ended,), (went_on,) = read_curves([a]), read_curves([b])
    np.testing.assert_array_equal(ended.final, [6.0, np.nan, 8.5])
    np.testing.assert_array_equal(ended.values[-1], [7.0, 8.0, 9.0])
    np.testing.assert_array_equal(went_on.final, [7.0, 8.0, 9.0])
    (other,) = read_curves([a], "loss")
    np.testing.assert_array_equal(other.final, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("num_seeds", [1, 5])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_every_picture_can_be_drawn(tmp_path, num_seeds, num_envs):
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(3, num_seeds))
    returns[1, 0] = np.nan
    runs = [
        make_run(tmp_path / f"{i}{j}", np.where(np.isnan(returns), None, returns + j).tolist(),
                 environment=f"lab/{i}", hyper={"discount": 0.1 * j})
        for i in range(num_envs) for j in range(12)
    ]  # fmt: skip
    curves = read_curves(runs)
    with warnings.catch_warnings(action="error"):
        learning_curves(curves, tmp_path / "curves.png")
        comparison.draw(curves, tmp_path / "compare.png")
    for name in ("curves", "compare"):
        picture = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert picture.shape[1] == 1200
        assert picture.std() > 0.01
