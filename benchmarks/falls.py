"""Updates after which a solved CartPole is lost again: docs/falls.png.

    python -m benchmarks.falls               TRPO, NPG and DQN of the score table (S2, S3, S5-dqn)
    python -m benchmarks.falls S2 --seeds 10

The score of a seed is that of its final state, so that one bad last update decides. Each row is
trained as in the score table, on seeds 100, 101, ..., and evaluated over and over, once with its
greedy policy and once with the actions that it samples, in training that is the same. Printed are
the seeds that end below the goal, what came before, and what the updates before the falls measured.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import jaxrl
import jaxrl_envs
from benchmarks.figures import panels
from benchmarks.rows import ROWS, Row
from benchmarks.scores import FIRST_SEED, agent_of

FIGURE = Path(__file__).parent.parent / "docs" / "falls.png"
GOAL = 475.0
EVALUATIONS = 100
EPISODES = 32


def returns(
    row: Row, seeds: int, mode: str
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Mean returns at each evaluation.

    Returns:
      Steps `[E]`, returns `[seeds, E]`, and the metrics of the iterations before, `[seeds, E]`.
    """
    agent, env = agent_of(row), jaxrl_envs.make(row.env, **row.env_params)

    def run(key):
        _, metrics = jaxrl.train(
            agent,
            env,
            key,
            total_steps=row.total_steps,
            num_evaluations=EVALUATIONS,
            num_eval_episodes=EPISODES,
            eval_mode=mode,
        )
        steps = metrics.iterations * agent.bind(env.spec).plan.steps_per_iteration
        training = {name: x.value for name, x in metrics.training.updates.items()}
        training["episodes"] = metrics.training.episodes.returns.count
        return steps, metrics.evaluation.returns.mean(-1), training

    keys = jax.vmap(jax.random.key)(np.arange(FIRST_SEED, FIRST_SEED + seeds))
    steps, found, training = jax.device_get(jax.jit(jax.vmap(run))(keys))
    return steps[0], found, training


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.falls",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="of benchmarks/rows.py")
    parser.add_argument("--seeds", type=int, default=30, help="(default: 30)")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    found = {}
    for name in options.rows or ("S2", "S3", "S5-dqn"):
        row = ROWS[name]
        steps, greedy, training = returns(row, options.seeds, "greedy")
        _, sampled, _ = returns(row, options.seeds, "sample")
        found[name] = steps, greedy, sampled
        report(name, greedy, sampled, training)
    draw(options.figure, found)


def report(
    name: str, greedy: np.ndarray, sampled: np.ndarray, training: dict[str, np.ndarray]
) -> None:
    """Prints how often a seed is below the goal in the second half, and how it ends."""
    half = greedy.shape[1] // 2
    late = {"greedy": greedy[:, half:], "sampled": sampled[:, half:]}
    for mode, x in late.items():
        print(
            f"{name} {mode}: in the second half {np.mean(x < GOAL):.1%} of the evaluations are "
            f"below {GOAL:g}; the last one is in {np.sum(x[:, -1] < GOAL)} of {len(x)} seeds"
        )
    both = (late["greedy"] < GOAL) & (late["sampled"] < GOAL)
    print(f"{name}: of the low greedy evaluations the sampled policy is low, too, in "
          f"{both.sum()} of {(late['greedy'] < GOAL).sum()}")  # fmt: skip
    for i in np.flatnonzero(greedy[:, -1] < GOAL):
        print(f"  seed {FIRST_SEED + i}: greedy {_shown(greedy[i, -8:])}")
        print(f"  {'':>8}  sampled {_shown(sampled[i, -8:])}")
    # Evaluations of a solved policy, by whether the next one has lost it.
    solved = greedy[:, half:-1] >= GOAL
    falls = solved & (greedy[:, half + 1 :] < GOAL)
    print(f"{name}: {falls.sum()} of {solved.sum()} solved states are below at the next evaluation")
    for metric, values in sorted(training.items()):
        after = values[:, half + 1 :]
        before, others = after[falls], after[solved & ~falls]
        if len(before):
            print(
                f"  {metric:20} at falls {np.median(before):10.4g}, else {np.median(others):10.4g}"
            )


def _shown(x: np.ndarray) -> str:
    return " ".join(f"{v:5.0f}" for v in x)


def draw(path: Path, found: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    each = [{"title": f"{ROWS[name].algorithm} ({name})"} for name in found]
    with panels(
        path,
        (4.6 * len(found), 4.0),
        {"fontsize": 8},
        each,
        xlabel="environment steps",
        ylabel="share of seeds below 475",
    ) as columns:
        for axes, (steps, greedy, sampled) in zip(columns, found.values(), strict=True):
            axes.plot(steps, np.mean(greedy < GOAL, 0), label="greedy actions")
            axes.plot(steps, np.mean(sampled < GOAL, 0), label="sampled actions")


if __name__ == "__main__":
    main()
