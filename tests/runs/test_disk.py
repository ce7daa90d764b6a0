"""Full disks and user paths: one-line errors and no data loss."""

import contextlib
import errno
import os
import resource
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.agents.idle import Idle
from helpers.commands import run_in_process
from helpers.environments import Counter
from helpers.paths import DATA
from helpers.plans import equal
from matplotlib.figure import Figure

from jaxrl.analysis.curves import read_curves
from jaxrl.cli import run_commands
from jaxrl.cli.command_line import parse_command_line
from jaxrl.runs import directory, disk
from jaxrl.runs.checkpoint_files import Checkpoints
from jaxrl.runs.directory import RunDirectory, read_metrics
from jaxrl.runs.disk import WriteError, replace, user_path
from jaxrl.runs.fit import fit
from jaxrl.runs.load import load_run
from jaxrl.runs.loggers import TensorBoard
from jaxrl.runs.sweeps import SweepDirectory
from jaxrl_envs import render

KEY = jax.random.key(0)
OPTIONS = dict(total_steps=100, num_evaluations=5, num_eval_episodes=2, tensorboard=False)
RUN = DATA / "run_schema_2"


@contextlib.contextmanager
def largest_file(size):
    """Limits the size of files, so that writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill_at(monkeypatch, name, nth=1):
    """Simulates a full disk when this file is written for the `nth` time."""
    seen = []

    def sync(file):
        file.flush()
        if name in Path(file.name).name:
            seen.append(name)
            if len(seen) >= nth:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "sync", sync)
    monkeypatch.setattr(directory, "sync", sync)


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "nth"), [("metrics.jsonl", 4), ("summary.json", 1)])
def test_a_full_disk_ends_a_run_which_goes_on_to_the_same_bits(tmp_path, monkeypatch, name, nth):
    path = tmp_path / "run"
    whole = fit(Idle(), Counter(), KEY, **OPTIONS)
    with monkeypatch.context() as patch:
        fill_at(patch, name, nth)
        with pytest.raises(WriteError) as caught:
            fit(Idle(), Counter(), KEY, run_dir=path, checkpoint_seconds=0.0, **OPTIONS)
    last = Checkpoints(path / "checkpoints").steps()[0]
    assert str(caught.value) == (
        f"cannot write {path / name}: No space left on device; the last checkpoint is "
        f"{path}/checkpoints/{last}; resume with: fit(..., run_dir='{path}', resume=True)"
    )
    assert caught.value.errno == errno.ENOSPC
    assert last in {4: (60, 70), 1: (100,)}[nth]
    result = fit(Idle(), Counter(), KEY, run_dir=path, resume=True, **OPTIONS)
    assert equal(result.state, whole.state)
    assert [row["step"] for row in read_metrics(path)] == [20, 40, 60, 80, 100]


def test_a_disk_that_is_full_from_the_beginning(tmp_path, monkeypatch):
    fill_at(monkeypatch, "config.json")
    with pytest.raises(WriteError, match=r"run/config\.json: No space left on device$"):
        fit(Idle(), Counter(), KEY, run_dir=tmp_path / "run", **OPTIONS)
    assert list(tmp_path.iterdir()) == []
    fill_at(monkeypatch, "sweep.json")
    with (
        pytest.raises(WriteError, match=r"sweep/sweep\.json: No space left on device$"),
        SweepDirectory.create(tmp_path / "sweep") as sweep,
    ):
        sweep.begin(types.SimpleNamespace(content=dict))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_and_prints_nothing(tmp_path, capfd):
    """orbax's writer threads log their errors and raise them later."""
    state = {"x": jnp.asarray(np.random.default_rng(0).normal(size=10_000), jnp.float32)}
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, {"state": state}, {})
    checkpoints.wait()
    with largest_file(20_000):
        checkpoints.save(2, {"state": state}, {})
        with pytest.raises(WriteError, match=r"c: File too large$"):
            checkpoints.wait()
    checkpoints.close()
    assert checkpoints.steps() == [1]
    assert equal(checkpoints.load(1, "state", state), state)
    assert capfd.readouterr() == ("", "")


def test_event_files_that_do_not_fit_block_nothing(tmp_path):
    logger = TensorBoard(tmp_path / "tb", [{}])
    row = {f"metric_{i}": 1.0 for i in range(200)}
    with largest_file(1000), pytest.raises(WriteError, match="tb: File too large"):
        logger.write([{"step": 1, **row}])
    logger.close()
    (tmp_path / "none").touch()
    with pytest.raises(WriteError, match=r"cannot write .*none/tb: Not a directory"):
        TensorBoard(tmp_path / "none" / "tb", [{}])


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    replace(tmp_path / "file", "before")
    with largest_file(3), pytest.raises(WriteError, match=r"cannot write .*file: File too large"):
        replace(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_commands_name_the_file_and_end_with_1(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", full)
    monkeypatch.setattr(render, "render", full)
    for words, file in (
        (["plot", RUN], "curves.png"),
        (["compare", RUN, "--out", "x.png"], "x.png"),
    ):
        status, _, err = run_in_process(*words)
        assert status == 1
        assert err == [f"jaxrl: error: cannot write {file}: No space left on device"]
    monkeypatch.setattr(render, "ending", lambda env: ".gif")
    space = types.SimpleNamespace
    training = space(eval_envs=space(env=None))
    policy = space(training=training, episode=lambda key, **options: ((), np.zeros(2)))
    with pytest.raises(WriteError, match=r"cannot write run/episode\.gif: No space left"):
        run_commands._render(policy, KEY, Path("run"), None)
    monkeypatch.undo()
    status, _, err = run_in_process("plot", RUN, "--out", tmp_path / "none" / "x.png")
    assert status == 2  # which the user can mend
    assert len(err) == 1
    assert "none/x.png: [Errno 2] No such file or directory" in err[0]


# Paths --------------------------------------------------------------------------------------------


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs/x") == tmp_path / "runs" / "x"
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert user_path("a/~/x") == Path("a/~/x")
    monkeypatch.chdir(tmp_path)
    fit(Idle(), Counter(), KEY, run_dir="~/runs/x", **OPTIONS)
    assert (tmp_path / "runs" / "x" / "summary.json").exists()
    result = load_run("~/runs/x", agent=Idle(), env=Counter())
    assert (result.steps, result.path) == (100, tmp_path / "runs" / "x")
    assert len(read_curves(["~/runs/x"])) == 1
    options = parse_command_line(["train", "ppo", "a/b", "--run-dir=~/y"])
    assert options.run_dir == tmp_path / "y"  # of which no shell makes anything else
    result = fit(Idle(), Counter(), KEY, run_dir="~/runs/x", resume=True, **OPTIONS)
    assert result.env_steps == 100
    with pytest.raises(ValueError, match=r"run directory .*/runs/x is not empty"):
        RunDirectory.create("~/runs/x")
    assert not (tmp_path / "~").exists()
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(ValueError, match="~/x: there is no home directory: give the full path"):
        user_path("~/x")
