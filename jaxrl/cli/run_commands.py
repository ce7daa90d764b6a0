"""The commands `resume`, `evaluate`, `export`, `record`, `plot` and `compare`.

They work on run directories, and import jax as late as possible.
"""

import argparse
import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrl.cli import terminal
from jaxrl.cli.distributed import add_distributed, connected, is_distributed
from jaxrl.cli.option_flags import OF_RESUME, add_flags, options_of
from jaxrl.cli.parsing import count, file_path, flag_name, kind
from jaxrl.cli.session import find_own_modules, keep_compiled_programs
from jaxrl.cli.sweep import resume_sweep
from jaxrl.cli.train import train
from jaxrl.engine.options import TrainingOptions
from jaxrl.errors import InvalidValue
from jaxrl.runs.disk import WriteError, is_disk_error, writing
from jaxrl.runs.run_config import RunConfig
from jaxrl.runs.run_options import RunOptions
from jaxrl.value_text import finite_number, text_of_plain, whole_number

if TYPE_CHECKING:
    from jaxrl.runs.loaded_policy import LoadedPolicy


def add(verbs: Any) -> None:
    """Adds the commands to the parser's commands."""
    run = {"metavar": "RUN", "type": file_path, "help": "Directory of a run"}

    resume = verbs.add_parser(
        "resume", help="Resume a run that was interrupted, or extend one",
        description="Resumes a run from its newest intact checkpoint. The result is bit-identical "
        "to that of an uninterrupted run, except in environments that step outside JAX, where new "
        "episodes start. Settings that are not given stay as they were.",
        allow_abbrev=False,
    )  # fmt: skip
    resume.add_argument("path", **run)
    horizon = "New total number of environment steps per seed; schedules stretch over it"
    steps = dataclasses.replace(OF_RESUME["total_steps"], doc=horizon)
    add_flags(resume, {"total_steps": steps}, with_defaults=False)
    add_distributed(resume)
    following = resume.add_argument_group("saving, stopping and logging")
    add_flags(
        following, {k: x for k, x in OF_RESUME.items() if k != "total_steps"}, with_defaults=False
    )
    resume.set_defaults(run=resume_run)

    evaluate = verbs.add_parser(
        "evaluate", help="Evaluate the policy of a run",
        description="Plays whole episodes, in the mode of the run's own evaluations unless "
        "--eval-mode is given, and prints the mean return of each member of the run.",
        allow_abbrev=False,
    )  # fmt: skip
    evaluate.add_argument("path", **run)
    _add_acting(evaluate, "evaluation", " per member")
    evaluate.add_argument(
        "--render", action="store_true",
        help="Also render an episode of the first member: RUN/episode.gif for gymnax, "
        "RUN/episode.html (for a browser) for brax",
    )  # fmt: skip
    _add_step(evaluate)
    evaluate.set_defaults(run=evaluate_run)

    export = verbs.add_parser(
        "export", help="Export the policy of a run as a stand-alone program",
        description="Writes policy.jax, a program for jax.export that does not need jaxrl and "
        "takes the mean or most likely action, and policy.json, which says how to call it. An "
        "exported program is code: run only those of people you trust.",
        allow_abbrev=False,
    )  # fmt: skip
    export.add_argument("path", **run)
    export.add_argument(
        "--out", type=file_path, metavar="DIR", help="Output directory (default: RUN/export)"
    )
    _add_member(export)
    export.add_argument(
        "--onnx", action="store_true",
        help="Also write policy.onnx; needs pip install 'jaxrl[onnx]'",
    )  # fmt: skip
    _add_step(export)
    export.set_defaults(run=export_run)

    record = verbs.add_parser(
        "record", help="Record episodes of a run's policy as a data set",
        description="Plays whole episodes and writes their transitions: dataset.npz, arrays "
        "without pickle, and dataset.json, which describes them. An offline agent learns from "
        "them: jaxrl train behaviour_cloning ENV --dataset DIR.",
        allow_abbrev=False,
    )  # fmt: skip
    record.add_argument("path", **run)
    _add_acting(record, "recording")
    record.add_argument(
        "--out", type=file_path, metavar="DIR", help="Output directory (default: RUN/dataset)"
    )
    _add_member(record)
    _add_step(record)
    record.set_defaults(run=record_run)

    runs = {**run, "nargs": "+", "help": "Directories of runs"}
    plot = verbs.add_parser(
        "plot", help="Plot the learning curves of runs",
        description="Plots learning curves over steps and over training time. Seeds of the same "
        "configuration are pooled across runs; the plot shows their mean and, from three seeds "
        "on, its 95% interval.",
        allow_abbrev=False,
    )  # fmt: skip
    plot.add_argument("paths", **runs)
    plot.add_argument(
        "--out", type=file_path, default=Path("curves.png"), metavar="FILE",
        help="Output image (default: curves.png)",
    )  # fmt: skip
    plot.add_argument(
        "--metric", default="return_mean", metavar="NAME",
        help="A column of metrics.jsonl (default: return_mean)",
    )  # fmt: skip
    plot.set_defaults(run=plot_runs)

    compare = verbs.add_parser(
        "compare", help="Compare the final returns of runs, with intervals",
        description="Prints, for each configuration, the mean, median and interquartile mean of "
        "the final returns over seeds, with 95% intervals from three seeds on, and the "
        "probability that one of its seeds beats one of the first configuration.",
        allow_abbrev=False,
    )  # fmt: skip
    compare.add_argument("paths", **runs)
    compare.add_argument(
        "--goal", type=kind(finite_number), metavar="FLOAT",
        help="Target return: adds the optimality gap, the mean shortfall from it",
    )  # fmt: skip
    compare.add_argument(
        "--out", type=file_path, metavar="FILE",
        help="Also plot the intervals and the distributions of returns",
    )  # fmt: skip
    compare.set_defaults(run=compare_runs)


