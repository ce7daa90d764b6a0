"""The command `jaxrl`. Imports jax only once there is something to train."""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jaxrl import __version__, commands, sweep_command, terminal
from jaxrl.arguments import Parser, check_many, count, did_you_mean, file_path, kind
from jaxrl.flags import (
    SHOWN_TYPES,
    Algorithm,
    Flag,
    algorithms,
    parse,
    plain_value,
    whole_number,
)
from jaxrl.runs.disk import WriteError, is_of_the_disk, user_path

if TYPE_CHECKING:
    from jaxrl.runs.recipe import Recipe


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with `argv`, by default the process's own arguments."""
    argv = _joined(sys.argv[1:] if argv is None else argv)
    terminal.ensure()
    try:
        options = parse_command_line(argv)
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt as end:
        terminal.say(f"jaxrl: interrupted{f': {end}' if str(end) else ''}")
        raise SystemExit(128 + getattr(end, "signal", 2)) from None
    except (ValueError, TypeError, RuntimeError) as error:
        if not _is_ours(error):
            raise
        fail(str(error))
    except BrokenPipeError:  # `jaxrl list | head`: the reader has seen enough
        terminal.silence(sys.stdout)
    except OSError as error:
        if isinstance(error, WriteError):
            fail(str(error), status=1)
        if not is_of_the_disk(error):
            raise
        terminal.silence(sys.stdout)  # which may be what is full
        fail(f"{error.filename or 'standard output'}: {error.strerror}", status=1)


def fail(message: str, status: int = 2) -> NoReturn:
    """Prints one clear line and exits: with 2 for bad input, with 1 where the machine failed."""
    terminal.say(f"jaxrl: error: {message}")
    raise SystemExit(status)


# The parser ---------------------------------------------------------------------------------------


def parse_command_line(argv: Sequence[str]) -> argparse.Namespace:
    """The options; what is wrong or unknown ends in one line, with what is nearest to it."""
    try:
        for flag, _, value in (word.partition("=") for word in argv):
            if flag.startswith("--") and value == "--":  # argparse drops such a value
                raise ValueError(f"argument {flag}: '--' is no value")
        path = _config_path(argv)
        return _parse(argv) if path is None else _parse_with_file(argv, path)
    except ValueError as error:
        fail(str(error))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    algorithm = _chosen(argv)
    parser, commands = build_parser(algorithm)
    if not argv:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    if not argv[0].startswith("-") and argv[0] not in commands:
        fail(f"there is no command {argv[0]!r}: {did_you_mean(argv[0], commands)}")
    options, words = _known(parser, argv, algorithm)
    if words:
        fail(f"{words[0]!r} is one word too many (see jaxrl {argv[0]} --help)")
    options.given = list(argv)
    if getattr(options, "preset", False) and algorithm is not None:
        return _with_preset(parser, options, algorithm)
    return options


def _with_preset(
    parser: Parser, options: argparse.Namespace, algorithm: Algorithm
) -> argparse.Namespace:
    """The same options over the preset for this algorithm and environment, if there is one."""
    from jaxrl.presets import preset
    from jaxrl.runs.config import words_of

    settings = preset(algorithm.name, options.env)
    if not settings:
        return options
    changes = settings.pop("environment_parameters", {})
    words = words_of(settings, changes, algorithm, _switches(options))
    verb, *given = options.given
    options = parser.parse_args([verb, *words, *given])
    options.given = [verb, *words, "--no-preset", *given]
    options.from_preset = words
    return options


def _switches(options: argparse.Namespace) -> dict[str, bool]:
    """The names of the flags of a run, and whether each is on or off."""
    return {
        name: isinstance(value, bool)
        for name, value in vars(options).items()
        if not name.startswith(HYPER) and name not in (*NOT_FLAGS, *NOT_SETTINGS)
    }


