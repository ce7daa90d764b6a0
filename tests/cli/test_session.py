"""One thread of XLA for small updates: for which runs, and never over a user's settings."""

import os

import pytest
from flax import linen as nn

from jaxrl.agents import CEM, DDPG, DQN, PPO, SAC, TRPO
from jaxrl.cli import session
from jaxrl.engine.options import TrainingOptions
from jaxrl.engine.threads import rows_for_one_thread
from jaxrl.runs.run_config import RunConfig
from jaxrl.runs.run_options import RunOptions
from jaxrl.xla import deadlock

SMALL = {"num_envs": 4, "num_steps": 128}


@pytest.mark.parametrize(
    ("agent", "rows"),
    [
        (PPO(**SMALL, num_minibatches=4), 128),
        (PPO(**SMALL, num_minibatches=1), 512),
        (PPO(num_envs=64, num_steps=128, num_minibatches=4), None),
        (PPO(**SMALL, hidden_sizes=(256, 256)), 128),
        (PPO(**SMALL, hidden_sizes=(512, 512)), None),
        (PPO(**SMALL, torso=nn.Dense(3)), None),
        (TRPO(num_envs=4, num_steps=512), None),
        (DQN(batch_size=64), 64),
        (SAC(batch_size=256, hidden_sizes=(64, 64)), 256),
        (SAC(batch_size=256, hidden_sizes=(256, 256)), None),
        (DDPG(batch_size=1024, hidden_sizes=(64, 64)), None),
        (CEM(), None),
    ],
)
def test_one_thread_is_for_updates_with_few_rows_and_known_small_layers(agent, rows):
    assert rows_for_one_thread(agent) == rows


def run_config(environment="gymnax/CartPole-v1", seeds=(0,), devices=None, **hyper):
    return RunConfig(
        algorithm="ppo",
        environment=environment,
        hyper_parameters=SMALL | hyper,
        seeds=seeds,
        training=TrainingOptions(total_steps=1000),
        options=RunOptions(devices=devices),
    )


@pytest.fixture
def fresh(monkeypatch):
    """A process whose jax has not started, on a CPU, without settings of its user."""
    for name in (session.THREADS, session.CPU_DEVICES, "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(deadlock, "backend_has_started", lambda: False)
    monkeypatch.setattr(deadlock, "is_affected", lambda: False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return monkeypatch


def test_a_small_run_gets_one_thread_and_says_why(fresh):
    said = session.use_one_thread(run_config())
    assert said == "1, as updates have only 128 rows (set NPROC to override)"
    assert os.environ[session.THREADS] == "1"


@pytest.mark.parametrize(
    "other",
    [
        {"environment": "gymnax/Breakout-MinAtar"},
        {"environment": "brax/hopper"},
        {"environment": "package.module:make"},
        {"seeds": (0, 1)},
        {"devices": 1},
        {"num_envs": 64},
    ],
    ids=str,
)
def test_other_runs_keep_all_threads(fresh, other):
    assert session.use_one_thread(run_config(**other)) is None
    assert session.THREADS not in os.environ


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NPROC", "2"),
        ("JAX_NUM_CPU_DEVICES", "2"),
        ("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=true"),
        ("JAX_PLATFORMS", "cuda,cpu"),
    ],
)
def test_the_users_settings_take_precedence(fresh, name, value):
    os.environ[name] = value
    before = dict(os.environ)
    assert session.use_one_thread(run_config()) is None
    assert os.environ == before


@pytest.mark.parametrize("state", ["backend_has_started", "is_affected"])
def test_a_started_jax_and_a_jaxlib_that_can_hang_keep_all_threads(fresh, state):
    fresh.setattr(deadlock, state, lambda: True)
    assert session.use_one_thread(run_config()) is None
    assert session.THREADS not in os.environ


@pytest.mark.parametrize("package", session.ACCELERATORS)
def test_with_a_package_of_an_accelerator_all_threads_stay(fresh, package):
    os.environ.pop("JAX_PLATFORMS")
    found = {package}
    fresh.setattr(session.importlib.util, "find_spec", lambda name: name in found or None)
    assert session.use_one_thread(run_config()) is None
    found.clear()
    assert session.use_one_thread(run_config()) is not None
