"""Runs that cannot fit into memory are rejected."""

import re

import jax
import jax.numpy as jnp
import pytest
from helpers.commands import run_in_process
from helpers.environments import Counter
from helpers.plans import PLANS, walk

from jaxrl.agents import A2C, DQN, PPO
from jaxrl.engine import sizes
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.runs.fit import fit
from jaxrl.runs.members import Members
from jaxrl.runs.programs import Programs, memory_of
from jaxrl.trees import num_bytes
from jaxrl.types import Discrete
from jaxrl.wrappers import DiscretizeActions
from jaxrl_envs.exact import arm

ENV = "gymnax/CartPole-v1"
GIB = 2**30
KEY = jax.random.key(0)


@pytest.fixture
def machine(monkeypatch):
    """A machine of 8 GiB."""
    monkeypatch.setattr("jaxrl.devices.machine.memory", lambda: 8 * GIB)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ppo --num-envs 2e9", "num_envs is 2000000000, num_steps is 128: the trajectory would "),
        ("ppo --num-steps 1e12", "num_steps is 1000000000000: the trajectory would take "),
        ("ppo --hidden-sizes 9999999999", "hidden_sizes is (9999999999,): the agent's state would"),
        (
            "ppo --hidden-sizes 9999999999,9999999999",
            "hidden_sizes is (9999999999, 9999999999): parameters of this size overflow",
        ),
        ("ppo --seeds 1e9", "--seeds is 1000000000: that many do not fit into 8.0 GiB of memory"),
        (
            "ppo --seeds 1e6",
            "1,000,000 seeds at once would take at least 15.5 GiB, but there is only 8",
        ),
        ("ppo --num-eval-episodes 2e9", "num_eval_episodes is 2000000000: the copies to evaluate "),
        ("ppo --reset-policy pool --pool-size 1e10", "pool_size is 10000000000: the pool of star"),
        ("ppo --total-steps 1e300", "argument --total-steps: '1e300' is too large"),
        ("ppo --total-steps 1e18", "total_steps is 1000000000000000000, which takes "),
        ("dqn --capacity 2e10", "capacity is 20000000000: the replay memory would take "),
        ("dqn --num-envs 2e9 --capacity 2e9", "num_envs is 2000000000: the copies of the environ"),
        ("dqn --batch-size 2e9 --capacity 2e9", "batch_size is 2000000000: a batch would take "),
        ("rainbow --num-atoms 1e10", "num_atoms is 10000000000: the agent's state would take "),
        (
            "finite_difference --population-size 4194304 --hidden-sizes 512,512",
            "population_size is 4194304: the agent's state would take ",
        ),
        (
            "online_actor_critic --num-envs 1048576 --hidden-sizes 512,512 --lambda-actor 0.9",
            "num_envs is 1048576: the agent's state would take ",
        ),
        ("sac --num-critics 2e9", "num_critics is 2000000000: it must be at most 1000"),
        ("sac --num-critics 0", "num_critics is 0: it must be a whole number, at least 1"),
        ("q_search --num-refinements 1e5", "num_refinements is 100000: it must be at most 1000"),
        ("dqn --n-step 1e6 --capacity 1e7", "n_step is 1000000: it must be at most 10000"),
        (
            "trpo --cg-iterations 1e12",
            "cg_iterations is 1000000000000: it must be at most 2**31 - 1",
        ),
    ],
)
def test_command_reports_bad_sizes_in_one_line(machine, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    algo, *flags = words.split()
    status, _, err = run_in_process("train", algo, ENV, "--no-preset", *flags)
    assert (status, len(err)) == (2, 1)
    assert message in err[0]
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_sweeps_with_too_many_points_are_rejected(machine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run_in_process(
        "sweep", "ppo", ENV, "--range", "learning_rate=0:1", "--random", "2e9"
    )
    assert (status, len(err)) == (2, 1)
    assert "--random is 2000000000: that many do not fit into 8.0 GiB of memory" in err[0]


def test_train_and_fit_report_bad_sizes(machine):
    with pytest.raises(ValueError, match=r"^num_envs is 2000000000, num_steps is 128: the traject"):
        train(PPO(num_envs=2 * 10**9), Counter(), KEY, total_steps=1)
    agent = A2C(num_envs=1000, num_steps=10, hidden_sizes=(4,))
    keys = jax.random.split(KEY, 50_000)
    with pytest.raises(ValueError, match=r"^50,000 seeds at once would take at least [\d.]+ GiB, "):
        fit(agent, Counter(), keys, total_steps=1)


def test_size_estimates_match_the_arrays(machine):
    """Computed by hand for Counter, whose observation and state are two floats each."""
    agent = PPO(num_envs=6, num_steps=5, num_minibatches=1)
    training = Training.create(agent, Counter(), total_steps=1, num_eval_episodes=7)
    copy = 2 * 4 + 2 * 4 + 4 + 4 + 1  # state, observation, return, length, first
    step = 2 * 4 + 4 + 4 + 1 + 1  # observation, action, reward, terminated, truncated
    found = {part.what: part.size for part in sizes.parts(training, 8, 8)}
    assert found == {
        "the agent's state": 0,  # too small to be counted
        "the copies to evaluate on": 7 * copy,
        "the copies of the environment": 6 * copy,
        "the trajectory": 30 * step,
    }
    huge = sizes._part("steps", step, num_envs=2 * 10**9, num_steps=10**12, others=1)
    assert (huge.size, [*huge.fields]) == (36 * 10**21, ["num_envs", "num_steps"])
    wide = PPO(num_envs=1, num_minibatches=1, hidden_sizes=(sizes.LARGE,))
    training = Training.create(wide, Counter(), total_steps=1)
    parameters = 2 * (2 * sizes.LARGE + sizes.LARGE) + (3 + 1) * sizes.LARGE + 3 + 1
    (state,) = (part for part in sizes.parts(training, 8, 8) if part.what == "the agent's state")
    assert 3 * 4 * parameters <= state.size <= 3 * 4 * parameters + 64  # with Adam's two moments
    assert state.fields == {"hidden_sizes": (sizes.LARGE,)}


def test_outputs_for_many_actions_are_counted(machine):
    """Computed by hand for a network with 3 features and 91 ** 3 actions."""
    joint = DiscretizeActions(arm.make(), 91, "joint")
    agent = PPO(num_envs=2, num_steps=2, num_minibatches=1, hidden_sizes=(3,))
    training = Training.create(agent, joint, total_steps=1)
    (state,) = (part for part in sizes.parts(training, 8, 8) if part.what == "the agent's state")
    parameters = 2 * (2 * 3 + 3) + (3 + 1) * 91**3 + 3 + 1  # two torsos, policy, value
    assert 3 * 4 * parameters <= state.size <= 3 * 4 * parameters + 64
    assert state.fields == {"action": Discrete(753_571)}
    with pytest.raises(ValueError, match=r"action is Discrete\(num=64000000\): the agent's state"):
        Training.create(PPO(), joint.replace(num_bins=400), total_steps=1)
    factored = joint.replace(layout="factored")
    found = sizes.parts(Training.create(agent, factored, total_steps=1), 8, 8)
    assert found[0].size == 0  # too small to be counted


@pytest.mark.parametrize("name", PLANS)
def test_size_estimates_are_lower_bounds_on_the_state(name):
    """For every plan, without the parts that are not kept in the state."""
    agent, env, options, _ = PLANS[name]
    data = {"data": walk()} if name.startswith("offline") else {}
    training = Training.create(agent, env, **{"total_steps": 1, **options, **data})
    state = jax.eval_shape(training.init, KEY)
    reset = jax.eval_shape(env.reset, KEY)[0]
    others = ("the trajectory", "a batch", "the copies to evaluate on", "the pool of starts")
    found = sizes.parts(training, num_bytes(reset), num_bytes(reset))
    kept = sum(part.size for part in found if part.what not in others)
    if not isinstance(state.envs, tuple):  # a population's environments live for one iteration
        assert 0 < kept <= num_bytes(state)


def test_size_estimates_are_lower_bounds_on_xla_memory():
    agent = A2C(num_envs=64, num_steps=64, hidden_sizes=(4,))
    training = Training.create(agent, Counter(), total_steps=1, num_eval_episodes=1)
    needed = sum(part.size for part in sizes.parts(training, 8, 8))
    measured = sum(memory_of(Programs(Members.of(training, KEY)).chunk))
    assert 0.1 * measured < needed <= measured


def test_runs_that_fit_are_accepted(monkeypatch):
    agent = DQN(num_envs=2, capacity=100, batch_size=4, warmup=10)
    training = Training.create(agent, Counter(), total_steps=1)
    needed = sum(part.size for part in sizes.parts(training, 8, 8))
    monkeypatch.setattr("jaxrl.devices.machine.memory", lambda: needed)
    Training.create(agent, Counter(), total_steps=1)
    monkeypatch.setattr("jaxrl.devices.machine.memory", lambda: needed - 1)
    with pytest.raises(ValueError, match="of memory: make it smaller"):
        Training.create(agent, Counter(), total_steps=1)
    monkeypatch.setattr("jaxrl.devices.machine.memory", lambda: None)  # unknown: nothing is refused
    Training.create(agent.replace(capacity=10**9), Counter(), total_steps=1)
    with pytest.raises(
        ValueError, match=r"^capacity is 1000000000000: it must be at most 2\*\*31 - 1$"
    ):
        Training.create(agent.replace(capacity=10**12), Counter(), total_steps=1)


def test_key_sizes_are_exact():
    assert sizes._bytes({"key": jax.random.key(0), "x": jnp.zeros((3, 2), jnp.uint8)}) == 8 + 6
    assert re.fullmatch(r"1\.0e\+09 GiB", sizes._gib(10**9 * GIB))


class Accelerator:
    """A device that may report its memory."""

    platform = "gpu"

    def __init__(self, stats):
        self.memory_stats = lambda: stats


def test_memory_is_summed_over_accelerators(monkeypatch):
    for stats, expected in (({"bytes_limit": 5 * GIB}, 10 * GIB), ({}, None), (None, None)):
        devices = [Accelerator(stats)] * 2
        monkeypatch.setattr(jax, "devices", lambda devices=devices: devices)
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: devices)
        assert sizes.memory() == expected
