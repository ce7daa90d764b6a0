"""The command `jaxrl sweep`: grid and random search. It imports jax as late as possible."""

import argparse
import dataclasses
import functools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrl import __version__
from jaxrl.cli import terminal
from jaxrl.cli.config_file import words_of
from jaxrl.cli.option_flags import FLAGS
from jaxrl.cli.parsing import Parser, check_many, count, file_path, kind
from jaxrl.cli.presets import preset
from jaxrl.cli.session import find_own_modules, keep_compiled_programs, use_cores
from jaxrl.cli.train import (
    add_training_flags,
    add_words,
    algorithm_named,
    announce,
    claim,
    run_config_of,
    train,
)
from jaxrl.errors import InvalidValue, Unable, did_you_mean
from jaxrl.registry import Algorithm, algorithms
from jaxrl.runs.directory import plain
from jaxrl.value_text import finite_number, parse

if TYPE_CHECKING:
    from jaxrl.runs.run_config import RunConfig
    from jaxrl.runs.sweeps import Point, Range, Sweep, SweepDirectory

BATCHED = ("Scalar", "Scalar | None", "Scheduled", "Scheduled | None")
"""Types of flags that vmap can batch."""
FRESH_SEEDS = 5
"""Minimum number of new seeds that is proposed to evaluate the best point."""


def add_sweep(verbs: Any, algorithm: Algorithm | None) -> None:
    sweep = verbs.add_parser(
        "sweep",
        help="Train with many hyper-parameters in parallel, and rank them",
        usage=f"jaxrl sweep {algorithm.name if algorithm else 'ALGO'} ENV [flags]",
        description=(
            "Trains ALGO on ENV with hyper-parameters from a grid or sampled at random, each point "
            "with each seed. Points that differ only in real numbers are vmapped in one program; "
            "other values get a program each. Ends with a ranked table and a heat map. `jaxrl "
            "resume DIR` resumes an interrupted sweep."
        ),
        allow_abbrev=False,
    )
    sweep.set_defaults(run=sweep_agents, config=None, from_preset=None)
    add_words(sweep)
    add_own_flags(sweep)
    add_training_flags(sweep, sweep.add_argument_group("each run"), algorithm)


def sweep_agents(options: argparse.Namespace) -> None:
    """Trains all points of a new sweep, and ranks them."""
    from jaxrl.runs.sweeps import SweepDirectory
    from jaxrl_envs.registry import check_id

    check_id(options.env)
    sweep = sweep_of(options)
    of_sweep = (SweepDirectory, options.sweep_dir, options, "sweep-")
    with terminal.ignoring_stdout_errors(), claim(*of_sweep) as directory:
        announce(options, "a sweep")
        run_sweep(sweep, directory)


def resume_sweep(path: Path) -> None:
    """Resumes the sweep in a directory."""
    from jaxrl.runs.sweeps import SweepDirectory

    with terminal.ignoring_stdout_errors(), SweepDirectory.resume(path) as directory:
        sweep = directory.read()
        if isinstance(sweep, list):
            sweep = sweep_of_words(sweep)
        config = sweep.run_config
        print(
            f"jaxrl {__version__}: {config.algorithm} on {config.environment}, a sweep", flush=True
        )
        run_sweep(sweep, directory)


def sweep_of(options: argparse.Namespace) -> "Sweep":
    """The sweep that the options describe."""
    from jaxrl.runs.sweeps import Sweep

    points = points_of(options, algorithm_named(options.algo))
    run_config = run_config_of(options)
    return Sweep(run_config, tuple(points), options.max_memory, options.confirm_seeds)


def sweep_of_words(words: Sequence[str]) -> "Sweep":
    """The sweep of an older sweep.json, which stores the words of the command line."""
    algorithm = next(algorithms()[word] for word in words if word in algorithms())
    parser = Parser(prog="jaxrl", allow_abbrev=False)
    add_sweep(parser.add_subparsers(), algorithm)
    return sweep_of(parser.parse_args(words))


def add_own_flags(sweep: Any) -> None:
    """Adds the flags that `sweep` has and `train` does not."""
    group = sweep.add_argument_group("the sweep")
    group.add_argument(
        "--grid", action="append", default=[], metavar="NAME=VALUE,VALUE,...",
        help="Values of a hyper-parameter, such as learning_rate=1e-4,3e-4; if repeated, all "
        "combinations are trained (separate lists by /: hidden_sizes=64,64/128,128)",
    )  # fmt: skip
    group.add_argument(
        "--range", action="append", default=[], metavar="NAME=LOW:HIGH[:log]",
        help="Range from which --random samples a hyper-parameter, such as "
        "learning_rate=1e-5:1e-2:log; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--random", type=count, metavar="INT",
        help="Number of points to sample, from each --range and from the values of each --grid",
    )  # fmt: skip
    group.add_argument(
        "--max-memory", type=kind(_memory), metavar="GIB",
        help="Memory limit of a program; larger programs are split (default: half of the memory)",
    )  # fmt: skip
    group.add_argument(
        "--confirm-seeds", type=count, metavar="INT",
        help="Train the best point again with this many new seeds, into SWEEP/confirmed: the mean "
        "that selected it is biased upwards, the new one is not",
    )  # fmt: skip
    group.add_argument(
        "--sweep-dir", type=file_path, metavar="DIR",
        help="Directory to create (default: runs/sweep-ALGO-ENV-seedSEED-TIME)",
    )  # fmt: skip


