"""The commands on run directories: resume, evaluate, export, plot, compare. Import jax late."""

import argparse
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrl import terminal
from jaxrl.arguments import count, file_path, kind, seconds
from jaxrl.flags import finite_number, whole_number
from jaxrl.runs.disk import WriteError, is_of_the_disk, writing
from jaxrl.runs.settings import Settings

if TYPE_CHECKING:
    from jaxrl.runs.directory import RunDirectory
    from jaxrl.runs.load import LoadedPolicy
    from jaxrl.runs.recipe import Recipe

OF_RESUME = {"total_steps", *(field.name for field in dataclasses.fields(Settings))}
"""Names of the flags of `jaxrl resume`."""


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
    resume.add_argument(
        "--total-steps", type=count, metavar="INT",
        help="A new horizon in environment steps of each seed; schedules stretch over it",
    )  # fmt: skip
    add_following(resume, anew=False)
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
        raise ValueError(f"{text!r} is no checkpoint: give its number, or best") from None


def add_following(parser: Any, *, anew: bool = True) -> None:
    """Adds the flags on how a run is followed and saved; a run that goes on has no defaults."""
    group = parser.add_argument_group("following it")

    def add(flag: str, text: str, shown: str, **others: Any) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        default = getattr(Settings(), name) if anew else None
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


def settings(options: argparse.Namespace, **others: Any) -> Settings:
    """What `add_following` read; what was not given is left to `others`, or the default."""
    names = {field.name for field in dataclasses.fields(Settings)}
    given = {k: v for k, v in vars(options).items() if k in names and v is not None}
    return Settings(**{**others, **given})


def find_own_modules() -> None:
    """Lets an environment of one's own be imported from here, where `python -m` would look, too."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def keep_compiled_programs() -> None:
    """Lets jax keep what it compiles, so that the second start of a run need not wait.

    A setting of the user's wins; JAX_ENABLE_COMPILATION_CACHE=false turns it off. Where there is no
    place for them, a container without a home directory say, a line says so.
    """
    if "jax" in sys.modules:  # which reads its settings when it is imported
        return
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            cache = Path(home) / "jaxrl" / "xla"
            cache.mkdir(parents=True, exist_ok=True)
            (cache / ".writable").touch()
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
            why = str(error).rstrip(".")
            terminal.say(
                f"note: compiled programs are not kept ({why}): set XDG_CACHE_HOME to a directory "
                "that can be written"
            )
            logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would say the same
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def train(recipe: "Recipe", directory: "RunDirectory", *, resume: bool = False) -> None:
    """Trains, and shows what happens and what came of it."""
    keep_compiled_programs()
    from jaxrl.runs.fit import run
    from jaxrl.runs.interrupt import Interrupted
    from jaxrl.runs.intervals import MIN_SEEDS
    from jaxrl.runs.progress import reporter

    find_own_modules()
    saved = resume and any(directory.checkpoints.glob("[0-9]*"))
    members = recipe.build(warm=not saved)
    who = "members" if recipe.points else "seeds"
    try:
        with reporter(len(members), who) as show:
            result = run(
                members,
                recipe.settings,
                directory=directory,
                resume=resume,
                origin=recipe.origin,
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
    ends = "" if recipe.points else ends
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


def resume_run(options: argparse.Namespace) -> None:
    """Goes on with a run, or with a sweep of them."""
    from jaxrl.runs.directory import RunDirectory, read_summary
    from jaxrl.runs.recipe import Recipe

    if (options.path / "sweep.json").exists():
        from jaxrl import cli
        from jaxrl.runs.sweeps import SweepDirectory

        given = [name for name, x in vars(options).items() if x is not None and name in OF_RESUME]
        if given:
            flag = "--" + given[0].replace("_", "-")
            raise ValueError(f"{flag} is for one run, and {options.path} is a sweep: leave it out")
        return cli.resume_sweep(options.path, SweepDirectory(options.path).words)
    # claimed before its state is looked at
    with terminal.outlived(), RunDirectory.resume(options.path) as directory:
        recipe = Recipe.of_run(options.path)
        before = recipe.training["total_steps"]
        recipe = dataclasses.replace(
            recipe,
            training={**recipe.training, "total_steps": options.total_steps or before},
            settings=settings(options, **dataclasses.asdict(recipe.settings)),
        )
        summary = read_summary(options.path)
        steps = before * len(recipe.seeds) * max(1, len(recipe.points))
        ended = summary and not summary.get("stopped") and summary["env_steps"] >= steps
        if ended and options.total_steps in (None, before):
            print(
                f"{options.path} is complete: {before:,} steps; --total-steps N would go further",
                flush=True,
            )
            return
        print(f"jaxrl: going on with {recipe.algorithm} on {recipe.environment}", flush=True)
        train(recipe, directory, resume=True)


def evaluate_run(options: argparse.Namespace) -> None:
    """Plays episodes with each member of a run."""
    keep_compiled_programs()
    from jaxrl.runs.recipe import Recipe

    recipe = Recipe.of_run(options.path)
    print(f"jaxrl: {recipe.algorithm} on {recipe.environment}, from {options.path}", flush=True)
    find_own_modules()
    import jax
    import numpy as np

    from jaxrl.runs.load import load_run
    from jaxrl.runs.loggers import member_name
    from jaxrl.runs.statistics import of_episodes

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
    from jaxrl.runs.recipe import Recipe

    recipe, out = Recipe.of_run(options.path), options.out or options.path / "export"
    print(f"jaxrl: {recipe.algorithm} on {recipe.environment}, from {options.path}", flush=True)
    find_own_modules()
    from jaxrl.runs.export import export_policy
    from jaxrl.runs.load import load_policy

    policy = load_policy(options.path, options.member, step=options.step)
    if policy.training.eval_mode == "sample":
        print("note: the run was evaluated by drawn actions, and the program takes the likeliest")
    export_policy(policy, out, onnx=options.onnx)
    for file in sorted(out.glob("policy.*")):
        print(f"{file}  {file.stat().st_size / 1024:,.0f} KiB")


def plot_runs(options: argparse.Namespace) -> None:
    """Draws learning curves."""
    from jaxrl.runs.groups import read_groups

    groups = read_groups(options.paths, options.metric)
    from jaxrl.runs.plot import learning_curves

    _written(options.out, lambda path: learning_curves(groups, path, metric=options.metric))
    print(options.out)


def compare_runs(options: argparse.Namespace) -> None:
    """Prints a table, and draws it."""
    from jaxrl.runs.groups import read_groups

    groups = read_groups(options.paths)
    from jaxrl.runs import compare

    print(compare.table(groups, options.goal))
    if options.out is not None:
        _written(options.out, lambda path: compare.draw(groups, path))
        print(options.out)


def _written(path: Path, write: Callable[[Path], None]) -> None:
    try:
        write(path)
    except (OSError, ValueError) as error:  # ValueError: an ending of no picture
        if isinstance(error, OSError) and is_of_the_disk(error):
            raise WriteError.of(path, error) from error
        raise ValueError(f"cannot write {path}: {error}") from error
