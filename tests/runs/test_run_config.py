"""config.json: what may change on resume, and what distinguishes learning curves."""

import json

import pytest
from helpers.paths import ROOT

from jaxrl.analysis.curves import _distinguishes_curves
from jaxrl.engine.options import TrainingOptions
from jaxrl.runs.directory import plain
from jaxrl.runs.run_config import SCHEMA, RunConfig, changes
from jaxrl.runs.run_options import RunOptions

FOLLOWING = {
    "devices", "num_evaluations", "checkpoint_seconds", "keep_checkpoints", "keep_best",
    "stop_at_return", "time_budget", "tensorboard", "wandb", "env_timeout",
}  # fmt: skip
RECORDS = {"schema_version", "versions", "revision", "device", "platform"}
SAMPLES = {"num_eval_episodes", "seeds", "points", "key_type", "vmapped"}
TRAINING = {
    "algorithm", "environment", "environment_parameters", "hyper_parameters", "warm_start",
    "dataset", "expert",
    "total_steps", "eval_mode", "normalize_observations", "normalize_rewards", "reset_policy",
    "pool_size", "actors", "actor_lag",
}  # fmt: skip

RUN = RunConfig(
    algorithm="ppo",
    environment="jaxrl/corridor",
    environment_parameters={"num_cells": 7},
    hyper_parameters={"hidden_sizes": (8, 8), "target_kl": None},
    seeds=(3, 4),
    training=TrainingOptions(total_steps=512, normalize_rewards=True),
    options=RunOptions(num_evaluations=2),
)
CONFIG = json.loads(json.dumps(plain({**RUN.config(), "vmapped": True, "schema_version": 2})))


def test_every_name_has_its_part():
    parts = [FOLLOWING, RECORDS, SAMPLES, TRAINING]
    assert set.union(*parts) == set(SCHEMA)
    assert sum(map(len, parts)) == len(SCHEMA)


@pytest.mark.parametrize("name", sorted(SCHEMA))
def test_what_learns_otherwise_is_another_run(name):
    """`total_steps` may grow, some options may change, and curves are pooled over seeds."""
    told = list(changes({**CONFIG, name: 1}, {**CONFIG, name: 2}))
    may_change = FOLLOWING | RECORDS | {"total_steps"}
    assert told == ([] if name in may_change else [f"{name} was 1 and is 2"])
    assert _distinguishes_curves(name, 1) == (name in TRAINING)
    assert not _distinguishes_curves(name, None)


def test_a_name_that_is_not_known_is_compared():
    assert list(changes(CONFIG, {**CONFIG, "flavour": 2})) == ["flavour was None and is 2"]
    assert _distinguishes_curves("flavour", 2)


def test_parts_of_tables_are_named_one_by_one():
    """Hyper-parameters that the file does not have yet count as their defaults."""
    defaults = {"hidden_sizes": [64, 64], "discount": 0.99, "clip_value": True, "torso": None}
    told = {"hidden_sizes": [8], "discount": 0.9, "clip_value": True, "torso": None}
    now = {**CONFIG, "hyper_parameters": told}
    assert list(changes(CONFIG, now, defaults)) == [
        "hyper_parameters.hidden_sizes was [8, 8] and is [8]",
        "hyper_parameters.discount was 0.99 and is 0.9",
    ]


def test_what_an_older_configuration_does_not_say_is_what_it_did():
    old = {k: x for k, x in CONFIG.items() if k not in ("eval_mode", "warm_start", "vmapped")}
    now = {**CONFIG, "eval_mode": "greedy"}
    assert list(changes(old, now)) == []
    assert list(changes(old, {**now, "eval_mode": "sample", "warm_start": "x"})) == [
        "eval_mode was greedy and is sample", "warm_start was None and is x",
    ]  # fmt: skip
    for schema in ("run_schema_1", "run_schema_2"):
        path = ROOT / "tests" / "data" / schema
        then = json.loads((path / "config.json").read_text())
        read = RunConfig.of_run(path)
        assert (
            read.training.settings().items()
            >= {k: x for k, x in then.items() if k in read.training.settings()}.items()
        )
        again = json.loads(json.dumps(plain(read.config())))
        assert list(changes({**then, "hyper_parameters": again["hyper_parameters"]}, {
            **again, "eval_mode": "greedy"})) == []  # fmt: skip


def test_a_configuration_is_read_back():
    assert RunConfig.of_config(CONFIG, "here") == RUN
