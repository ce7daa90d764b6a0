"""The command `jaxrl train`. Imports jax late."""

import argparse
import dataclasses
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrl import __version__
from jaxrl.cli import terminal
from jaxrl.cli.parsing import (
    HYPER,
    check_many,
    count,
    did_you_mean,
    fail,
    file_path,
    kind,
    seconds,
    spelled,
)
from jaxrl.cli.session import find_own_modules, keep_compiled_programs
from jaxrl.errors import InvalidValue
from jaxrl.registry import (
    SHOWN_TYPES,
    Algorithm,
    Flag,
    algorithms,
    finite_number,
    parse,
    plain_value,
    whole_number,
)
from jaxrl.runs.disk import user_path
from jaxrl.runs.run_options import RunOptions

if TYPE_CHECKING:
    from jaxrl.runs.directory import RunDirectory
    from jaxrl.runs.run_config import RunConfig


def add_train(verbs: Any, algorithm: Algorithm | None, words: bool) -> None:
    train = verbs.add_parser(
        "train",
        help="Train an agent and leave a run directory",
        usage=f"jaxrl train {algorithm.name if algorithm else 'ALGO'} ENV [flags]",
        description=(
            "Trains ALGO on ENV and leaves a run directory with config.json, metrics.jsonl, "
            "summary.json, learning_curve.png and, in checkpoints, the final state."
        ),
        epilog=(
            "FLOAT|SCHEDULE: a number, or a change over training such as linear:2.5e-4:0."
            if algorithm
            else "The hyper-parameters of an algorithm: jaxrl train ALGO --help, for example "
            "jaxrl train ppo --help"
        ),
        allow_abbrev=False,
    )
    train.set_defaults(run=train_agent, from_preset=None)
    if words:
        add_words(train)
    run = train.add_argument_group("the run")
    run.add_argument(
        "--config", metavar="FILE",
        help="Read settings from a .toml or .json file, for example a run's config.json; it may "
        "name ALGO and ENV, too; what is on the command line wins",
    )  # fmt: skip
    run.add_argument(
        "--dry-run", action="store_true",
        help="Build and compile everything, show sizes, memory and operations, and train nothing",
    )  # fmt: skip
    run.add_argument(
        "--run-dir", type=file_path, metavar="DIR",
        help="Directory to make (default: runs/ALGO-ENV-seedSEED-TIME)",
    )  # fmt: skip
    add_training_flags(train, run, algorithm)


def add_words(parser: Any) -> None:
    parser.add_argument("algo", metavar="ALGO", help=f"One of: {', '.join(algorithms())}")
    parser.add_argument(
        "env", metavar="ENV",
        help="An id from `jaxrl list`, gymnax/CartPole-v1 say, or your package.module:make_env",
    )  # fmt: skip


def add_training_flags(train: Any, run: Any, algorithm: Algorithm | None) -> None:
    """Adds the flags of one run to the group `run`, and the hyper-parameters of the algorithm."""
    run.add_argument(
        "--preset", action=argparse.BooleanOptionalAction, default=True,
        help="Use the tuned settings for this algorithm and environment, where there are some and "
        "no --config (default: yes)",
    )  # fmt: skip
    run.add_argument(
        "--total-steps", type=count, default=500_000, metavar="INT",
        help="Environment steps of each seed, rounded up to whole iterations (default: 500000)",
    )  # fmt: skip
    run.add_argument(
        "--seed", type=kind(whole_number), default=0, metavar="INT",
        help="The seed, or the first of several (default: 0)",
    )  # fmt: skip
    run.add_argument(
        "--seeds", type=count, default=1, metavar="INT",
        help="How many seeds to train at once: seed, seed + 1, ... (default: 1)",
    )  # fmt: skip
    run.add_argument(
        "--env-param", action="append", default=[], metavar="NAME=VALUE", type=kind(_env_param),
        help="Change a parameter of the environment, for example length=0.7, backend=spring or "
        "pays=false; may be repeated. Its type decides what it takes; where that is unknown, "
        "numbers, true and false are read as such, all else (and what is in double quotes) as a "
        "text",
    )  # fmt: skip
    run.add_argument(
        "--num-evaluations", type=count, default=20, metavar="INT",
        help="Evaluations, evenly spaced (default: 20)",
    )  # fmt: skip
    run.add_argument(
        "--num-eval-episodes", type=count, default=128, metavar="INT",
        help="Episodes of an evaluation, see --eval-mode (default: 128)",
    )  # fmt: skip
    run.add_argument(
        "--eval-mode", choices=("greedy", "sample"),
        help="How evaluations act: by the mean or most likely action, or by actions drawn from the "
        "policy: for games in which any predictable action loses (default: greedy)",
    )  # fmt: skip
    run.add_argument(
        "--normalize-observations", action=argparse.BooleanOptionalAction, default=False,
        help="Scale numbers in observations by their running mean and deviation",
    )  # fmt: skip
    run.add_argument(
        "--normalize-rewards", action=argparse.BooleanOptionalAction, default=False,
        help="Scale rewards by the deviation of the running discounted return",
    )  # fmt: skip
    run.add_argument(
        "--reset-policy", choices=("fresh", "pool"),
        help="Draw a start for every reset, or a pool of them once an iteration "
        "(default: pool where resets are expensive, else fresh)",
    )  # fmt: skip
    run.add_argument(
        "--pool-size", type=count, metavar="INT",
        help="Starts in that pool (default: as many as environments, and at least 64)",
    )  # fmt: skip
    add_following(train)
    run.add_argument(
        "--warm-start", metavar="RUN",
        help="Start from the agent and the statistics of observations that this run has "
        "learned (its first seed)",
    )  # fmt: skip
    if algorithm:
        group = train.add_argument_group(f"hyper-parameters of {algorithm.name}", algorithm.summary)
        for flag in algorithm.flags:
            _add_flag(group, flag)
    else:
        for flag in {flag.name: flag for a in algorithms().values() for flag in a.flags}.values():
            _add_flag(train, flag, hidden=True)


