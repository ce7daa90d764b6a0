"""The command `jaxrl`. Imports jax only once there is something to train."""

import argparse
import difflib
import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jaxrl import __version__
from jaxrl.flags import (
    SHOWN_TYPES,
    Algorithm,
    Flag,
    ScheduleText,
    algorithms,
    finite_number,
    parse,
    whole_number,
)

if TYPE_CHECKING:
    from jaxrl.runs.directory import RunDirectory
    from jaxrl.runs.events import Result


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with `argv`, by default the process's own arguments."""
    argv = _joined(sys.argv[1:] if argv is None else argv)
    try:
        options = parse_command_line(argv)
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("jaxrl: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # `jaxrl list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str) -> NoReturn:
    """Prints one clear line and exits with 2."""
    print(f"jaxrl: error: {message}", file=sys.stderr)
    raise SystemExit(2)


# The parser ---------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message} (see {self.prog.removesuffix(' [flags]')} --help)")


def parse_command_line(argv: Sequence[str]) -> argparse.Namespace:
    """The options; what is unknown ends in one line with what is nearest to it."""
    algorithm = _chosen(argv)
    parser, commands = build_parser(algorithm)
    if not argv:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    if not argv[0].startswith("-") and argv[0] not in commands:
        fail(f"there is no command {argv[0]!r}: {_did_you_mean(argv[0], commands)}")
    options, unknown = parser.parse_known_args(argv)
    flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    if flags:
        known = {"--help", *(_spelled(name) for name in vars(options) if name not in NOT_FLAGS)}
        if options.run is train_agent:
            chosen = [algorithm] if algorithm else algorithms().values()
            known |= {_spelled(flag.name) for a in chosen for flag in a.flags}
        fail(f"there is no flag {flags[0]!r}: {_did_you_mean(flags[0], sorted(known))}")
    if unknown:
        fail(f"{unknown[0]!r} is one word too many (see jaxrl {argv[0]} --help)")
    return options


NOT_FLAGS = ("run", "algo", "env")
"""What the options hold besides flags."""


def build_parser(algorithm: Algorithm | None) -> tuple[Parser, list[str]]:
    """The parser, in which `train` has the flags of `algorithm`, and the commands it knows.

    Without an algorithm it reads the flags of them all, so that what is wrong can be named.
    """
    parser = Parser(
        prog="jaxrl",
        description="Train reinforcement-learning agents, thousands of environments at a time.",
        epilog="Example: jaxrl train ppo gymnax/CartPole-v1",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"jaxrl {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands, algorithm)
    listing = commands.add_parser(
        "list", help="Show the algorithms and the environments", allow_abbrev=False
    )
    listing.set_defaults(run=list_all)
    return parser, list(commands.choices)


def _add_train(commands: Any, algorithm: Algorithm | None) -> None:
    train = commands.add_parser(
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
    train.set_defaults(run=train_agent)
    train.add_argument("algo", metavar="ALGO", help=f"One of: {', '.join(algorithms())}")
    train.add_argument("env", metavar="ENV", help="An id from `jaxrl list`: gymnax/CartPole-v1 say")
    run = train.add_argument_group("the run")
    count = _type(_count)
    run.add_argument(
        "--total-steps", type=count, default=500_000, metavar="INT",
        help="Environment steps of each seed, rounded up to whole iterations (default: 500000)",
    )  # fmt: skip
    run.add_argument(
        "--seed", type=_type(whole_number), default=0, metavar="INT",
        help="The seed, or the first of several (default: 0)",
    )  # fmt: skip
    run.add_argument(
        "--seeds", type=count, default=1, metavar="INT",
        help="How many seeds to train at once: seed, seed + 1, ... (default: 1)",
    )  # fmt: skip
    run.add_argument(
        "--run-dir", type=Path, metavar="DIR",
        help="Directory to make (default: runs/ALGO-ENV-seedSEED-TIME)",
    )  # fmt: skip
    run.add_argument(
        "--env-param", action="append", default=[], metavar="NAME=NUMBER", type=_type(_env_param),
        help="Change a parameter of the environment, length=0.7 say; may be repeated",
    )  # fmt: skip
    run.add_argument(
        "--num-evaluations", type=count, default=20, metavar="INT",
        help="Evaluations, evenly spaced (default: 20)",
    )  # fmt: skip
    run.add_argument(
        "--num-eval-episodes", type=count, default=128, metavar="INT",
        help="Episodes of an evaluation, played without exploration (default: 128)",
    )  # fmt: skip
    run.add_argument(
        "--normalize-observations", action="store_true",
        help="Scale observations by their running mean and deviation",
    )  # fmt: skip
    run.add_argument(
        "--normalize-rewards", action="store_true",
        help="Scale rewards by the deviation of the running discounted return",
    )  # fmt: skip
    run.add_argument(
        "--reset-policy", choices=("fresh", "pool"), default="fresh",
        help="Draw a start for every reset, or a pool of them once an iteration (default: fresh)",
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
        kind = _type(lambda value: parse(flag.type, value))
        metavar = SHOWN_TYPES[flag.type]
        group.add_argument(_spelled(flag.name), type=kind, metavar=metavar, **common)


HYPER = "hyper."
"""Before the names of hyper-parameters among the options."""


def _spelled(name: str) -> str:
    return "--" + name.removeprefix(HYPER).replace("_", "-")


def _type(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A converter whose own message reaches the user."""

    def converter(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converter


def _count(text: str) -> int:
    number = whole_number(text)
    if number < 1:
        raise ValueError(f"{text} is too small: it must be at least 1")
    return number


def _env_param(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{text!r}: write NAME=NUMBER, length=0.7 say")
    number = finite_number(value)
    return name, int(value) if value.lstrip("+-").isdigit() else number


def _chosen(argv: Sequence[str]) -> Algorithm | None:
    """The algorithm that `train` is asked for; its flags may come before it.

    A word after a flag is likely the value of the flag, so the others are looked at first.
    """
    if argv[:1] != ["train"]:
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


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"use {' or '.join(known)}"


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


# train --------------------------------------------------------------------------------------------


def train_agent(options: argparse.Namespace) -> None:
    """Trains, shows progress, writes the run directory."""
    from jaxrl.runs.directory import RunDirectory
    from jaxrl_envs.registry import check_id

    if options.algo not in algorithms():
        fail(f"there is no algorithm {options.algo!r}: {_did_you_mean(options.algo, algorithms())}")
    try:
        check_id(options.env)
        if not 0 <= options.seed <= 2**32 - options.seeds:
            raise ValueError(f"--seed is {options.seed}: seeds lie between 0 and 2**32 - 1")
        directory = RunDirectory.create(options.run_dir or _default_directory(options))
    except ValueError as error:
        fail(str(error))
    try:
        print(
            f"jaxrl {__version__}: {options.algo} on {options.env}, into {directory.path}",
            flush=True,
        )
        result = _train(options, directory)
    except KeyboardInterrupt:
        directory.discard()
        kept = f"; the run in {directory.path} is incomplete" if directory.path.exists() else ""
        print(f"jaxrl: interrupted{kept}", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        directory.discard()  # if nothing was written into it
    final = result.summary()["final_return"]
    over = f" over {options.seeds} seeds (IQM {final['iqm']:.1f})" if options.seeds > 1 else ""
    print(
        f"final return {final['mean']:.1f}{over} after {result.env_steps:,} steps, "
        f"{result.steps_per_second:,.0f} steps/s\nlearning curve: {directory.plot}"
    )


def _train(options: argparse.Namespace, directory: "RunDirectory") -> "Result":
    import jax  # here, and not earlier: it takes its time
    import jax.numpy as jnp

    import jaxrl_envs
    from jaxrl.engine.train import Training
    from jaxrl.runs.events import Origin
    from jaxrl.runs.fit import run
    from jaxrl.runs.progress import reporter

    algorithm = algorithms()[options.algo]
    agent_class = getattr(importlib.import_module(algorithm.module), algorithm.class_name)
    hyper = {k.removeprefix(HYPER): v for k, v in vars(options).items() if k.startswith(HYPER)}
    env_params = dict(options.env_param)
    try:
        training = Training.create(
            agent_class(
                **{k: v.build() if isinstance(v, ScheduleText) else v for k, v in hyper.items()}
            ),
            jaxrl_envs.make(options.env, **env_params),
            total_steps=options.total_steps,
            num_eval_episodes=options.num_eval_episodes,
            normalize_observations=options.normalize_observations,
            normalize_rewards=options.normalize_rewards,
            reset_policy=options.reset_policy,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        if not _is_ours(error):
            raise
        fail(str(error))
    seeds = jnp.arange(options.seeds, dtype=jnp.uint32) + jnp.uint32(options.seed)
    keys = jax.vmap(jax.random.key)(seeds)
    with reporter(options.seeds) as show:
        return run(
            training,
            keys if options.seeds > 1 else keys[0],
            num_evaluations=options.num_evaluations,
            directory=directory,
            origin=Origin(options.algo, options.env, env_params),
            on_event=show,
        )


def _is_ours(error: BaseException) -> bool:
    """Whether jaxrl raised the error: it says what is wrong with the input. Others are defects."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in ("jaxrl", "jaxrl_envs")


def _default_directory(options: argparse.Namespace) -> Path:
    env = options.env.rpartition("/")[2]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{options.algo}-{env}-seed{options.seed}-{stamp}"
