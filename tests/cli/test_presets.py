"""Presets: they match the score table, and flags override them."""

import json

import pytest
from helpers.commands import run_in_process

from jaxrl.cli.command_line import parse_command_line
from jaxrl.cli.presets import preset, presets
from jaxrl.cli.sweep import sweep_of
from jaxrl.cli.train import run_config_of
from jaxrl.registry import algorithms
from jaxrl.runs.directory import plain
from jaxrl.runs.run_config import RunConfig
from jaxrl.value_text import parse
from jaxrl_envs.registry import list_ids

PAIRS = [
    (algorithm, env.replace("*", "pong")) for algorithm, envs in presets().items() for env in envs
]
CARTPOLE = ["train", "ppo", "gymnax/CartPole-v1"]


def options_of(*words):
    return vars(parse_command_line([str(word) for word in words]))


@pytest.mark.parametrize(("algorithm", "env"), PAIRS)
def test_a_preset_is_what_the_command_line_trains(algorithm, env):
    assert env in list_ids()
    options = options_of("train", algorithm, env)
    plain = options_of("train", algorithm, env, "--no-preset")
    settings = preset(algorithm, env)
    parameters = settings.pop("environment_parameters", {})
    assert dict(options["env_param"]) == parameters
    flags = {flag.name: flag for flag in algorithms()[algorithm].flags}
    for name, value in settings.items():
        if name in flags:
            got = options[f"hyper.{name}"]
            assert f"hyper.{name}" not in plain
            expected = parse(flags[name].type, str(value)) if flags[name].type != "bool" else value
            assert got == expected
        else:
            assert options[name] == value
    assert options["from_preset"]
    assert plain["from_preset"] is None
    run_config_of(parse_command_line(["train", algorithm, env]))


@pytest.mark.parametrize(
    ("env", "same"),
    [
        ("gymnasium/CartPole-v1", "gymnax/CartPole-v1"),
        ("envpool/Pendulum-v1", "gymnax/Pendulum-v1"),
        ("envpool/Breakout-v5", "ale/pong"),
        ("ale/breakout", "ale/pong"),
    ],
)
def test_the_same_task_of_another_library_has_the_same_preset(env, same):
    assert preset("ppo", env) == preset("ppo", same) != {}
    assert preset("ppo", "gymnasium/Humanoid-v5") == {}


def test_the_users_word_wins_over_a_preset():
    assert preset("ppo", "gymnax/CartPole-v1")["num_steps"] == 128
    options = options_of(*CARTPOLE, "--num-steps", 64, "--total-steps", 1000)
    assert (options["hyper.num_steps"], options["total_steps"]) == (64, 1000)
    assert options["hyper.num_envs"] == 4
    options = options_of("train", "ppo", "brax/hopper", "--env-param", "backend=mjx")
    assert dict(options["env_param"]) == {"backend": "mjx"}
    assert options["normalize_observations"]
    options = options_of("train", "ppo", "brax/hopper", "--no-normalize-observations")
    assert not options["normalize_observations"]
    assert options_of("train", "ppo", "gymnax/Catch-bsuite")["from_preset"] is None


def test_a_file_of_settings_has_no_preset_under_it(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"algorithm": "ppo", "environment": CARTPOLE[2]}))
    options = options_of("train", "--config", path)
    assert options["from_preset"] is None
    assert "hyper.learning_rate" not in options


def test_a_sweep_keeps_the_preset_that_it_began_with():
    words = ["sweep", *CARTPOLE[1:], "--grid", "discount=0.9,0.99"]
    asked = sweep_of(parse_command_line(words)).run_config
    assert asked.hyper_parameters["num_steps"] == 128
    content = json.loads(json.dumps(plain(asked.config())))
    assert RunConfig.of_config(content, "sweep.json") == asked


@pytest.mark.thorough
def test_the_command_says_what_it_picked_up():
    status, out, err = run_in_process(*CARTPOLE, "--dry-run", "--num-steps", 8)
    assert (status, err) == (0, [])
    assert out[1].startswith("preset: --total-steps=500000 --num-envs=4 ")
    assert out[1].endswith("(your flags override it; --no-preset disables it)")
