"""Files and output of runs: statistics, directories, checkpoints, progress."""

import concurrent.futures
import contextlib
import dataclasses
import errno
import io
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
import scipy.stats
from helpers.agents.idle import Idle
from helpers.environments import Counter
from helpers.sources import imports
from rich.console import Console

import jaxrl
import jaxrl_envs
from jaxrl.agents import PPO
from jaxrl.analysis.plots import learning_curve
from jaxrl.analysis.statistics import bootstrap_interval, iqm, mean_of_finished, summarize
from jaxrl.cli import progress
from jaxrl.engine.training import Training
from jaxrl.runs import fit, loop, programs
from jaxrl.runs.checkpoint_files import Checkpoints, DamagedCheckpoint
from jaxrl.runs.description import describe
from jaxrl.runs.directory import SCHEMA_VERSION, RunDirectory, read_metrics
from jaxrl.runs.events import Compiled, Evaluation, Progress, Result
from jaxrl.runs.members import Members, seeds_of
from jaxrl.runs.recorder import Recorder
from jaxrl.runs.run_config import Origin
from jaxrl.runs.run_options import RunOptions
from jaxrl.runs.sweeps import SweepDirectory
from jaxrl.schedules import Linear
from jaxrl.trees import strong

KEY = jax.random.key(0)


# Statistics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 10, 16, 101])
def test_iqm_is_the_mean_without_a_quarter_on_each_side(size):
    scores = np.random.default_rng(size).normal(size=size)
    np.testing.assert_allclose(iqm(scores), scipy.stats.trim_mean(scores, 0.25), rtol=1e-12)
    np.testing.assert_allclose(iqm(scores.reshape(1, -1)), iqm(scores), rtol=1e-12)


def test_iqm_ignores_outliers_and_owns_up_to_nan():
    assert iqm(np.array([-1e9, 1.0, 2.0, 1e9])) == 1.5
    assert np.isnan(iqm(np.array([1.0, 2.0, 3.0, np.nan])))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_the_interval_is_that_of_every_resample(level):
    """Three seeds have 27 resamples: the exact quantiles of their means."""
    scores = np.array([1.0, 2.0, 10.0])
    means = np.sort([np.mean(draw) for draw in itertools.product(scores, repeat=3)])
    expected = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    np.testing.assert_allclose(bootstrap_interval(scores, level=level), expected, rtol=1e-12)


def test_the_interval_agrees_with_scipy():
    scores = np.random.default_rng(0).normal(100.0, 10.0, 20)
    theirs = scipy.stats.bootstrap(
        (scores,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    np.testing.assert_allclose(bootstrap_interval(scores), theirs, atol=0.3)  # of a width of 9
    assert bootstrap_interval(scores) == bootstrap_interval(scores)
    assert bootstrap_interval(np.full(5, 3.0)) == (3.0, 3.0)


def test_one_seed_has_no_interval():
    assert np.isnan(bootstrap_interval(np.array([1.0]))).all()
    summary = summarize(np.array([4.0]))
    assert (summary["mean"], summary["std"], summary["iqm"]) == (4.0, 0.0, 4.0)
    assert np.isnan([summary["ci_low"], summary["ci_high"]]).all()
    assert summary["per_seed"] == [4.0]


def test_unfinished_episodes_do_not_count():
    returns = np.array([[1.0, np.nan, 3.0], [np.nan] * 3, [5.0] * 3], np.float32)
    np.testing.assert_array_equal(mean_of_finished(returns), [2.0, np.nan, 5.0])


# The directory ------------------------------------------------------------------------------------


def test_a_directory_is_made_whole_and_taken_away_whole(tmp_path):
    directory = RunDirectory.create(tmp_path / "a" / "b" / "run")
    assert directory.path.is_dir()
    assert list(directory.path.iterdir()) == []
    directory.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "empty").mkdir()
    RunDirectory.create(tmp_path / "empty").discard()
    RunDirectory.create(str(tmp_path / "a" / "run")).discard()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "empty"]


