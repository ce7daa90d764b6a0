"""The commands on run directories: resume, evaluate, export, plot, compare. Import jax late."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrl.cli import terminal
from jaxrl.cli.option_flags import OF_RESUME, add_flags, options_of
from jaxrl.cli.parsing import count, file_path, kind, spelled
from jaxrl.cli.session import find_own_modules, keep_compiled_programs
from jaxrl.cli.sweep import resume_sweep
from jaxrl.cli.train import train
from jaxrl.engine.options import TrainingOptions
from jaxrl.errors import InvalidValue
from jaxrl.runs.disk import WriteError, is_of_the_disk, writing
from jaxrl.runs.run_config import RunConfig
from jaxrl.runs.run_options import RunOptions
from jaxrl.value_text import finite_number, whole_number

if TYPE_CHECKING:
    from jaxrl.runs.load import LoadedPolicy


def add(verbs: Any) -> None:
    """Adds the commands to those of the parser."""
    run = {"metavar": "RUN", "type": file_path, "help": "The directory of a run"}

    resume = verbs.add_parser(
        "resume", help="Go on with a run that was interrupted, or with a longer one",
        description="Goes on with the run in a directory from its newest whole checkpoint. The "
        "result is bit-identical to that of an uninterrupted run. What is not given stays as it "
        "was.",
        allow_abbrev=False,
    )  # fmt: skip
    resume.add_argument("path", **run)
    horizon = "A new horizon in environment steps of each seed; schedules stretch over it"
    steps = dataclasses.replace(OF_RESUME["total_steps"], doc=horizon)
    add_flags(resume, {"total_steps": steps}, anew=False)
    following = resume.add_argument_group("following it")
    add_flags(following, {k: x for k, x in OF_RESUME.items() if k != "total_steps"}, anew=False)
    resume.set_defaults(run=resume_run)

    evaluate = verbs.add_parser(
        "evaluate", help="Play episodes with what a run has learned",
        description="Plays whole episodes as the run's evaluations did, without exploration unless "
        "--eval-mode says otherwise, and prints the mean return of each member of the run.",
        allow_abbrev=False,
    )  # fmt: skip
    evaluate.add_argument("path", **run)
    evaluate.add_argument(
        "--episodes", type=count, default=100, metavar="INT", help="Of each member (default: 100)"
    )
    evaluate.add_argument(
        "--seed", type=kind(whole_number), default=0, metavar="INT",
        help="Of starts and chances; not that of training (default: 0)",
    )  # fmt: skip
    evaluate.add_argument(
        "--eval-mode", choices=("greedy", "sample"),
        help="Act by the mean or most likely action, or by actions drawn from the policy (default: "
        "as the run was evaluated)",
    )  # fmt: skip
    evaluate.add_argument(
        "--render", action="store_true",
        help="Draw an episode of the first member, too: RUN/episode.gif of gymnax's environments, "
        "RUN/episode.html, a page for a browser, of brax's",
    )  # fmt: skip
    _add_step(evaluate)
    evaluate.set_defaults(run=evaluate_run)

    export = verbs.add_parser(
        "export", help="Write what a run has learned as a program of its own",
        description="Writes policy.jax, a program that jax.export reads and that needs no jaxrl "
        "(it acts by the mean or most likely action, also where the run was evaluated by samples), "
        "and policy.json, which says how to call it. An exported program is code: run only those "
        "of people you trust.",
        allow_abbrev=False,
    )  # fmt: skip
    export.add_argument("path", **run)
    export.add_argument(
        "--out", type=file_path, metavar="DIR", help="Where to write (default: RUN/export)"
    )
    export.add_argument(
        "--member", type=kind(whole_number), default=0, metavar="INT",
        help="Which seed, counted from 0, or which point and seed of a sweep (default: 0)",
    )  # fmt: skip
    export.add_argument(
        "--onnx", action="store_true",
        help="Write policy.onnx, too; needs pip install 'jaxrl[onnx]'",
    )  # fmt: skip
    _add_step(export)
    export.set_defaults(run=export_run)

    runs = {**run, "nargs": "+", "help": "Directories of runs"}
    plot = verbs.add_parser(
        "plot", help="Draw the learning curves of runs",
        description="Draws learning curves, by steps and by training time: for each configuration "
        "the mean over its seeds, of all runs together, and its 95% interval from three seeds on.",
        allow_abbrev=False,
    )  # fmt: skip
    plot.add_argument("paths", **runs)
    plot.add_argument(
        "--out", type=file_path, default=Path("curves.png"), metavar="FILE",
        help="The picture to write (default: curves.png)",
    )  # fmt: skip
    plot.add_argument(
        "--metric", default="return_mean", metavar="NAME",
        help="A column of metrics.jsonl (default: return_mean)",
    )  # fmt: skip
    plot.set_defaults(run=plot_runs)

    compare = verbs.add_parser(
        "compare", help="Compare what runs reached, with intervals",
        description="Prints for each configuration the mean, median and interquartile mean over "
        "its seeds at the end, with 95% intervals from three seeds on, and the probability that a "
        "seed of it beats one of the first.",
        allow_abbrev=False,
    )  # fmt: skip
    compare.add_argument("paths", **runs)
    compare.add_argument(
        "--goal", type=kind(finite_number), metavar="FLOAT",
        help="A return that would be enough: adds the optimality gap, how far below it seeds stay",
    )  # fmt: skip
    compare.add_argument(
        "--out", type=file_path, metavar="FILE",
        help="Draw the intervals and the distributions of returns, too",
    )  # fmt: skip
    compare.set_defaults(run=compare_runs)


def _add_step(parser: Any) -> None:
    parser.add_argument(
        "--step", type=kind(_step), metavar="INT|best",
        help="Which checkpoint: by its number in RUN/checkpoints, or the best one, which "
        "--keep-best keeps (default: the newest)",
    )  # fmt: skip


def _step(text: str) -> int | str:
    if text == "best":
        return text
    try:
        return whole_number(text)
    except ValueError:
        raise InvalidValue(f"{text!r} is no checkpoint: give its number, or best") from None


def resume_run(options: argparse.Namespace) -> None:
    """Goes on with a run, or with a sweep of them."""
    from jaxrl.runs.directory import SWEEP, RunDirectory, read_summary

    if (options.path / SWEEP).exists():
        given = [name for name in OF_RESUME if getattr(options, name) is not None]
        if given:
            flag = spelled(given[0])
            raise InvalidValue(
                f"{flag} is for one run, and {options.path} is a sweep: leave it out"
            )
        return resume_sweep(options.path)
    # claimed before its state is looked at
    with terminal.outlived(), RunDirectory.resume(options.path) as directory:
        run_config = RunConfig.of_run(options.path)
        before = run_config.training
        run_config = dataclasses.replace(
            run_config,
            training=options_of(TrainingOptions, options, before.values()),
            options=options_of(RunOptions, options, run_config.options.values()),
        )
        summary = read_summary(options.path)
        steps = before.total_steps * len(run_config.seeds) * max(1, len(run_config.points))
        ended = summary and not summary.get("stopped") and summary["env_steps"] >= steps
        if ended and run_config.training == before:
            print(
                f"{options.path} is complete: {before.total_steps:,} steps; "
                "--total-steps N would go further",
                flush=True,
            )
            return
        print(
            f"jaxrl: going on with {run_config.algorithm} on {run_config.environment}", flush=True
        )
        train(run_config, directory, resume=True)


def evaluate_run(options: argparse.Namespace) -> None:
    """Plays episodes with each member of a run."""
    keep_compiled_programs()
    run_config = RunConfig.of_run(options.path)
    print(
        f"jaxrl: {run_config.algorithm} on {run_config.environment}, from {options.path}",
        flush=True,
    )
    find_own_modules()
    import jax
    import numpy as np

    from jaxrl.analysis.statistics import of_episodes
    from jaxrl.runs.load import load_run
    from jaxrl.runs.loggers import member_name

    trained = load_run(options.path, step=options.step)
    if options.render:
        key = jax.random.key(options.seed)
        _render(trained.policy(), key, options.path, options.eval_mode)
    for i, label in enumerate(trained.members.labels):
        key = jax.random.fold_in(jax.random.key(options.seed), i)
        played = trained.policy(i).evaluate(
            key, num_episodes=options.episodes, eval_mode=options.eval_mode
        )
        returns = np.where(played.finished, played.returns, np.nan)
        told = of_episodes(returns, np.asarray(played.lengths))
        text = "no episode finished"
        if told["episodes"]:
            text = (
                "return {return_mean:.1f} ± {return_std:.1f} (from {return_min:.1f} to "
                "{return_max:.1f}), length {length_mean:.1f}, {episodes} episodes"
            ).format(**told)
        print(f"{member_name(label)}, {trained.steps:,} steps: {text}", flush=True)


def _render(policy: "LoadedPolicy", key: Any, path: Path, eval_mode: Any) -> None:
    """Draws an episode into a run's directory."""
    from jaxrl_envs import render

    env = policy.training.eval_envs.env
    file = path / f"episode{render.ending(env)}"
    states, rewards = policy.episode(key, eval_mode=eval_mode)
    print(f"drawing {len(rewards)} steps, return {rewards.sum():.1f} ...", flush=True)
    with writing(file):
        render.render(env, states, rewards, file)
    print(file)