def _add_flag(group: Any, flag: Flag, *, hidden: bool = False) -> None:
    default = flag.default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default).lower()
    allowed = f"; {flag.range}" if flag.range else ""
    text = f"{flag.help.rstrip('.')} (default: {shown}{allowed})".replace("%", "%%")
    common = {
        "dest": HYPER + flag.name,
        "default": argparse.SUPPRESS,
        "help": argparse.SUPPRESS if hidden else text,
    }
    if flag.type == "bool":
        group.add_argument(spelled(flag.name), action=argparse.BooleanOptionalAction, **common)
    elif flag.choices:
        group.add_argument(spelled(flag.name), choices=flag.choices, **common)
    else:
        read = kind(lambda value: parse(flag.type, value))
        metavar = SHOWN_TYPES[flag.type]
        group.add_argument(spelled(flag.name), type=read, metavar=metavar, **common)


def _env_param(text: str) -> tuple[str, bool | float | str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise InvalidValue(f"{text!r}: write NAME=VALUE, length=0.7 say")
    return name, plain_value(value)


def algorithm_named(name: str) -> Algorithm:
    if name not in algorithms():
        fail(f"there is no algorithm {name!r}: {did_you_mean(name, algorithms())}")
    return algorithms()[name]


def train_agent(options: argparse.Namespace) -> None:
    """Trains, shows progress, writes the run directory; or shows what that would take."""
    from jaxrl.runs.directory import RunDirectory
    from jaxrl_envs.registry import check_id

    algorithm_named(options.algo)
    check_id(options.env)
    run_config = run_config_of(options)
    if options.dry_run:
        announce(options, "a dry run")
        return _show_dry_run(run_config)
    with terminal.outlived(), claim(RunDirectory, options.run_dir, options) as directory:
        announce(options, f"into {directory.path}")
        train(run_config, directory)


def announce(options: argparse.Namespace, what: str) -> None:
    """The first lines, before anything slow: what, a preset, whether a repeated run may differ."""
    print(f"jaxrl {__version__}: {options.algo} on {options.env}, {what}", flush=True)
    if options.from_preset:
        said = " ".join(options.from_preset)
        print(f"preset: {said} (what you give wins; --no-preset leaves it out)", flush=True)
    if options.config is not None and (others := options.config.other_versions):
        print(f"note: {options.config.path} ran on {others}: results may differ", flush=True)


def _show_dry_run(run_config: "RunConfig") -> None:
    find_own_modules()
    from jaxrl.runs.dry_run import dry_run  # here, and not earlier: they import jax
    from jaxrl.runs.load import build

    members = build(run_config)

    print("tracing and compiling ...", flush=True)
    for name, text in dry_run(members).items():
        print(f"{name:<13} {text}")


def run_config_of(options: argparse.Namespace) -> "RunConfig":
    """What is to be trained, and how."""
    from jaxrl.runs.run_config import TRAINING, RunConfig

    if not 0 <= options.seed <= 2**32 - options.seeds:
        raise InvalidValue(f"--seed is {options.seed}: seeds lie between 0 and 2**32 - 1")
    check_many("--seeds", options.seeds)
    return RunConfig(
        algorithm=options.algo,
        environment=options.env,
        hyper_parameters={
            name.removeprefix(HYPER): value
            for name, value in vars(options).items()
            if name.startswith(HYPER)
        },
        environment_parameters=dict(options.env_param),
        seeds=tuple(range(options.seed, options.seed + options.seeds)),
        training={name: getattr(options, name) for name in TRAINING},
        options=run_options_of(options, num_evaluations=options.num_evaluations),
        key_type=options.config and options.config.key_type,
        warm_start=options.warm_start and str(user_path(options.warm_start).absolute()),
    )


def claim(kind: Any, path: Path | None, options: argparse.Namespace, prefix: str = "") -> Any:
    """A new directory of this kind: the one that was asked for, or one with a name of its own."""
    if path is not None:
        return kind.create(path)
    env = options.env.rpartition("/")[2].replace(":", "-")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"{prefix}{options.algo}-{env}-seed{options.seed}-{stamp}"
    return kind.create_numbered(Path("runs") / name)


def add_following(parser: Any, *, anew: bool = True) -> None:
    """Adds the flags on how a run is followed and saved; a run that goes on has no defaults."""
    group = parser.add_argument_group("following it")

    def add(flag: str, text: str, shown: str, **others: Any) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        default = getattr(RunOptions(), name) if anew else None
        text += f" (default: {shown})" if anew else ""
        group.add_argument(flag, default=default, help=text, **others)

    add(
        "--checkpoint-seconds", "Time between checkpoints, at least; the end is saved in any case",
        "60", type=seconds, metavar="FLOAT",
    )  # fmt: skip
    add("--keep-checkpoints", "How many checkpoints stay", "3", type=count, metavar="INT")
    add(
        "--keep-best", "Keep what was learned at the best evaluation, too: the highest mean over "
        "the seeds, for `jaxrl evaluate RUN --step best`", "no",
        action=argparse.BooleanOptionalAction,
    )  # fmt: skip
    add(
        "--tensorboard", "Write event files for TensorBoard", "yes",
        action=argparse.BooleanOptionalAction,
    )  # fmt: skip
    group.add_argument(
        "--stop-at-return", type=kind(finite_number), metavar="FLOAT",
        help="End when an evaluation's return, the mean over the seeds, is that high",
    )  # fmt: skip
    group.add_argument(
        "--time-budget", type=seconds, metavar="SECONDS",
        help="End after so much time, compilation not counted; the run can be resumed",
    )  # fmt: skip
    group.add_argument(
        "--wandb", metavar="PROJECT",
        help="Log to this project of Weights & Biases, too; needs pip install 'jaxrl[wandb]'",
    )  # fmt: skip


def run_options_of(options: argparse.Namespace, **others: Any) -> RunOptions:
    """What `add_following` read; what was not given is left to `others`, or the default."""
    names = {field.name for field in dataclasses.fields(RunOptions)}
    given = {k: v for k, v in vars(options).items() if k in names and v is not None}
    return RunOptions(**{**others, **given})


def train(run_config: "RunConfig", directory: "RunDirectory", *, resume: bool = False) -> None:
    """Trains, and shows what happens and what came of it."""
    keep_compiled_programs()
    from jaxrl.analysis.intervals import MIN_SEEDS
    from jaxrl.cli.progress import reporter
    from jaxrl.runs.fit import run
    from jaxrl.runs.interrupt import Interrupted
    from jaxrl.runs.load import build

    find_own_modules()
    saved = resume and any(directory.checkpoints.glob("[0-9]*"))
    members = run_config.build() if saved else build(run_config)
    who = "members" if run_config.points else "seeds"
    try:
        with reporter(len(members), who) as show:
            result = run(
                members,
                run_config.options,
                directory=directory,
                resume=resume,
                origin=run_config.origin,
                callbacks=[show],
            )
    except Interrupted:
        raise
    except KeyboardInterrupt:  # without patience: a second Ctrl-C
        if not (directory.path / "config.json").exists():
            raise
        how = f"{directory.path} is incomplete; go on with: {directory.resume_command}"
        raise Interrupted(how, signal.SIGINT) from None
    if result.stopped is not None:
        print(f"stopped: {result.stopped}; go on with: {directory.resume_command}")
    final = result.summary()["final_return"]
    counted = f"{final['seeds']} of " if final["diverged"] else ""
    ends = f"; 95% interval {final['ci_low']:.1f} to {final['ci_high']:.1f}"
    ends = ends if final["seeds"] >= MIN_SEEDS else "; too few seeds for an interval"
    ends = "" if run_config.points else ends
    over = f" over {counted}{len(members)} {who} (IQM {final['iqm']:.1f}{ends})"
    over = over if len(members) > 1 else ""
    if result.afresh is not None:
        over += ", on episodes other than those that ended it,"
    print(
        f"final return {final['mean']:.1f}{over} after {result.env_steps:,} steps, "
        f"{result.steps_per_second:,.0f} steps/s\nlearning curve: {directory.plot}"
    )
    if result.best is not None:
        print(
            f"best evaluation {result.best.return_mean:.1f} after {result.best.step:,} steps, "
            "kept; as the highest of many it is likely too high, so judge it on other episodes: "
            f"jaxrl evaluate {directory.path} --step best"
        )
