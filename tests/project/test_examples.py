"""The examples run at a small size, and their output is correct."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from helpers import quick
from helpers.paths import ROOT

pytestmark = pytest.mark.thorough

EXAMPLES = ROOT / "examples"


def run(*arguments, code=0, before=""):
    """The output of an example; `before` is Python code to run first."""
    name, *options = map(str, arguments)
    path = EXAMPLES / f"{name}.py"
    program = (
        f"{before}\nimport runpy, sys; sys.argv = {[str(path), *options]!r}; "
        f"runpy.run_path({str(path)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **quick.environment()},
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def numbers(line):
    return [float(x) for x in re.findall(r"-?\d[\d,]*\.?\d*(?:e-\d+)?", line.replace(",", ""))]


def test_custom_env_learns():
    first, *lines = run("custom_env", "--total-steps", 30_000).splitlines()
    assert first == "Docking satisfies the environment contract"
    steps, means, worst = zip(*map(numbers, lines), strict=True)
    assert len(lines) == 10
    assert steps[-1] >= 30_000
    assert all(w <= m <= 0.0 for w, m in zip(worst, means, strict=True))
    assert means[-1] > means[0]


def test_own_simulator_learns():
    lines = run("own_simulator", "--total-steps", 40_000, "--actor-lag", 1).splitlines()
    _, returns = zip(*map(numbers, lines), strict=True)
    assert len(lines) == 5
    assert returns[-1] > returns[0]
    assert returns[-1] > -5.0  # a valve that is always half open earns -50


def test_custom_agent_learns():
    lines = run("custom_agent", "--total-steps", 60_000, "--seeds", 2).splitlines()
    assert len(lines) == 10
    assert min(numbers(lines[-1])[1:]) > 100.0  # a random policy stays up for 20 steps


def test_in_your_project_finds_the_way_through_the_door():
    out = run("in_your_project", "--total-steps", 40_000, "--rooms", 2)
    lines = out.splitlines()
    lengths = [numbers(line)[1] for line in lines[:2]]
    assert all(6.0 <= length <= 50.0 for length in lengths)
    best = int(numbers(lines[2])[0])
    assert lengths[best] == min(lengths)
    room = [line.split() for line in lines[3:]]
    assert len(room) == 7
    assert room[best][3] != "#"
    assert sum(row[3] == "#" for row in room) == 6
    assert any(row[0] == "o" for row in room)


def test_sweep_names_the_best_of_its_table(tmp_path):
    picture = tmp_path / "sweep.png"
    out = run("sweep", "--total-steps", 1024, "--seeds", 2, "--plot", picture)
    lines = out.splitlines()
    assert "32 agents" in lines[0]
    table = {numbers(line)[0]: numbers(line)[1:] for line in lines[2:6]}
    assert list(table) == [1e-4, 3e-4, 1e-3, 3e-3]
    assert [len(row) for row in table.values()] == [4] * 4
    rate, clip, best = numbers(lines[6])[:3]
    assert best == max(map(max, table.values())) == table[rate][[0.1, 0.2, 0.3, 0.4].index(clip)]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(importlib.util.find_spec("brax") is None, reason="needs brax")
def test_domain_randomisation_evaluates_three_masses():
    out = run("domain_randomisation", "--total-steps", 4096, "--max-steps", 20)
    lines = out.splitlines()
    assert "64 copies of brax/inverted_pendulum" in lines[0]
    returns = {numbers(line)[0]: numbers(line)[1] for line in lines[-3:]}
    assert list(returns) == [0.5, 1.0, 2.0]
    assert all(1.0 <= r <= 20.0 for r in returns.values())  # one for each step upright


def test_domain_randomisation_reports_missing_brax():
    error = run("domain_randomisation", code=1, before="import sys; sys.modules['brax'] = None")
    assert error.strip() == "brax/inverted_pendulum needs brax: pip install 'jaxrl[brax]'"


def test_demonstrations_are_surpassed():
    lines = run("demonstrations").splitlines()
    data, clone, learned = (numbers(line)[-1] for line in lines)
    assert lines[2].startswith("IQL")
    assert learned > 2 * max(data, clone)


def test_offline_finds_the_best_actions():
    lines = run("offline", "--fits", 40).splitlines()
    fitted, exact = (line.split(":")[1].split() for line in lines[1:3])
    assert fitted == exact
    assert len(exact) == 8
    error, largest = numbers(lines[3])
    assert 0.0 <= error < 0.1 * largest
