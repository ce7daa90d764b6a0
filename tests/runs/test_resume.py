"""Resuming runs that were killed, interrupted, damaged or diverged, and early stopping."""

import dataclasses
import errno
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import quick
from helpers.agents import idle
from helpers.commands import run_in_process
from helpers.environments import FLOAT, BestContinuousAction, Coin, Counter, OneStep
from helpers.paths import DATA, TESTS
from helpers.plans import PLANS, equal

from jaxrl import wrappers
from jaxrl.agent import Update
from jaxrl.agents import DQN, PPO, TD3
from jaxrl.analysis import comparison
from jaxrl.analysis.curves import read_curves
from jaxrl.analysis.plots import learning_curve
from jaxrl.engine.sweep import sweep
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.normalization import Normalizer
from jaxrl.replay.buffer import ReplayBuffer
from jaxrl.runs import loop
from jaxrl.runs.callbacks import stop_at_return
from jaxrl.runs.checkpoint_files import Checkpoints, replace_by
from jaxrl.runs.directory import RunDirectory, read_metrics
from jaxrl.runs.disk import WriteError
from jaxrl.runs.events import Diverged, Evaluation, Progress, Resumed, Saved
from jaxrl.runs.fit import fit, run
from jaxrl.runs.load import load_policy, load_run
from jaxrl.runs.loop import DivergenceError
from jaxrl.runs.members import Members
from jaxrl.runs.programs import Programs
from jaxrl.runs.recorder import curve
from jaxrl.runs.run_config import changes
from jaxrl.runs.run_options import RunOptions
from jaxrl.schedules import Linear
from jaxrl.trees import strong
from jaxrl.types import Box, EnvSpec, Mean

KEY = jax.random.key(0)


def ending_after(steps):
    """A callback that raises an exception, as if the process had died."""

    def callback(event):
        if isinstance(event, Progress) and event.steps >= steps:
            raise Died

    return callback


class Died(Exception):
    pass


def untimed(path):
    """The lines of metrics.jsonl without timings; float sums depend on the length of chunks."""
    return [
        {k: v for k, v in row.items() if k.startswith(("step", "seed", "return", "length"))}
        for row in read_metrics(path)
    ]


# The same bits ------------------------------------------------------------------------------------

MORE = {
    "prioritised replay, normalised, seeds": (
        DQN(num_envs=2, num_steps=4, prioritized=True, n_step=3, capacity=64, warmup=16,
            batch_size=8, hidden_sizes=(4,), epsilon=Linear(1.0, 0.1)),
        Counter(limit=5),
        {"normalize_rewards": True},
        2,
    ),
    "noise that is carried": (
        TD3(num_envs=2, num_steps=4, noise="ou", prioritized=True, capacity=64, warmup=16,
            batch_size=8, hidden_sizes=(4,)),
        BestContinuousAction(),
        {},
        None,
    ),
    "noise that is kept": (
        PPO(num_envs=2, num_steps=4, num_minibatches=1, hidden_sizes=(4,), std_from="features",
            noise_every=3),
        BestContinuousAction(),
        {},
        None,
    ),
}  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*PLANS, *MORE])
def test_a_run_that_died_goes_on_to_the_same_bits(tmp_path, name):
    """Dies twice: between two evaluations, and just after one."""
    agent, env, options, seeds = {**PLANS, **MORE}[name]
    options = {k: v() if callable(v) else v for k, v in options.items()}
    per_iteration = agent.bind(env.spec).plan.steps_per_iteration
    options |= {"total_steps": 12 * per_iteration, "num_evaluations": 3, "num_eval_episodes": 4}
    key = KEY if seeds is None else jax.random.split(KEY, seeds)
    options |= {"checkpoint_seconds": 0.0, "tensorboard": False}
    whole = fit(agent, env, key, run_dir=tmp_path / "whole", **options)
    broken = {"run_dir": tmp_path / "run", "resume": True}
    for iterations in (2, 8):
        with pytest.raises(Died):
            fit(agent, env, key, callbacks=[ending_after(iterations * per_iteration)], **broken,
                **options)  # fmt: skip
    result = fit(agent, env, key, **broken, **options)
    assert equal(result.state, whole.state)
    assert result.env_steps == whole.env_steps
    assert untimed(tmp_path / "run") == untimed(tmp_path / "whole")
    assert len(Checkpoints(tmp_path / "run" / "checkpoints").steps()) == 3


@pytest.mark.thorough
def test_points_of_a_sweep_train_as_under_vmap_and_go_on_to_the_same_bits(tmp_path):
    agent, env, options, _ = PLANS["on-policy, normalised, seeds"]
    options = options | {"total_steps": 8 * 64, "num_evaluations": 2, "num_eval_episodes": 4}
    keys = jax.random.split(KEY, 2)
    points = [{"learning_rate": 1e-3, "discount": 0.9}, {"learning_rate": 1e-2, "discount": 0.5}]
    saved = {
        "run_dir": tmp_path / "run",
        "resume": True,
        "checkpoint_seconds": 0.0,
        "points": points,
    }
    with pytest.raises(Died):
        fit(agent, env, keys, callbacks=[ending_after(128)], **saved, **options)
    result = fit(agent, env, keys, **saved, **options)
    agents = jax.tree.map(
        lambda x: jnp.repeat(x, 2, axis=0),
        jax.tree.map(
            lambda *x: jnp.stack(x),
            *(strong(agent.replace(**point)) for point in points),
        ),
    )
    run = jax.jit(jax.vmap(lambda a, k: train(a, env, k, **options)[0]))
    assert equal(result.state, run(agents, jnp.concatenate([keys, keys])))
    labels = [(row["seed"], row["learning_rate"]) for row in read_metrics(tmp_path / "run")]
    assert len(set(labels)) == 4
    assert labels[:4] == labels[4:]
    trained = load_run(tmp_path / "run", agent=agent, env=env)
    assert float(trained.policy(3).training.agent.learning_rate) == pytest.approx(1e-2)


