"""Returns of cloning and of DAgger against the number of demonstrations: docs/demonstrations.png.

    python -m benchmarks.demonstrations

The expert (`benchmarks.teachers`) gives NUMBERS demonstrations of LENGTHS steps from the start,
which the clone learns from, or labels as many steps that DAgger's pupil visits. A whole episode of
CartPole, 500 steps, would be too easy: one is enough. Both make UPDATES gradient steps. Returns are
undiscounted and greedy, over 100 episodes, with SEEDS seeds; each has demonstrations of its own.
"""

import argparse
import functools
import json
from pathlib import Path

import jax
import numpy as np

import jaxrl
from benchmarks import teachers
from benchmarks.figures import label_ticks, panels
from jaxrl.agents import BehaviourCloning, DAgger
from jaxrl.analysis.intervals import student_interval

ROOT = Path(__file__).parent.parent
FIGURE = ROOT / "docs" / "demonstrations.png"
RESULTS = ROOT / "benchmarks" / "results" / "demonstrations.json"
NUMBERS = (1, 3, 10, 30, 100)
LENGTHS = {"CartPole": 10, "Pendulum": 200}
UPDATES = 2000
SEEDS = 10
SIZES = {"hidden_sizes": (64, 64)}


def final_return(metrics):
    return float(metrics.evaluation.returns[-1].mean())


@functools.cache
def learner(agent, task, total_steps):
    """A compiled run; the arguments are the key and the data of an offline agent."""
    env = teachers.environment(task)

    def run(key, data):
        options = {"num_evaluations": 1, "num_eval_episodes": 100, "data": data}
        return jaxrl.train(agent, env, key, total_steps=total_steps, **options)[1]

    return jax.jit(run)


def cloned(task, number, seed):
    """The return of a clone."""
    data = teachers.recorded(
        task, "expert", 1000 + seed, number, explore=False, max_steps=LENGTHS[task]
    )
    agent = BehaviourCloning(**SIZES, batch_size=256, held_out=0.0)
    return final_return(learner(agent, task, UPDATES)(jax.random.key(seed), data))


def taught(task, number, seed):
    """The return of DAgger's pupil."""
    labels = number * LENGTHS[task]
    iterations = min(20, labels // 5)
    agent = DAgger(
        **SIZES, batch_size=min(256, labels), expert=expert(task), beta=0.0, capacity=labels,
        num_envs=5, num_steps=labels // iterations // 5, num_updates=UPDATES // iterations,
    )  # fmt: skip
    return final_return(learner(agent, task, labels)(jax.random.key(seed), None))


@functools.cache
def expert(task):
    """The expert's most likely actions, as a function of observations."""
    policy = teachers.teacher(task, "expert", explore=False)
    return lambda obs: policy((), obs, jax.random.key(0))[1]


METHODS = {"cloning": cloned, "DAgger": taught}


def measure(seeds):
    found = {}
    for task in teachers.ENVIRONMENTS:
        data = teachers.recorded(task, "expert", 0, 100, explore=False)
        found[task] = {"expert": teachers.mean_return(data)}
        for name, method in METHODS.items():
            rows = [[method(task, number, seed) for seed in seeds] for number in NUMBERS]
            found[task][name] = rows
            print(f"{task} {name}: {np.mean(rows, axis=1).round(1).tolist()}", flush=True)
    return found


def draw(found):
    each = [{"title": task, "ylabel": "return"} for task in found]
    with panels(FIGURE, (10, 4.2), {}, each, xlabel="demonstrations") as both:
        for axes, lines in zip(both, found.values(), strict=True):
            axes.axhline(lines["expert"], color="black", linestyle="--", label="expert")
            for name in METHODS:
                rows = np.asarray(lines[name])
                low, high = np.transpose([student_interval(x[:, None], 0.95) for x in rows])
                (line,) = axes.plot(NUMBERS, rows.mean(1), marker="o", label=name)
                axes.fill_between(NUMBERS, low, high, color=line.get_color(), alpha=0.2)
            label_ticks(axes, NUMBERS)
            axes.legend()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    found = measure(range(options.seeds))
    RESULTS.write_text(json.dumps({"numbers": NUMBERS, **found}, indent=2) + "\n")
    draw(found)


if __name__ == "__main__":
    main()