def _parse_with_file(argv: Sequence[str], path: str) -> argparse.Namespace:
    """The options of `train --config`: the file's, and over them those of the command line."""
    from jaxrl.runs import config

    file = config.read(path)
    chosen = _chosen(argv) or algorithms().get(file.algorithm or "")
    options, words = _known(build_parser(chosen, words=False)[0], argv, chosen)
    if len(words) > 2:
        fail(f"{words[2]!r} is one word too many (see jaxrl train --help)")
    is_env = len(words) == 1 and ("/" in words[0] or ":" in words[0])
    algo = words[0] if words and not is_env else file.algorithm
    env = words[-1] if len(words) == 2 or is_env else file.environment
    if algo is None:
        fail(f"{path} names no algorithm: add one, jaxrl train ppo --config {path} say")
    algorithm = _algorithm(algo)
    if env is None or not (words or "/" in env or ":" in env):
        named = "names no environment" if env is None else f"has {env}, no id of an environment"
        fail(f"{path} {named}: add one, jaxrl train {algo} gymnax/CartPole-v1 --config {path} say")
    switches = _switches(options)
    parser, _ = build_parser(algorithm, words=False)
    try:
        of_file = file.words(algorithm, switches)
        parser.parse_args(["train", *of_file])  # alone, so that the file is named in what is wrong
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    options, _ = _known(parser, ["train", *of_file, *argv[1:]], algorithm)
    options.given = list(argv)
    options.algo, options.env, options.config = algo, env, file
    return options