COMMANDS = {
    "on-policy": "train ppo gymnax/CartPole-v1 --num-envs 4 --num-steps 32 --hidden-sizes 8 "
    "--seeds 2 --total-steps 150_000 --learning-rate linear:1e-3:0 --num-evaluations 4",
    "off-policy": "train dqn gymnax/CartPole-v1 --num-envs 4 --hidden-sizes 8 --batch-size 16 "
    "--prioritized --capacity 1000 --warmup 200 --total-steps 30_000 --num-evaluations 4",
}
QUICK = ["--checkpoint-seconds", "0.01", "--num-eval-episodes", "4", "--no-tensorboard"]


def command(*words, cwd, **variables):
    code = "from jaxrl.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=cwd, env={**os.environ, "XDG_CACHE_HOME": str(cwd / "cache"), **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def arrays_of(path):
    """All arrays of a run's last checkpoint by name, as bytes."""
    checkpoints = Checkpoints(path / "checkpoints")
    step = checkpoints.steps()[0]
    leaves = checkpoints.record(step)["leaves"]
    return {
        (part, name): checkpoints._read(step, part, leaves[part])[name].tobytes()
        for part in leaves
        for name in leaves[part]
        if not name.startswith("since")  # sums, whose order is that of the calls
    }


def kill_and_resume(tmp_path, words, draw):
    """Kills a real run with SIGKILL at random moments until it completes; returns how often."""
    begin = [*words.split(), *QUICK, "--run-dir", "run"]
    process, kills = command(*begin, cwd=tmp_path), 0
    while True:
        patience = draw.uniform(0.0, 1.0)
        while process.poll() is None and not list((tmp_path / "run").glob("checkpoints/*")):
            time.sleep(0.01)  # at first wait for the first checkpoint to be begun
        try:
            _, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0, err
            return kills
        process = command("resume", "run", cwd=tmp_path)
        if kills >= 2:
            _, err = process.communicate()
            assert process.returncode == 0, err
            return kills


@pytest.mark.thorough
@pytest.mark.parametrize("plan", COMMANDS)
def test_a_killed_run_is_resumed_to_the_same_bits(tmp_path, plan):
    whole = command(*COMMANDS[plan].split(), *QUICK, "--run-dir", "whole", cwd=tmp_path)
    _, err = whole.communicate()
    assert whole.returncode == 0, err
    kills = kill_and_resume(tmp_path, COMMANDS[plan], random.Random(0))
    assert kills > 0
    assert arrays_of(tmp_path / "run") == arrays_of(tmp_path / "whole")
    assert untimed(tmp_path / "run") == untimed(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("plan", COMMANDS)
def test_ten_killed_runs_are_resumed_to_the_same_bits(tmp_path, plan):
    whole = command(*COMMANDS[plan].split(), *QUICK, "--run-dir", "whole", cwd=tmp_path)
    _, err = whole.communicate()
    assert whole.returncode == 0, err
    for seed in range(10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        assert kill_and_resume(folder, COMMANDS[plan], random.Random(seed)) > 0
        assert arrays_of(folder / "run") == arrays_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_chunk_saves_and_says_how_to_go_on(tmp_path, number):
    words = COMMANDS["on-policy"].replace("150_000", "100_000_000")
    begin = [*words.split(), *QUICK, "--run-dir", "run"]
    process = command(*begin, cwd=tmp_path, **quick.environment())
    while process.poll() is None and not (tmp_path / "run" / "config.json").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    (step,) = Checkpoints(tmp_path / "run" / "checkpoints").steps()[:1]
    assert err == (
        f"jaxrl: interrupted: saved after {step:,} steps; resume with: jaxrl resume run\n"
    ), out
    assert not (tmp_path / "run" / "summary.json").exists()


# What is refused ----------------------------------------------------------------------------------


class Idle(idle.Idle):
    """An idle agent that adds `rate` to its numbers."""

    rate: float = 1.0
    decay: float = Linear(1.0, 0.0)

    def update(self, state, batch, key, clock):
        return Update(state + self.rate, {"level": Mean.of(state[0])})


def other_step(self, key, state, action):
    state, timestep = Counter.step(self, key, state, action)
    return state, timestep.replace(reward=timestep.reward + 1.0)


Other = type("Counter", (Counter,), {"step": other_step, "__module__": Counter.__module__})
"""Counter's name on other code."""

OPTIONS = dict(total_steps=100, num_evaluations=5, num_eval_episodes=2, tensorboard=False)


@pytest.fixture
def begun(tmp_path):
    """A run of 100 steps that died at 60, with as many checkpoints as possible."""
    with pytest.raises(Died):
        fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", checkpoint_seconds=0.0,
            callbacks=[ending_after(60)], **OPTIONS)  # fmt: skip
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("agent", "env", "key", "change", "message"),
    [
        (Idle(rate=2.0), Counter(), KEY, {}, "hyper_parameters.rate was 1.0 and is 2.0"),
        (Idle(num_envs=4), Counter(), KEY, {}, "hyper_parameters.num_envs was 2 and is 4"),
        (Idle(), Counter(), jax.random.key(1), {}, r"seeds was \[0\] and is \[1\]"),
        (Idle(), Counter(), jax.random.key(0, impl="rbg"), {}, "key_type was threefry2x32"),
        (Idle(), Counter(), KEY, {"num_eval_episodes": 3}, "num_eval_episodes was 2 and is 3"),
        (Idle(), Counter(), KEY, {"normalize_rewards": True}, "normalize_rewards was False"),
        (Idle(), wrappers.ScaleReward(Counter(), 1.0), KEY, {}, "environment was Counter"),
        (Idle(), Counter(bonus=9.0), KEY, {}, "the environment's parameters, the data, or"),
        (PPO(), Counter(), KEY, {}, "algorithm was Idle and is PPO"),
    ],
)
def test_another_run_is_refused_by_name(begun, agent, env, key, change, message):
    before = {p: p.read_bytes() for p in begun.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=message):
        fit(agent, env, key, run_dir=begun, resume=True, **OPTIONS | change)
    assert {p: p.read_bytes() for p in begun.rglob("*") if p.is_file()} == before


