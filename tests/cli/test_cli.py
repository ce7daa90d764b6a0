"""The command line: nothing imports jax early, a small run, and one-line errors."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from helpers.commands import run_in_process

import jaxrl
import jaxrl_envs
from jaxrl.agents import PPO
from jaxrl.analysis.statistics import summarize
from jaxrl.cli import command_line, listing
from jaxrl.cli import train as train_command
from jaxrl.registry import algorithms
from jaxrl.runs import checkpoint, fit
from jaxrl.runs.checkpoint_files import Checkpoints
from jaxrl.runs.directory import SCHEMA_VERSION, read_metrics
from jaxrl_envs import gymnax as family
from jaxrl_envs.registry import list_ids

ENV = "gymnax/CartPole-v1"


# Before jax is imported ---------------------------------------------------------------------------

WITHOUT_JAX = {
    "nothing": [],
    "help": ["--help"],
    "version": ["--version"],
    "list": ["list"],
    "train": ["train"],
    "train help": ["train", "--help"],
    "ppo help": ["train", "ppo", "--help"],
    "help, flags first": ["train", "--num-envs", "8", "ppo", "--help"],
    "unknown command": ["trian", "ppo", ENV],
    "unknown algorithm": ["train", "pppo", ENV, "--num-envs", "8"],
    "unknown algorithm, flags first": ["train", "--num-envs", "8", "pppo", ENV],
    "unknown environment": ["train", "ppo", "gymnax/CartPole-v0"],
    "unknown family": ["train", "ppo", "gym/Nothing"],
    "unknown flag": ["train", "ppo", ENV, "--num-env", "8"],
    "unknown flag, first": ["train", "--learning_rate=1", "ppo", ENV],
    "unknown flag of list": ["list", "--all"],
    "missing environment": ["train", "ppo"],
    "a word too many": ["train", "ppo", ENV, "more"],
    "not a number": ["train", "ppo", ENV, "--learning-rate", "fast"],
    "nan": ["train", "ppo", ENV, "--learning-rate", "nan"],
    "not whole": ["train", "ppo", ENV, "--num-steps", "1.5"],
    "a missing value": ["train", "ppo", ENV, "--num-steps"],
    "schedule": ["train", "ppo", ENV, "--learning-rate", "linear:1:2:3:4"],
    "choice": ["train", "ppo", ENV, "--activation", "tanhh"],
    "no steps": ["train", "ppo", ENV, "--total-steps", "0"],
    "no seeds": ["train", "ppo", ENV, "--seeds", "-1"],
    "seed": ["train", "ppo", ENV, "--seed", "4294967295", "--seeds", "2"],
    "negative seed": ["train", "ppo", ENV, "--seed", "-1"],
    "parameter": ["train", "ppo", ENV, "--env-param", "length"],
    "parameter's number": ["train", "ppo", ENV, "--env-param", "length=nan"],
    "full directory": ["train", "ppo", ENV, "--run-dir", "full"],
    "a file for a directory": ["train", "ppo", ENV, "--run-dir", "full/mine/run"],
    "resume, a hyper-parameter": ["resume", "run", "--learning-rate", "1e-3"],
    "resume, a switch": ["resume", "run", "--no-normalize-rewards"],
    "resume, a typing error": ["resume", "run", "--total-step", "9"],
    "doctor help": ["doctor", "--help"],
    "plot help": ["plot", "--help"],
    "compare help": ["compare", "--help"],
    "no config": ["train", "--config", "absent.toml"],
    "no config's name": ["train", "--config"],
    "two configs": ["train", "--config", "a.toml", "--config=b.toml"],
    "config, no flag": ["train", "--config", "full/run.toml", "--lerning-rate", "1"],
    "config, too many": ["train", "ppo", ENV, "more", "--config", "full/run.toml"],
    "config, unknown algorithm": ["train", "pppo", "--config", "full/run.toml"],
    "config, help": ["train", "--config", "absent.toml", "--help"],
    "config, a full directory": ["train", "--config", "full/run.toml", "--run-dir", "full"],
}

BLOCKER = """
import contextlib, io, json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "gymnax", "matplotlib", "orbax"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Blocker())
from jaxrl.cli.main import main
results = {}
for name, argv in json.loads(sys.argv[1]).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(argv)
            status = 0
        except SystemExit as end:
            status = end.code or 0
    results[name] = status, out.getvalue(), err.getvalue()
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def without_jax(tmp_path_factory):
    """Results of the commands above in a process that cannot import jax, and their files."""
    folder = tmp_path_factory.mktemp("without_jax")
    (folder / "full").mkdir()
    (folder / "full" / "mine").write_text("mine")
    (folder / "full" / "run.toml").write_text(f'algorithm = "ppo"\nenvironment = "{ENV}"\n')
    run = subprocess.run(
        [sys.executable, "-c", BLOCKER, json.dumps(WITHOUT_JAX)],
        cwd=folder, env={**os.environ, "COLUMNS": "100"}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert sorted(p.name for p in folder.rglob("*")) == ["full", "mine", "run.toml"]
    assert (folder / "full" / "mine").read_text() == "mine"
    return json.loads(run.stdout)


def test_help_is_written_as_it_is_meant(without_jax):
    """argparse formats only some of its texts, in which a percent sign must be doubled."""
    for name, (status, out, _) in without_jax.items():
        if "help" in name:
            assert status == 0
            assert "%%" not in out, name
    for name in ("plot help", "compare help"):
        assert "95% interval" in " ".join(without_jax[name][1].split())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train", "the following arguments are required: ALGO, ENV (see jaxrl train --help)"),
        ("unknown command", "there is no command 'trian': did you mean train?"),
        ("unknown algorithm", "there is no algorithm 'pppo': did you mean ppo"),
        ("unknown algorithm, flags first", "there is no algorithm 'pppo': did you mean ppo"),
        ("unknown environment", f"no environment 'gymnax/CartPole-v0': did you mean {ENV}"),
        ("unknown family", "there is no environment 'gym/Nothing'"),
        ("unknown flag", "there is no flag '--num-env': did you mean --num-envs"),
        ("unknown flag, first", "no flag '--learning_rate': did you mean --learning-rate"),
        ("unknown flag of list", "there is no flag '--all': did you mean --help?"),
        ("missing environment", "the following arguments are required: ENV"),
        ("a word too many", "unexpected argument 'more'"),
        ("not a number", "--learning-rate: 'fast' is not a number"),
        ("nan", "--learning-rate: 'nan' is not a finite number"),
        ("not whole", "--num-steps: '1.5' is not a whole number"),
        ("a missing value", "--num-steps: expected one argument"),
        ("schedule", "linear takes 1 to 3 numbers"),
        ("choice", "--activation: invalid choice: 'tanhh' (choose from"),
        ("no steps", "--total-steps: 0 is too small"),
        ("no seeds", "--seeds: -1 is too small"),
        ("seed", "--seed is 4294967295: seeds must lie between 0 and 2**32 - 1"),
        ("negative seed", "--seed is -1"),
        ("parameter", "--env-param: 'length': write NAME=VALUE"),
        ("parameter's number", "--env-param: 'nan' is not a finite number"),
        ("full directory", "the run directory full is not empty"),
        ("a file for a directory", "cannot write to the run directory full/mine/run"),
        (
            "resume, a hyper-parameter",
            "resume has no --learning-rate: a run continues with its own settings",
        ),
        ("resume, a hyper-parameter", "resume takes --checkpoint-seconds, --coordinator, "),
        (
            "resume, a hyper-parameter",
            "has learned: jaxrl train ALGO ENV --warm-start RUN --learning-",
        ),
        ("resume, a switch", "resume has no --no-normalize-rewards"),
        ("resume, a typing error", "no flag '--total-step': did you mean --total-steps"),
        ("no config", "cannot read absent.toml: No such file or directory"),
        ("no config's name", "--config: expected one argument"),
        ("two configs", "--config is given twice"),
        ("config, no flag", "no flag '--lerning-rate': did you mean --learning-rate"),
        ("config, too many", "unexpected argument 'more'"),
        ("config, unknown algorithm", "there is no algorithm 'pppo': did you mean ppo"),
        ("config, a full directory", "the run directory full is not empty"),
    ],
)
def test_a_mistake_is_one_line_and_comes_before_jax(without_jax, name, message):
    status, out, err = without_jax[name]
    assert (status, out) == (2, "")
    assert err.startswith("jaxrl: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_no_arguments_show_the_help(without_jax):
    status, out, err = without_jax["nothing"]
    assert (status, out) == (2, "")
    assert err == without_jax["help"][1]


def test_help_and_list_need_no_jax(without_jax):
    for name in ("help", "version", "list", "train help", "ppo help"):
        status, _, err = without_jax[name]
        assert (status, err) == (0, "")
    assert without_jax["version"][1] == f"jaxrl {jaxrl.__version__}\n"
    listed = without_jax["list"][1]
    for word in (*algorithms(), *list_ids()):
        assert re.search(rf"^  {re.escape(word)}( |$)", listed, re.MULTILINE), word
    assert without_jax["config, help"][1] == without_jax["train help"][1]
    assert "known problems" in without_jax["doctor help"][1]
    for command in ("train", "list", "doctor"):
        assert f"    {command}" in without_jax["help"][1]


def test_help_documents_every_flag(without_jax):
    helped = " ".join(without_jax["ppo help"][1].split())
    assert " ".join(without_jax["help, flags first"][1].split()) == helped
    for flag in algorithms()["ppo"].flags:
        assert f"--{flag.name.replace('_', '-')}" in helped
        assert flag.help.removesuffix(".") in helped
    assert "Learning rate (default: 0.00025; at least 0)" in helped
    assert "--clip-value, --no-clip-value" in helped
    general = without_jax["train help"][1]
    assert "--total-steps" in general
    assert "--learning-rate" not in general  # an algorithm's
    assert "jaxrl train ppo --help" in general


def test_the_first_line_comes_before_jax(tmp_path):
    """The process exits when it first imports jax, so all output was printed before."""
    code = """
import sys

class Tripwire:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            print("importing jax", flush=True)
            raise SystemExit(7)

sys.meta_path.insert(0, Tripwire())
from jaxrl.cli.main import main
main(["train", "ppo", "gymnax/CartPole-v1", "--run-dir", "a/b", "--no-preset"])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 7, run.stderr
    first = f"jaxrl {jaxrl.__version__}: ppo on {ENV}, into a/b"
    assert run.stdout.splitlines() == [first, "importing jax"]
    assert list(tmp_path.iterdir()) == []


def test_the_command_as_a_module():
    run = subprocess.run(
        [sys.executable, "-m", "jaxrl", "train", "pppo", ENV],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert "did you mean ppo or trpo?" in run.stderr


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-c", "from jaxrl.cli.main import main; main(['list'])"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(120) == 0


# Mistakes that only the agent or the environment can see ------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-envs", "3", "--num-steps", "5"], "num_minibatches is 4, which does not divide"),
        (["--num-envs", "0"], "num_envs is 0"),
        (["--learning-rate", "-1e-3"], "learning_rate is -0.001: it must be finite, at least 0"),
        (["--learning-rate=-.5"], "learning_rate is -0.5"),
        (["--learning-rate", "linear:1e-3:-1"], "-1"),
        (["--discount", "1.5"], "discount is 1.5"),
        (["--hidden-sizes", "0"], "hidden_sizes is (0,)"),
        (["--env-param", "lenght=0.7"], "CartPole-v1 has no parameter 'lenght'; it has: "),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(tmp_path, flags, message):
    run_dir = tmp_path / "runs" / "deep"
    flags = [*flags, "--no-preset"]
    status, out, err = run_in_process("train", *flags, "ppo", ENV, "--run-dir", run_dir)
    assert status == 2
    assert out == [f"jaxrl {jaxrl.__version__}: ppo on {ENV}, into {run_dir}"]
    assert len(err) == 1
    assert err[0].startswith("jaxrl: error: ")
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


def test_an_action_space_that_is_not_supported_is_named(tmp_path, monkeypatch):
    env = family._gymnax_object("CartPole-v1")
    monkeypatch.setattr(env, "action_space", lambda params: "a dictionary", raising=False)
    status, _, err = run_in_process("train", "ppo", ENV, "--run-dir", tmp_path / "run")
    assert status == 2
    assert err == [
        "jaxrl: error: CartPole-v1 has the action space 'a dictionary', which jaxrl does not "
        "support"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("algorithm", "env", "message"),
    [
        (
            "dqn",
            "gymnax/Pendulum-v1",
            "DQN needs discrete actions, but the action ",
        ),
        ("ddpg", ENV, "DDPG needs a Box of actions, but the action "),
    ],
)
def test_an_algorithm_for_other_actions_is_one_line(tmp_path, algorithm, env, message):
    status, _, err = run_in_process("train", algorithm, env, "--run-dir", tmp_path / "run")
    assert status == 2
    assert len(err) == 1
    assert err[0].startswith("jaxrl: error: ")
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("defect", "kind"),
    [
        (lambda *_, **__: jnp.zeros(3) + jnp.zeros(4), (TypeError, ValueError)),
        (lambda *_, **__: int("defect"), ValueError),
        (lambda *_, **__: jax.jit(lambda x: bool(x))(1), jax.errors.ConcretizationTypeError),
    ],
)
def test_a_defect_is_not_disguised_as_the_users_mistake(tmp_path, monkeypatch, defect, kind):
    monkeypatch.setattr(jaxrl_envs, "make", defect)
    with pytest.raises(kind):
        run_in_process("train", "ppo", ENV, "--run-dir", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", [False, True])
def test_an_interruption_is_one_line(tmp_path, monkeypatch, written):
    def interrupted(members, settings, *, directory, **options):
        if written:
            directory.write_config({})
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "run", interrupted)
    run_dir = tmp_path / "run"
    status, _, err = run_in_process("train", "ppo", ENV, "--run-dir", run_dir)
    assert status == 130
    kept = f": {run_dir} is incomplete; resume with: jaxrl resume {run_dir}" if written else ""
    assert err == [f"jaxrl: interrupted{kept}"]
    assert run_dir.exists() == written


def test_an_interruption_anywhere_else_is_one_line_too(monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "list_all", interrupted)
    assert run_in_process("list") == (130, [], ["jaxrl: interrupted"])


def test_the_algorithm_is_found_among_the_flags():
    ppo = algorithms()["ppo"]
    for argv in (
        ["train", "ppo", ENV],
        ["train", "--num-envs", "8", "ppo", ENV],
        ["train", "--normalize-rewards", "ppo", ENV],
        ["train", "--no-clip-value", "--seed=1", "ppo", ENV],
        ["train", "--run-dir", "ppo", "ppo", ENV],
    ):
        assert command_line._chosen(argv) is ppo
        assert command_line.parse_command_line(argv).algo == "ppo"
    assert command_line._chosen(["train", "unknown", ENV]) is None
    assert command_line._chosen(["list", "ppo"]) is None
    assert command_line.joined(["--a", "-1e-3", "-x", "--b=1", "-2"]) == [
        "--a=-1e-3",
        "-x",
        "--b=1=-2",
    ]


def test_every_public_name_can_be_imported():
    assert {*jaxrl.__all__} == {*jaxrl._HOME, *jaxrl._MODULES, "__version__"}
    for name in jaxrl.__all__:
        assert getattr(jaxrl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jaxrl.nothing


# A whole run --------------------------------------------------------------------------------------

HYPER = {"num_envs": 4, "num_steps": 16, "num_epochs": 1, "hidden_sizes": (8,), "clip_value": False}
FLAGS = [
    "--num-envs", "4", "--num-steps", "16", "--num-epochs", "1", "--hidden-sizes", "8",
    "--no-clip-value", "--seed", "7", "--seeds", "2", "--total-steps", "300",
    "--num-evaluations", "3", "--num-eval-episodes", "5", "--normalize-observations",
    "--env-param", "max_steps_in_episode=20", "--no-preset",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs the command once; returns the run directory and the output."""
    path = tmp_path_factory.mktemp("trained") / "run"
    status, out, err = run_in_process("train", *FLAGS, "ppo", ENV, "--run-dir", path)
    assert (status, err) == (0, [])
    return path, out


@pytest.fixture(scope="module")
def repeated(trained, tmp_path_factory):
    """Repeats the run in Python, from its config.json alone."""
    config = json.loads((trained[0] / "config.json").read_text())
    hyper = {
        k: tuple(v) if isinstance(v, list) else v for k, v in config["hyper_parameters"].items()
    }
    same = ("total_steps", "num_evaluations", "num_eval_episodes", "normalize_observations",
            "normalize_rewards", "reset_policy", "pool_size")  # fmt: skip
    path = tmp_path_factory.mktemp("repeated") / "run"
    result = jaxrl.fit(
        PPO(**hyper),
        jaxrl_envs.make(config["environment"], **config["environment_parameters"]),
        jax.vmap(jax.random.key)(jnp.array(config["seeds"], jnp.uint32)),
        **{name: config[name] for name in same},
        run_dir=path,
    )
    return path, result


def load_json(path):
    return json.loads(path.read_text())


def untimed(path):
    """The metrics of a run without timings."""
    rows = read_metrics(path)
    return [{k: v for k, v in row.items() if k != "train_seconds"} for row in rows]


def test_the_directory_is_complete(trained):
    path, _ = trained
    assert sorted(p.name for p in path.iterdir()) == [
        "checkpoints", "config.json", "learning_curve.png", "metrics.jsonl", "summary.json",
        "tensorboard",
    ]  # fmt: skip
    assert [p.name for p in (path / "checkpoints").iterdir()] == ["320"]
    assert matplotlib.image.imread(path / "learning_curve.png").shape[:2] == (504, 840)


def test_config_holds_what_was_asked_and_what_it_ran_on(trained):
    config = load_json(trained[0] / "config.json")
    assert config["schema_version"] == SCHEMA_VERSION
    assert (config["algorithm"], config["environment"]) == ("ppo", ENV)
    assert config["environment_parameters"] == {"max_steps_in_episode": 20}
    assert config["seeds"] == [7, 8]
    assert config["total_steps"] == 320  # whole iterations of 64
    assert (config["num_evaluations"], config["num_eval_episodes"]) == (3, 5)
    assert (config["normalize_observations"], config["normalize_rewards"]) == (True, False)
    defaults = {flag.name: flag.default for flag in algorithms()["ppo"].flags}
    expected = json.loads(json.dumps({**defaults, **HYPER, "torso": None, "policy_network": None}))
    assert config["hyper_parameters"] == expected
    assert config["versions"]["jax"] == jax.__version__
    assert config["platform"] == jax.default_backend()


def test_metrics_have_a_line_for_each_seed_and_evaluation(trained):
    rows = list(read_metrics(trained[0]))
    assert [(row["step"], row["seed"]) for row in rows] == [
        (step, seed) for step in (64, 192, 320) for seed in (7, 8)
    ]
    names = {"return_mean", "return_std", "return_min", "return_max", "length_mean", "episodes",
             "train_seconds", "training_return_mean", "entropy", "approximate_kl"}  # fmt: skip
    for row in rows:
        assert names <= set(row)
        assert row["return_min"] <= row["return_mean"] <= row["return_max"] <= 20
        assert (row["episodes"], row["unfinished_episodes"]) == (5, 0)
        assert row["length_mean"] == row["return_mean"]  # CartPole pays 1 a step
    times = [row["train_seconds"] for row in rows]
    assert times == sorted(times)


def test_the_summary_is_that_of_the_last_lines(trained):
    path, out = trained
    summary, rows = load_json(path / "summary.json"), list(read_metrics(path))
    assert summary["schema_version"] == SCHEMA_VERSION
    assert summary["env_steps"] == 2 * 320
    assert summary["train_seconds"] == rows[-1]["train_seconds"]
    assert summary["steps_per_second"] == summary["env_steps"] / summary["train_seconds"]
    assert summary["compile_seconds"] > 0
    assert summary["trace_seconds"] > 0
    last = np.array([row["return_mean"] for row in rows[-2:]])
    expected = {**summarize(last), "afresh": False}  # two seeds: too few for an interval
    assert summary["final_return"] == {**expected, "ci_low": None, "ci_high": None}
    over = f"over 2 seeds (IQM {last.mean():.1f}; too few seeds for an interval)"
    assert f"final return {last.mean():.1f} {over}" in out[-2]
    assert out[-1] == f"learning curve: {path / 'learning_curve.png'}"


def test_progress_is_seen_and_compile_time_apart(trained):
    path, out = trained
    assert out[0] == f"jaxrl {jaxrl.__version__}: ppo on {ENV}, into {path}"
    assert out[1] == "tracing and compiling ..."
    text = "\n".join(out)
    assert re.search(r"^compiled in [\d.]+ s \(tracing [\d.]+, XLA [\d.]+\); training$", text, re.M)
    lines = re.findall(r"^step +(\d+)  return +([\d.]+) ± ([\d.]+) \(2 seeds\)  (.*)$", text, re.M)
    rows = list(read_metrics(path))
    for (step, mean, std, pace), pair in zip(
        lines, zip(rows[::2], rows[1::2], strict=True), strict=True
    ):
        returns = [row["return_mean"] for row in pair]
        assert int(step) == pair[0]["step"]
        assert (mean, std) == (f"{np.mean(returns):.1f}", f"{np.std(returns):.1f}")
        assert re.fullmatch(r"[\d,]+ steps/s  \d+:\d\d left", pace)


def test_config_repeats_the_run(trained, repeated):
    """A run built from config.json in Python has bit-identical metrics and checkpoints."""
    (path, _), (again, result) = trained, repeated
    assert untimed(path) == untimed(again)
    checkpoints = Checkpoints(path / "checkpoints")
    state = checkpoints.load(320, "learned", checkpoint.learned(result.state))
    jax.tree.map(np.testing.assert_array_equal, state, checkpoint.learned(result.state))
    theirs, ours = load_json(path / "config.json"), load_json(again / "config.json")
    changed = {name for name in theirs if theirs[name] != ours[name]}
    assert changed == {"algorithm", "environment", "environment_parameters"}
    assert (
        load_json(again / "summary.json")["final_return"]
        == (load_json(path / "summary.json")["final_return"])
    )
    assert sorted(p.name for p in again.iterdir()) == sorted(p.name for p in path.iterdir())


def test_the_command_repeats_a_run_from_its_config(trained, tmp_path):
    """Metrics are bit-identical, and config.json is the same."""
    path, _ = trained
    again = tmp_path / "again"
    status, out, err = run_in_process("train", "--config", path / "config.json", "--run-dir", again)
    assert (status, err) == (0, [])
    assert out[0] == f"jaxrl {jaxrl.__version__}: ppo on {ENV}, into {again}"
    assert not any(line.startswith("note") for line in out)
    assert untimed(again) == untimed(path)
    assert load_json(again / "config.json") == load_json(path / "config.json")
    assert (
        load_json(again / "summary.json")["final_return"]
        == load_json(path / "summary.json")["final_return"]
    )


def test_a_finished_run_is_not_overwritten(trained):
    path, _ = trained
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    status, out, err = run_in_process("train", "ppo", ENV, "--run-dir", path)
    assert (status, out) == (2, [])
    assert err == [f"jaxrl: error: the run directory {path} is not empty: choose another"]
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_the_default_directory_says_what_and_when_and_is_nobody_elses(tmp_path, monkeypatch):
    """Two jobs started in the same second get different directories."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "19700101-000000")
    seen = []

    def train(run_config, directory):
        seen.append(str(directory.path))
        if len(seen) < 3:
            run_in_process(*words)

    monkeypatch.setattr(train_command, "train", train)
    words = ("train", "ppo", ENV, "--seed", 3)
    assert run_in_process(*words)[0] == 0
    name = "runs/ppo-CartPole-v1-seed3-19700101-000000"
    assert seen == [name, f"{name}-2", f"{name}-3"]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        train_command, "train", lambda run_config, directory: seen.append(directory.path)
    )
    run_in_process(*words)
    assert re.fullmatch(r"runs/ppo-CartPole-v1-seed3-\d{8}-\d{6}", str(seen[-1]))


def test_ones_own_module_is_found_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "my_world.py").write_text("def make_env(size):\n    return size\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    command = ("train", "ppo", "my_world:make_env", "--env-param", "size=3")
    status, _, errors = run_in_process(*command)
    assert status == 2
    (error,) = errors
    assert error.startswith(
        "jaxrl: error: my_world:make_env did not return an environment: int is not an "
        "environment, it has no spec and no reset and no step: "
    )
    sys.modules.pop("my_world")