def _add_acting(parser: Any, what: str, of_each: str = "") -> None:
    parser.add_argument(
        "--episodes", type=count, default=100, metavar="INT",
        help=f"Number of episodes{of_each} (default: 100)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=kind(whole_number), default=0, metavar="INT",
        help=f"Seed of the {what}, independent of the training seed (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--eval-mode", choices=("greedy", "sample"),
        help="Take the mean or most likely action (greedy), or sample from the policy (default: "
        "the run's own mode)",
    )  # fmt: skip


def _add_member(parser: Any) -> None:
    parser.add_argument(
        "--member", type=kind(whole_number), default=0, metavar="INT",
        help="Index of the seed, or of the point and seed of a sweep, from 0 (default: 0)",
    )  # fmt: skip


def _add_step(parser: Any) -> None:
    parser.add_argument(
        "--step", type=kind(_step), metavar="INT|best",
        help="Checkpoint: its number in RUN/checkpoints, or best, which --keep-best saves "
        "(default: the newest)",
    )  # fmt: skip


def _step(text: str) -> int | str:
    if text == "best":
        return text
    try:
        return whole_number(text)
    except ValueError:
        raise InvalidValue(f"{text!r} is not a checkpoint: give its number, or best") from None


def resume_run(options: argparse.Namespace) -> None:
    """Resumes a run or a sweep."""
    from jaxrl.runs.directory import SWEEP, RunDirectory, read_summary

    if (options.path / SWEEP).exists():
        given = [name for name in OF_RESUME if getattr(options, name) is not None]
        if given:
            flag = flag_name(given[0])
            raise InvalidValue(
                f"{flag} is for single runs, but {options.path} is a sweep: leave it out"
            )
        if is_distributed(options):
            raise InvalidValue(
                f"{options.path} is a sweep, which is trained by one process: leave --distributed "
                "out"
            )
        return resume_sweep(options.path)
    find_own_modules()
    # claimed before it is read
    with (
        terminal.ignoring_stdout_errors(),
        connected(options) as processes,
        processes.claim(lambda: RunDirectory.resume(options.path)) as directory,
    ):
        run_config = processes.read(lambda: RunConfig.of_run(options.path))
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
                f"{options.path} is complete: {before.total_steps:,} steps; extend it with "
                "--total-steps N",
                flush=True,
            )
            return
        print(f"jaxrl: resuming {run_config.algorithm} on {run_config.environment}", flush=True)
        train(run_config, directory, resume=True)


