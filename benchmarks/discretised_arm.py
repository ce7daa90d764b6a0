"""What it costs to discretise an arm with three joints: writes docs/discretised_arm.png.

    python -m benchmarks.discretised_arm

With B angles for each joint, a network has B ** 3 outputs for all joint actions, or 3 B for three
factors. Each point trains for a number of steps, or for some seconds (but at least two iterations)
if that is too slow, and reports the bytes of training, steps per second, and the mean distance to
the target in the end. Hollow points, of one seed each, had only the steps written beside them. The
discount is 0, since steps do not depend on earlier ones. All takes a quarter of an hour on two busy
cores, of which the two largest networks take ten minutes. Results are stored with their settings
in benchmarks/results/discretised_arm.json; a repeated command measures what is missing or has
changed.
"""

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import label_ticks, panels
from jaxrl.agents import DDPG, DQN, PPO
from jaxrl.engine.training import Training
from jaxrl.runs.members import Members
from jaxrl.runs.programs import Programs, memory_of
from jaxrl.schedules import Linear
from jaxrl.trees import num_bytes
from jaxrl.wrappers import DiscretizeActions
from jaxrl_envs.exact import arm

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "discretised_arm.png"
RESULTS = HERE / "results" / "discretised_arm.json"
BINS = (5, 11, 31, 91)
EPISODES = 256
"""Episodes to evaluate on, of one step each."""
SHARED = {"num_steps": 1, "discount": 0.0, "hidden_sizes": (64, 64)}
ON_POLICY = SHARED | {
    "num_envs": 256,
    "num_epochs": 8,
    "num_minibatches": 4,
    "learning_rate": Linear(1e-3),
    "entropy_coefficient": 0.003,
}
REPLAY = SHARED | {  # each transition is used eight times on average, as in PPO
    "num_envs": 128,
    "num_updates": 8,
    "batch_size": 128,
    "capacity": 100_000,
    "warmup": 128,
    "learning_rate": 1e-3,
}
METHODS: dict[str, tuple[Any, str]] = {
    "PPO, joint": (PPO(**ON_POLICY), "joint"),
    "DQN, joint": (DQN(**REPLAY), "joint"),
    "PPO, three factors": (PPO(**ON_POLICY), "factored"),
    "PPO, Gaussian": (PPO(**ON_POLICY), ""),
    "DDPG": (DDPG(**REPLAY), ""),
}
"""Name -> agent and layout of the discretised actions; no layout for continuous ones."""


def measure(agent, env, steps: int, seconds: float) -> dict[str, float]:
    """Trains for `steps`, or for `seconds` after the first iteration, and reports what it took.

    Returns:
      outputs of the policy or values; bytes of parameters, of the agent's state (with optimiser and
      target network) and of the compiled training program; steps taken and per second; and the mean
      distance of the last evaluation.
    """
    training = Training.create(agent, env, total_steps=steps, num_eval_episodes=EPISODES)
    key = jax.random.key(0)
    programs = Programs(Members.of(training, key))
    shapes = jax.eval_shape(training.init, key).agent
    found = {
        "parameter_bytes": num_bytes(shapes.params),
        "state_bytes": num_bytes(shapes),
        "program_bytes": sum(memory_of(programs.chunk) or (0,)),
    }
    state = programs.init(programs.training, programs.key)
    done, size, began, first = 0, 1, 0.0, 0
    while done < training.num_iterations and (not first or time.perf_counter() < began + seconds):
        stop = min(done + size, training.num_iterations)
        start = time.perf_counter()
        state = programs.chunk(
            programs.training, state, programs.key, jnp.int32(done), jnp.int32(stop)
        )[0]
        jax.block_until_ready(state)
        now = time.perf_counter()
        if not first:
            first, began = stop, now  # replay has not been learned from before
        elif now - start < 1.0:
            size *= 2
        done = stop
    taken = time.perf_counter() - began
    episodes = programs.evaluate(programs.training, state, programs.key, jnp.int32(done))
    per_iteration = training.steps_after(1)
    return found | {
        "steps": per_iteration * done,
        "steps_per_second": per_iteration * (done - first) / taken,
        "distance": -float(episodes.returns.mean()),
    }