def test_what_was_written_stays(tmp_path):
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_config({"algorithm": "ppo"})
    directory.discard()
    assert [p.name for p in directory.path.iterdir()] == ["config.json"]
    with pytest.raises(ValueError, match="is not empty"):
        RunDirectory.create(directory.path)


def in_threads(function, number):
    """The results of `number` simultaneous calls. File locks are not shared between threads."""
    barrier = threading.Barrier(number)

    def one(_):
        barrier.wait()
        return function()

    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


def test_one_of_many_claims_a_directory_and_the_others_leave_it_alone(tmp_path):
    """Also while the directory is created and removed repeatedly."""
    owners = []

    def claim():
        refused = []
        for _ in range(30):
            try:
                with RunDirectory.create(tmp_path / "a" / "run") as directory:
                    owners.append(directory)
                    time.sleep(1e-3)
                    assert owners == [directory]
                    assert directory.path.is_dir()
                    owners.clear()
            except ValueError as error:
                refused.append(str(error))
        return refused

    messages = list(itertools.chain(*in_threads(claim, 8)))
    assert 0 < len(messages) < 8 * 30
    assert all("another process is writing to the run" in message for message in messages)
    assert {p.name for p in tmp_path.rglob("*")} <= {"a", "run"}
    first = RunDirectory.create(tmp_path / "run")
    for refused in (RunDirectory.create, SweepDirectory.create, SweepDirectory.resume):
        with pytest.raises(ValueError, match=r"another process is writing to the run .*/run: wait"):
            refused(tmp_path / "run")
    assert first.path.is_dir()


def test_a_run_goes_on_with_the_sweep_that_it_is_part_of(tmp_path):
    with SweepDirectory.create(tmp_path / "a sweep") as sweep:
        sweep.begin(types.SimpleNamespace(content=dict))
    run = RunDirectory(sweep.path / "000")
    assert run.resume_command == sweep.resume_command == f"jaxrl resume '{tmp_path}/a sweep'"
    with pytest.raises(ValueError, match="contains a sweep: resume it with jaxrl resume '"):
        SweepDirectory.create(sweep.path)


def test_names_that_nobody_gave_never_collide(tmp_path):
    found = in_threads(lambda: RunDirectory.create_numbered(tmp_path / "runs" / "ppo-1"), 6)
    assert sorted(x.path.name for x in found) == ["ppo-1", *(f"ppo-1-{n}" for n in range(2, 7))]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to the run directory .*file/run: "):
        RunDirectory.create_numbered(tmp_path / "file" / "run")
    assert SweepDirectory.create_numbered(tmp_path / "runs" / "ppo-1").path.name == "ppo-1-7"