def evaluate_run(options: argparse.Namespace) -> None:
    """Evaluates each member of a run and prints the results."""
    keep_compiled_programs()
    find_own_modules()
    run_config = RunConfig.of_run(options.path)
    print(
        f"jaxrl: {run_config.algorithm} on {run_config.environment}, from {options.path}",
        flush=True,
    )
    import jax
    import numpy as np

    from jaxrl.analysis.statistics import episode_statistics
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
        told = episode_statistics(returns, np.asarray(played.lengths))
        text = "no episode finished"
        if told["episodes"]:
            text = (
                "return {return_mean:.1f} ± {return_std:.1f} (from {return_min:.1f} to "
                "{return_max:.1f}), length {length_mean:.1f}, {episodes} episodes"
            ).format(**told)
        print(f"{member_name(label)}, {trained.steps:,} steps: {text}", flush=True)


def _render(policy: "LoadedPolicy", key: Any, path: Path, eval_mode: Any) -> None:
    """Renders an episode into the run directory."""
    from jaxrl_envs import render

    env = policy.training.eval_envs.env
    file = path / f"episode{render.ending(env)}"
    states, rewards = policy.episode(key, eval_mode=eval_mode)
    print(f"rendering {len(rewards)} steps, return {rewards.sum():.1f} ...", flush=True)
    with writing(file):
        render.render(env, states, rewards, file)
    print(file)


def export_run(options: argparse.Namespace) -> None:
    """Exports the policy of a member of a run."""
    find_own_modules()
    run_config, out = RunConfig.of_run(options.path), options.out or options.path / "export"
    print(
        f"jaxrl: {run_config.algorithm} on {run_config.environment}, from {options.path}",
        flush=True,
    )
    from jaxrl.runs.export import export_policy
    from jaxrl.runs.load import load_policy

    policy = load_policy(options.path, options.member, step=options.step)
    if policy.training.options.eval_mode == "sample":
        print("note: the run was evaluated with sampled actions, but the program acts greedily")
    export_policy(policy, out, onnx=options.onnx)
    for file in sorted(out.glob("policy.*")):
        print(f"{file}  {file.stat().st_size / 1024:,.0f} KiB")


def record_run(options: argparse.Namespace) -> None:
    """Records episodes of the policy of a member of a run."""
    keep_compiled_programs()
    find_own_modules()
    run_config, out = RunConfig.of_run(options.path), options.out or options.path / "dataset"
    who = f"{run_config.algorithm} on {run_config.environment}, from {options.path}"
    print(f"jaxrl: {who}", flush=True)
    import jax

    from jaxrl.runs.dataset import read_manifest, save_dataset
    from jaxrl.runs.load import load_run

    trained = load_run(options.path, step=options.step)
    policy = trained.policy(options.member)
    print(f"playing {options.episodes} episodes ...", flush=True)
    data = policy.record(
        jax.random.key(options.seed), num_episodes=options.episodes, eval_mode=options.eval_mode
    )
    save_dataset(
        out, data, policy.training.eval_envs.env,
        environment=run_config.environment,
        environment_parameters=run_config.environment_parameters,
        source=f"{who}, member {options.member}, {trained.steps:,} steps",
    )  # fmt: skip
    returns = read_manifest(out)["returns"]
    words = ["jaxrl", "train", "behaviour_cloning", run_config.environment, "--dataset", str(out)]
    for name, value in run_config.environment_parameters.items():
        words += ["--env-param", f"{name}={text_of_plain(value)}"]
    print(
        f"{len(returns)} episodes, {len(data.reward):,} transitions, mean return "
        f"{sum(returns) / len(returns):.1f} (from {min(returns):.1f} to {max(returns):.1f})\n"
        f"learn from them: {shlex.join(words)}"
    )


def plot_runs(options: argparse.Namespace) -> None:
    """Plots learning curves."""
    from jaxrl.analysis.curves import read_curves

    curves = read_curves(options.paths, options.metric)
    from jaxrl.analysis.plots import learning_curves

    _written(options.out, lambda path: learning_curves(curves, path, metric=options.metric))
    print(options.out)


def compare_runs(options: argparse.Namespace) -> None:
    """Prints a table of results, and optionally plots it."""
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
    except (OSError, ValueError) as error:  # ValueError: not an image format
        if isinstance(error, OSError) and is_disk_error(error):
            raise WriteError.of(path, error) from error
        raise InvalidValue(f"cannot write {path}: {error}") from error
