"""Trains the rows of the score table, and writes the table.

    python -m benchmarks.scores S1              train the missing seeds of row S1
    python -m benchmarks.scores S1 S9-ppo       train several rows
    python -m benchmarks.scores S10 --seeds 1   train fewer seeds than the row has
    python -m benchmarks.scores S10 --at-once 3 train them under one vmap, as on a GPU
    python -m benchmarks.scores S1 --again      replace existing results
    python -m benchmarks.scores                 write the table

Each seed is trained once, and its final state is scored on whole episodes with mean or greedy
actions, without selection. The seeds are 100, 101, ...; seeds below 100 are for tuning. The result
of a row is a file in benchmarks/results/, written after each batch of seeds, so an interrupted
command can be repeated to train the missing seeds. Seeds are spread over the cores of a CPU. The
table is in docs/scores.md.

"Reached" means that both the mean and the interquartile mean (IQM) over seeds are at or above the
published figure, or that the figure lies inside the 95% interval of the mean (Student's).
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.rows import ROWS, Row
from jaxrl.analysis.statistics import interquartile_mean, interval, iqm, mean
from jaxrl.cli.session import use_cores
from jaxrl.devices.machine import cores
from jaxrl.registry import algorithms
from jaxrl.runs.directory import versions
from jaxrl.value_text import parse

FIRST_SEED = 100
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TABLE = ROOT / "docs" / "scores.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"
NUM_EVALUATIONS = 10
"""Number of evaluations in the stored curve; the last one is the score."""


# Results ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Batch:
    """Seeds that were trained together.

    Attributes:
      seeds: the seeds, `[S]`.
      returns: scores `[S]`, mean returns of finished episodes; None if there are none.
      unfinished: number of unfinished episodes, `[S]`.
      steps: environment steps per seed at each evaluation, `[E]`.
      curve: mean returns at each evaluation, `[E, S]`.
      train_seconds, compile_seconds: wall-clock time.
      date, machine, versions: when and where it was measured, and with which versions.
      seconds: of training until each evaluation, `[E]`; None in older results.
    """

    seeds: list[int]
    returns: list[float | None]
    unfinished: list[int]
    steps: list[int]
    curve: list[list[float | None]]
    train_seconds: float
    compile_seconds: float
    date: str
    machine: str
    versions: dict[str, str]
    seconds: list[float] | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """The measurements of a row so far."""

    configuration: dict
    batches: tuple[Batch, ...] = ()

    @property
    def seeds(self) -> list[int]:
        return sorted(seed for batch in self.batches for seed in batch.seeds)

    @property
    def per_seed(self) -> np.ndarray:
        """Scores `float64[seeds]`, in the order of `seeds`; NaN if no episode finished."""
        pairs = (p for b in self.batches for p in zip(b.seeds, b.returns, strict=True))
        return np.array([np.nan if x is None else x for _, x in sorted(pairs)], np.float64)

    @property
    def unfinished(self) -> int:
        return sum(sum(batch.unfinished) for batch in self.batches)


def path_of(row: Row) -> Path:
    return RESULTS / f"{row.id}.json"


def load(row: Row) -> Result | None:
    """The stored result of a row; None if there is none."""
    try:
        content = json.loads(path_of(row).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    batches = tuple(Batch(**batch) for batch in content["batches"])
    return Result(content["configuration"], batches)


def save(row: Row, result: Result) -> None:
    """Writes the result atomically."""
    path = path_of(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def is_of(result: Result, row: Row) -> bool:
    """Whether the result has the row's current configuration."""
    return result.configuration == json.loads(json.dumps(row.configuration()))


class Changed(Exception):
    """The stored result has another configuration."""


# Measuring ----------------------------------------------------------------------------------------