def test_other_code_of_the_environment_is_refused(begun):
    with pytest.raises(ValueError, match="the environment's code has changed"):
        fit(Idle(), Other(), KEY, run_dir=begun, resume=True, **OPTIONS)


def test_a_fingerprint_is_that_of_another_process(begun):
    """It depends neither on hash seeds nor on memory addresses."""
    code = (
        "import sys; sys.path[:0] = [sys.argv[1], f'{sys.argv[1]}/runs'];"
        "import jax; from helpers.environments import Counter;"
        "from test_resume import *; from jaxrl.engine.train import Training;"
        "from jaxrl.runs import fingerprint;"
        "print(fingerprint.of(Training.create(Idle(), Counter(), total_steps=100))['code'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(TESTS)],
        env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True,
    )  # fmt: skip
    checkpoints = Checkpoints(begun / "checkpoints")
    record = checkpoints.record(checkpoints.steps()[0])
    assert run.stdout.strip() == record["environment"]["code"], run.stderr


def test_one_process_at_a_time_writes_a_run(begun):
    directory = RunDirectory.resume(begun)
    with pytest.raises(ValueError, match="another process is writing to the run"):
        fit(Idle(), Counter(), KEY, run_dir=begun, resume=True, **OPTIONS)
    directory.unlock()
    fit(Idle(), Counter(), KEY, run_dir=begun, resume=True, **OPTIONS)


def test_a_run_is_claimed_before_it_is_compiled_and_one_killed_there_is_resumed(
    tmp_path, monkeypatch
):
    """A second run starts while the first one compiles; then the first one is killed."""
    path = tmp_path / "run"

    class Killed(BaseException):
        pass

    def killed(members, options):
        with pytest.raises(ValueError, match="another process is writing to the run"):
            fit(Idle(rate=2.0), Counter(), KEY, run_dir=path, **OPTIONS)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop, "programs_of", killed)
        with pytest.raises(Killed):
            fit(Idle(), Counter(), KEY, run_dir=path, **OPTIONS)
    assert [p.name for p in path.glob("*")] == ["config.json"]
    assert json.loads((path / "config.json").read_text())["hyper_parameters"]["rate"] == 1.0
    with pytest.raises(ValueError, match=r"hyper_parameters.rate was 1.0 and is 2.0"):
        fit(Idle(rate=2.0), Counter(), KEY, run_dir=path, resume=True, **OPTIONS)
    events = []
    result = fit(Idle(), Counter(), KEY, run_dir=path, resume=True, callbacks=[events.append],
                 **OPTIONS)  # fmt: skip
    (resumed,) = (event for event in events if isinstance(event, Resumed))
    assert resumed.notes == ("no checkpoint yet: starting over with the same seeds",)
    assert equal(result.state, fit(Idle(), Counter(), KEY, **OPTIONS).state)
    assert [row["step"] for row in read_metrics(path)] == [20, 40, 60, 80, 100]


def test_the_commands_on_a_run_that_was_interrupted_while_it_compiled(tmp_path, monkeypatch):
    """The directory's name has a blank: the resume command can be pasted into a shell."""
    monkeypatch.chdir(tmp_path)

    def interrupted(members, options):
        raise KeyboardInterrupt

    words = "train reinforce jaxrl/corridor --no-preset --num-envs 2 --num-steps 8 --total-steps 64"
    words += " --num-evaluations 1 --num-eval-episodes 2 --no-tensorboard"
    words = [*words.split(), "--run-dir", "my run"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "programs_of", interrupted)
        status, _, err = run_in_process(*words)
    command = "jaxrl resume 'my run'"
    go_on = f"resume with: {command}"
    assert (status, err) == (130, [f"jaxrl: interrupted: my run is incomplete; {go_on}"])
    for verb, message in (
        ("plot", "my run has no evaluation yet"),
        ("compare", "my run has no evaluation yet"),
        ("evaluate", f"my run has no intact checkpoint: start or continue the run with {command}"),
    ):
        status, _, err = run_in_process(verb, "my run")
        assert (status, err) == (2, [f"jaxrl: error: {message}"])
    status, out, err = run_in_process(*shlex.split(go_on)[3:])
    assert (status, err) == (0, [])
    assert "no checkpoint yet: starting over with the same seeds" in out
    assert [row["step"] for row in read_metrics("my run")] == [64]


def test_resume_begins_where_there_is_nothing(tmp_path):
    with pytest.raises(ValueError, match="resume needs run_dir: pass"):
        fit(Idle(), Counter(), KEY, resume=True, **OPTIONS)
    result = fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", resume=True, **OPTIONS)
    assert result.env_steps == 100


# Damage, and other circumstances ------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's threads
@pytest.mark.parametrize("damaged", [1, 3])
def test_a_damaged_checkpoint_falls_back_to_the_newest_whole_one(begun, tmp_path, damaged):
    whole = fit(Idle(), Counter(), KEY, **OPTIONS)
    steps = Checkpoints(begun / "checkpoints").steps()
    for step in steps[:damaged]:
        for file in (begun / "checkpoints" / str(step)).rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:-20])
    events = []
    result = fit(Idle(), Counter(), KEY, run_dir=begun, resume=True, callbacks=[events.append],
                 **OPTIONS)  # fmt: skip
    assert equal(result.state, whole.state)
    assert [row["step"] for row in read_metrics(begun)] == [20, 40, 60, 80, 100]
    (resumed,) = (event for event in events if isinstance(event, Resumed))
    assert resumed.steps == (steps[damaged] if damaged < len(steps) else 0)
    for step, note in zip(steps[:damaged], resumed.notes, strict=False):
        assert note.startswith(f"checkpoint {step} is damaged (")
        assert (begun / f"damaged-checkpoint-{step}").is_dir()
    if damaged == len(steps):
        assert resumed.notes[-1] == "no checkpoint yet: starting over with the same seeds"


