"""Configuration files: equivalence with flags, precedence of the command line, errors."""

import dataclasses
import json

import jax
import pytest
from helpers.commands import run_in_process

from jaxrl.agents import PPO
from jaxrl.cli.command_line import parse_command_line
from jaxrl.cli.parsing import HYPER
from jaxrl.cli.train import announce, run_config_of
from jaxrl.engine.training import Training
from jaxrl.registry import algorithms
from jaxrl.runs.directory import SCHEMA_VERSION, RunDirectory, versions
from jaxrl.runs.events import Compiled
from jaxrl.runs.members import Members
from jaxrl.runs.recorder import Recorder
from jaxrl.runs.run_config import Origin, RunConfig
from jaxrl.runs.run_options import RunOptions
from jaxrl.schedules import Cosine, Exponential, Linear
from jaxrl.value_text import SCHEDULE_FIELDS, SCHEDULES, _schedule_text, parse
from jaxrl_envs import make

ENV = "gymnax/CartPole-v1"
TOML = """
algorithm = "ppo"
environment = "gymnax/CartPole-v1"
total-steps = 5_000
seed = 3
seeds = 2
normalize_observations = true
reset_policy = "pool"
learning_rate = "linear:2.5e-4:0"

[hyper_parameters]
num_envs = 8
hidden_sizes = [32, 16]
clip_value = false
target_kl = 0.02
max_grad_norm = "none"

[environment_parameters]
length = 0.7
max_steps_in_episode = 20
"""
FLAGS = [
    "ppo", ENV, "--total-steps", "5000", "--seed", "3", "--seeds", "2", "--normalize-observations",
    "--reset-policy", "pool", "--learning-rate", "linear:2.5e-4:0", "--num-envs", "8",
    "--hidden-sizes", "32,16", "--no-clip-value", "--target-kl", "0.02", "--max-grad-norm", "none",
    "--env-param", "length=0.7", "--env-param", "max_steps_in_episode=20", "--no-preset",
]  # fmt: skip


def options_of(*argv):
    return {
        k: v for k, v in vars(parse_command_line(["train", *map(str, argv)])).items()
        if k not in ("config", "run", "given", "preset", "from_preset")
    }  # fmt: skip


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    return path


def test_a_file_says_what_flags_say(toml, tmp_path):
    expected = options_of(*FLAGS)
    assert options_of("--config", toml) == expected
    assert options_of("ppo", "--config", toml) == expected
    assert options_of(f"--config={toml}", ENV) == expected
    assert options_of("--config", toml, "ppo", ENV) == expected
    path = tmp_path / "flat.json"
    flat = {
        "algo": "ppo", "env": ENV, "total_steps": 5000, "seed": 3, "seeds": 2,
        "normalize-observations": True, "reset_policy": "pool", "learning-rate": "linear:2.5e-4:0",
        "num_envs": 8, "hidden_sizes": "32,16", "clip-value": False, "target_kl": 0.02,
        "max_grad_norm": None, "env-param": {"length": 0.7, "max_steps_in_episode": 20},
    }  # fmt: skip
    path.write_text(json.dumps(flat))
    assert options_of("--config", path) == expected


def test_the_command_line_wins(toml):
    options = options_of(
        "gymnax/Acrobot-v1", "--config", toml, "--num-envs", "2", "--clip-value", "--seeds=1",
        "--no-normalize-observations", "--env-param", "length=0.9", "--learning-rate", "1e-3",
    )  # fmt: skip
    assert options["env"] == "gymnax/Acrobot-v1"
    assert (options["hyper.num_envs"], options["hyper.clip_value"]) == (2, True)
    assert options["hyper.learning_rate"] == 1e-3
    assert (options["seed"], options["seeds"]) == (3, 1)
    assert options["normalize_observations"] is False
    assert dict(options["env_param"]) == {"length": 0.9, "max_steps_in_episode": 20}


@pytest.mark.parametrize("schedule", [Linear(1e-3, 1e-5, 0.5), Exponential(0.1, 0.3), Cosine(0.3)])
def test_what_the_recorder_writes_is_read_back_to_the_bit(tmp_path, schedule):
    """All hyper-parameters, with values that float32 rounds."""
    agent = PPO(
        num_envs=2, learning_rate=schedule, discount=0.987654321, target_kl=1 / 3,
        adam_epsilon=1e-7, max_grad_norm=None, hidden_sizes=(7, 5), core="gru",
        clip_value=False, num_minibatches=1,
    )  # fmt: skip
    training = Training.create(
        agent, make(ENV, length=0.7), total_steps=10_000, reset_policy="pool", pool_size=70,
        normalize_rewards=True, num_eval_episodes=3,
    )  # fmt: skip
    origin = Origin(
        algorithm="ppo", environment=ENV,
        environment_parameters={"length": 0.7, "backend": "spring"},
    )  # fmt: skip
    keys = jax.vmap(jax.random.key)(jax.numpy.arange(5, 8, dtype=jax.numpy.uint32))
    members, settings = Members.of(training, keys), RunOptions(num_evaluations=4, time_budget=1e3)
    with Recorder(RunDirectory.create(tmp_path / "run"), members, settings, origin) as recorder:
        recorder(Compiled(1.0, 2.0))
    parsed = parse_command_line(["train", "--config", str(tmp_path / "run" / "config.json")])
    options = vars(parsed)
    assert (options["seed"], options["seeds"]) == (5, 3)
    assert options["env_param"] == [("length", 0.7), ("backend", "spring")]
    hyper = {k.removeprefix(HYPER): v for k, v in options.items() if k.startswith(HYPER)}
    assert set(hyper) == {flag.name for flag in algorithms()["ppo"].flags}
    same = ("total_steps", "num_eval_episodes", "normalize_observations", "normalize_rewards",
            "reset_policy", "pool_size")  # fmt: skip
    again = Training.create(
        algorithms()["ppo"].build(hyper),
        make(ENV, length=0.7),
        **{name: options[name] for name in same},
    )
    assert jax.tree.structure(again) == jax.tree.structure(training)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), again, training))
    assert run_config_of(parsed).options == settings
    same_recipe = dataclasses.replace(RunConfig.of_run(tmp_path / "run"), hyper_parameters={})
    assert same_recipe == dataclasses.replace(run_config_of(parsed), hyper_parameters={})
    assert options["config"].other_versions == ""