def _memory(text: str) -> float:
    size = finite_number(text)
    if size <= 0:
        raise InvalidValue(f"{text} is too small: give a positive number of GiB, such as 4")
    return size


def points_of(options: argparse.Namespace, algorithm: Algorithm) -> "list[Point]":
    """The points that the flags describe.

    Raises:
      ValueError: the algorithm lacks a hyper-parameter, or cannot take a value.
    """
    from jaxrl.runs.sweeps import grid, random_points

    choices = dict(_choices(text, algorithm) for text in options.grid)
    ranges = dict(_range(text, algorithm) for text in options.range)
    if twice := choices.keys() & ranges.keys():
        raise InvalidValue(f"--grid and --range both give {min(twice)}: leave one out")
    if len(choices) < len(options.grid) or len(ranges) < len(options.range):
        raise InvalidValue("a hyper-parameter is given twice: put all its values into one --grid")
    if not choices and not ranges:
        raise InvalidValue("nothing to sweep: add, for example, --grid learning_rate=1e-4,3e-4")
    if ranges and options.random is None:
        raise InvalidValue("--range needs --random N, the number of points to sample")
    if options.random is None:
        return grid(choices)
    check_many("--random", options.random)
    return random_points(ranges, choices, options.random, options.seed)


def _named(text: str, flag: str, example: str, algorithm: Algorithm) -> tuple[Any, str]:
    name, _, rest = text.partition("=")
    name = name.strip().replace("-", "_")
    known = {f.name: f for f in algorithm.flags}
    if not rest:
        raise InvalidValue(f"--{flag} {text}: write {example}")
    if name not in known:
        hint = did_you_mean(name, known)
        raise InvalidValue(f"--{flag}: {algorithm.name} has no hyper-parameter {name!r}: {hint}")
    return known[name], rest


def _choices(text: str, algorithm: Algorithm) -> tuple[str, list[Any]]:
    flag, rest = _named(text, "grid", "NAME=VALUE,VALUE", algorithm)
    words = rest.split("/" if flag.type.startswith("tuple") else ",")
    values = [_value(flag, word.strip()) for word in words]
    if len({str(value) for value in values}) < len(values):
        raise InvalidValue(f"--grid {text}: a value is repeated")
    return flag.name, values


def _value(flag: Any, word: str) -> Any:
    if flag.type == "bool":
        if word not in ("true", "false"):
            raise InvalidValue(f"--grid {flag.name}: {word!r} is neither true nor false")
        return word == "true"
    if flag.choices and word not in flag.choices:
        choices = ", ".join(flag.choices)
        raise InvalidValue(f"--grid {flag.name}: {word!r} is not one of {choices}")
    try:
        return parse(flag.type, word)
    except InvalidValue as error:
        raise InvalidValue(f"--grid {flag.name}: {error}") from None


def _range(text: str, algorithm: Algorithm) -> "tuple[str, Range]":
    from jaxrl.runs.sweeps import Range

    flag, rest = _named(text, "range", "NAME=LOW:HIGH or NAME=LOW:HIGH:log", algorithm)
    low_text, *others = rest.split(":")
    if flag.type not in BATCHED:
        raise InvalidValue(f"--range: {flag.name} is not a real number: list its values in --grid")
    if len(others) not in (1, 2) or others[1:] not in ([], ["log"]):
        raise InvalidValue(f"--range {text}: write NAME=LOW:HIGH or NAME=LOW:HIGH:log")
    low, high = finite_number(low_text), finite_number(others[0])
    if not low < high or (len(others) == 2 and low <= 0):
        raise InvalidValue(f"--range {text}: LOW must be below HIGH, and above 0 with log")
    return flag.name, Range(low, high, len(others) == 2)


