"""The command `jaxrl train`. Imports jax late."""

import argparse
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrl import __version__, registry
from jaxrl.cli import terminal
from jaxrl.cli.option_flags import FLAGS, add_flags, options_of
from jaxrl.cli.parsing import (
    HYPER,
    check_many,
    count,
    file_path,
    kind,
    spelled,
)
from jaxrl.cli.session import find_own_modules, keep_compiled_programs
from jaxrl.engine.options import Role, TrainingOptions
from jaxrl.errors import InvalidValue
from jaxrl.registry import SHOWN_TYPES, Algorithm, Flag, algorithms
from jaxrl.runs.disk import user_path
from jaxrl.runs.run_config import RunConfig
from jaxrl.runs.run_options import RunOptions
from jaxrl.value_text import parse, plain_value, whole_number

if TYPE_CHECKING:
    from jaxrl.runs.directory import RunDirectory


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
    parser.add_argument(
        "algo",
        metavar="ALGO",
        help=f"One of: {', '.join(algorithms())}; or your own class, mypackage.module:MyAgent",
    )
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
    add_flags(run, {k: x for k, x in FLAGS.items() if x.role is not Role.FOLLOWING})
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
    following = train.add_argument_group("following it")
    add_flags(following, {k: x for k, x in FLAGS.items() if x.role is Role.FOLLOWING})
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
    elif flag.choices and flag.type.endswith("| None"):
        group.add_argument(
            spelled(flag.name),
            type=lambda text: None if text == "none" else text,
            choices=[None if choice == "none" else choice for choice in flag.choices],
            metavar=f"{{{','.join(flag.choices)}}}",
            **common,
        )
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
    """As `registry.algorithm`; a class of your own is looked for from the working directory."""
    if ":" in name:
        keep_compiled_programs()  # its module imports jax
        find_own_modules()
    return registry.algorithm(name)


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


def _show_dry_run(run_config: RunConfig) -> None:
    find_own_modules()
    from jaxrl.runs.dry_run import dry_run  # here, and not earlier: they import jax
    from jaxrl.runs.load import build

    members = build(run_config)

    print("tracing and compiling ...", flush=True)
    for name, text in dry_run(members).items():
        print(f"{name:<13} {text}")


def run_config_of(options: argparse.Namespace) -> RunConfig:
    """What is to be trained, and how."""
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
        training=options_of(TrainingOptions, options),
        options=options_of(RunOptions, options),
        key_type=options.config and options.config.key_type,
        warm_start=options.warm_start and str(user_path(options.warm_start).absolute()),
    )


def claim(kind: Any, path: Path | None, options: argparse.Namespace, prefix: str = "") -> Any:
    """A new directory of this kind: the one that was asked for, or one with a name of its own."""
    if path is not None:
        return kind.create(path)
    env = options.env.rpartition("/")[2].replace(":", "-")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    algo = options.algo.rpartition(":")[2]
    name = f"{prefix}{algo}-{env}-seed{options.seed}-{stamp}"
    return kind.create_numbered(Path("runs") / name)


def train(run_config: RunConfig, directory: "RunDirectory", *, resume: bool = False) -> None:
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
                origin=run_config,
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