def measure(row: Row, num_seeds: int, *, again: bool = False, at_once: int | None = None) -> Result:
    """Trains the missing seeds in batches, and saves after each batch.

    Args:
      row: the row to train.
      num_seeds: total number of seeds, including existing ones.
      again: whether to discard existing seeds.
      at_once: seeds per batch; None for the row's own number.

    Raises:
      Changed: the stored result has another configuration.
    """
    result = None if again else load(row)
    if result is not None and not is_of(result, row):
        raise Changed(
            f"{_shown(path_of(row))} was measured with another configuration: --again replaces it"
        )
    result = result or Result(row.configuration())
    wanted = range(FIRST_SEED, FIRST_SEED + num_seeds)
    missing = [seed for seed in wanted if seed not in result.seeds]
    done = num_seeds - len(missing)
    if done:
        print(f"{row.id}: {done} of {num_seeds} seeds exist already", flush=True)
    at_once = at_once or row.seeds_at_once
    for i in range(0, len(missing), at_once):
        seeds = missing[i : i + at_once]
        named = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
        print(
            f"{row.id}: {row.algorithm} on {row.env}, {named}, {row.total_steps:,} steps each",
            flush=True,
        )
        result = dataclasses.replace(result, batches=(*result.batches, train_batch(row, seeds)))
        save(row, result)
    return result


def train_batch(row: Row, seeds: list[int]) -> Batch:
    """Trains seeds under one vmap and scores their final states."""
    import jax  # deferred: `--help` and the table need none of it
    import jax.numpy as jnp

    import jaxrl_envs
    from jaxrl.cli.progress import reporter
    from jaxrl.engine.training import Training
    from jaxrl.runs.fit import run
    from jaxrl.runs.members import Members
    from jaxrl.runs.run_options import RunOptions

    training = Training.create(
        agent_of(row),
        jaxrl_envs.make(row.env, **row.env_params),
        total_steps=row.total_steps,
        num_eval_episodes=row.num_eval_episodes,
        normalize_observations=row.normalize_observations,
        normalize_rewards=row.normalize_rewards,
    )
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    with reporter(len(seeds)) as show:
        keys = keys if len(seeds) > 1 else keys[0]  # vmap would turn cond into select
        settings = RunOptions(num_evaluations=NUM_EVALUATIONS)
        result = run(Members.of(training, keys), settings, callbacks=[show])
    last = result.evaluations[-1]
    return Batch(
        seeds=seeds,
        returns=_plain(last.return_means),
        unfinished=np.sum(~np.isfinite(last.returns), axis=-1).tolist(),
        steps=[e.steps for e in result.evaluations],
        curve=[_plain(e.return_means) for e in result.evaluations],
        train_seconds=round(result.train_seconds, 2),
        compile_seconds=round(result.compiled.trace_seconds + result.compiled.compile_seconds, 2),
        date=time.strftime("%Y-%m-%d"),
        machine=machine(),
        versions=versions(),
        seconds=[round(e.train_seconds, 2) for e in result.evaluations],
    )


def agent_of(row: Row) -> object:
    """The agent with the row's hyper-parameters, parsed like command-line flags."""
    algorithm = algorithms()[row.algorithm]
    flags = {flag.name: flag for flag in algorithm.flags}
    fields = {}
    for name, value in row.hyper.items():
        if isinstance(value, str):
            value = parse(flags[name].type, value)
        fields[name] = value
    return algorithm.build(fields)


def agent_name(row: Row) -> str:
    """The agent's class, with what makes it another algorithm: "DQN, c51" or "PPO, lstm"."""
    parts = [row.hyper.get(name) for name in ("head", "core")]
    return ", ".join([algorithms()[row.algorithm].class_name, *filter(None, parts)])


def machine() -> str:
    """The kind of machine, such as "2 CPU cores"."""
    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return str(device.device_kind)
    return f"{cores()} CPU cores"


def _plain(x: np.ndarray) -> list[float | None]:
    """Rounds to five decimal places; non-finite numbers become None."""
    return [round(float(v), 5) if math.isfinite(v) else None for v in x]


