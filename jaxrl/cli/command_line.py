"""Parses the command line, with the flags of the chosen algorithm and the settings of a file."""

import argparse
import itertools
import sys
from collections.abc import Sequence

from jaxrl import __version__
from jaxrl.cli import listing, run_commands
from jaxrl.cli.parsing import Parser, fail, flag_name
from jaxrl.cli.sweep import add_sweep, sweep_agents
from jaxrl.cli.train import add_train, algorithm_named, train_agent
from jaxrl.errors import InvalidValue, did_you_mean
from jaxrl.registry import Algorithm, algorithms


def parse_command_line(argv: Sequence[str]) -> argparse.Namespace:
    """Parses `argv`; a mistake ends in one line, with a suggestion if a name is unknown."""
    try:
        for flag, _, value in (word.partition("=") for word in argv):
            if flag.startswith("--") and value == "--":  # argparse drops such a value
                raise InvalidValue(f"argument {flag}: '--' is not a value")
        path = _config_path(argv)
        return _parse(argv) if path is None else _parse_with_file(argv, path)
    except InvalidValue as error:
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
        fail(f"unexpected argument {words[0]!r} (see jaxrl {argv[0]} --help)")
    if getattr(options, "preset", False) and algorithm is not None:
        return _with_preset(parser, argv, options.env, algorithm) or options
    return options


def _with_preset(
    parser: Parser, argv: Sequence[str], env: str, algorithm: Algorithm
) -> argparse.Namespace | None:
    """Parses again with the preset of this algorithm and environment; None if there is none."""
    from jaxrl.cli.config_file import words_of
    from jaxrl.cli.presets import preset

    settings = preset(algorithm.name, env)
    if not settings:
        return None
    changes = settings.pop("environment_parameters", {})
    words = words_of(settings, changes, algorithm)
    verb, *given = argv
    options = parser.parse_args([verb, *words, *given])
    options.from_preset = words
    return options


def _parse_with_file(argv: Sequence[str], path: str) -> argparse.Namespace:
    """The options of `train --config`; the command line overrides the file."""
    from jaxrl.cli import config_file

    file = config_file.read(path)
    chosen = _chosen(argv) or (algorithm_named(file.algorithm) if file.algorithm else None)
    options, words = _known(build_parser(chosen, words=False)[0], argv, chosen)
    if len(words) > 2:
        fail(f"unexpected argument {words[2]!r} (see jaxrl train --help)")
    is_env = len(words) == 1 and ("/" in words[0] or ":" in words[0])
    algo = words[0] if words and not is_env else file.algorithm
    env = words[-1] if len(words) == 2 or is_env else file.environment
    if algo is None:
        fail(f"{path} names no algorithm: add one, for example jaxrl train ppo --config {path}")
    algorithm = algorithm_named(algo)
    if env is None or not (words or "/" in env or ":" in env):
        named = "names no environment" if env is None else f"has {env}, not an environment's id"
        example = f"jaxrl train {algo} gymnax/CartPole-v1 --config {path}"
        fail(f"{path} {named}: add one, for example {example}")
    parser, _ = build_parser(algorithm, words=False)
    try:
        of_file = file.words(algorithm)
        parser.parse_args(["train", *of_file])  # alone, so that errors name the file
    except InvalidValue as error:
        raise InvalidValue(f"{path}: {error}") from None
    options, _ = _known(parser, ["train", *of_file, *argv[1:]], algorithm)
    options.algo, options.env, options.config = algo, env, file
    return options


