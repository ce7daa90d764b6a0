"""A grid of hyper-parameters times seeds, compiled once: learning rate and clip range of PPO.

    python examples/sweep.py
    python examples/sweep.py --env gymnax/Acrobot-v1 --total-steps 100_000 --plot sweep.png

Float hyper-parameters are leaves of the agent, so a grid of agents is one agent with stacked
leaves, and `jax.vmap` trains all of them in parallel.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxrl
import jaxrl_envs

LEARNING_RATES = [1e-4, 3e-4, 1e-3, 3e-3]
CLIPS = [0.1, 0.2, 0.3, 0.4]


def train_grid(env_id: str, num_seeds: int, total_steps: int, seed: int) -> np.ndarray:
    """The mean return after training, `[learning rates, clips, seeds]`."""
    env = jaxrl_envs.make(env_id)
    agent = jaxrl.agents.PPO(num_envs=8, num_steps=64)
    grid = jaxrl.sweep(agent, learning_rate=LEARNING_RATES, clip_epsilon=CLIPS)  # leaves [16]

    def final_return(agent, key):
        _, metrics = jaxrl.train(agent, env, key, total_steps=total_steps, num_evaluations=1)
        return metrics.evaluation.returns.mean()

    over_seeds = jax.vmap(final_return, in_axes=(None, 0))
    over_grid = jax.vmap(over_seeds, in_axes=(0, None))
    keys = jax.vmap(jax.random.key)(seed + jnp.arange(num_seeds))
    returns = jax.jit(over_grid)(grid, keys)
    return np.asarray(returns).reshape(len(LEARNING_RATES), len(CLIPS), num_seeds)


def print_table(means: np.ndarray) -> None:
    print("learning rate" + "".join(f"   clip {clip:g}" for clip in CLIPS))
    for rate, row in zip(LEARNING_RATES, means, strict=True):
        print(f"{rate:>13g}" + "".join(f"{mean:>11.1f}" for mean in row))


def draw(means: np.ndarray, path: str, title: str) -> None:
    """A heat map with the value in each cell."""
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(means, cmap="viridis", origin="lower")
    figure.colorbar(image, label="mean return after training")
    axes.set_xticks(range(len(CLIPS)), [f"{x:g}" for x in CLIPS])
    axes.set_yticks(range(len(LEARNING_RATES)), [f"{x:g}" for x in LEARNING_RATES])
    axes.set_xlabel("clip_epsilon")
    axes.set_ylabel("learning_rate")
    axes.set_title(title, loc="left")
    middle = (means.max() + means.min()) / 2
    for (i, j), mean in np.ndenumerate(means):
        colour = "black" if mean > middle else "white"
        axes.text(j, i, f"{mean:.0f}", ha="center", va="center", color=colour)
    figure.savefig(path, dpi=120)
    print(f"heat map: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="gymnax/CartPole-v1", help="(default: gymnax/CartPole-v1)")
    parser.add_argument("--total-steps", type=int, default=20_000, help="(default: 20000)")
    parser.add_argument("--seeds", type=int, default=8, help="seeds per point (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--plot", metavar="FILE", help="save a heat map to this file")
    options = parser.parse_args()

    num_runs = len(LEARNING_RATES) * len(CLIPS) * options.seeds
    print(f"training {num_runs} agents for {options.total_steps:,} steps each, in one program")
    returns = train_grid(options.env, options.seeds, options.total_steps, options.seed)
    means = returns.mean(axis=-1)
    print_table(means)
    best = np.unravel_index(means.argmax(), means.shape)
    print(
        f"best: learning_rate {LEARNING_RATES[best[0]]:g}, clip_epsilon {CLIPS[best[1]]:g}, "
        f"return {means[best]:.1f} ± {returns[best].std():.1f} over {options.seeds} seeds"
    )
    if options.plot:
        draw(means, options.plot, f"PPO on {options.env}")


if __name__ == "__main__":
    main()
