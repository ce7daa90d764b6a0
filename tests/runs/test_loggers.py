"""TensorBoard and Weights & Biases."""

import json

import jax
import jax.numpy as jnp
import pytest
from helpers.agents import idle
from helpers.environments import Counter
from tensorboardX.proto import event_pb2

from jaxrl.agent import Update
from jaxrl.runs import loggers
from jaxrl.runs.directory import read_metrics
from jaxrl.runs.events import Progress
from jaxrl.runs.fit import fit

KEY = jax.random.key(0)
OPTIONS = dict(total_steps=40, num_evaluations=4, num_eval_episodes=2)


class Idle(idle.Idle):
    """With a metric of its own."""

    def update(self, state, batch, key, clock):
        return Update(state, {"progress": clock.fraction})


def scalars(folder):
    """(step, tag, value) of every event file, in the order of the files' names."""
    found = []
    for file in sorted(folder.glob("events*")):
        content, at = file.read_bytes(), 0
        while at < len(content):  # length, its checksum, the event, its checksum
            length = int.from_bytes(content[at : at + 8], "little")
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return found


def test_tensorboard_has_the_lines_of_metrics(tmp_path):
    fit(Idle(), Counter(limit=4), KEY, run_dir=tmp_path / "run", **OPTIONS)
    found = scalars(tmp_path / "run" / "tensorboard")
    rows = list(read_metrics(tmp_path / "run"))
    for row in rows:
        assert (row["step"], "evaluation/return_mean", row["return_mean"]) in found
        assert (row["step"], "training/progress", pytest.approx(row["progress"])) in found
    tags = {tag for _, tag, _ in found}
    assert tags == {
        f"{'evaluation' if name.startswith(loggers.EVALUATED) else 'training'}/{name}"
        for name in rows[0]
        if name not in loggers.NOT_LOGGED
    }


def test_each_member_has_curves_of_its_own_and_a_resumed_run_goes_on_with_them(tmp_path):
    keys = jax.vmap(jax.random.key)(jnp.arange(2, dtype=jnp.uint32))

    def end(event):
        if isinstance(event, Progress) and event.steps >= 30:
            raise KeyError

    options = OPTIONS | {"run_dir": tmp_path / "run", "resume": True, "checkpoint_seconds": 0.0}
    with pytest.raises(KeyError):
        fit(Idle(), Counter(limit=4), keys, callbacks=[end], **options)
    fit(Idle(), Counter(limit=4), keys, **options)
    folders = sorted(p.name for p in (tmp_path / "run" / "tensorboard").iterdir())
    assert folders == ["seed=0", "seed=1"]
    for folder in folders:
        found = scalars(tmp_path / "run" / "tensorboard" / folder)
        steps = {step for step, tag, _ in found if tag == "evaluation/return_mean"}
        assert steps == {10, 20, 30, 40}


def test_what_goes_on_within_a_second_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    for step in (10, 20):
        logger = loggers.TensorBoard(tmp_path, [{}], steps=step - 10)
        logger.write([{"step": step, "return_mean": 1.0}])
        logger.close()
    assert [step for step, tag, _ in scalars(tmp_path) if tag] == [10, 20]


def test_no_event_files_where_none_are_wanted(tmp_path):
    fit(Idle(), Counter(limit=4), KEY, run_dir=tmp_path / "run", tensorboard=False, **OPTIONS)
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_weights_and_biases_offline_and_without_its_key(tmp_path, monkeypatch):
    secret = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fit(Idle(), Counter(limit=4), KEY, run_dir=tmp_path / "run", wandb="project", **OPTIONS)
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"evaluation/return_mean" in content
    assert b"training/progress" in content
    for name in ("config.json", "metrics.jsonl", "summary.json"):
        assert secret not in (tmp_path / "run" / name).read_text()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["wandb"] == "project"


def test_weights_and_biases_that_is_not_there_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'jaxrl\[wandb\]'"):
        fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", wandb="project", **OPTIONS)
    assert not (tmp_path / "run").exists()