def test_a_torn_line_of_metrics_is_written_again(begun):
    with (begun / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "se')
    fit(Idle(), Counter(), KEY, run_dir=begun, resume=True, **OPTIONS)
    text = (begun / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [20, 40, 60, 80, 100]


def test_a_run_that_died_before_its_summary_gets_it(tmp_path):
    whole = fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", **OPTIONS)
    summary = (tmp_path / "run" / "summary.json").read_text()
    (tmp_path / "run" / "summary.json").unlink()
    result = fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", resume=True, **OPTIONS)
    assert equal(result.state, whole.state)
    again = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert again["final_return"] == json.loads(summary)["final_return"]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [20, 40, 60, 80, 100]


def test_a_run_that_died_while_it_ended_ends_there(tmp_path):
    """It died after the last checkpoint and before the summary; with a summary, it continues."""
    options = OPTIONS | {"run_dir": tmp_path / "run", "stop_at_return": 1.0}
    whole = fit(Idle(), Counter(), KEY, **options)
    assert whole.env_steps == 20
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "run" / "summary.json").unlink()
    result = fit(Idle(), Counter(), KEY, resume=True, **options)
    assert (result.env_steps, result.stopped) == (20, whole.stopped)
    assert equal(result.state, whole.state)
    again = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert again["final_return"] == summary["final_return"]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [20]
    result = fit(Idle(), Counter(), KEY, resume=True, **options)
    assert result.env_steps == 40


def test_a_longer_horizon_says_what_it_does_to_schedules(begun):
    events = []
    options = OPTIONS | {"total_steps": 200, "num_evaluations": 10}
    result = fit(Idle(), Counter(), KEY, run_dir=begun, resume=True, callbacks=[events.append],
                 **options)  # fmt: skip
    assert result.env_steps == 200
    (resumed,) = (event for event in events if isinstance(event, Resumed))
    at = resumed.steps
    assert resumed.notes == (
        "the horizon is now 200 steps instead of 100: schedules stretch over it; "
        f"decay changes from {1 - at / 100:.4g} to {1 - at / 200:.4g} at this step",
    )
    steps = [row["step"] for row in read_metrics(begun)]
    assert steps == [*range(20, 201, 20)]


def test_other_versions_are_told(begun):
    checkpoints = Checkpoints(begun / "checkpoints")
    for step in checkpoints.steps():  # sealed again, as another version would have
        record = checkpoints.record(step)
        record["versions"] = {**record["versions"], "jax": "0.1.2"}
        from jaxrl.runs.checkpoint_files import _checksum

        file = begun / "checkpoints" / str(step) / "record" / "metadata"
        file.write_text(json.dumps({"record": record, "crc32": _checksum(record)}))
    events = []
    fit(Idle(), Counter(), KEY, run_dir=begun, resume=True, callbacks=[events.append], **OPTIONS)
    (resumed,) = (event for event in events if isinstance(event, Resumed))
    assert resumed.notes[0].startswith("the run used jax 0.1.2 (now ")


# Ends that were asked for -------------------------------------------------------------------------


def test_a_callback_ends_a_run_which_can_go_on(tmp_path):
    def bored(event):
        return "enough" if isinstance(event, Progress) and event.steps >= 30 else None

    options = OPTIONS | {"num_evaluations": 2}
    whole = fit(Idle(), Counter(), KEY, **options)
    result = fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", callbacks=[bored], **options)
    assert (result.stopped, result.env_steps) == ("enough", 30)
    assert [e.steps for e in result.evaluations] == [30]  # one more, where it ended
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stopped"] == "enough"
    result = fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", resume=True, **options)
    assert equal(result.state, whole.state)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["stopped"] is None


def test_a_target_return_and_a_budget_of_time_end_a_run():
    result = fit(Idle(), Counter(limit=4), KEY, stop_at_return=1.0, **OPTIONS)
    assert (result.stopped, result.env_steps) == ("the return reached 1", 20)
    result = fit(Idle(), Counter(limit=4), KEY, stop_at_return=1e9, **OPTIONS)
    assert (result.stopped, result.env_steps) == (None, 100)
    result = fit(Idle(), Counter(), KEY, time_budget=0.0, **OPTIONS)
    assert result.stopped == "0 seconds have passed"
    assert result.env_steps < 100
    for change in ({"time_budget": -1.0}, {"checkpoint_seconds": float("nan")},
                   {"time_budget": "1"}):  # fmt: skip
        with pytest.raises(ValueError, match="must be a number of seconds"):
            fit(Idle(), Counter(), KEY, **change, **OPTIONS)
    for name, value in (("stop_at_return", float("nan")), ("stop_at_return", "1"),
                        ("keep_best", "no"), ("tensorboard", "no")):  # fmt: skip
        with pytest.raises(
            ValueError, match=rf"^{name} is '?(nan|1|no)'?: it must be (a num|True)"
        ):
            fit(Idle(), Counter(), KEY, **OPTIONS | {name: value})


def test_what_ended_a_run_does_not_say_what_it_reached(monkeypatch):
    """Returns of +1 or -1 have mean 0; the first mean of five that reaches .4 is about .7."""
    training = Training.create(idle.Idle(), Coin(), total_steps=100, num_eval_episodes=5)
    compiled = Programs(Members.of(training, KEY))

    def with_key_of(members, options):
        compiled.key = members.key
        return compiled

    monkeypatch.setattr(loop, "programs_of", with_key_of)
    settings = RunOptions(num_evaluations=10, stop_at_return=0.4)
    ended, reached = [], []
    for key in jax.random.split(KEY, 60):
        result = run(Members.of(training, key), settings)
        if result.stopped is not None:
            ended.append(result.evaluations[-1].return_mean)
            reached.append(result.summary()["final_return"]["mean"])
    assert len(ended) > 40
    assert np.mean(ended) > 0.6
    assert abs(np.mean(reached)) < 3 * np.sqrt(1 / 5 / len(reached))


# Divergence ---------------------------------------------------------------------------------------


def test_a_run_that_diverges_stops_and_names_where(tmp_path):
    """Two updates stay below float32's largest number, the third does not. It is saved before a
    metric shows it, and that is not the good one."""
    agent, options = Idle(rate=float("1.5e38")), OPTIONS | {"num_evaluations": 10}
    with pytest.raises(DivergenceError) as caught:
        fit(agent, Counter(), KEY, run_dir=tmp_path / "run", checkpoint_seconds=0.0, **options)
    assert str(caught.value).startswith(
        "seed 0 diverged in iteration 3 (step 30): not finite: level; the last good checkpoint is "
    )
    last = Path(str(caught.value).rpartition(" ")[2])
    assert last == tmp_path / "run" / "checkpoints" / "20"
    assert Checkpoints(last.parent).steps() == [30, 20, 10]


def test_a_member_that_diverges_neither_stops_nor_poisons_the_others(tmp_path):
    events = []
    both = [{"rate": 1.0}, {"rate": float("1.5e38")}]
    result = fit(Idle(), Counter(), KEY, points=both, run_dir=tmp_path / "run",
                 callbacks=[events.append], **OPTIONS)  # fmt: skip
    fine = fit(Idle(), Counter(), KEY, points=[{"rate": 1.0}, {"rate": 2.0}], **OPTIONS)
    np.testing.assert_array_equal(result.state.agent[0], fine.state.agent[0])
    assert result.env_steps == 200
    (diverged,) = (event for event in events if isinstance(event, Diverged))
    assert diverged.iteration == 3
    assert diverged.member == {"seed": 0, "rate": float("1.5e38")}
    assert result.diverged == (diverged,)
    levels = [row["level"] for row in read_metrics(tmp_path / "run")]
    assert levels[-1] is None
    assert levels[-2] > 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [x["member"]["rate"] for x in summary["diverged"]] == [float("1.5e38")]


class Climbing(Idle):
    """Its action is the fraction of training, or NaN once its numbers have diverged."""

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.full((obs.shape[0], 1), clock.fraction + 0.0 * state[0]), ()


class PaysTheAction(OneStep):
    spec = EnvSpec(FLOAT, Box.of(0.0, 1.0, (1,)), max_steps=1)

    def reward(self, obs, action):
        return action[0]


def test_a_member_that_diverged_counts_nowhere(tmp_path):
    """Targets, the summary and plots use the mean of the other members."""
    rates = [{"rate": 1.0}, {"rate": float("1.5e38")}]
    path = tmp_path / "run"
    result = fit(Climbing(), PaysTheAction(), KEY, points=rates, run_dir=path,
                 stop_at_return=0.5, **OPTIONS)  # fmt: skip
    assert result.stopped == "the return reached 0.5 over 1 of 2 members; the others diverged"
    assert result.env_steps == 2 * 60  # .2, .4, .6
    np.testing.assert_allclose([e.return_mean for e in result.evaluations], [0.2, 0.4, 0.6])
    final = json.loads((path / "summary.json").read_text())["final_return"]
    np.testing.assert_allclose((final["mean"], final["iqm"]), 0.6, rtol=1e-6)
    assert (final["seeds"], final["diverged"], final["per_seed"][1]) == (1, [1], None)
    rows = list(read_metrics(path))
    assert [row["diverged"] for row in rows] == [False, False, False, True, False, True]
    steps, returns, diverged = curve(rows)
    assert returns[-1, 1] != returns[-1, 1]
    learning_curve(steps, returns, tmp_path / "with.png", diverged=diverged)
    learning_curve(steps, returns, tmp_path / "without.png")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()
    good, bad = read_curves([path])
    np.testing.assert_allclose(good.means, [0.2, 0.4, 0.6], rtol=1e-6)
    assert (good.size, bad.size) == ("1", "0 of 1")
    assert "0 of 1" in comparison.table([good, bad])


def test_a_member_without_a_whole_episode_has_not_reached_a_target():
    """Unlike a diverged member, it is not left out."""
    returns, lengths = np.array([[9.0], [np.nan]]), np.ones((2, 1))
    reached = stop_at_return(5.0)
    assert reached(Evaluation(10, 1.0, returns, lengths, {}, 0.0)) is None
    assert reached(Evaluation(10, 1.0, returns, lengths, {}, 0.0, (1,))) is not None
    assert reached(Evaluation(10, 1.0, returns * np.nan, lengths, {}, 0.0, (0, 1))) is None


def test_train_tells_of_divergence_too():
    agents = sweep(Idle(), rate=[1.0, float("1.5e38")])
    run = jax.jit(jax.vmap(lambda a: train(a, Counter(), KEY, total_steps=100, num_evaluations=2)))
    _, metrics = run(agents)
    np.testing.assert_array_equal(metrics.divergence.iteration, [[-1, -1], [3, 5]])
    np.testing.assert_array_equal(metrics.divergence.metrics["level"], [[0, 0], [1, 1]])
    assert not metrics.divergence.metrics["training_return"].any()


# How evaluations act ------------------------------------------------------------------------------


class Drawing(Idle):
    """Samples one of Coin's actions, or takes the last one."""

    eval_modes = ("sample", "greedy")

    def act(self, state, carry, obs, key, clock, *, explore):
        drawn = jax.random.bernoulli(key, 0.5, (obs.shape[0], 1)).astype(jnp.float32)
        return carry, drawn if explore else jnp.ones((obs.shape[0], 1)), ()


def test_how_a_run_was_evaluated_is_kept(tmp_path):
    """Including the agent's default; runs older than the option were evaluated greedily."""
    path, agent, env = tmp_path / "run", Drawing(), PaysTheAction()
    options = OPTIONS | {"total_steps": 20, "num_eval_episodes": 64, "num_evaluations": 1}
    drawn = fit(agent, env, KEY, run_dir=path, **options).evaluations[-1]
    assert 0.2 < drawn.return_mean < 0.8
    config = json.loads((path / "config.json").read_text())
    assert config["eval_mode"] == "sample"
    policy = load_run(path, agent=agent, env=env).policy()
    assert 0.2 < policy.evaluate(KEY, num_episodes=64).returns.mean() < 0.8
    assert policy.evaluate(KEY, eval_mode="greedy").returns.mean() == 1.0
    assert policy.episode(jax.random.key(0))[1] == [0.0]  # as one of two keys draws
    assert policy.episode(jax.random.key(0), eval_mode="greedy")[1] == [1.0]
    np.testing.assert_array_equal(policy(jnp.zeros(1)), [1.0])
    with pytest.raises(ValueError, match="eval_mode was sample and is greedy"):
        fit(agent, env, KEY, run_dir=path, resume=True, eval_mode="greedy", **options)
    old = {name: x for name, x in config.items() if name != "eval_mode"}
    assert list(changes(old, config)) == ["eval_mode was greedy and is sample"]
    assert list(changes(old, {**config, "eval_mode": "greedy"})) == []
    for name, then in (("old", old), ("new", {**config, "eval_mode": "greedy", "seeds": [1]})):
        shutil.copytree(path, tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps(then))
    assert len(read_curves([tmp_path / "old", tmp_path / "new"])) == 1
    assert len(read_curves([tmp_path / "old", path])) == 2


# The best evaluation ------------------------------------------------------------------------------


class Passing(Idle):
    """Its action is best after two fifths of the training."""

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.full((obs.shape[0], 1), 1.0 - jnp.abs(clock.fraction - 0.4)), ()


def test_the_best_state_is_kept_and_comes_back(tmp_path):
    """Returns are .8, 1, .8, .6, .4: the second state is kept."""
    agent, env, path, seen = Passing(), PaysTheAction(), tmp_path / "run", {}

    def see(event):
        if isinstance(event, Evaluation):
            seen[event.steps] = jax.tree.map(jnp.copy, event.state)

    options = OPTIONS | {"run_dir": path, "keep_best": True, "keep_checkpoints": 1}
    result = fit(agent, env, jax.random.split(KEY, 2), callbacks=[see], **options)
    assert [event.state for event in result.evaluations] == [None] * 5
    assert (result.best.step, result.best.return_mean) == (40, 1.0)
    summary = json.loads((path / "summary.json").read_text())
    assert summary["best"] == {"step": 40, "return_mean": 1.0, "selected": True}
    assert Checkpoints(path / "checkpoints").steps() == [100]
    assert Checkpoints(path / "best").steps() == [40]
    for step, at in (("best", 40), (40, 40), (100, 100), (None, 100)):
        trained = load_run(path, step=step, agent=agent, env=env)
        assert trained.steps == at
        assert equal(trained.learned["agent"], seen[at].agent)
    policy = load_policy(path, 1, step="best", agent=agent, env=env)
    assert policy(jnp.zeros(1)) == 1.0
    with pytest.raises(ValueError, match=r"^num_episodes is 0: it must be at least 1$"):
        policy.evaluate(KEY, num_episodes=0)
    with pytest.raises(ValueError, match=r"no checkpoint of step 60: it has 100, best \(40\)"):
        load_run(path, step=60, agent=agent, env=env)
    fit(agent, env, KEY, **OPTIONS | {"run_dir": tmp_path / "without"})
    with pytest.raises(ValueError, match="has no best checkpoint: train with --keep-best"):
        load_run(tmp_path / "without", step="best", agent=agent, env=env)
    with pytest.raises(ValueError, match="keep_best needs run_dir: pass"):
        fit(agent, env, KEY, keep_best=True, **OPTIONS)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_run_that_died_keeps_its_best(tmp_path, seconds):
    """Also if the newest checkpoint is older than the best state, or missing."""
    agent, env = Passing(), PaysTheAction()
    options = OPTIONS | {"run_dir": tmp_path / "run", "keep_best": True, "resume": True,
                         "checkpoint_seconds": seconds, "keep_checkpoints": 1}  # fmt: skip
    with pytest.raises(Died):
        fit(agent, env, KEY, callbacks=[ending_after(70)], **options)
    kept = Checkpoints(tmp_path / "run" / "best")
    assert kept.steps() == [40]
    assert (Checkpoints(tmp_path / "run" / "checkpoints").steps() == []) == (seconds > 0)
    written = (tmp_path / "run" / "best" / "40").stat().st_mtime_ns
    result = fit(agent, env, KEY, **options)
    assert (result.best.step, result.env_steps) == (40, 100)
    assert kept.steps() == [40]
    assert (tmp_path / "run" / "best" / "40").stat().st_mtime_ns == written
    whole = fit(agent, env, KEY, **OPTIONS)
    assert equal(result.state, whole.state)


def test_a_full_disk_leaves_the_best_so_far(tmp_path, monkeypatch):
    path = tmp_path / "best"
    replace_by(path, 10, {"learned": jnp.zeros(3)}, {})
    save = Checkpoints.save

    def full(*arguments):
        save(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", full)
        with pytest.raises(WriteError, match=r"cannot write .*best/20: No space left on device"):
            replace_by(path, 20, {"learned": jnp.ones(3)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    assert Checkpoints(path).steps() == [10]
    replace_by(path, 20, {"learned": jnp.ones(3)}, {})
    assert Checkpoints(path).steps() == [20]
    np.testing.assert_array_equal(Checkpoints(path).load(20, "learned", jnp.zeros(3)), np.ones(3))


@pytest.mark.thorough
def test_the_command_keeps_evaluates_and_exports_the_best(tmp_path):
    path = tmp_path / "run"
    words = ["--num-envs", 2, "--num-steps", 8, "--hidden-sizes", 4, "--total-steps", 64,
             "--num-evaluations", 2, "--num-eval-episodes", 4, "--no-tensorboard"]  # fmt: skip
    status, out, err = run_in_process(
        "train", "a2c", "jaxrl/bandit", *words, "--keep-best", "--run-dir", path
    )
    assert (status, err) == (0, [])
    assert out[-1].endswith(f"jaxrl evaluate {path} --step best")
    (step,) = Checkpoints(path / "best").steps()
    status, out, _ = run_in_process("evaluate", path, "--step", "best", "--episodes", 4)
    assert status == 0
    assert out[-1].startswith(f"seed=0, {step} steps: return ")
    status, _, _ = run_in_process("export", path, "--step", step, "--out", tmp_path / "out")
    assert status == 0
    for word, message in (("7", "has no checkpoint of step 7"), ("x", "is not a checkpoint: give")):
        status, _, err = run_in_process("evaluate", path, "--step", word)
        assert status == 2
        assert message in err[-1]


# Warm starts, and older runs ----------------------------------------------------------------------


def test_a_warm_start_begins_with_the_given_state():
    state = fit(Idle(), Counter(), KEY, **OPTIONS).state
    start = {"total_steps": 20, "agent_state": state.agent}
    np.testing.assert_array_equal(
        train(Idle(rate=0.0), Counter(), KEY, **start)[0].agent, state.agent
    )
    result = fit(Idle(rate=0.0), Counter(), jax.random.split(KEY, 2), agent_state=state.agent,
                 **OPTIONS)  # fmt: skip
    for member in result.state.agent:
        np.testing.assert_array_equal(member, state.agent)
    with pytest.raises(
        ValueError, match=r"agent_state comes from another agent:\n- it is float32\[4\]"
    ):
        train(Idle(), Counter(), KEY, total_steps=20, agent_state=jnp.zeros(4))


def test_a_warm_start_brings_the_statistics_along(tmp_path):
    """Without the statistics, the policy would see differently scaled observations."""
    normalized = {"normalize_observations": True, "normalize_rewards": True}
    path = tmp_path / "run"
    source = fit(Idle(), Counter(bonus=100.0), KEY, run_dir=path, **OPTIONS, **normalized).state
    plain = source.replace(stats=Normalizer((), (), ()))

    def started(start, **options):
        agent = Idle(num_envs=4)
        training = Training.create(
            agent, Counter(), total_steps=20, agent_state=start, num_eval_episodes=2, **options
        )
        return jax.jit(training.init)(KEY)

    for start in (source, load_run(path, agent=Idle(), env=Counter(bonus=100.0)).start()):
        state = started(start, **normalized)
        assert equal(state.agent, source.agent)
        assert equal(state.stats.obs, source.stats.obs)
        assert equal(state.stats.reward, source.stats.reward)
        np.testing.assert_array_equal(state.stats.running_return, np.zeros(4))
    assert started(plain, normalize_rewards=True).stats.reward.count == 0
    assert started(source.replace(stats=source.stats.replace(obs=()))).stats.reward == ()
    for start, options, message in (
        (source.agent, normalized, "agent_state has no statistics to normalise"),
        (plain, normalized, "without normalised observations: leave normalize_observations off"),
        (source, {}, "with normalised observations: set normalize_observations"),
    ):
        with pytest.raises(ValueError, match=message):
            started(start, **options)
    with pytest.raises(ValueError, match="has no member 1"):
        load_run(path, agent=Idle(), env=Counter(bonus=100.0)).start(1)


@pytest.mark.thorough
def test_a_replay_memory_of_another_layout_is_refused_and_a_new_metric_begins(
    tmp_path, monkeypatch
):
    """An older jaxrl without the metric `dropped`, and a run whose spec has changed."""
    options = {"total_steps": 512, "num_evaluations": 2, "num_eval_episodes": 2}
    here = {"run_dir": tmp_path / "run", "checkpoint_seconds": 0.0}
    before = Counter.spec
    agent = DQN(num_envs=2, num_steps=4, capacity=64, warmup=16, batch_size=8, hidden_sizes=(4,))

    def declared(self):
        return dataclasses.replace(before.fget(self), truncates="at_max_steps")

    monkeypatch.setattr(Counter, "spec", property(declared))
    with monkeypatch.context() as old:
        old.setattr(ReplayBuffer, "can_drop", False)
        with pytest.raises(Died):
            fit(agent, Counter(), KEY, callbacks=[ending_after(160)], **here, **options)
    jax.clear_caches()  # which know nothing of what was replaced
    with monkeypatch.context() as other:
        other.setattr(Counter, "spec", before)
        with pytest.raises(ValueError, match=r"spec.truncates was"):
            fit(agent, Counter(), KEY, resume=True, **here, **options)
    result = fit(agent, Counter(), KEY, resume=True, **here, **options)
    assert result.evaluations[0].training["dropped"] == 0


SCHEMA_1 = DATA / "run_schema_1"


@pytest.mark.thorough
def test_a_run_of_schema_1_is_read_and_goes_on(tmp_path):
    """Written by an earlier version: PPO, two seeds, normalised observations, 640 steps."""
    path = tmp_path / "run"
    shutil.copytree(SCHEMA_1, path)
    trained = load_run(path)
    assert (trained.steps, trained.iteration, len(trained.members)) == (640, 10, 2)
    counts = jax.tree.leaves(trained.learned["stats"])[0]
    np.testing.assert_array_equal(counts, [640.0, 640.0])
    status, out, err = run_in_process("evaluate", path, "--episodes", 64)
    assert (status, err) == (0, [])
    for line, seed in zip(out[1:], (0, 1), strict=True):  # random play: 22
        assert line.startswith(f"seed={seed}, 640 steps: return ")
        assert float(line.split()[4]) > 30.0
    status, out, err = run_in_process("resume", path, "--total-steps", 768, "--no-tensorboard")
    assert (status, err) == (0, [])
    rows = list(read_metrics(path))
    assert [row["step"] for row in rows[::2]] == [320, 640, 768]
    assert json.loads((path / "config.json").read_text())["schema_version"] == 2


def test_a_complete_run_says_so(tmp_path):
    path = tmp_path / "run"
    shutil.copytree(SCHEMA_1, path)
    status, out, _ = run_in_process("resume", path)
    assert (status, out) == (
        0,
        [f"{path} is complete: 640 steps; extend it with --total-steps N"],
    )
    status, _, err = run_in_process("resume", path, "--total-steps", 320)
    assert status == 2
    assert "total_steps is 320, but the run in" in err[0]
    status, _, err = run_in_process("resume", tmp_path)
    assert (status, err) == (2, [f"jaxrl: error: {tmp_path} is not a run: it has no config.json"])
    (tmp_path / "config.json").write_text("{}")
    status, _, err = run_in_process("resume", tmp_path)
    why = "its config.json names no algorithm"
    assert (status, err) == (2, [f"jaxrl: error: {tmp_path} is not a run: {why}"])


# What a second reading found ----------------------------------------------------------------------


def test_an_extension_that_was_interrupted_is_not_complete(tmp_path):
    """The summary of the shorter run still exists, but does not cover the longer one."""
    path = tmp_path / "run"
    shutil.copytree(SCHEMA_1, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "total_steps": 768}))
    status, out, err = run_in_process("resume", path, "--no-tensorboard")
    assert (status, err) == (0, [])
    assert not any("is complete" in line for line in out)
    assert [row["step"] for row in read_metrics(path)][-1] == 768


@pytest.mark.thorough
def test_many_diverged_members_leave_checkpoints_that_can_be_read(tmp_path):
    """Members 2 and 10 sort differently as numbers and as text."""
    rates = [1.0] * 12
    rates[2] = rates[10] = float("1.5e38")
    points = [{"rate": rate} for rate in rates]
    options = OPTIONS | {"run_dir": tmp_path / "run", "resume": True, "points": points}
    with pytest.raises(Died):
        fit(Idle(), Counter(), KEY, callbacks=[ending_after(80)], checkpoint_seconds=0.0, **options)
    events = []
    result = fit(Idle(), Counter(), KEY, callbacks=[events.append], **options)
    (resumed,) = (event for event in events if isinstance(event, Resumed))
    assert resumed.steps > 0
    assert resumed.notes == ()
    assert len(result.diverged) == 2


def test_a_reason_to_stop_that_comes_while_saving_ends_the_run_once(tmp_path):
    def enough(event):
        return "enough" if isinstance(event, Saved) else None

    result = fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", checkpoint_seconds=0.0,
                 callbacks=[enough], **OPTIONS | {"num_evaluations": 10})  # fmt: skip
    assert result.stopped == "enough"
    assert [e.steps for e in result.evaluations] == [10]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [10]


def test_a_start_that_fails_can_be_tried_again(tmp_path):
    class Broken(Idle):
        def update(self, state, batch, key, clock):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(Broken(), Counter(), KEY, run_dir=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / ".config.json.partial").touch()  # killed while it began
    assert fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", **OPTIONS).env_steps == 100


def test_a_metric_with_the_name_of_what_is_swept_has_another_one(tmp_path):
    class Warm(Idle):
        def update(self, state, batch, key, clock):
            return Update(state, {"rate": Mean.of(7.0)})

    fit(Warm(), Counter(), KEY, points=[{"rate": 1.0}, {"rate": 2.0}], run_dir=tmp_path / "run",
        **OPTIONS)  # fmt: skip
    rows = list(read_metrics(tmp_path / "run"))
    assert [(row["rate"], row["training_rate"]) for row in rows[:2]] == [(1.0, 7.0), (2.0, 7.0)]
    assert len(read_curves([tmp_path / "run"])) == 2


def test_a_horizon_can_only_grow(begun):
    with pytest.raises(ValueError, match=r"total_steps is 50, but .* has 100: it can only grow"):
        fit(Idle(), Counter(), KEY, run_dir=begun, resume=True, **OPTIONS | {"total_steps": 50})


def test_no_time_at_all_is_no_error(tmp_path):
    result = fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", time_budget=0.0, **OPTIONS)
    assert (result.env_steps, result.steps_per_second) == (0, 0.0)
    assert (
        fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", resume=True, **OPTIONS).stopped
        is None
    )


@pytest.mark.thorough
def test_a_run_with_an_axis_of_one_key_and_one_of_data_are_loaded(tmp_path):
    fit(Idle(), Counter(), jax.random.split(KEY, 1), run_dir=tmp_path / "one", **OPTIONS)
    trained = load_run(tmp_path / "one", agent=Idle(), env=Counter())
    assert trained.learned["agent"].shape == (1, 3)
    agent, env, options, _ = PLANS["offline, seeds"]
    data = options["data"]()
    fit(agent, env, KEY, total_steps=4, num_eval_episodes=2, data=data, run_dir=tmp_path / "off")
    policy = load_run(tmp_path / "off", agent=agent, env=env, data=data).policy()
    assert policy(jnp.zeros(env.spec.observation.shape)).shape == ()


@pytest.mark.thorough
def test_a_warm_start_of_the_command_needs_its_source_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "train ppo jaxrl/corridor --num-envs 2 --num-steps 8 --hidden-sizes 4 --no-tensorboard"
    plain = [*words.split(), "--num-evaluations", "1", "--num-eval-episodes", "2"]
    words = [*plain, "--normalize-observations"]
    assert run_in_process(*words, "--total-steps", 64, "--run-dir", "source")[0] == 0
    warm = [*words, "--total-steps", 64, "--warm-start", "source"]
    assert run_in_process(*warm, "--run-dir", "warm", "--learning-rate", 0)[0] == 0
    source, started = (load_run(name).start() for name in ("source", "warm"))
    jax.tree.map(np.testing.assert_array_equal, started.agent.params, source.agent.params)
    counts = [x.stats.obs[0].count for x in (source, started)]
    np.testing.assert_array_equal(counts, [64, 128])
    shutil.rmtree("source")
    assert run_in_process("evaluate", "warm", "--episodes", 2)[0] == 0
    status, _, err = run_in_process("resume", "warm", "--total-steps", 128)
    assert (status, err) == (0, [])
    status, _, err = run_in_process(*warm, "--run-dir", "third")
    assert (status, len(err)) == (2, 1)
    assert "source is not a run" in err[0]
    shutil.copytree(SCHEMA_1, "source")
    warm = [*plain, "--total-steps", 64, "--warm-start", "source"]
    status, _, err = run_in_process(*warm, "--run-dir", "third")
    assert (status, len(err)) == (2, 1)
    assert "with normalised observations" in err[0]