def test_a_claim_lasts_as_long_as_its_process(tmp_path):
    """A stopped process keeps its claim; a killed one does not."""
    code = (
        "import sys; from jaxrl.runs.directory import RunDirectory;"
        "x = RunDirectory.create(sys.argv[1]); print(1, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(ValueError, match="another process is writing to the run"):
            RunDirectory.create(tmp_path / "run")
        process.kill()
    (tmp_path / "run" / ".config.json.other-host-7.partial").touch()
    with RunDirectory.create(tmp_path / "run") as directory:
        directory.write_config({}, new=True)
    with pytest.raises(ValueError, match=r"empty: continue its run with jaxrl resume .*/run, or"):
        RunDirectory.create(tmp_path / "run")


@pytest.mark.parametrize("links", [True, False])
def test_a_file_system_without_locks_or_links(tmp_path, monkeypatch, links):
    def unsupported(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    first, second = RunDirectory.create(tmp_path / "run"), RunDirectory.create(tmp_path / "run")
    if not links:
        monkeypatch.setattr("os.link", unsupported)
    first.write_config({"a": 1}, new=True)
    assert [p.name for p in first.path.iterdir()] == ["config.json"]
    if links:  # one of two that could not see each other
        with pytest.raises(ValueError, match="another process has started a run in"):
            second.write_config({"a": 2}, new=True)
        assert json.loads((first.path / "config.json").read_text())["a"] == 1


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(ValueError, match="cannot write to the run directory"):
            RunDirectory.create(path)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(ValueError, match="deep/run: Permission denied"):
        RunDirectory.create(tmp_path / "deep" / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_json_has_no_nan_and_every_file_its_schema(tmp_path):
    directory = RunDirectory.create(tmp_path / "run")
    row = {
        "nan": float("nan"), "inf": np.float32(np.inf), "array": jnp.array([1.5, jnp.nan]),
        "integer": np.int64(3), "flag": np.bool_(True), "path": Path("x"), "none": None,
        "nested": {"tuple": (1, 2.5)},
    }  # fmt: skip
    directory.append_metrics([row, {"step": 2}])
    directory.append_metrics([{"step": 3}])
    first, *rest = read_metrics(directory.path)
    assert first == {
        "nan": None, "inf": None, "array": [1.5, None], "integer": 3, "flag": True, "path": "x",
        "none": None, "nested": {"tuple": [1, 2.5]},
    }  # fmt: skip
    assert rest == [{"step": 2}, {"step": 3}]
    directory.write_config({"a": 1})
    directory.write_summary({"mean": float("nan")})
    for name in ("config.json", "summary.json"):
        assert json.loads((directory.path / name).read_text())["schema_version"] == SCHEMA_VERSION
    assert sorted(p.name for p in directory.path.iterdir()) == [
        "config.json", "metrics.jsonl", "summary.json",
    ]  # fmt: skip


# The recorder -------------------------------------------------------------------------------------


def test_seeds_are_read_from_the_keys():
    assert seeds_of(jax.random.key(7)) == [7]
    assert seeds_of(jax.vmap(jax.random.key)(jnp.array([3, 2**32 - 1], jnp.uint32))) == [
        3,
        2**32 - 1,
    ]
    others = seeds_of(jax.random.split(KEY, 3))
    assert len(set(others)) == 3
    assert max(others) < 2**64


def test_an_agent_is_described_by_plain_numbers():
    agent = PPO(learning_rate=Linear(1e-3, 0.0), hidden_sizes=(8,)).bind(Counter().spec)
    described = describe(strong(agent))
    assert described["learning_rate"] == {"linear": {"start": 0.001, "end": 0.0, "share": 1.0}}
    assert described["discount"] == 0.99
    assert described["hidden_sizes"] == (8,)
    assert "spec" not in described
    assert set(described) == {field.name for field in dataclasses.fields(PPO)} - {"spec"}


def test_a_run_in_which_nothing_finished_has_nulls_and_no_zeros(tmp_path):
    training = Training.create(Idle(), Counter(), total_steps=20, num_eval_episodes=3)
    keys = jax.random.split(KEY, 2)
    directory = RunDirectory.create(tmp_path / "run")
    origin = Origin(algorithm="idle", environment="counter", environment_parameters={"limit": 3})
    members = Members.of(training, keys)
    returns = np.array([[np.nan] * 3, [1.0, np.nan, 3.0]], np.float32)
    evaluation = Evaluation(
        20, 1.0, returns, np.full((2, 3), 9), {"entropy": np.array([np.nan, 2.0])}, 0.0
    )
    with Recorder(directory, members, RunOptions(), origin) as recorder:
        recorder(Compiled(1.0, 2.0))
        recorder(evaluation)
        state = {"params": jnp.zeros(2)}
        recorder.finish(Result(state, training, [evaluation], 40, 0.5, Compiled(1.0, 2.0)))
    first, second = read_metrics(directory.path)
    assert [first[f"return_{x}"] for x in ("mean", "std", "min", "max")] == [None] * 4
    assert (first["episodes"], first["unfinished_episodes"], first["entropy"]) == (0, 3, None)
    assert [second[f"return_{x}"] for x in ("mean", "std", "min", "max")] == [2, 1, 1, 3]
    assert (second["episodes"], second["unfinished_episodes"], second["entropy"]) == (2, 1, 2)
    summary = json.loads((directory.path / "summary.json").read_text())
    assert summary["final_return"]["per_seed"] == [None, 2]
    assert summary["final_return"]["mean"] is None
    assert summary["steps_per_second"] == 80
    config = json.loads((directory.path / "config.json").read_text())
    assert (config["algorithm"], config["environment_parameters"]) == ("idle", {"limit": 3})


# fit ----------------------------------------------------------------------------------------------


def test_fit_counts_training_time_only_and_writes_what_it_returns(tmp_path, monkeypatch):
    """With a fake clock: compiling takes 1000 s, an evaluation 100 s, a chunk 2 s."""
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0])
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(programs, "time", clock)

    def taking(seconds, function):
        def timed(*arguments):
            now[0] += seconds
            return function(*arguments)

        return timed

    class Programs(programs.Programs):
        def __init__(self, members):
            super().__init__(members)
            now[0] += 1000
            self.init = taking(10, self.init)
            self.chunk = taking(2, self.chunk)
            self.evaluate = taking(100, self.evaluate)

    monkeypatch.setattr(loop, "programs_of", lambda members, options: Programs(members))
    events = []
    result = fit.fit(
        Idle(), Counter(limit=4), jax.random.split(KEY, 3), total_steps=100, num_evaluations=5,
        num_eval_episodes=2, run_dir=tmp_path / "run", callbacks=[events.append],
    )  # fmt: skip
    calls = sum(isinstance(event, Progress) for event in events)
    assert calls == 10  # a second is less than a call: one iteration each
    assert result.train_seconds == 2 * calls
    assert result.env_steps == 3 * 100
    assert result.steps_per_second == 300 / 20
    assert isinstance(events[0], Compiled)
    assert [e.steps for e in events if isinstance(e, Evaluation)] == [20, 40, 60, 80, 100]
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert (last.steps, last.steps_per_second) == (100, 15)
    left = [e.seconds_left for e in events if isinstance(e, Progress)]
    # Before the first evaluation nobody knows what one takes; the last is still to come at the end.
    assert left == [18, 16, 414, 412, 310, 308, 206, 204, 102, 100]
    left = [e.seconds_left for e in events if isinstance(e, Evaluation)]
    assert left == [416, 312, 208, 104, 0]

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary == {"schema_version": SCHEMA_VERSION, **result.summary()}
    assert [row["train_seconds"] for row in read_metrics(tmp_path / "run")][::3] == [
        4,
        8,
        12,
        16,
        20,
    ]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["algorithm"], config["environment"]) == ("Idle", "Counter")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    restored = checkpoints.load(
        100, "learned", {"agent": result.state.agent, "stats": result.state.stats}
    )
    np.testing.assert_array_equal(restored["agent"], result.state.agent)


