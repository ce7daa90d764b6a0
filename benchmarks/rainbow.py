"""Rainbow and its six ablations on gymnax's Breakout-MinAtar: writes docs/rainbow.png.

    python -m benchmarks.rainbow

Three seeds of each under one vmap, 200,000 steps; hyper-parameters of Obando-Ceron and Castro,
"Revisiting Rainbow", 2021, for MinAtar. Results are stored in benchmarks/results/rainbow.json with
their settings; a repeated command trains only what is missing or has changed.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

import jaxrl
import jaxrl_envs
from benchmarks.figures import figure
from jaxrl.networks.torsos import CNN
from jaxrl.schedules import Linear

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = Path(__file__).parent / "results" / "rainbow.json"
RAINBOW = {
    "num_envs": 1,
    "num_steps": 4,
    "num_updates": 1,
    "batch_size": 32,
    "capacity": 100_000,
    "warmup": 1_000,
    "target_every": 250,  # updates: 1,000 steps
    "learning_rate": 1e-4,
    "adam_epsilon": 3.125e-4,
    "num_atoms": 51,
    "value_min": -10.0,
    "value_max": 10.0,
    "hidden_sizes": (128,),
    "torso": CNN(layers=((16, 3, 1),), features=128),
}
EXPLORES = {"epsilon": Linear(1.0, 0.01, 0.25)}
ABLATIONS = {
    "Rainbow": {},
    "no double": {"double": "none"},
    "no dueling": {"dueling": False},
    "no priorities": {"prioritized": False},
    "no n-step": {"n_step": 1},
    "no distribution": {"head": "scalar"},
    "no noise": {"noisy": False, **EXPLORES},
    "none: DQN": {
        "double": "none",
        "dueling": False,
        "prioritized": False,
        "n_step": 1,
        "head": "scalar",
        "noisy": False,
        **EXPLORES,
    },
}


def returns(name: str, total_steps: int, num_seeds: int) -> list[list[float]]:
    """Trains, and returns the mean returns of 10 evaluations for each seed."""
    agent = jaxrl.agents.Rainbow(**(RAINBOW | ABLATIONS[name]))
    env = jaxrl_envs.make("gymnax/Breakout-MinAtar")

    def run(key):
        _, metrics = jaxrl.train(
            agent, env, key, total_steps=total_steps, num_evaluations=10, num_eval_episodes=32
        )
        return metrics.evaluation.returns.mean(-1)

    keys = jax.vmap(jax.random.key)(np.arange(100, 100 + num_seeds))
    return np.asarray(jax.jit(jax.vmap(run))(keys)).round(3).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ABLATIONS)}; all unless given")
    parser.add_argument("--total-steps", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.names or ABLATIONS:
        label = f"{name}, {options.total_steps} steps, {options.seeds} seeds"
        configuration = repr(RAINBOW | ABLATIONS[name])
        if found.get(label, {}).get("configuration") != configuration:
            measured = returns(name, options.total_steps, options.seeds)
            found[label] = {"configuration": configuration, "returns": measured}
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps(found, indent=1))
        last = np.array(found[label]["returns"])[:, -3:].mean(-1)
        print(f"{label:40} last three evaluations: {last.mean():.2f} ± {last.std(ddof=1):.2f}")
    draw(found, options)


def draw(found, options) -> None:
    with figure(
        DOCS / "rainbow.png",
        (8, 4.8),
        {"fontsize": 9, "ncols": 2},
        xlabel="environment steps",
        ylabel="return (mean and range of the seeds)",
        title=f"Rainbow and its ablations, Breakout-MinAtar, {options.seeds} seeds",
    ) as axes:
        steps = np.linspace(0.1, 1.0, 10) * options.total_steps
        for name in ABLATIONS:
            there = found.get(f"{name}, {options.total_steps} steps, {options.seeds} seeds")
            if there is not None:
                rows = np.array(there["returns"])
                width = 2.5 if name == "Rainbow" else 1.3
                (line,) = axes.plot(steps, rows.mean(0), lw=width, label=name)
                color = line.get_color()
                axes.fill_between(steps, rows.min(0), rows.max(0), alpha=0.08, color=color)


if __name__ == "__main__":
    main()
