"""Speed against size: what is measured, what is kept, what is left out, and the figure."""

import dataclasses
import json
import sys

import pytest

from benchmarks import growth
from benchmarks.growth import AXES, Point
from benchmarks.throughput import HERE
from benchmarks.workloads import Workload

TINY = {
    "environments": dataclasses.replace(AXES["environments"], values=(1, 4, 16)),
    "width": dataclasses.replace(AXES["width"], values=(16, 32)),
}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The points that are asked for, at a made-up speed, in a directory of its own."""
    asked = []

    def measure(point, python, path, seconds):
        asked.append((point.axis, point.program, point.value))
        return [1e6 * point.value, 3e6 * point.value, 2e6 * point.value]

    monkeypatch.setattr(growth, "measure", measure)
    monkeypatch.setattr(growth, "AXES", TINY)
    monkeypatch.setattr(growth, "RESULTS", tmp_path / "results" / "growth.json")
    monkeypatch.setattr(growth, "FIGURE", tmp_path / "docs" / "growth.png")
    monkeypatch.setattr(growth, "machine", lambda: "an abacus")
    monkeypatch.setattr(growth, "draw", lambda there, here: None)  # takes a second
    return asked


def test_a_repeated_command_measures_what_is_missing_or_has_changed(measured, monkeypatch):
    growth.main(["environments", "--at-most", "4"])
    assert measured == [("environments", "jaxrl", 1), ("environments", "jaxrl", 4)]
    measured.clear()
    growth.main(["environments", "width"])
    assert measured == [
        ("environments", "jaxrl", 16), ("width", "jaxrl", 16), ("width", "jaxrl", 32)
    ]  # fmt: skip
    measured.clear()
    growth.main([])
    assert measured == []
    point = growth.load()["an abacus"]["environments, jaxrl, 4"]
    assert point["steps_per_second"] == [4e6, 12e6, 8e6]
    assert point["work"]["num_envs"] == 4
    # Other settings, another machine, or on request.
    more = dataclasses.replace(TINY["width"], work=lambda n: Workload("ppo", 2, 2, 3, width=n))
    monkeypatch.setitem(TINY, "width", more)
    growth.main([])
    assert measured == [("width", "jaxrl", 16), ("width", "jaxrl", 32)]
    measured.clear()
    growth.main(["width", "--again"])
    assert len(measured) == 2
    monkeypatch.setattr(growth, "machine", lambda: "another")
    growth.main(["width"])
    assert len(measured) == 4


def test_a_figure_needs_no_point_of_every_axis(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "FIGURE", tmp_path / "docs" / "growth.png")
    point = {"steps_per_second": [1.0, 3.0, 2.0], "versions": {"jax": "0.0"}}
    there = {Point("width", "jaxrl", value).name: point for value in (16, 64)}
    growth.draw(there, "an abacus")
    assert growth.FIGURE.stat().st_size > 10_000


def test_peers_are_measured_where_they_can_be(measured):
    growth.main(["--peer-python", "python"])
    assert {(axis, program) for axis, program, _ in measured} == {
        (axis, program) for axis in TINY for program in ("jaxrl", "rejax")
    }
    measured.clear()
    growth.main(["--peer-python", "python", "--peer-path", "somewhere"])
    assert {(axis, program) for axis, program, _ in measured} == {("environments", "purejaxrl")}


def test_what_fails_is_skipped_by_name(measured, monkeypatch, capsys):
    whole = growth.measure

    def fails(point, *others):
        if point.value == 4:
            raise RuntimeError("out of memory")
        return whole(point, *others)

    monkeypatch.setattr(growth, "measure", fails)
    growth.main(["environments"])
    assert "environments, jaxrl, 4: skipped (out of memory)" in capsys.readouterr().err
    assert list(growth.load()["an abacus"]) == ["environments, jaxrl, 1", "environments, jaxrl, 16"]


def test_nothing_larger_than_what_is_too_slow(measured, monkeypatch, capsys):
    """At 1,000 steps a second, 50,000 steps take more than 20 seconds."""
    monkeypatch.setattr(growth, "measure", lambda point, *_: [1e6 if point.value == 1 else 1e3])
    for _ in range(2):
        growth.main(["environments"])
        assert "environments, jaxrl, 16: left out" in capsys.readouterr().out
    assert list(growth.load()["an abacus"]) == ["environments, jaxrl, 1", "environments, jaxrl, 4"]


@pytest.mark.parametrize("words", [["widht"], ["--draw"]])
def test_a_wrong_axis_or_an_empty_figure_is_an_error(measured, words, capsys):
    with pytest.raises(SystemExit):
        growth.main(words)
    assert (
        "no axis is called 'widht'" if words == ["widht"] else "no point has been measured"
    ) in (capsys.readouterr().err)


@pytest.mark.parametrize("axis", AXES)
def test_a_run_has_a_bounded_number_of_steps(axis):
    """And at least two iterations, but for the total steps, where the value says it."""
    for value in AXES[axis].values:
        work = Point(axis, "jaxrl", value).work
        iteration = work.num_envs * work.num_steps * work.num_seeds
        assert work.env_steps <= max(2 * iteration, 3_000_000)
        assert work.num_iterations >= (1 if axis == "steps" else 2)
        assert axis != "steps" or work.env_steps == value


def test_a_worker_is_given_its_workload(monkeypatch):
    """Sizes that no row of the comparison has, as JSON."""
    import jaxrl

    monkeypatch.syspath_prepend(HERE)  # where a script of that directory would look
    import worker

    seen = []
    monkeypatch.setattr(jaxrl, "train", lambda agent, *_, **__: seen.append(agent))
    work = Point("width", "jaxrl", 256).work
    again = Workload(**json.loads(json.dumps(dataclasses.asdict(work))))
    worker.jaxrl_agent(again)(None)
    assert (seen[0].hidden_sizes, seen[0].num_envs, seen[0].num_steps) == ((256, 256), 64, 32)


@pytest.mark.thorough
def test_a_point_of_jaxrl_is_measured(monkeypatch):
    """The smallest work there is, in a process of its own."""
    axis = dataclasses.replace(AXES["width"], work=lambda n: Workload("ppo", 4, 8, 1, width=n))
    monkeypatch.setitem(AXES, "width", axis)
    speeds = growth.measure(Point("width", "jaxrl", 4), sys.executable, "", 0.0)
    assert len(speeds) == 1
    assert speeds[0] > 0