def _known(
    parser: Parser, argv: Sequence[str], algorithm: Algorithm | None
) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the words that belong to none; an unknown flag ends in one line."""
    options, unknown = parser.parse_known_args(argv)
    flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    if flags:
        known = {"--help", *(_spelled(name) for name in vars(options) if name not in NOT_FLAGS)}
        if options.run in (train_agent, sweep_agents):
            chosen = [algorithm] if algorithm else algorithms().values()
            known |= {_spelled(flag.name) for a in chosen for flag in a.flags}
        if options.run is commands.resume_run and _is_of_train(flags[0], parser):
            fail(
                f"resume has no {flags[0]}: a run goes on with the settings that it has. resume "
                f"takes {', '.join(sorted(known - {'--help', '--path'}))}; to train what it has "
                f"learned with other settings: jaxrl train ALGO ENV --warm-start RUN {flags[0]} ..."
            )
        fail(f"there is no flag {flags[0]!r}: {did_you_mean(flags[0], sorted(known))}")
    return options, unknown


def _is_of_train(flag: str, parser: Parser) -> bool:
    """Whether `train` has this flag, for some algorithm."""
    options, _ = parser.parse_known_args(["train", "ALGO", "ENV"])
    names = {name for name in vars(options) if name not in NOT_FLAGS}
    names |= {flag.name for algorithm in algorithms().values() for flag in algorithm.flags}
    return flag.replace("--no-", "--", 1) in map(_spelled, names)


NOT_FLAGS = ("run", "algo", "env", "resumed", "given", "from_preset")
"""What the options hold besides flags."""
NOT_SETTINGS = ("config", "dry_run", "env_param", "preset", "run_dir", "grid", "range", "random",
                "max_memory", "sweep_dir", "confirm_seeds")  # fmt: skip
"""Flags that no file of settings has."""


def build_parser(algorithm: Algorithm | None, *, words: bool = True) -> tuple[Parser, list[str]]:
    """The parser, in which `train` has the flags of `algorithm`, and the commands it knows.

    Without an algorithm it reads the flags of them all, so that what is wrong can be named. Without
    `words` it leaves ALGO and ENV unread: argparse cannot have them optional among flags.
    """
    parser = Parser(
        prog="jaxrl",
        description="Train reinforcement-learning agents, thousands of environments at a time.",
        epilog="Example: jaxrl train ppo gymnax/CartPole-v1",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"jaxrl {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(verbs, algorithm, words)
    commands.add(verbs)
    _add_sweep(verbs, algorithm)
    listing = verbs.add_parser(
        "list", help="Show the algorithms and the environments", allow_abbrev=False
    )
    listing.set_defaults(run=list_all)
    doctor = verbs.add_parser(
        "doctor",
        help="Show versions and devices, and look for known problems",
        description="Shows versions, devices and settings, and looks for known problems; exits "
        "with 1 where one of them would prevent training.",
        allow_abbrev=False,
    )
    doctor.set_defaults(run=examine)
    return parser, list(verbs.choices)


def _add_train(verbs: Any, algorithm: Algorithm | None, words: bool) -> None:
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
        _add_words(train)
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
    _add_training(train, run, algorithm)


def _add_sweep(verbs: Any, algorithm: Algorithm | None) -> None:
    sweep = verbs.add_parser(
        "sweep",
        help="Train many hyper-parameters side by side, and rank them",
        usage=f"jaxrl sweep {algorithm.name if algorithm else 'ALGO'} ENV [flags]",
        description=(
            "Trains ALGO on ENV with hyper-parameters from a grid or drawn at random, every point "
            "with every seed: real numbers side by side in one program, one program for each "
            "choice of the others. Ends with a ranked table and a heat map; `jaxrl resume DIR` "
            "goes on with a sweep that was interrupted."
        ),
        allow_abbrev=False,
    )
    sweep.set_defaults(run=sweep_agents, config=None, resumed=False, from_preset=None)
    _add_words(sweep)
    sweep_command.add_flags(sweep)
    _add_training(sweep, sweep.add_argument_group("each run"), algorithm)


def _add_words(parser: Any) -> None:
    parser.add_argument("algo", metavar="ALGO", help=f"One of: {', '.join(algorithms())}")
    parser.add_argument(
        "env", metavar="ENV",
        help="An id from `jaxrl list`, gymnax/CartPole-v1 say, or your package.module:make_env",
    )  # fmt: skip


def _add_training(train: Any, run: Any, algorithm: Algorithm | None) -> None:
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
    commands.add_following(train)
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
    text = f"{flag.help.rstrip('.')} (default: {shown})".replace("%", "%%")
    common = {
        "dest": HYPER + flag.name,
        "default": argparse.SUPPRESS,
        "help": argparse.SUPPRESS if hidden else text,
    }
    if flag.type == "bool":
        group.add_argument(_spelled(flag.name), action=argparse.BooleanOptionalAction, **common)
    elif flag.choices:
        group.add_argument(_spelled(flag.name), choices=flag.choices, **common)
    else:
        read = kind(lambda value: parse(flag.type, value))
        metavar = SHOWN_TYPES[flag.type]
        group.add_argument(_spelled(flag.name), type=read, metavar=metavar, **common)


HYPER = "hyper."
"""Before the names of hyper-parameters among the options."""


def _spelled(name: str) -> str:
    return "--" + name.removeprefix(HYPER).replace("_", "-")


def _env_param(text: str) -> tuple[str, bool | float | str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise ValueError(f"{text!r}: write NAME=VALUE, length=0.7 say")
    return name, plain_value(value)


def _config_path(argv: Sequence[str]) -> str | None:
    """The file after `train ... --config`; None without one, and where only help is wanted."""
    if argv[:1] != ["train"] or {"-h", "--help"} & set(argv):
        return None
    named = [word for flag, word in itertools.pairwise(argv) if flag == "--config"]
    named += [word.removeprefix("--config=") for word in argv if word.startswith("--config=")]
    if len(named) > 1:
        raise ValueError("--config is given twice: put everything into one file")
    return named[0] if named else None


def _chosen(argv: Sequence[str]) -> Algorithm | None:
    """The algorithm that `train` or `sweep` is asked for; its flags may come before it.

    A word after a flag is likely the value of the flag, so the others are looked at first.
    """
    if argv[:1] not in (["train"], ["sweep"]):
        return None
    words = list(itertools.pairwise(argv))
    words.sort(key=lambda pair: pair[0].startswith("--"))  # stable
    return next((algorithms()[word] for _, word in words if word in algorithms()), None)


def _joined(argv: Sequence[str]) -> list[str]:
    """`--flag -1e-3` as `--flag=-1e-3`: argparse takes such a number for a flag."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1].startswith("--") and word.startswith("-") and _is_number(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


# list ---------------------------------------------------------------------------------------------


def list_all(options: argparse.Namespace) -> None:
    """Prints the algorithms and the environments."""
    from jaxrl_envs.registry import list_ids

    print("algorithms")
    for algorithm in algorithms().values():
        print(f"  {algorithm.name:<12} {algorithm.summary}")
    print("\nenvironments")
    for env_id in list_ids():
        print(f"  {env_id}")


# doctor -------------------------------------------------------------------------------------------


