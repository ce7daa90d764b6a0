"""The command `jaxrl`. Imports jax only once there is something to train."""

import argparse
import difflib
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jaxrl import __version__
from jaxrl.flags import Algorithm, Flag, ScheduleText, SHOWN_TYPES, algorithms, parse, whole_number

if TYPE_CHECKING:
    from jaxrl.runs.directory import RunDirectory


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        fail(message)


def fail(message: str) -> NoReturn:
    """Prints one clear line and exits with 2."""
    print(f"jaxrl: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with `argv`, by default the process's own arguments."""
    argv = list(sys.argv[1:] if argv is None else argv)
    options = build_parser(argv).parse_args(argv)
    options.run(options)


# The parser ---------------------------------------------------------------------------------------


def build_parser(argv: Sequence[str]) -> Parser:
    """The parser; `argv` tells which algorithm's flags `train` has."""
    parser = Parser(
        prog="jaxrl",
        description="Train reinforcement-learning agents, thousands of environments at a time.",
        epilog="example: jaxrl train ppo gymnax/CartPole-v1",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"jaxrl {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands, argv)
    listing = commands.add_parser(
        "list", help="show the algorithms and environments", allow_abbrev=False
    )
    listing.set_defaults(run=list_all)
    return parser


def _add_train(commands: Any, argv: Sequence[str]) -> None:
    chosen = next((a for a in argv[1:] if a in algorithms()), None)
    named = f"jaxrl train {chosen}" if chosen else "jaxrl train ALGO"
    train = commands.add_parser(
        "train",
        help="train an agent and leave a run directory",
        usage=f"{named} ENV [flags]",
        description=(
            "Trains ALGO on ENV and leaves a run directory with config.json, metrics.jsonl, "
            "summary.json, learning_curve.png and the final checkpoint."
        ),
        epilog=(
            f"FLOAT|SCHEDULE: a number, or a change over training such as linear:2.5e-4:0."
            if chosen
            else "The hyper-parameters of an algorithm: jaxrl train ALGO --help, for example "
            "jaxrl train ppo --help"
        ),
        allow_abbrev=False,
    )
    train.set_defaults(run=train_agent)
    train.add_argument("algo", metavar="ALGO", help=f"one of: {', '.join(algorithms())}")
    train.add_argument("env", metavar="ENV", help="an id from `jaxrl list`, gymnax/CartPole-v1 say")
    run = train.add_argument_group("the run")
    whole = _type(whole_number, "INT")
    run.add_argument(
        "--total-steps", type=whole, default=500_000, metavar="INT",
        help="environment steps of each seed, rounded up to whole iterations (default: 500000)",
    )  # fmt: skip
    run.add_argument("--seed", type=whole, default=0, metavar="INT", help="first seed (default: 0)")
    run.add_argument(
        "--seeds", type=whole, default=1, metavar="INT",
        help="how many seeds to train at once, seed, seed + 1, ... (default: 1)",
    )  # fmt: skip
    run.add_argument(
        "--run-dir", type=Path, metavar="DIR",
        help="directory to make (default: runs/ALGO-ENV-seedS-TIME)",
    )  # fmt: skip
    run.add_argument(
        "--env-param", action="append", default=[], metavar="NAME=NUMBER",
        help="change a parameter of the environment, length=0.7 say; may be repeated",
    )  # fmt: skip
    run.add_argument(
        "--num-evaluations", type=whole, default=20, metavar="INT",
        help="evaluations, evenly spaced (default: 20)",
    )  # fmt: skip
    run.add_argument(
        "--num-eval-episodes", type=whole, default=128, metavar="INT",
        help="episodes an evaluation, without exploration (default: 128)",
    )  # fmt: skip
    run.add_argument(
        "--normalize-observations", action="store_true",
        help="scale observations by their running mean and deviation",
    )  # fmt: skip
    run.add_argument(
        "--normalize-rewards", action="store_true",
        help="scale rewards by the deviation of the running discounted return",
    )  # fmt: skip
    run.add_argument(
        "--reset-policy", choices=("fresh", "pool"), default="fresh",
        help="draw a start for every reset, or a pool of them once an iteration (default: fresh)",
    )  # fmt: skip
    if chosen:
        algorithm = algorithms()[chosen]
        group = train.add_argument_group(f"hyper-parameters of {chosen}", algorithm.summary)
        for flag in algorithm.flags:
            _add_flag(group, flag)


def _add_flag(group: Any, flag: Flag) -> None:
    name = "--" + flag.name.replace("_", "-")
    default = flag.default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default).lower()
    text = f"{flag.help[:1].lower()}{flag.help[1:].rstrip('.')} (default: {shown})"
    common = {"dest": f"hyper.{flag.name}", "default": argparse.SUPPRESS, "help": text}
    if flag.type == "bool":
        group.add_argument(name, action=argparse.BooleanOptionalAction, **common)
    else:
        kind = _type(lambda value: parse(flag.type, value), flag.type)
        metavar = SHOWN_TYPES.get(flag.type, "NAME")
        group.add_argument(name, type=kind, metavar=metavar, **common)


def _type(convert: Any, name: str) -> Any:
    """A converter whose own message reaches the user."""

    def converter(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    converter.__name__ = name
    return converter


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

    algorithm = _algorithm(options.algo)
    try:
        check_id(options.env)
        env_params = dict(_env_param(text) for text in options.env_param)
        for name in ("total_steps", "seeds", "num_evaluations", "num_eval_episodes"):
            if getattr(options, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        if not 0 <= options.seed <= 2**32 - options.seeds:
            raise ValueError(f"--seed is {options.seed}: seeds lie between 0 and 2**32 - 1")
        directory = RunDirectory.create(options.run_dir or _default_directory(options))
    except ValueError as error:
        fail(str(error))
    print(f"jaxrl {__version__}: {algorithm.name} on {options.env}, into {directory.path}", flush=True)

    training, key = _build(algorithm, options, env_params, directory)
    from jaxrl.runs.fit import run
    from jaxrl.runs.progress import reporter
    from jaxrl.runs.recorder import Recorder

    recorder = Recorder(directory, training, options.seed, options.seeds)
    recorder.begin(
        {
            "algorithm": algorithm.name,
            "environment": options.env,
            "environment_parameters": env_params,
            "num_evaluations": options.num_evaluations,
        }
    )
    with reporter(options.seeds) as show:

        def on_event(event):
            recorder(event)
            show(event)

        result = run(training, key, num_evaluations=options.num_evaluations, on_event=on_event)
    summary = recorder.finish(result, title=f"{algorithm.name} on {options.env}")
    final = summary["final_return"]
    over = f" over {options.seeds} seeds (IQM {final['iqm']:.1f})" if options.seeds > 1 else ""
    print(
        f"final return {final['mean']:.1f}{over} after {summary['env_steps']:,} steps, "
        f"{summary['steps_per_second']:,.0f} steps/s\nlearning curve: {directory.plot}"
    )


def _build(
    algorithm: Algorithm,
    options: argparse.Namespace,
    env_params: dict[str, float],
    directory: "RunDirectory",
) -> tuple[Any, Any]:
    """What is to be trained, and the key of each seed; what does not fit ends in one line."""
    import jax  # here, and not earlier: it takes its time
    import jax.numpy as jnp

    import jaxrl_envs
    from jaxrl.engine.train import Training

    hyper = {k.removeprefix("hyper."): v for k, v in vars(options).items() if k[:6] == "hyper."}
    hyper = {k: v.build() if isinstance(v, ScheduleText) else v for k, v in hyper.items()}
    try:
        env = jaxrl_envs.make(options.env, **env_params)
        agent = getattr(importlib.import_module(algorithm.module), algorithm.class_name)(**hyper)
        training = Training.create(
            agent,
            env,
            total_steps=options.total_steps,
            num_eval_episodes=options.num_eval_episodes,
            normalize_observations=options.normalize_observations,
            normalize_rewards=options.normalize_rewards,
            reset_policy=options.reset_policy,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        directory.discard()
        fail(str(error))
    if options.seeds == 1:
        return training, jax.random.key(options.seed)
    seeds = jnp.arange(options.seeds, dtype=jnp.uint32) + jnp.uint32(options.seed)
    return training, jax.vmap(jax.random.key)(seeds)


def _algorithm(name: str) -> Algorithm:
    known = algorithms()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.3) or list(known)
        fail(f"there is no algorithm {name!r}: did you mean {' or '.join(near)}?")
    return known[name]


def _env_param(text: str) -> tuple[str, float]:
    name, equals, number = text.partition("=")
    try:
        if not (name and equals):
            raise ValueError
        return name, float(number)
    except ValueError:
        raise ValueError(f"--env-param {text!r}: write NAME=NUMBER, length=0.7 say") from None


def _default_directory(options: argparse.Namespace) -> Path:
    env = options.env.rpartition("/")[2]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{options.algo}-{env}-seed{options.seed}-{stamp}"
