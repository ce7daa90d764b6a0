"""Returns of offline agents against the quality of the data: docs/offline.png.

    python -m benchmarks.offline
    python -m benchmarks.offline --methods IQL    these again, the others as before

Teachers of three qualities (`benchmarks.teachers`) each record one data set of EPISODES episodes;
every method learns from it by UPDATES gradient steps, with SEEDS seeds. Returns are undiscounted
and greedy, over 100 episodes. Cloning shows what the data alone give; fitted Q, which knows no
caution, what the values of actions that no data show are worth.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

import jaxrl
from benchmarks import teachers
from benchmarks.figures import panels
from jaxrl.agents import CQL, IQL, TD3BC, BehaviourCloning, FittedQ
from jaxrl.analysis.intervals import student_interval

ROOT = Path(__file__).parent.parent
FIGURE = ROOT / "docs" / "offline.png"
RESULTS = ROOT / "benchmarks" / "results" / "offline.json"
EPISODES = 100
UPDATES = 10_000
SEEDS = 10
SIZES = {"hidden_sizes": (64, 64), "batch_size": 256}
METHODS = {
    "CartPole": {
        "cloning": BehaviourCloning(**SIZES),
        "fitted Q": FittedQ(**SIZES, learning_rate=1e-3),
        "CQL": CQL(**SIZES, learning_rate=1e-3),
        "IQL": IQL(**SIZES, learning_rate=1e-3, critic_learning_rate=1e-3),
    },
    "Pendulum": {
        "cloning": BehaviourCloning(**SIZES),
        "TD3+BC": TD3BC(**SIZES, learning_rate=1e-3, critic_learning_rate=1e-3),
        "IQL": IQL(
            **SIZES, learning_rate=1e-3, critic_learning_rate=1e-3, inverse_temperature=0.3
        ),
    },
}  # fmt: skip
COLORS = {"cloning": "C0", "fitted Q": "C1", "CQL": "C2", "IQL": "C3", "TD3+BC": "C4"}


def returns(agent, env, data, seeds, updates=UPDATES):
    """The mean return of each seed after training, `[S]`."""
    options = {"normalize_observations": True, "num_evaluations": 1, "num_eval_episodes": 100}

    def one(key):
        return jaxrl.train(agent, env, key, total_steps=updates, data=data, **options)[1]

    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    metrics = jax.jit(jax.vmap(one))(keys)
    return np.asarray(metrics.evaluation.returns)[:, -1].mean(-1)


def measure(seeds, names, found):
    """Adds the returns of the methods `names` to `found`: {task: {level: {method: returns}}}."""
    for task, methods in METHODS.items():
        env = teachers.environment(task)
        for level in teachers.LEVELS:
            data = teachers.recorded(task, level, 0, EPISODES)
            row = found.setdefault(task, {}).setdefault(level, {})
            row["data"] = [teachers.mean_return(data)]
            for name, agent in methods.items():
                if name in names:
                    row[name] = returns(agent, env, data, seeds).tolist()
                    print(f"{task} {level} {name}: {np.mean(row[name]):.1f}", flush=True)


def draw(found):
    each = [{"title": task, "ylabel": "return"} for task in found]
    with panels(FIGURE, (10, 4.2), {}, each, xlabel="data of") as both:
        for axes, levels in zip(both, found.values(), strict=True):
            place = np.arange(len(levels))
            data = [levels[level]["data"][0] for level in levels]
            axes.hlines(data, place - 0.35, place + 0.35, color="black", label="the data")
            names = [name for name in next(iter(levels.values())) if name != "data"]
            for i, name in enumerate(names):
                rows = [np.asarray(levels[level][name]) for level in levels]
                low, high = np.transpose([student_interval(x[:, None], 0.95) for x in rows])
                middle = np.array([x.mean() for x in rows])
                at = place + 0.15 * (i - (len(names) - 1) / 2)
                axes.errorbar(
                    at, middle, [middle - low, high - middle], fmt="o", label=name,
                    color=COLORS[name],
                )  # fmt: skip
            axes.set_xticks(place, list(levels))
            axes.legend()


def main():
    known = sorted({name for methods in METHODS.values() for name in methods})
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", nargs="+", choices=known, default=known)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first-seed", type=int, default=0, help="100 to tune (default: 0)")
    options = parser.parse_args()
    again = options.methods != known and options.first_seed == 0
    found = json.loads(RESULTS.read_text()) if again else {}
    first = options.first_seed
    measure(range(first, first + options.seeds), options.methods, found)
    if first == 0:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
        draw(found)


if __name__ == "__main__":
    main()
