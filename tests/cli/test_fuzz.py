"""500 random invalid values on the command line: each gives a one-line error, no traceback."""

import contextlib
import io
import json
import random
import string

import pytest

from jaxrl.cli.main import main
from jaxrl.registry import algorithms
from jaxrl.runs import dry_run, fit, sweeps
from jaxrl.runs.directory import SCHEMA_VERSION

NUMBER = 500
VALUES = [
    "", " ", "nan", "-nan", "inf", "-inf", "Infinity", "-1", "0", "-0", "1", "2", "0.5", "1e400",
    "1e-400", "-1e-3", "2e9", "2e10", "1e12", "1e308", "9999999999", "4294967295", "4294967296",
    "9" * 400, "9" * 5000, "0x10", "1_000", "1__0", "１", "²", "½", "+5", "5.", ".5", "1,2", "1,2,",
    ",", "64,0", "64,-1", "none", "None", "null", "true", "True", "FALSE", "yes", "linear:1",
    "linear:1:0", "linear:nan:0", "linear:1:0:0", "linear:1:0:inf", "linear:", "linear", ":",
    "::", "exponential:0:1", "exponential:1", "cosine:1:2", "cosine:1e400", "step:1:2",
    "Linear:1:0", "tanh", "gru", "fresh", "pool", "🦊", "a b", "--", "-x", "=", "a=b", "%s", "{}",
    "[1]", '"', "\\", "\n", "\x00", "../x", "x" * 3000, "1e5", "3", "7", "NaN", "1j",
]  # fmt: skip
PLAUSIBLE = [
    "0", "1", "2", "3", "7", "64", "-1", "0.5", "1e-3", "1e5", "2e9", "1e12", "1e308", "1e-400",
    "-0", "0.0", "1.0", "1.5", "none", "linear:1:0", "linear:1e-3:1e-300", "cosine:1", "linear:0:1",
    "exponential:1:1e-300", "9999999999", "1,2", "8", "64,64", "false", "true", "fresh", "pool",
]  # fmt: skip
"""Values that some flag can have, so that what comes after the parser sees bad ones, too."""
PARAMETERS = [
    "length", "=", "=1", "length=", "lenght=1", "max_steps_in_episode", "gravity", "max_steps",
    "env_id", "name", "self", "params", "a b", "é", "A", "B", "Q", "means", "std", "noise_std",
    "num_cells", "terminal_goal", "num_states", "branching", "termination", "seed", "num_rounds",
    "stake", "dt", "resample_init_pos", "fail_prob", "memory_length",
]  # fmt: skip
ENVS = [
    "gymnax/CartPole-v1", "gymnax/Pendulum-v1", "jaxrl/bandit", "jaxrl/lqr", "jaxrl/corridor",
    "jaxrl/garnet", "jaxrl/rock-paper-scissors", "gymnax/FourRooms-misc",
]  # fmt: skip
WRONG_ENVS = [
    "", "/", ":", "a:b:c", "gymnax", "gymnax/", "gymnax/cartpole", "gym/CartPole-v1", "no.module:f",
    "json:loads", "json:nothing", "jaxrl:__version__", "os.path:join", "🦊/x", "x" * 3000, "..:a",
    "json:JSONDecoder", "math:pi", "builtins:dict", "jaxrl/", "-1",
]  # fmt: skip
RUN = [
    "config", "dry-run", "run-dir", "preset", "total-steps", "seed", "seeds", "env-param",
    "num-evaluations", "num-eval-episodes", "normalize-observations", "normalize-rewards",
    "reset-policy", "pool-size", "checkpoint-seconds", "keep-checkpoints", "tensorboard",
    "stop-at-return", "time-budget", "wandb", "warm-start",
]  # fmt: skip
SWEEP = ["grid", "range", "random", "max-memory", "sweep-dir"]
RESUME = [
    "total-steps", "checkpoint-seconds", "keep-checkpoints", "tensorboard", "stop-at-return",
    "time-budget", "wandb", "learning-rate", "seed",
]  # fmt: skip