def test_fit_refuses_a_directory_before_compiling(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "programs_of", None)
    (tmp_path / "mine").write_text("")
    with pytest.raises(ValueError, match="is not empty"):
        fit.fit(Idle(), Counter(), KEY, total_steps=10, run_dir=tmp_path)
    with pytest.raises(ValueError, match="total_steps is 0"):
        fit.fit(Idle(), Counter(), KEY, total_steps=0, run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="num_evaluations is 0"):
        fit.fit(Idle(), Counter(), KEY, total_steps=9, num_evaluations=0, run_dir=tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


# Checkpoints --------------------------------------------------------------------------------------


def state_of_every_kind():
    return {
        "float": jax.random.normal(KEY, (3, 2)),
        "special": jnp.array([jnp.nan, jnp.inf, -0.0, 1e-45]),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "integers": (jnp.int32(-7), jnp.arange(4, dtype=jnp.uint8)),
        "flags": jnp.array([True, False]),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(4, impl="rbg"), 2),
        "nothing": (),
    }


def bits(x):
    """The type and the bytes of a leaf."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return str(x.dtype), x.shape, np.asarray(jax.random.key_data(x)).tobytes()
    return str(x.dtype), x.shape, np.asarray(x).tobytes()


def test_a_checkpoint_returns_equal_bits_and_says_nothing(tmp_path, capfd):
    state = state_of_every_kind()
    with contextlib.closing(Checkpoints(tmp_path / "c")) as checkpoints:
        checkpoints.save(7, {"state": state}, {"iteration": 3})
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.steps() == [7]
    assert checkpoints.record(7)["iteration"] == 3
    for like in (state, jax.eval_shape(lambda: state_of_every_kind())):
        restored = checkpoints.load(7, "state", like)
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        assert jax.tree.map(bits, restored) == jax.tree.map(bits, state)
    assert jax.random.normal(restored["key"]) == jax.random.normal(state["key"])
    assert capfd.readouterr() == ("", "")


def test_a_saved_array_may_be_donated_at_once(tmp_path):
    """The writer has a copy, which later training does not overwrite."""
    step = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    x = jnp.zeros(100_000)
    with contextlib.closing(Checkpoints(tmp_path / "c")) as checkpoints:
        for i in range(1, 4):
            x = step(x)
            checkpoints.save(i, {"x": x}, {})
            for _ in range(20):
                x = step(x)
    for i in range(1, 4):
        loaded = checkpoints.load(i, "x", x)
        np.testing.assert_array_equal(loaded, 21 * i - 20)


def test_the_last_few_checkpoints_are_kept(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path / "c", keep=2)) as checkpoints:
        for i in (10, 9, 100, 11):  # the newest is the one with the most steps
            checkpoints.save(i, {"x": jnp.zeros(1)}, {})
    assert len(checkpoints.steps()) == 2
    assert Checkpoints(tmp_path / "none").steps() == []


def test_a_checkpoint_is_not_read_into_another_shape(tmp_path):
    with contextlib.closing(Checkpoints(tmp_path / "c")) as checkpoints:
        checkpoints.save(1, {"x": {"a": jnp.zeros(3)}}, {})
    for like, message in (
        ({"a": jnp.ones(4)}, r"has a as float32\[3\], expected float32\[4\]"),
        ({"a": jnp.ones(3, jnp.int32)}, r"expected int32\[3\]"),
        ({"a": jnp.ones(3), "b": jnp.ones(3)}, "has no b"),
        ({}, "has a, which is not expected"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoints.load(1, "x", like)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's threads
def test_every_damage_is_noticed(tmp_path):
    """A flipped bit in a data file; a truncated, empty or missing file."""
    like = {"a": jax.random.normal(KEY, (300,)), "b": jnp.arange(5)}
    with contextlib.closing(Checkpoints(tmp_path / "c")) as checkpoints:
        checkpoints.save(1, {"x": like}, {"iteration": 1})
    files = [p for p in (tmp_path / "c" / "1").rglob("*") if p.is_file() and p.stat().st_size > 0]
    noticed = set()
    for file in files:
        content = file.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        for damage in (flipped, content[:middle], b"", None):
            if damage is None:
                file.unlink()
            else:
                file.write_bytes(damage)
            try:
                same = jax.tree.map(bits, checkpoints.load(1, "x", like)) == jax.tree.map(
                    bits, like
                )
                assert same, file  # a file that nobody needs
            except DamagedCheckpoint:
                noticed.add(file)
            file.write_bytes(content)
    assert len(noticed) >= 3  # the record, the manifest, the data
    jax.tree.map(np.testing.assert_array_equal, checkpoints.load(1, "x", like), like)


def test_nothing_in_the_library_pickles():
    packages = (jaxrl, jaxrl_envs)
    for path in (p for x in packages for p in Path(x.__file__).parent.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"pickle|joblib|dill\b|shelve", " ".join(imports(source))), path
        assert "allow_pickle" not in source, path


# The learning curve -------------------------------------------------------------------------------


CURVES = {
    "one seed": np.array([[1.0], [3.0], [2.0]]),
    "three seeds": np.array([[1.0, 2.0, 3.0], [3.0, 3.0, 3.0], [2.0, 5.0, 9.0]]),
    "constant": np.full((3, 2), 500.0),
    "gaps": np.array([[1.0, 2.0], [np.nan, 2.0], [3.0, np.nan]]),
    "nothing": np.full((3, 2), np.nan),
    "one point": np.array([[-1e6]]),
}


@pytest.mark.parametrize("name", CURVES)
def test_every_curve_can_be_drawn(tmp_path, name):
    returns = CURVES[name]
    steps = 1000 * (1 + np.arange(len(returns)))
    with warnings.catch_warnings(action="error"):
        learning_curve(steps, returns, tmp_path / "curve.png", title=name)
    picture = matplotlib.image.imread(tmp_path / "curve.png")
    assert picture.shape[:2] == (504, 840)
    assert picture.std() > 0.01


def test_drawing_leaves_the_users_matplotlib_alone():
    """Without pyplot, no backend is chosen and no figure stays open."""
    source = Path(sys.modules[learning_curve.__module__].__file__).read_text()
    assert "import matplotlib.pyplot" not in source


# Lines on the screen ------------------------------------------------------------------------------

EVENTS = [
    Compiled(1.0, 2.5),
    Progress(500, 2000, 1.0, 1500.0, 3.0, 12.25),
    Evaluation(1000, 2.0, np.array([[1.0, 3.0], [4.0, np.nan]]), np.ones((2, 2)), {}, 3.0),
    Progress(1500, 2000, 3.0, 1600.0, 3700.0, float("nan")),
    Evaluation(2000, 4.0, np.full((2, 2), np.nan), np.ones((2, 2)), {}, 0.0),
]
SHOWN = [
    "compiled in 3.5 s (tracing 1.0, XLA 2.5); training",
    "step        1,000  return      3.0 ± 1.0 (2 seeds)  1,500 steps/s  0:03 left",
    "step        2,000  return: no episode finished  1,600 steps/s  0:00 left",
]


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1e9)
    with progress.reporter(2) as show:
        for event in EVENTS:
            show(event)
    out, err = capsys.readouterr()
    assert out.splitlines() == ["tracing and compiling ...", *SHOWN]
    assert err == ""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    with progress.reporter(2) as show:
        for event in EVENTS:
            show(event)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "   25%  500 / 2,000 steps  training return 12.2  1,500 steps/s  0:03 left"
    assert lines[4] == "   75%  1,500 / 2,000 steps  1,600 steps/s  1:01:40 left"


def test_a_long_silence_is_broken(monkeypatch):
    """A line is printed while jax compiles, and printing stops with the run."""
    heard = threading.Event()

    class Screen(io.StringIO):
        def write(self, text):
            if "still tracing and compiling" in text:
                heard.set()
            return super().write(text)

    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(progress, "SECONDS_OF_SILENCE", 1e-3)
    before = threading.active_count()
    with progress.reporter(1):
        assert heard.wait(60)
    assert threading.active_count() == before


def test_a_live_line_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=60, highlight=False)
    with progress._live(console, progress._Lines(2, "seeds")) as show:
        for event in EVENTS:
            show(event)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue()).replace("\r", "\n")
    lines = [line.rstrip() for line in text.split("\n")]
    assert [line for line in lines if line in SHOWN] == SHOWN  # whole, though wider than 60
    assert any("tracing and compiling (0:0" in line for line in lines)
    assert all(len(line) <= 60 for line in lines if line not in SHOWN)


def test_a_run_without_jit_is_for_debugging(tmp_path):
    """Operations run one by one under `jax.disable_jit()`, with the same files."""
    events = []
    with jax.disable_jit():
        result = fit.fit(
            Idle(num_envs=1), Counter(limit=3), KEY, total_steps=5, num_evaluations=1,
            num_eval_episodes=2, run_dir=tmp_path / "run", callbacks=[events.append],
        )  # fmt: skip
    assert result.evaluations[-1].returns.tolist() == [[6.0, 6.0]]  # 1 + 2 + 3
    assert result.evaluations[-1].training["training_episodes"].tolist() == [1]
    assert [row["return_mean"] for row in read_metrics(tmp_path / "run")] == [6.0]
    (compiled,) = (event for event in events if isinstance(event, Compiled))
    assert compiled.compile_seconds == 0
    assert (
        progress._Lines(1, "seeds").of(compiled).startswith("not compiled because jit is disabled")
    )