def test_every_schedule_has_its_fields_in_order():
    for kind, (_, most) in SCHEDULES.items():
        numbers = dict(zip(SCHEDULE_FIELDS, (0.5, 0.25, 1.0)[:most], strict=False))
        text = _schedule_text("learning_rate", {kind: numbers})
        built = parse("Scheduled", text).build()
        assert {name: getattr(built, name) for name in numbers} == numbers


def test_the_generator_of_an_earlier_run_is_used_again(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"algorithm": "PPO", "environment": ENV, "key_type": "rbg"}))
    members = run_config_of(parse_command_line(["train", "--config", str(path)])).build()
    assert str(jax.random.key_impl(members.key)) == "rbg"


def test_other_versions_are_noted(tmp_path, capsys):
    path = tmp_path / "config.json"
    then = {**versions(), "jax": "0.1.2", "gone": "1.0"}
    path.write_text(json.dumps({"algorithm": "ppo", "environment": ENV, "versions": then}))
    announce(parse_command_line(["train", "--config", str(path)]), "into x")
    assert capsys.readouterr().out.splitlines()[1] == (
        f"note: {path} ran on jax 0.1.2 (now {jax.__version__}), gone 1.0 (now missing): "
        "results may differ"
    )


BASE = f'algorithm = "ppo"\nenvironment = "{ENV}"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate = 1e-3", "unknown setting 'lerning_rate': did you mean learning_rate"),
        ("[hyper_parameters]\nnum_env = 3", "unknown setting 'num_env': did you mean num_envs"),
        ("dry_run = true", "unknown setting 'dry_run'"),
        ("qqqqqq = 1", "'qqqqqq': jaxrl train ALGO --help lists them all"),
        ("num_envs = 1.5", "argument --num-envs: '1.5' is not a whole number"),
        ("num_envs = true", "argument --num-envs: 'True' is not a number"),
        ("total_steps = 0", "argument --total-steps: 0 is too small"),
        ("discount = nan", "'nan' is not a finite number"),
        ("activation = 'tanhh'", "argument --activation: invalid choice: 'tanhh'"),
        ("clip_value = 'yes'", "clip_value is 'yes': it must be true or false"),
        ("normalize_rewards = 1", "normalize_rewards is 1: it must be true or false"),
        (
            "learning_rate = {linear = {end = 0}}",
            "linear takes start, end, share, in this order, for",
        ),
        (
            "learning_rate = {stepwise = {start = 1}}",
            'not a schedule: write, for example, "linear:1e-3:0"',
        ),
        ("learning_rate = 'linear:1:2:3:4'", "linear takes 1 to 3 numbers"),
        ("torso = 'CNN'", "torso is a Python object: repeat that run in Python"),
        ("seeds = [1, 3]", "seeds is [1, 3]: give their number, and the first one as seed"),
        ("seeds = []", "seeds is []"),
        ("seed = 1\n[hyper_parameters]\nseed = 2", "seed is given twice"),
        ("environment_parameters = 3", "must be a table, such as {length = 0.7}"),
        (
            "[environment_parameters]\na = {b = 1}",
            "a must be a number, true, false, text or a list",
        ),
        (
            "hyper_parameters = 3",
            "hyper_parameters must be a table, such as {learning_rate = 1e-3}",
        ),
        ("schema_version = 99", "schema_version is 99, but this jaxrl reads"),
        ("= 3", "is not valid TOML: "),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(BASE + text)
    assert_refused(message, path, "--config", path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "{'a': 1}", "is not valid JSON: "),
        ("run.json", "[1]", "contains a list: write names and values"),
        ("run.yaml", "a: 1", "the file must end in .toml or .json"),
        ("run.json", '{"algorithm": 3}', "algorithm must be text"),
        ("run.json", "{}", "names no algorithm: add one, for example jaxrl train ppo --config "),
        (
            "run.json",
            '{"algorithm": "ppo"}',
            "names no environment: add one, for example jaxrl train ppo ",
        ),
        (
            "run.json",
            '{"algorithm": "PPO", "environment": "GymnaxEnv"}',
            "has GymnaxEnv, not an environment's id: add one",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    assert_refused(message, path, "--config", path)


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xff\xfe")
    assert_refused("it is not text", path, "--config", path)
    assert_refused("cannot read", tmp_path, "--config", tmp_path)


def assert_refused(message, path, *argv):
    status, out, err = run_in_process("train", *argv)
    assert (status, out) == (2, [])
    assert len(err) == 1
    assert err[0].startswith("jaxrl: error: ")
    assert str(path) in err[0]
    assert message in err[0]


def test_a_run_made_in_python_needs_its_environment_named(tmp_path):
    path = tmp_path / "config.json"
    content = {"schema_version": SCHEMA_VERSION, "algorithm": "PPO", "environment": "GymnaxEnv"}
    path.write_text(json.dumps(content))
    options = options_of(ENV, "--config", path)
    assert (options["algo"], options["env"]) == ("ppo", ENV)