class EnoughError(BaseException):
    """Raised once everything is built, instead of compiling."""


@pytest.fixture
def uncompiled(monkeypatch, tmp_path):
    """Stops the commands before they compile, in a directory that contains only a run."""

    def enough(*_, **__):
        raise EnoughError

    monkeypatch.setattr(fit, "run", enough)
    monkeypatch.setattr(dry_run, "dry_run", enough)
    monkeypatch.setattr(sweeps, "batches", enough)
    monkeypatch.chdir(tmp_path)
    config = {
        "schema_version": SCHEMA_VERSION, "algorithm": "ppo", "environment": "jaxrl/bandit",
        "hyper_parameters": {}, "environment_parameters": {}, "seeds": [0], "total_steps": 512,
        "num_evaluations": 2, "num_eval_episodes": 2, "normalize_observations": False,
    }  # fmt: skip
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))


def command(rng):
    """A random command line with at least one mistake."""
    verb = rng.choice(["train"] * 6 + ["sweep"] * 2 + ["resume"])
    algorithm = rng.choice(list(algorithms().values()))
    own = [flag.name.replace("_", "-") for flag in algorithm.flags]
    env = rng.choice(ENVS if rng.random() < 0.95 else WRONG_ENVS)
    if verb == "resume":
        path = rng.choice(["run"] * 9 + VALUES)
        return [verb, path, *flag_of(rng, rng.choice(RESUME), algorithm)]
    names = [rng.choice(own if rng.random() < 0.6 else RUN)]
    if rng.random() < 0.3:
        names.append(rng.choice(own + RUN))
    words = [verb, algorithm.name, env]
    if verb == "sweep":
        names.append(rng.choice(SWEEP + ["grid"] * 3))
        words += ["--grid", "discount=0.9,0.99"] if rng.random() < 0.5 else []
    if rng.random() < 0.05:
        words.pop(rng.randrange(len(words)))
    words += [] if rng.random() < 0.2 else ["--no-preset"]
    for name in names:
        words += flag_of(rng, name, algorithm)
    return words


def flag_of(rng, name, algorithm):
    value = rng.choice(PLAUSIBLE if rng.random() < 0.6 else VALUES)
    if name == "env-param":
        value = f"{rng.choice(PARAMETERS)}={value}" if rng.random() < 0.9 else value
    if name in ("grid", "range"):
        of = rng.choice(algorithm.flags).name if rng.random() < 0.9 else rng.choice(VALUES)
        value = f"{of}={value}{rng.choice([',', ':', '/'])}{rng.choice(VALUES + PLAUSIBLE)}"
    if rng.random() < 0.05:
        name = name[: rng.randrange(len(name))] + rng.choice(string.ascii_lowercase)
    words = [f"--{name}={value}"] if rng.random() < 0.5 else [f"--{name}", value]
    if rng.random() < 0.05:
        return [f"--{name}"]
    return words * 2 if rng.random() < 0.05 else words


def outcome(argv):
    """The outcome of a command: "built", "refused", or a description of the failure."""
    err = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            main(argv)
    except EnoughError:
        return "built"
    except SystemExit as end:
        text, breaks = err.getvalue(), 1 + "".join(argv).count("\n")  # what is wrong is repeated
        if end.code == 2 and text.startswith("jaxrl: error: ") and text.count("\n") <= breaks:
            return "refused"
        return f"exit code {end.code}, {err.getvalue()[-500:]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return "ran"


def test_no_value_ends_in_a_traceback(uncompiled):
    rng = random.Random(17)
    wrong, counts = {}, {}
    for _ in range(NUMBER):
        argv = command(rng)
        ended = outcome(argv)
        counts[ended] = counts.get(ended, 0) + 1
        if ended not in ("built", "refused"):
            wrong[" ".join(word[:60] for word in argv)] = ended
    assert not wrong
    assert counts["refused"] > NUMBER / 2
    assert counts["built"] > NUMBER / 25