# Judging ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics over seeds with 95% intervals, which are NaN for too few seeds."""

    mean: float
    std: float
    mean_interval: tuple[float, float]
    iqm: float
    iqm_interval: tuple[float, float]

    @classmethod
    def of(cls, per_seed: np.ndarray) -> "Statistics":
        return cls(
            mean=float(np.mean(per_seed)),
            std=float(np.std(per_seed)),
            mean_interval=interval(mean, per_seed),
            iqm=iqm(per_seed),
            iqm_interval=interval(interquartile_mean, per_seed),
        )

    def reached(self, published: float) -> bool:
        """Whether mean and IQM reach the figure, or the interval of the mean contains it."""
        low, high = self.mean_interval
        above = self.mean >= published and self.iqm >= published
        return above or low <= published <= high


def verdict(row: Row, result: Result) -> str:
    """Whether the row reaches its figure, or why that is undecided."""
    if not is_of(result, row):
        return "the row has changed"
    if result.unfinished:
        return f"{result.unfinished} episodes did not finish"
    if len(result.seeds) < row.num_seeds:
        return f"{len(result.seeds)} of {row.num_seeds} seeds so far"
    if row.published is None:
        return "-"
    return "yes" if Statistics.of(result.per_seed).reached(row.published) else "**no**"


# The table ----------------------------------------------------------------------------------------


def table(results: dict[str, Result]) -> str:
    """Two Markdown tables: the scores, and how to reproduce them."""
    scores = [
        "| row | environment | agent | steps | seeds | mean ± deviation | its interval | IQM "
        "| its interval | lowest seed | published | reached |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    repeats = [
        "| row | command | date | machine | training | versions |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS.values():
        result = results.get(row.id)
        params = "".join(f", {name} {value}" for name, value in row.env_params.items())
        cells = [row.id, row.env.rpartition("/")[2] + params, agent_name(row)]
        published = _published(row)
        if result is None:
            blank = [f"{row.total_steps:,}", "", "", "", "", "", "", published, "not measured"]
            scores.append(_line(cells + blank))
            continue
        s = Statistics.of(result.per_seed)
        scores.append(
            _line(
                [
                    *cells,
                    f"{result.batches[-1].steps[-1]:,}",
                    str(len(result.seeds)),
                    f"{s.mean:.1f} ± {s.std:.1f}",
                    _interval(s.mean_interval),
                    f"{s.iqm:.1f}",
                    _interval(s.iqm_interval),
                    _lowest(result),
                    published,
                    verdict(row, result),
                ]
            )
        )
        seconds = sum(batch.train_seconds for batch in result.batches)
        repeats.append(
            _line(
                [
                    row.id,
                    f"`python -m benchmarks.scores {row.id} --again{_unlike(row, result)}`",
                    each_once(batch.date for batch in result.batches),
                    each_once(batch.machine for batch in result.batches),
                    f"{seconds:,.0f} s",
                    each_once(_versions(batch.versions) for batch in result.batches),
                ]
            )
        )
    return "\n".join([*scores, "", *repeats])


def _unlike(row: Row, result: Result) -> str:
    """Command-line options that differ from the row's defaults."""
    num_seeds, at_once = len(result.seeds), max(len(batch.seeds) for batch in result.batches)
    options = f" --seeds {num_seeds}" if num_seeds != row.num_seeds else ""
    return options + (f" --at-once {at_once}" if at_once > row.seeds_at_once else "")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _published(row: Row) -> str:
    return row.source if row.published is None else f"{row.published:g}: {row.source}"


def _interval(ends: tuple[float, float]) -> str:
    low, high = ends
    return "too few seeds" if math.isnan(low) else f"[{low:.1f}, {high:.1f}]"


def _lowest(result: Result) -> str:
    """The lowest score, and its seed."""
    lowest = int(np.argmin(result.per_seed))
    return f"{result.per_seed[lowest]:.1f} (seed {result.seeds[lowest]})"


def each_once(values: Iterator[str]) -> str:
    """The different values, in their order."""
    return "; ".join(dict.fromkeys(values))


def _versions(found: dict[str, str]) -> str:
    names = ("python", "jaxrl", "jax", "gymnax", "brax")
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def write_table() -> None:
    """Replaces the tables between the markers in docs/scores.md."""
    results = {row.id: result for row in ROWS.values() if (result := load(row)) is not None}
    replace_between(TABLE, BEGIN, END, table(results))
    print(f"the table is in {_shown(TABLE)}")


def replace_between(page: Path, begin: str, end: str, content: str) -> None:
    """Replaces what is between two markers of a page."""
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"{page} lacks the markers {begin} and {end}: add them for the table")
    new = f"{before}{begin}\n\n{content}\n\n{end}{after}"
    if new != text:
        partial = page.with_suffix(".partial")
        partial.write_text(new, encoding="utf-8")
        partial.replace(page)


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