def run_sweep(sweep: "Sweep", directory: "SweepDirectory") -> None:
    """Trains all points that are not complete yet; prints and plots the results."""
    from jaxrl.analysis.sweep_report import (
        caveat,
        draw,
        outcomes,
        table,
        write_results,
    )
    from jaxrl.runs.sweeps import batches, memory_budget, split

    run_config, points, confirm_seeds = sweep.run_config, sweep.points, sweep.confirm_seeds
    if run_config.seeds[-1] + (confirm_seeds or 0) >= 2**32:
        raise InvalidValue(f"--confirm-seeds is {confirm_seeds}: seeds end at 2**32 - 1")
    flags = algorithm_named(run_config.algorithm).flags
    groups = [
        (
            dataclasses.replace(
                run_config, hyper_parameters={**run_config.hyper_parameters, **fixed}
            ),
            fixed,
            [] if rest == [{}] else rest,
        )
        for fixed, rest in split(points, [flag.name for flag in flags if flag.type in BATCHED])
    ]
    keep_compiled_programs()
    num_members = max(of_group.num_members * max(1, len(rest)) for of_group, _, rest in groups)
    use_cores(num_members, run_config.options.devices)
    find_own_modules()
    from jaxrl.runs.load import build

    for of_group, _, rest in groups:  # invalid points raise before any file is written
        build(_program(of_group, rest))
    directory.begin(sweep)
    path = directory.path
    most = sweep.max_memory
    budget = memory_budget() if most is None else int(most * 2**30)
    print(
        f"{len(points)} points x {len(run_config.seeds)} seeds, {len(groups)} "
        f"program{'s' if len(groups) > 1 else ''}, into {path}",
        flush=True,
    )
    runs: list[tuple[Path, Point, list[Point]]] = []
    for number, (of_group, fixed, rest) in enumerate(groups):
        parts: list[list[Point]] = [[]]
        if rest:
            make = functools.partial(batches, of_group, rest, budget)
            parts = directory.batches(number, make)
        for part in parts:
            run_path, complete = directory.run(len(runs))
            runs.append((run_path, fixed, part))
            if complete:
                continue
            print(f"\n{run_path.name}: {_said(fixed, part)}", flush=True)
            _train(_program(of_group, part), run_path)
    found = outcomes(runs)
    write_results(found, path)
    print(f"\n{table(found)}", flush=True)
    draw(found, path / "sweep.png", title=f"{run_config.algorithm} on {run_config.environment}")
    print(f"heat map: {path / 'sweep.png'}")
    if said := caveat(found):
        print(said, flush=True)
    best = found[0]
    if confirm_seeds is not None:
        _confirm(run_config, best.point, directory, confirm_seeds)
    elif said:
        num_seeds = max(len(run_config.seeds), FRESH_SEEDS)
        fresh = _on_fresh_seeds(run_config, best.point, num_seeds)
        print(f"On fresh seeds: {shlex.join(['jaxrl', *train_words(fresh)])}")


def _program(run_config: "RunConfig", points: "list[Point]") -> "RunConfig":
    """The run of some points; a single member stays on one device, as its neighbours do."""
    run_config = dataclasses.replace(run_config, points=tuple(points))
    return run_config.on_any_devices() if run_config.num_members == 1 else run_config


def _confirm(
    run_config: "RunConfig", point: "Point", sweep: "SweepDirectory", num_seeds: int
) -> None:
    """Trains a point with new seeds, or resumes that run."""
    from jaxrl.runs.directory import read_summary

    path = sweep.path / "confirmed"
    if read_summary(path) is not None:
        print(f"on fresh seeds: {path}")
        return
    fresh = _on_fresh_seeds(run_config, point, num_seeds)
    print(
        f"\n{path.name}: {_said(point, [])}, seeds {fresh.seeds[0]} to {fresh.seeds[-1]}",
        flush=True,
    )
    _train(_program(fresh, []), path)


def _on_fresh_seeds(run_config: "RunConfig", point: "Point", num_seeds: int) -> "RunConfig":
    """The run of a point with seeds that the sweep has not used."""
    first = run_config.seeds[-1] + 1
    return dataclasses.replace(
        run_config,
        hyper_parameters={**run_config.hyper_parameters, **point},
        seeds=tuple(range(first, first + num_seeds)),
    )


def train_words(run_config: "RunConfig") -> list[str]:
    """The arguments of `jaxrl train` for this run, without those that are defaults."""
    content = run_config.config()
    changed = {k: content[k] for k, x in FLAGS.items() if content[k] not in (x.for_command, None)}
    settings = {**changed, **plain(run_config.hyper_parameters), "seeds": list(run_config.seeds)}
    algorithm = algorithm_named(run_config.algorithm)
    return [
        *("train", algorithm.name, run_config.environment),
        *words_of(settings, run_config.environment_parameters, algorithm),
        *(["--no-preset"] if preset(algorithm.name, run_config.environment) else []),
    ]


def _train(run_config: "RunConfig", path: Path) -> None:
    """Trains or resumes a run of a sweep; it is not an error if all of its members diverge."""
    from jaxrl.runs.directory import RunDirectory, read_summary

    begun = (path / "config.json").exists()
    claim = RunDirectory.resume if begun else RunDirectory.create
    try:
        with claim(path) as run:
            train(run_config, run, resume=begun)
    except Unable as error:
        if read_summary(path) is None:
            raise
        print(f"{path.name}: {error}", flush=True)


def _said(fixed: "Point", part: "list[Point]") -> str:
    from jaxrl.analysis.sweep_report import text_of

    words = [f"{name}={text_of(value)}" for name, value in fixed.items()]
    if part:
        names = ", ".join(part[0])
        words.append(f"{len(part)} point{'s' if len(part) > 1 else ''} of {names} in parallel")
    return ", ".join(words)