def nearest(num_bins: int, num_targets: int = 50) -> float:
    """The mean distance of the nearest point of the grid, over random targets."""
    env = arm.make()
    targets = jax.vmap(lambda key: env.reset(key)[1])(
        jax.random.split(jax.random.key(1), num_targets)
    )
    return float(np.mean([arm.nearest_on_grid(env, x, num_bins)[0] for x in np.asarray(targets)]))


def draw(path: Path, found: dict[str, dict[int, dict]], steps: int) -> None:
    with panels(
        path,
        (13, 4.6),
        {"fontsize": 8},
        [
            {"title": "Memory of the training program", "ylabel": "MiB", "yscale": "log"},
            {"title": "Time", "ylabel": "seconds for 1,000 steps", "yscale": "log"},
            {
                "title": f"Accuracy after {steps:,} steps, or fewer",
                "ylabel": "mean distance to the target (the arm's length is 3)",
                "ylim": (0.0, None),
            },
        ],
        xlabel="angles per joint",
    ) as (memory, duration, distance):
        values = (
            (memory, lambda row: row["program_bytes"] / 2**20),
            (duration, lambda row: 1000 / row["steps_per_second"]),
            (distance, lambda row: row["distance"]),
        )
        for axes, value in values:
            for i, (name, rows) in enumerate(found.items()):
                y = [value(row) for row in rows.values()]
                if list(rows) == [0]:
                    axes.axhline(y[0], color=f"C{i}", ls="--", label=name)
                    continue
                axes.plot(list(rows), y, color=f"C{i}", label=name)
                for x, row in rows.items():
                    whole = axes is not distance or row["steps"] >= steps
                    fill = f"C{i}" if whole else "white"
                    axes.plot(x, value(row), "o", color=f"C{i}", markerfacecolor=fill)
                    if not whole:
                        up = 6 if name.startswith("DQN") else -12
                        last = x == BINS[-1]
                        axes.annotate(
                            f"{row['steps']:,}",
                            (x, value(row)),
                            xytext=(-6 if last else 6, up),
                            textcoords="offset points",
                            ha="right" if last else "left",
                            fontsize=8,
                            color=f"C{i}",
                        )
        distance.plot(
            BINS, [nearest(bins) for bins in BINS], ":", color="black", label="nearest grid point"
        )
        for axes, _ in values:
            label_ticks(axes, BINS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, for each point")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found: dict[str, dict[int, dict]] = {}
    for name, (agent, layout) in METHODS.items():
        for bins in BINS if layout else (0,):
            label = f"{name}, {bins}" if layout else name
            configuration = f"{options.steps} steps or {options.seconds:g} seconds of {agent!r}"
            if stored.get(label, {}).get("configuration") != configuration:
                env = DiscretizeActions(arm.make(), bins, layout) if layout else arm.make()
                row = measure(agent, env, options.steps, options.seconds)
                stored[label] = {"configuration": configuration} | row
                RESULTS.write_text(json.dumps(stored, indent=1) + "\n")
                jax.clear_caches()
                gc.collect()
            row = found.setdefault(name, {})[bins] = stored[label]
            sizes = (row[f"{part}_bytes"] / 2**20 for part in ("parameter", "state", "program"))
            print(
                f"{label:22} MiB of parameters, state, program:",
                *(f"{size:8.2f}" for size in sizes),
                f"; {row['steps_per_second']:8,.0f} steps/s; distance {row['distance']:.3f} after "
                f"{row['steps']:,} steps",
                flush=True,
            )
    draw(options.figure, found, options.steps)


if __name__ == "__main__":
    main()
