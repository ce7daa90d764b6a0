"""What each agent needs to solve a problem: writes the table and the figure of docs/choosing.md.

    python -m benchmarks.choosing

It trains nothing: it reads the learning curves in benchmarks/results/, which
`python -m benchmarks.scores` stores. A seed has solved the problem at the first of its ten
evaluations that reaches the goal. The seconds are those of training one of several seeds side by
side, without compiling.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from benchmarks.figures import panels
from benchmarks.rows import ROWS, Row
from benchmarks.scores import Result, agent_name, each_once, is_of, load, replace_between

DOCS = Path(__file__).parent.parent / "docs"
PAGE, FIGURE = DOCS / "choosing.md", DOCS / "choosing.png"
BEGIN, END = "<!-- choosing: begin -->", "<!-- choosing: end -->"


@dataclasses.dataclass(frozen=True)
class Problem:
    """An environment of the score table.

    Attributes:
      env: its id, as in `benchmarks/rows.py`.
      title: what it asks for.
      goal: the mean return of an evaluation at which it counts as solved.
      source: where the goal is from.
    """

    env: str
    title: str
    goal: float
    source: str


PROBLEMS = (
    Problem("gymnax/CartPole-v1", "CartPole: few actions, dense reward", 475, "Gym"),
    Problem("gymnax/MountainCar-v0", "MountainCar: few actions, sparse reward", -110, "Gym"),
    Problem("gymnax/Pendulum-v1", "Pendulum: a box of actions, dense reward", -200, "ours"),
    Problem(
        "gymnax/MountainCarContinuous-v0",
        "MountainCarContinuous: a box of actions, reward far away",
        90,
        "Gym",
    ),
    Problem(
        "benchmarks.blind:cartpole", "CartPole without velocities: memory", 475, "as with them"
    ),
    Problem("benchmarks.blind:pendulum", "Pendulum without velocities: memory", -250, "ours"),
    Problem("brax/inverted_pendulum", "inverted_pendulum of brax", 950, "ours"),
)


@dataclasses.dataclass(frozen=True)
class Need:
    """What an agent needs for a problem.

    Attributes:
      row: the row of the score table.
      name: the agent.
      steps: environment steps until the median seed has solved it; infinite if it has not.
      seconds: of training, for one of the seeds side by side; infinite likewise.
      solved: seeds whose last evaluation, the score, reaches the goal.
      seeds: number of seeds.
      machine: where it was measured.
    """

    row: str
    name: str
    steps: float
    seconds: float
    solved: int
    seeds: int
    machine: str

    @classmethod
    def of(cls, row: Row, result: Result, goal: float) -> "Need":
        steps = np.concatenate([_steps_to(goal, b.steps, b.curve) for b in result.batches])
        last = result.batches[-1].steps[-1]
        each = sum(b.train_seconds for b in result.batches) / len(result.seeds)
        middle = float(np.median(steps))
        return cls(
            row=row.id,
            name=agent_name(row),
            steps=middle,
            seconds=each * middle / last,
            solved=int(np.sum(result.per_seed >= goal)),
            seeds=len(result.seeds),
            machine=each_once(b.machine for b in result.batches),
        )


def _steps_to(goal: float, steps: list[int], curve: list[list[float | None]]) -> np.ndarray:
    """Steps of the first evaluation that reaches the goal, `float64[S]`; infinite if none does."""
    returns = np.array([[-np.inf if x is None else x for x in row] for row in curve])
    reached = returns >= goal
    return np.where(reached.any(0), np.array(steps)[reached.argmax(0)], np.inf)


def needs(problem: Problem) -> list[Need]:
    """What each measured row of the problem needs; the fewest steps come first."""
    found = []
    for row in ROWS.values():
        result = load(row) if row.env == problem.env else None
        if result is not None and is_of(result, row):
            found.append(Need.of(row, result, problem.goal))
    return sorted(found, key=lambda need: (need.steps, -need.solved))


def table(found: dict[Problem, list[Need]]) -> str:
    """A Markdown table of all problems."""
    lines = [
        "| problem and goal | agent | row | steps to the goal | seconds | seeds at the goal in the "
        "end | measured on |",
        "|---|---|---|---|---|---|---|",
    ]
    for problem, rows in found.items():
        goal = f"{problem.title}; {problem.goal:g} ({problem.source})"
        for need in rows:
            is_solved = np.isfinite(need.steps)
            steps = f"{need.steps:,.0f}" if is_solved else "not reached"
            seconds = f"{need.seconds:.2g}" if is_solved else ""
            cells = [goal, need.name, need.row, steps, seconds, f"{need.solved} of {need.seeds}"]
            lines.append(f"| {' | '.join(cells)} | {need.machine} |")
            goal = ""
    return "\n".join(lines)


def draw(found: dict[Problem, list[Need]], path: Path) -> None:
    """Seconds over environment steps until the goal, for problems that three agents solve.

    A hollow mark: some seed is below the goal in the end.
    """
    solved = {p: [n for n in rows if np.isfinite(n.steps)] for p, rows in found.items()}
    shown = {p: rows for p, rows in solved.items() if len(rows) > 2}
    each = [{"title": f"{p.title.partition(':')[0]}, {p.goal:g}"} for p in shown]
    settings = {
        "xscale": "log",
        "yscale": "log",
        "xlabel": "environment steps to the goal",
        "ylabel": "seconds of training",
        "xlim": (3e3, 7e5),
        "ylim": (0.02, 200),
    }
    below = {"fontsize": 7, "ncols": 2, "loc": "upper center", "bbox_to_anchor": (0.5, -0.14)}
    with panels(path, (4.6 * len(shown), 5.4), below, each, **settings) as columns:
        for axes, rows in zip(columns, shown.values(), strict=True):
            for i, need in enumerate(rows):
                inside = f"C{i % 10}" if need.solved == need.seeds else "none"
                style = {"color": f"C{i % 10}", "mfc": inside, "ls": "none", "ms": 9}
                label = f"{need.name} ({need.row})"
                axes.plot(need.steps, need.seconds, "osD^v"[i % 5], label=label, **style)
            axes.legend(**below)


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.choosing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    found = {problem: needs(problem) for problem in PROBLEMS}
    found = {problem: rows for problem, rows in found.items() if rows}
    text = table(found)
    replace_between(PAGE, BEGIN, END, text)
    draw(found, FIGURE)
    print(text)


if __name__ == "__main__":
    main()
