"""Run options are declared once, and everything else derives from the declaration."""

import inspect
import json
import subprocess
import sys
from typing import get_args

import jax
import pytest
from helpers.environments import Counter
from helpers.paths import ROOT

from jaxrl import Training, fit, train
from jaxrl.agent import EvalMode
from jaxrl.agents import PPO
from jaxrl.engine.options import Kind, Option, Role, TrainingOptions, declared
from jaxrl.types import ResetPolicy

ADDED = """
import inspect, json, sys, types
from pathlib import Path

import jaxrl.engine, jaxrl.runs

def with_fields(name, place, fields):
    package, _, module_name = name.rpartition(".")
    path = Path(sys.modules[package].__file__).with_name(f"{module_name}.py")
    source = path.read_text(encoding="utf-8")
    assert source.count(place) == 1
    module = sys.modules[name] = types.ModuleType(name)
    exec(source.replace(place, fields + place), module.__dict__)

with_fields("jaxrl.engine.options", "    batched_env: bool = option(", '''
    bravery: float = option(default=0.0, role=Role.TRAINING, kind=Kind.NUMBER, doc="How brave")
    num_looks: int = option(default=1, role=Role.SAMPLE, kind=Kind.COUNT, doc="How many looks")
''')
with_fields("jaxrl.runs.run_options", "    wandb: str | None = option(", '''
    beep: bool = option(default=False, role=Role.FOLLOWING, kind=Kind.SWITCH, doc="Beep each time")
''')
with_fields("jaxrl.runs.run_config", "    device: str = option(", '''
    weather: str = option(default="fine", role=Role.RECORD, doc="Outside")
''')

from jaxrl.analysis.curves import _distinguishes_curves
from jaxrl.cli.command_line import build_parser, parse_command_line
from jaxrl.cli.sweep import train_words
from jaxrl.cli.train import run_config_of
from jaxrl.runs.directory import plain
from jaxrl.runs.run_config import Records, RunConfig, changes

def asked(*words):
    return run_config_of(parse_command_line(["train", *words]))

def refused(*words):
    try:
        parse_command_line(words)
    except SystemExit:
        return True

given = asked("ppo", "jaxrl/corridor", "--bravery=0.5", "--num-looks=3", "--beep")
assert (given.training.bravery, given.training.num_looks, given.options.beep) == (0.5, 3, True)
config = json.loads(json.dumps(plain(given.config())))
assert (config["bravery"], config["num_looks"], config["beep"]) == (0.5, 3, True)
assert RunConfig.of_config(config, "here") == given
assert asked(*train_words(given)[1:]) == given
Path("config.json").write_text(json.dumps({**config, "weather": "rain"}))
assert asked("--config", "config.json") == given
try:
    asked("--config", "config.json", "--bravery=often")
    raise AssertionError
except SystemExit:
    pass

changed = {**config, "bravery": 1.0, "num_looks": 4, "beep": False, "weather": "rain"}
assert [*changes(config, changed)] == ["bravery was 0.5 and is 1.0", "num_looks was 3 and is 4"]
older = {k: x for k, x in config.items() if k not in ("bravery", "num_looks", "beep")}
assert [*changes(older, config)] == ["bravery was 0.0 and is 0.5", "num_looks was 1 and is 3"]
names = ("bravery", "num_looks", "beep", "weather")
assert [k for k in names if _distinguishes_curves(k, 1)] == ["bravery"]
assert parse_command_line(["resume", "run", "--beep"]).beep
assert refused("resume", "run", "--bravery=1")
assert refused("train", "ppo", "jaxrl/corridor", "--weather=rain")

parser, _ = build_parser(None)
try:
    parser.parse_args(["train", "--help"])
except SystemExit:
    pass
assert "jax" not in sys.modules

import jaxrl
from helpers.agents.idle import Idle
from helpers.environments import Counter

for function in (jaxrl.train, jaxrl.fit, jaxrl.Training.create):
    assert inspect.signature(function).parameters["bravery"].default == 0.0
assert "bravery: How brave." in jaxrl.train.__doc__
training = jaxrl.Training.create(Idle(), Counter(), total_steps=8, bravery=0.5)
assert training.options.bravery == 0.5
from jaxrl.runs.description import configuration
from jaxrl.runs.members import Members
from jaxrl.runs.run_config import Origin
from jaxrl.runs.run_options import RunOptions
import jax

members = Members.of(training, jax.random.key(0))
origin = Origin(algorithm="idle", environment="counter")
written = configuration(members, RunOptions(beep=True), origin)
assert (written["bravery"], written["beep"], written["weather"]) == (0.5, True, "fine")
"""


def test_a_new_option_is_available_everywhere(tmp_path):
    """One option per role: in flags, files, config.json, resume, comparison, `train` and `fit`."""
    run = subprocess.run(
        [sys.executable, "-c", ADDED], cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'envs'}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    helped = " ".join(run.stdout.split())
    assert "--bravery FLOAT How brave (default: 0.0)" in helped
    assert "--beep, --no-beep Beep each time (default: no)" in helped
    assert "weather" not in helped


def test_choices_match_the_literal_types():
    options = declared(TrainingOptions)
    assert options["eval_mode"].choices == get_args(EvalMode)
    assert options["reset_policy"].choices == get_args(ResetPolicy)


@pytest.mark.parametrize("function", [train, fit, Training.create])
def test_unknown_and_missing_arguments_are_named(function):
    given = (PPO(), Counter(), jax.random.key(0))[: 2 if function == Training.create else 3]
    name = function.__qualname__
    with pytest.raises(TypeError, match=f"{name} has no argument 'total_step': did you mean total"):
        function(*given, total_step=3)
    with pytest.raises(TypeError, match=f"{name}: missing a required .*: 'total_steps'"):
        function(*given)
    named = dict(zip(("agent", "env", "key"), given, strict=False))
    bound = inspect.signature(function).bind(**named, total_steps=4)
    assert bound.arguments["total_steps"] == 4


@pytest.mark.parametrize(
    ("kind", "fine", "wrong"),
    [
        (Kind.COUNT, [1, 2**40], [0, -1, 1.0, "1", True, None, float("nan")]),
        (Kind.STEPS, [1, 1e6], [0, "10", float("nan"), float("inf"), None]),
        (Kind.SECONDS, [0, 0.5], [-1, "1", float("nan"), None]),
        (Kind.NUMBER, [-1, 0.5], ["1", float("nan"), None]),
        (Kind.SWITCH, [True, False], ["no", 2, None]),
        (Kind.CHOICE, ["a"], ["b", None]),
    ],
)
def test_option_kinds_validate_their_values(kind, fine, wrong):
    option = Option(role=Role.TRAINING, doc="It", kind=kind, choices=("a",))
    for value in fine:
        assert option.check("it", value) == value
    for value in wrong:
        with pytest.raises(ValueError, match=r"^it is "):
            option.check("it", value)


def test_training_options_are_resolved():
    """config.json records the resolved values, not the requested ones."""
    options = Training.create(PPO(num_envs=4, num_steps=8), Counter(), total_steps=1e2).options
    assert (options.total_steps, options.reset_policy) == (128, "fresh")
    assert json.loads(json.dumps(options.settings())) == options.settings()
    assert hash(options) == hash(TrainingOptions.of(options.settings()))
