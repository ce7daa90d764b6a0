"""The command `jaxrl train`. It imports jax as late as possible."""

import argparse
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrl import __version__, registry
from jaxrl.cli import terminal
from jaxrl.cli.distributed import add_distributed, connected
from jaxrl.cli.option_flags import FLAGS, add_flags, options_of
from jaxrl.cli.parsing import (
    HYPER,
    check_many,
    count,
    file_path,
    flag_name,
    kind,
)
from jaxrl.cli.session import (
    find_own_modules,
    keep_compiled_programs,
    use_cores,
    use_one_thread,
)
from jaxrl.engine.options import Role, TrainingOptions
from jaxrl.errors import InvalidValue
from jaxrl.registry import SHOWN_TYPES, Algorithm, Flag, algorithms
from jaxrl.runs.disk import user_path
from jaxrl.runs.run_config import MINARI, RunConfig
from jaxrl.runs.run_options import RunOptions
from jaxrl.value_text import parse, plain_value, whole_number
from jaxrl_envs.libraries import HOSTED

if TYPE_CHECKING:
    from jaxrl.runs.directory import RunDirectory


def add_train(verbs: Any, algorithm: Algorithm | None, words: bool) -> None:
    train = verbs.add_parser(
        "train",
        help="Train an agent and write a run directory",
        usage=f"jaxrl train {algorithm.name if algorithm else 'ALGO'} ENV [flags]",
        description=(
            "Trains ALGO on ENV and writes a run directory with config.json, metrics.jsonl, "
            "summary.json, learning_curve.png and checkpoints."
        ),
        epilog=(
            "FLOAT|SCHEDULE: a number, or a schedule over training such as linear:2.5e-4:0."
            if algorithm
            else "For the hyper-parameters of an algorithm: jaxrl train ALGO --help, such as "
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
        help="Read settings from a .toml or .json file, such as a run's config.json; it may also "
        "name ALGO and ENV. The command line overrides it",
    )  # fmt: skip
    run.add_argument(
        "--dry-run", action="store_true",
        help="Compile everything and report sizes, memory and operations, without training",
    )  # fmt: skip
    run.add_argument(
        "--run-dir", type=file_path, metavar="DIR",
        help="Directory to create (default: runs/ALGO-ENV-seedSEED-TIME)",
    )  # fmt: skip
    add_distributed(train)
    add_training_flags(train, run, algorithm)


def add_words(parser: Any) -> None:
    parser.add_argument(
        "algo",
        metavar="ALGO",
        help=f"One of: {', '.join(algorithms())}; or your own class, as mypackage.module:MyAgent",
    )
    parser.add_argument(
        "env", metavar="ENV",
        help="An id from `jaxrl list`, such as gymnax/CartPole-v1, or your own factory, as "
        "mypackage.module:make_env",
    )  # fmt: skip


def add_training_flags(train: Any, run: Any, algorithm: Algorithm | None) -> None:
    """Adds the flags of a single run to the group `run`, and the algorithm's hyper-parameters."""
    run.add_argument(
        "--preset", action=argparse.BooleanOptionalAction, default=True,
        help="Use the tuned settings for this algorithm and environment, if there are any and "
        "there is no --config (default: yes)",
    )  # fmt: skip
    add_flags(run, {k: x for k, x in FLAGS.items() if x.role is not Role.FOLLOWING})
    run.add_argument(
        "--seed", type=kind(whole_number), default=0, metavar="INT",
        help="Seed, or the first of several (default: 0)",
    )  # fmt: skip
    run.add_argument(
        "--seeds", type=count, default=1, metavar="INT",
        help="Number of seeds to train at once: SEED, SEED + 1, ... (default: 1)",
    )  # fmt: skip
    run.add_argument(
        "--env-param", action="append", default=[], metavar="NAME=VALUE", type=kind(_env_param),
        help="Set a parameter of the environment, such as length=0.7, backend=spring or "
        "pays=false; may be repeated. The parameter's type decides how the value is read; if the "
        "type is unknown, it is a number, true, false or otherwise text (in double quotes, always "
        "text)",
    )  # fmt: skip
    following = train.add_argument_group("saving, stopping and logging")
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
    shown = str(default).lower()
    if isinstance(default, tuple):
        shown = ",".join(map(str, default))
    elif isinstance(default, str):
        shown = default or "empty"
    allowed = f"; {flag.range}" if flag.range else ""
    text = f"{flag.help.rstrip('.')} (default: {shown}{allowed})".replace("%", "%%")
    common = {
        "dest": HYPER + flag.name,
        "default": argparse.SUPPRESS,
        "help": argparse.SUPPRESS if hidden else text,
    }
    if flag.type == "bool":
        group.add_argument(flag_name(flag.name), action=argparse.BooleanOptionalAction, **common)
    elif flag.choices and flag.type.endswith("| None"):
        group.add_argument(
            flag_name(flag.name),
            type=lambda text: None if text == "none" else text,
            choices=[None if choice == "none" else choice for choice in flag.choices],
            metavar=f"{{{','.join(flag.choices)}}}",
            **common,
        )
    elif flag.choices:
        group.add_argument(flag_name(flag.name), choices=flag.choices, **common)
    else:
        read = kind(lambda value: parse(flag.type, value))
        metavar = SHOWN_TYPES[flag.type]
        group.add_argument(flag_name(flag.name), type=read, metavar=metavar, **common)


def _env_param(text: str) -> tuple[str, bool | float | str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise InvalidValue(f"{text!r}: write NAME=VALUE, such as length=0.7")
    return name, plain_value(value)


def algorithm_named(name: str) -> Algorithm:
    """Like `registry.algorithm`, but finds users' classes from the working directory."""
    if ":" in name:
        keep_compiled_programs()  # its module imports jax
        find_own_modules()
    return registry.algorithm(name)


def train_agent(options: argparse.Namespace) -> None:
    """Trains an agent, or makes a dry run."""
    from jaxrl.runs.directory import RunDirectory
    from jaxrl_envs.registry import check_id

    algorithm_named(options.algo)
    check_id(options.env)
    run_config = run_config_of(options)
    if options.dry_run:
        announce(options, "a dry run")
        return _show_dry_run(run_config)
    with (
        terminal.ignoring_stdout_errors(),
        connected(options) as processes,
        processes.claim(lambda: claim(RunDirectory, options.run_dir, options)) as directory,
    ):
        announce(options, f"into {directory.path}")
        train(run_config, directory)


def announce(options: argparse.Namespace, what: str) -> None:
    """Prints the first lines: the run, its preset, and versions that differ from the file's."""
    print(f"jaxrl {__version__}: {options.algo} on {options.env}, {what}", flush=True)
    if options.from_preset:
        said = " ".join(options.from_preset)
        print(f"preset: {said} (your flags override it; --no-preset disables it)", flush=True)
    if options.config is not None and (others := options.config.other_versions):
        print(f"note: {options.config.path} ran on {others}: results may differ", flush=True)


def _show_dry_run(run_config: RunConfig) -> None:
    _use_processor(run_config)
    find_own_modules()
    from jaxrl.runs.dry_run import dry_run  # deferred: they import jax
    from jaxrl.runs.load import build

    members = build(run_config)

    print("tracing and compiling ...", flush=True)
    for name, text in dry_run(members, run_config.options).items():
        print(f"{name:<13} {text}")


def _use_processor(run_config: RunConfig) -> None:
    """Chooses devices and threads of a CPU before jax starts; says so if one thread is faster."""
    if reason := use_one_thread(run_config):
        print(f"threads of XLA: {reason}", flush=True)
    elif run_config.environment.partition("/")[0] not in HOSTED:  # those learn on one device
        use_cores(run_config.num_members, run_config.options.devices)


def run_config_of(options: argparse.Namespace) -> RunConfig:
    """The configuration of the run that the options describe."""
    if not 0 <= options.seed <= 2**32 - options.seeds:
        raise InvalidValue(f"--seed is {options.seed}: seeds must lie between 0 and 2**32 - 1")
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
        warm_start=_absolute(options.warm_start),
        dataset=_dataset(options.dataset),
        expert=_absolute(options.expert),
    )


def _dataset(path: str | None) -> str | None:
    return path if path is not None and path.startswith(MINARI) else _absolute(path)


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(user_path(path).absolute())


def claim(kind: Any, path: Path | None, options: argparse.Namespace, prefix: str = "") -> Any:
    """Creates a directory of this kind: at `path`, or else with a name made from the options."""
    if path is not None:
        return kind.create(path)
    env = options.env.rpartition("/")[2].replace(":", "-")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    algo = options.algo.rpartition(":")[2]
    name = f"{prefix}{algo}-{env}-seed{options.seed}-{stamp}"
    return kind.create_numbered(Path("runs") / name)


def train(run_config: RunConfig, directory: "RunDirectory", *, resume: bool = False) -> None:
    """Trains or resumes a run, and prints its progress and result."""
    keep_compiled_programs()
    _use_processor(run_config)
    from jaxrl.analysis.intervals import MIN_SEEDS
    from jaxrl.cli.progress import reporter
    from jaxrl.runs.fit import run
    from jaxrl.runs.interrupt import Interrupted
    from jaxrl.runs.load import build

    find_own_modules()
    saved = resume and any(directory.checkpoints.glob("[0-9]*"))
    members = build(run_config, saved=saved)
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
    except KeyboardInterrupt:  # a second Ctrl-C
        if not (directory.path / "config.json").exists():
            raise
        how = f"{directory.path} is incomplete; resume with: {directory.resume_command}"
        raise Interrupted(how, signal.SIGINT) from None
    if result.stopped is not None:
        print(f"stopped: {result.stopped}; resume with: {directory.resume_command}")
    final = result.summary()["final_return"]
    counted = f"{final['seeds']} of " if final["diverged"] else ""
    ends = f"; 95% interval {final['ci_low']:.1f} to {final['ci_high']:.1f}"
    ends = ends if final["seeds"] >= MIN_SEEDS else "; too few seeds for an interval"
    ends = "" if run_config.points else ends
    over = f" over {counted}{len(members)} {who} (IQM {final['iqm']:.1f}{ends})"
    over = over if len(members) > 1 else ""
    if result.afresh is not None:
        over += ", on new episodes,"
    print(
        f"final return {final['mean']:.1f}{over} after {result.env_steps:,} steps, "
        f"{result.steps_per_second:,.0f} steps/s\nlearning curve: {directory.plot}"
    )
    if result.best is not None:
        print(
            f"best evaluation {result.best.return_mean:.1f} after {result.best.step:,} steps, "
            "saved; as a maximum it is biased upwards, so evaluate it on new episodes: "
            f"jaxrl evaluate {directory.path} --step best"
        )