# The command --------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    lines = [
        f"  {row.id:<8} {row.algorithm} on {row.env}, {row.num_seeds} seeds of "
        f"{row.total_steps:,} steps; published {_published(row)}"
        for row in ROWS.values()
    ]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scores",
        description=__doc__,
        epilog="\n".join(["rows:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to train, see below")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="number of seeds (default: the row's)"
    )
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="seeds per vmap (default: the row's, for 2 CPU cores)",
    )
    parser.add_argument(
        "--again", action="store_true", help="replace the old result, once the new one is complete"
    )
    parser.add_argument("--force", action="store_true", help="train rows that need a GPU on a CPU")
    return parser


def obstacle(row: Row, *, force: bool) -> str | None:
    """Why the row cannot be trained here; None if it can."""
    from jaxrl_envs.registry import check_id

    try:
        check_id(row.env)  # also checks that its library is installed
    except ValueError as error:
        return str(error)
    if row.needs_gpu and not force:
        import jax

        if jax.default_backend() == "cpu":
            return "it needs a GPU; --force trains it on this CPU, which takes hours"
    return None


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 1 if a row could not be measured, otherwise 0."""
    parser = build_parser()
    options = parser.parse_args(argv)
    for name in options.rows:
        if name not in ROWS:
            parser.error(f"unknown row {name!r}: choose from {', '.join(ROWS)}")
    for flag, value in (("--seeds", options.seeds), ("--at-once", options.at_once)):
        if value is not None and value < 1:
            parser.error(f"{flag} is {value}: it must be at least 1")

    chosen = [ROWS[name] for name in options.rows]
    at_once = [
        min(options.seeds or row.num_seeds, options.at_once or row.seeds_at_once) for row in chosen
    ]
    use_cores(max(at_once, default=1), devices=None)
    failed = False
    for row in chosen:
        reason = obstacle(row, force=options.force)
        if reason is None:
            try:
                result = measure(
                    row,
                    options.seeds or row.num_seeds,
                    again=options.again,
                    at_once=options.at_once,
                )
            except Changed as error:
                reason = str(error)
            except KeyboardInterrupt:
                kept = load(row)
                write_table()
                print(
                    f"{row.id}: interrupted; {len(kept.seeds) if kept else 0} seeds are saved, the "
                    "same command (without --again) trains the others",
                    file=sys.stderr,
                )
                return 130
        if reason is not None:
            print(f"{row.id}: skipped: {reason}", file=sys.stderr)
            failed = True
            continue
        s = Statistics.of(result.per_seed)
        print(
            f"{row.id}: {s.mean:.1f} ± {s.std:.1f} {_interval(s.mean_interval)}, IQM {s.iqm:.1f} "
            f"{_interval(s.iqm_interval)}; published {_published(row)}; "
            f"reached: {verdict(row, result).strip('*')}"
        )
    write_table()
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