def examine(options: argparse.Namespace) -> None:
    """Prints what `jaxrl doctor` finds; exits with 1 where it would prevent training."""
    from jaxrl import doctor

    host = doctor.probe()
    findings = doctor.examine(host)
    print("\n".join(doctor.report(host, findings)))
    if any(finding.grave for finding in findings):
        raise SystemExit(1)


# train --------------------------------------------------------------------------------------------


def _algorithm(name: str) -> Algorithm:
    if name not in algorithms():
        fail(f"there is no algorithm {name!r}: {did_you_mean(name, algorithms())}")
    return algorithms()[name]


def train_agent(options: argparse.Namespace) -> None:
    """Trains, shows progress, writes the run directory; or shows what that would take."""
    from jaxrl.runs.directory import RunDirectory
    from jaxrl_envs.registry import check_id

    _algorithm(options.algo)
    check_id(options.env)
    recipe = _recipe(options)
    if options.dry_run:
        _announce(options, "a dry run")
        return _show_dry_run(recipe)
    with terminal.outlived(), _claimed(RunDirectory, options.run_dir, options) as directory:
        _announce(options, f"into {directory.path}")
        commands.train(recipe, directory)


def sweep_agents(options: argparse.Namespace) -> None:
    """Trains every point of a sweep, and ranks them."""
    from jaxrl.runs.sweeps import SweepDirectory
    from jaxrl_envs.registry import check_id

    algorithm = _algorithm(options.algo)
    check_id(options.env)
    points, recipe = sweep_command.points_of(options, algorithm), _recipe(options)
    with (
        terminal.outlived(),
        SweepDirectory.resume(options.sweep_dir)
        if options.resumed
        else _claimed(SweepDirectory, options.sweep_dir, options, "sweep-") as directory,
    ):
        _announce(options, "a sweep")
        sweep_command.run_sweep(
            recipe, points, directory, options.given, options.max_memory, options.confirm_seeds
        )


def resume_sweep(path: Path, words: Sequence[str]) -> None:
    """Goes on with the sweep in a directory, which these words began."""
    options = parse_command_line(words)
    options.given, options.sweep_dir, options.resumed = words, path, True
    options.run(options)


def _announce(options: argparse.Namespace, what: str) -> None:
    """The first lines, before anything slow: what, a preset, whether a repeated run may differ."""
    print(f"jaxrl {__version__}: {options.algo} on {options.env}, {what}", flush=True)
    if options.from_preset:
        said = " ".join(options.from_preset)
        print(f"preset: {said} (what you give wins; --no-preset leaves it out)", flush=True)
    if options.config is not None and (others := options.config.other_versions):
        print(f"note: {options.config.path} ran on {others}: results may differ", flush=True)


def _show_dry_run(recipe: "Recipe") -> None:
    commands.find_own_modules()
    members = recipe.build()
    from jaxrl.runs.dry_run import dry_run  # here, and not earlier: it imports jax

    print("tracing and compiling ...", flush=True)
    for name, text in dry_run(members).items():
        print(f"{name:<13} {text}")


def _recipe(options: argparse.Namespace) -> "Recipe":
    """What is to be trained, and how."""
    from jaxrl.runs.recipe import TRAINING, Recipe

    if not 0 <= options.seed <= 2**32 - options.seeds:
        raise ValueError(f"--seed is {options.seed}: seeds lie between 0 and 2**32 - 1")
    check_many("--seeds", options.seeds)
    return Recipe(
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
        settings=commands.settings(options, num_evaluations=options.num_evaluations),
        key_type=options.config and options.config.key_type,
        warm_start=options.warm_start and str(user_path(options.warm_start).absolute()),
    )


def _is_ours(error: BaseException) -> bool:
    """Whether jaxrl raised the error: it says what is wrong with the input. Others are defects."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in ("jaxrl", "jaxrl_envs")


def _claimed(kind: Any, path: Path | None, options: argparse.Namespace, prefix: str = "") -> Any:
    """A new directory of this kind: the one that was asked for, or one with a name of its own."""
    if path is not None:
        return kind.create(path)
    env = options.env.rpartition("/")[2].replace(":", "-")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"{prefix}{options.algo}-{env}-seed{options.seed}-{stamp}"
    return kind.create_numbered(Path("runs") / name)
