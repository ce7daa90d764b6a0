"""`jaxrl doctor`: known problems and their fixes."""

import dataclasses
import os
import subprocess
import sys

import jax
import pytest
from helpers.commands import run_in_process

from jaxrl.cli import doctor
from jaxrl.devices import machine
from jaxrl.xla import deadlock

HEALTHY = doctor.Host(
    python=(3, 11),
    system="Linux x86_64",
    versions={
        "jax": "0.10.2", "jaxlib": "0.10.2", "gymnax": "1.0.1", "six": "1.17.0", "numpy": "2.4.0",
        "brax": "0.14.2", "craftax": "1.6.1", "jumanji": "1.1.2", "navix": "0.7.4",
        "gymnasium": "1.3.0", "envpool": "1.2.7", "ale-py": "0.12.1",
    },
    requirements=("jax<0.12,>=0.10.2", "gymnax>=1.0.1", "six>=1.16", "numpy>=2.0"),
    devices=("cpu:0 cpu",),
    backend="cpu",
    failure="",
    environment={"XLA_FLAGS": f"{deadlock.FLAG}=false"},
    has_cuda_gpu=False,
    cores=2,
    memory=8 * 2**30,
    deadlock=True,
)  # fmt: skip


def findings(**changes):
    """Findings on a modified host that differ from those on a healthy one."""
    found = doctor.examine(dataclasses.replace(HEALTHY, **changes))
    return [f for f in found if f.label != "fine"]


def with_version(**versions):
    return {**HEALTHY.versions, **versions}


def test_a_healthy_host_has_no_findings():
    assert findings() == []
    lines = doctor.report(HEALTHY, doctor.examine(HEALTHY))
    assert lines[-1] == "no problems that would prevent training"
    text = "\n".join(lines)
    for word in ("jax  ", "0.10.2", "cpu:0 cpu", "8.0 GiB", f"{deadlock.FLAG}=false", "not set"):
        assert word in text


def test_wide_numbers_are_mentioned():
    with jax.enable_x64(True):
        seen = doctor.probe()
    told = "jax_enable_x64 is on, but jaxrl trains in float32 anyway"
    assert [f.label for f in doctor.examine(seen) if f.what == told] == ["fine"]
    assert not doctor.probe().x64


@pytest.mark.parametrize(
    ("changes", "what", "fix", "blocking"),
    [
        ({"python": (3, 10)}, "Python 3.10 is too old", "use Python 3.11 and 3.12", True),
        ({"python": (3, 14)}, "not tested on Python 3.14", "use Python 3.11 and 3.12", False),
        (
            {"versions": with_version(gymnax="0.0.9")},
            "gymnax 0.0.9 is too old (before 1.0.1 its step returned five values",
            "pip install 'gymnax>=1.0.1'",
            True,
        ),
        (
            {"versions": with_version(six=None)},
            "six is missing (gymnax imports it without declaring it)",
            "pip install 'six>=1.16'",
            True,
        ),
        (
            {"versions": with_version(jax="0.9.1")},
            "jax 0.9.1 is too old",
            "pip install 'jax<0.12,>=0.10.2'",
            True,
        ),
        (
            {"versions": with_version(jax="0.12.0")},
            "jax 0.12.0 is newer than what jaxrl supports",
            "pip install 'jax<0.12,>=0.10.2'",
            False,
        ),
        ({"versions": with_version(numpy="1.26.4")}, "numpy 1.26.4 is too old", "numpy>=2.0", True),
        (
            {"versions": with_version(brax=None)},
            "brax is missing: no brax/... environments",
            "pip install 'jaxrl[brax]'",
            False,
        ),
        (
            {"versions": with_version(**{"ale-py": None})},
            "ale-py is missing: no ale/... environments",
            "pip install 'jaxrl[atari]'",
            False,
        ),
        (
            {"failure": "RuntimeError: no backend", "devices": ()},
            "jax does not start: RuntimeError: no backend",
            "JAX_PLATFORMS",
            True,
        ),
        (
            {"has_cuda_gpu": True},
            "there is a CUDA GPU, but jax uses the CPU",
            "pip install 'jaxrl[cuda12]'",
            False,
        ),
        (
            {"has_cuda_gpu": True, "environment": {**HEALTHY.environment, "JAX_PLATFORMS": "cpu"}},
            "jax uses the CPU",
            "unset JAX_PLATFORMS (cpu)",
            False,
        ),
        (
            {"environment": {"XLA_FLAGS": f"--a=1 {deadlock.FLAG}=true"}},
            "batched LAPACK calls can hang with this jaxlib on so few cores",
            f"set XLA_FLAGS to {deadlock.FLAG}=false",
            False,
        ),
    ],
)
def test_a_problem_is_named_with_its_fix(changes, what, fix, blocking):
    (finding,) = findings(**changes)
    assert what in finding.what
    assert fix in finding.fix
    assert finding.blocking == blocking
    seen = dataclasses.replace(HEALTHY, **changes)
    lines = doctor.report(seen, doctor.examine(seen))
    label = "PROBLEM" if blocking else "note"
    assert f"{label:<8} {finding.what}: {finding.fix}" in lines
    assert lines[-1].startswith("1 problem " if blocking else "no problems ")


def test_without_the_deadlock_or_with_a_gpu_in_use_all_is_fine():
    assert findings(deadlock=False, environment={}) == []
    assert findings(has_cuda_gpu=True, backend="gpu", devices=("gpu:0 NVIDIA",)) == []


@pytest.mark.parametrize(
    ("version", "relation", "bound", "holds"),
    [
        ("0.10.2", ">=", "0.10.2", True),
        ("0.9.30", ">=", "0.10.2", False),
        ("2.0", ">=", "2.0.0", True),
        ("0.11.2", "<", "0.12", True),
        ("0.12", "<", "0.12", False),
        ("0.12.1.dev3", "<=", "0.12", False),
        ("1.2", "!=", "1.2.0", False),
        ("1.2", ">", "1.1.9", True),
    ],
)
def test_versions_are_compared_as_numbers(version, relation, bound, holds):
    assert doctor._holds(version, relation, bound) == holds


def test_requirements_are_read():
    assert doctor._parts("jax<0.12,>=0.10.2") == ("jax", [("<", "0.12"), (">=", "0.10.2")])
    assert doctor._parts("jax[cuda12]>=1; python_version > '3'") == ("jax", [(">=", "1")])
    assert doctor._parts("orbax-checkpoint") == ("orbax-checkpoint", [])


def test_this_host_can_train():
    """The machine that runs the tests has no blocking problem, and the exit status is 0."""
    status, out, err = run_in_process("doctor")
    assert (status, err) == (0, [])
    assert out[-1] == "no problems that would prevent training"
    assert any(line.split() == ["jax", jax.__version__] for line in out)
    assert any(line.startswith("cores") and str(machine.cores()) in line for line in out)


def test_a_problem_ends_with_one():
    """With a jax that cannot start, in a separate process, the exit status is 1."""
    run = subprocess.run(
        [sys.executable, "-c", "from jaxrl.cli.main import main; main(['doctor'])"],
        env={**os.environ, "JAX_PLATFORMS": "nonsense"}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    assert "PROBLEM  jax does not start: " in run.stdout
    assert run.stdout.splitlines()[-1] == "1 problem that would prevent training"
    assert run.stderr == ""