def _known(
    parser: Parser, argv: Sequence[str], algorithm: Algorithm | None
) -> tuple[argparse.Namespace, list[str]]:
    """The options and the unexpected arguments; an unknown flag ends in one line."""
    options, unknown = parser.parse_known_args(argv)
    flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    if flags:
        known = {"--help", *(flag_name(name) for name in vars(options) if name not in NOT_FLAGS)}
        if options.run in (train_agent, sweep_agents):
            chosen = [algorithm] if algorithm else algorithms().values()
            known |= {flag_name(flag.name) for a in chosen for flag in a.flags}
        if options.run is run_commands.resume_run and _is_of_train(flags[0], parser):
            fail(
                f"resume has no {flags[0]}: a run continues with its own settings. resume takes "
                f"{', '.join(sorted(known - {'--help', '--path'}))}; to train from what the run "
                f"has learned: jaxrl train ALGO ENV --warm-start RUN {flags[0]} ..."
            )
        fail(f"there is no flag {flags[0]!r}: {did_you_mean(flags[0], sorted(known))}")
    return options, unknown


def _is_of_train(flag: str, parser: Parser) -> bool:
    """Whether `train` has this flag for any algorithm."""
    options, _ = parser.parse_known_args(["train", "ALGO", "ENV"])
    names = {name for name in vars(options) if name not in NOT_FLAGS}
    names |= {flag.name for algorithm in algorithms().values() for flag in algorithm.flags}
    return flag.replace("--no-", "--", 1) in map(flag_name, names)


NOT_FLAGS = ("run", "algo", "env", "from_preset")
"""Entries of the options that are not flags."""


def build_parser(algorithm: Algorithm | None, *, words: bool = True) -> tuple[Parser, list[str]]:
    """The parser and the names of the commands.

    Args:
      algorithm: adds its flags to `train` and `sweep`; None adds the flags of all algorithms, for
        better error messages.
      words: whether to parse ALGO and ENV; argparse cannot make them optional among flags.
    """
    parser = Parser(
        prog="jaxrl",
        description="Train reinforcement-learning agents, thousands of environments at a time.",
        epilog="Example: jaxrl train ppo gymnax/CartPole-v1",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"jaxrl {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_train(verbs, algorithm, words)
    run_commands.add(verbs)
    add_sweep(verbs, algorithm)
    listing.add(verbs)
    doctor = verbs.add_parser(
        "doctor",
        help="Show versions and devices, and check for known problems",
        description="Shows versions, devices and settings, and checks for known problems. Exits "
        "with status 1 if one of them would prevent training.",
        allow_abbrev=False,
    )
    doctor.set_defaults(run=examine)
    return parser, list(verbs.choices)


def _config_path(argv: Sequence[str]) -> str | None:
    """The file of `train --config`; None without one, or if only help is requested."""
    if argv[:1] != ["train"] or {"-h", "--help"} & set(argv):
        return None
    named = [word for flag, word in itertools.pairwise(argv) if flag == "--config"]
    named += [word.removeprefix("--config=") for word in argv if word.startswith("--config=")]
    if len(named) > 1:
        raise InvalidValue("--config is given twice: put everything into one file")
    return named[0] if named else None


def _chosen(argv: Sequence[str]) -> Algorithm | None:
    """The algorithm that `train` or `sweep` names; flags may come before it.

    A word after a flag is probably its value, so such words are tried last.
    """
    if argv[:1] not in (["train"], ["sweep"]) or len(argv) == 1:
        return None
    words = list(itertools.pairwise(argv))
    words.sort(key=lambda pair: pair[0].startswith("--"))  # stable
    for _, word in words:
        if word in algorithms():
            return algorithms()[word]
    if ":" in argv[1] and not argv[1].startswith("-") and "--config" not in argv:
        return algorithm_named(argv[1])  # a user's class
    return None


def joined(argv: Sequence[str]) -> list[str]:
    """Joins `--flag -1e-3` to `--flag=-1e-3`, since argparse takes such a number for a flag."""
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


def examine(options: argparse.Namespace) -> None:
    """Prints the report of `jaxrl doctor`; exits with 1 if a finding would prevent training."""
    from jaxrl.cli import doctor

    host = doctor.probe()
    findings = doctor.examine(host)
    print("\n".join(doctor.report(host, findings)))
    if any(finding.blocking for finding in findings):
        raise SystemExit(1)