def export_run(options: argparse.Namespace) -> None:
    """Writes what a member of a run has learned."""
    run_config, out = RunConfig.of_run(options.path), options.out or options.path / "export"
    print(
        f"jaxrl: {run_config.algorithm} on {run_config.environment}, from {options.path}",
        flush=True,
    )
    find_own_modules()
    from jaxrl.runs.export import export_policy
    from jaxrl.runs.load import load_policy

    policy = load_policy(options.path, options.member, step=options.step)
    if policy.training.options.eval_mode == "sample":
        print("note: the run was evaluated by drawn actions, and the program takes the likeliest")
    export_policy(policy, out, onnx=options.onnx)
    for file in sorted(out.glob("policy.*")):
        print(f"{file}  {file.stat().st_size / 1024:,.0f} KiB")


def plot_runs(options: argparse.Namespace) -> None:
    """Draws learning curves."""
    from jaxrl.analysis.curves import read_curves

    curves = read_curves(options.paths, options.metric)
    from jaxrl.analysis.plots import learning_curves

    _written(options.out, lambda path: learning_curves(curves, path, metric=options.metric))
    print(options.out)


def compare_runs(options: argparse.Namespace) -> None:
    """Prints a table, and draws it."""
    from jaxrl.analysis.curves import read_curves

    curves = read_curves(options.paths)
    from jaxrl.analysis import comparison

    print(comparison.table(curves, options.goal))
    if options.out is not None:
        _written(options.out, lambda path: comparison.draw(curves, path))
        print(options.out)


def _written(path: Path, write: Callable[[Path], None]) -> None:
    try:
        write(path)
    except (OSError, ValueError) as error:  # ValueError: an ending of no picture
        if isinstance(error, OSError) and is_of_the_disk(error):
            raise WriteError.of(path, error) from error
        raise InvalidValue(f"cannot write {path}: {error}") from error
