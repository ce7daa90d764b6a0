"""The comparison of speeds: what runs, what is skipped and why, what is divided by what."""

import sys

import jax
import pytest

from benchmarks import throughput
from benchmarks.throughput import Worker, factors, measure
from benchmarks.workloads import WORKLOADS


def row(program, speed, parameters=10):
    return {
        "program": program, "steps_per_second": speed, "parameters": parameters, "env_steps": 5
    }  # fmt: skip


def test_factors_are_of_jaxrl_wherever_it_stands():
    rows = [row("rejax", 2.0), row("jaxrl", 6.0), row("sb3", 3.0, parameters=11)]
    assert factors(rows) == [("jaxrl", "rejax", 3.0, True), ("jaxrl", "sb3", 2.0, False)]
    pairs = [(own, peer) for own, peer, *_ in factors([*rows, row("jaxrl-devices", 8.0)])]
    assert sorted(set(pairs)) == [
        (own, peer) for own in ("jaxrl", "jaxrl-devices") for peer in ("rejax", "sb3")
    ]


def test_no_peer_passes_for_jaxrl():
    assert factors([row("rejax", 2.0), row("sb3", 3.0)]) == []
    assert factors([]) == []


# Workers ------------------------------------------------------------------------------------------

FAKE = """
import json, sys
print("a line that is none of ours")
print("{'nor': 'is this one'}")
print(json.dumps({"env_steps": 60, "trace_seconds": 1.0, "compile_seconds": 2.0, "parameters": 3}))
sys.stdout.flush()
for number, line in enumerate(sys.stdin):
    run = line.startswith("run")
    print(json.dumps({"seconds": [9.0, 1.0, 2.0, 4.0][number]} if run else {"peak_mib": 5.0}))
    sys.stdout.flush()
    if not run:
        break
"""


@pytest.fixture
def interpreter(tmp_path):
    """Writes an "interpreter" that runs a program of ours, whatever it is asked to run."""

    def write(name, program):
        (tmp_path / f"{name}.py").write_text(program)
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{tmp_path / name}.py'\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_the_median_leaves_the_first_run_out(interpreter):
    (found,) = measure("P3", {"jaxrl": (interpreter("fake", FAKE), "")}, rounds=3)
    assert (found["steps_per_second"], found["slowest"], found["fastest"]) == (30.0, 15.0, 60.0)
    assert (found["trace_seconds"], found["compile_seconds"], found["peak_mib"]) == (1.0, 2.0, 5.0)


def test_what_cannot_run_is_skipped_by_name(interpreter, capsys):
    programs = {
        "rejax": (interpreter("broken", "raise SystemExit('no rejax here')"), ""),
        "sb3": ("/no/such/python", ""),
        "jaxrl": (interpreter("fake", FAKE), ""),
    }
    assert [found["program"] for found in measure("P3", programs, rounds=1)] == ["jaxrl"]
    err = capsys.readouterr().err
    assert "rejax: skipped (no rejax here)" in err
    assert "sb3: skipped" in err


def test_what_hangs_is_dropped_by_name(interpreter, capsys, monkeypatch):
    class Impatient(Worker):
        def run(self, seed):
            monkeypatch.setattr(throughput, "PATIENCE", 0.5)
            super().run(seed)

    monkeypatch.setattr(throughput, "Worker", Impatient)
    hanging = FAKE.replace("    print(", "    import time; time.sleep(60)\n    print(")
    found = measure("P3", {"purejaxrl": (interpreter("hanging", hanging), "")}, rounds=1)
    assert found == []
    assert "purejaxrl: dropped (no output for 0.5 s: it hangs)" in capsys.readouterr().err


@pytest.mark.parametrize("runs", [0, 1, 2])
def test_what_dies_on_the_way_takes_nobody_with_it(interpreter, capsys, runs):
    """After so many runs of two, or when it is told to quit."""
    dying = FAKE.replace(
        "    run = ", f"    if number == {runs}: sys.exit('out of memory')\n    run = "
    )
    programs = {
        "rejax": (interpreter("dying", dying), ""),
        "jaxrl": (interpreter("fake", FAKE), ""),
    }
    assert [found["program"] for found in measure("P3", programs, rounds=1)] == ["jaxrl"]
    assert "rejax: dropped (out of memory)" in capsys.readouterr().err


def test_peers_that_are_not_given_are_named(monkeypatch, capsys):
    monkeypatch.setattr(throughput, "measure", lambda *_: [])
    monkeypatch.setattr(sys, "argv", ["throughput", "P1"])
    throughput.main()
    err = capsys.readouterr().err
    assert "rejax: skipped, it needs --peer-python" in err
    assert "purejaxrl: skipped, it needs --peer-python and --peer-path" in err


@pytest.mark.thorough
@pytest.mark.parametrize("program", ["jaxrl", "jaxrl-devices"])
def test_a_worker_of_jaxrl_says_what_it_did(program, tmp_path, monkeypatch):
    """The smallest work there is, in a process of its own."""
    (tmp_path / "workloads.py").write_text(
        (throughput.HERE / "workloads.py").read_text()
        + 'WORKLOADS["tiny"] = Workload("ppo", 4, 8, 1)\n'
    )
    (tmp_path / "worker.py").write_text((throughput.HERE / "worker.py").read_text())
    monkeypatch.setattr(throughput, "HERE", tmp_path)
    one = Worker(program, sys.executable, "tiny", "")
    one.run(0)
    peak = one.quit()
    assert one.ready["env_steps"] == 32
    assert one.ready["parameters"] == 2 * (4 * 64 + 64 + 64 * 64 + 64) + (64 * 2 + 2) + (64 + 1)
    assert min(one.ready["trace_seconds"], one.ready["compile_seconds"], one.seconds[0]) > 0
    assert peak["peak_mib"] > 100
    assert one.ready["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_every_row_is_trained_with_its_own_numbers(name, monkeypatch):
    """Sizes, updates and batches of the agent are those of the row."""
    import jaxrl

    monkeypatch.syspath_prepend(throughput.HERE)  # where a script of that directory would look
    import worker

    seen = {}

    def train(agent, env, key, *, total_steps, num_evaluations):
        seen.update(agent=agent, env=env, total_steps=total_steps, num_evaluations=num_evaluations)

    monkeypatch.setattr(jaxrl, "train", train)
    work = WORKLOADS[name]
    worker.jaxrl_agent(work)(None)
    agent, plan = seen["agent"], seen["agent"].plan
    assert (plan.num_envs, plan.num_steps) == (work.num_envs, work.num_steps)
    assert (seen["total_steps"], seen["num_evaluations"]) == (work.steps_per_seed, 0)
    assert seen["env"].env.name == work.env
    if work.algorithm == "ppo":
        assert (agent.num_epochs, agent.num_minibatches, agent.hidden_sizes) == (4, 4, (64, 64))
    elif work.algorithm == "trpo":
        assert (agent.cg_iterations, agent.critic_epochs) == (15, 20)
        assert agent.critic_minibatches == work.critic_minibatches
    else:
        for size in ("num_updates", "batch_size", "capacity", "warmup"):
            assert getattr(plan, size) == getattr(work, size)
