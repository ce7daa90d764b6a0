"""The cost of cloning and of DAgger against the horizon, with equal labels: docs/imitation.png.

    python -m benchmarks.imitation

In the drifting corridor (`jaxrl_envs.exact.drift`) the pupil does not see the wind, so that it
errs with the same probability in each step, and must find back. An expert that sees the wind shows
EPISODES episodes, which the clone learns from, or labels as many steps that DAgger's pupil visits.
Costs are exact expectations for the moves that were learned. The slopes of the lines in the log-log
plot are printed with 95% intervals over seeds: cost proportional to T^slope.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from benchmarks.figures import figure, label_ticks
from jaxrl.agents import BehaviourCloning, DAgger
from jaxrl.analysis.intervals import student_interval
from jaxrl.runs.dataset import record_episodes
from jaxrl_envs.exact import drift

ROOT = Path(__file__).parent.parent
FIGURE = ROOT / "docs" / "imitation.png"
RESULTS = ROOT / "benchmarks" / "results" / "imitation.json"
HORIZONS = (8, 16, 32, 64, 128)
EPISODES = 1000
SEEDS = 10


def blind(obs):
    """Features of (offset, action), `[..., A, K]`, without the wind."""
    place = obs[..., :-1]
    actions = len(drift.MOVES)
    pairs = jnp.einsum("...k,ab->...abk", place, jnp.eye(actions))
    return pairs.reshape(*place.shape[:-1], actions, actions * place.shape[-1])


def moves_of(agent, env, params):
    """The most likely move at each offset."""
    obs = jnp.concatenate([jnp.eye(2 * env.width + 1), jnp.zeros((2 * env.width + 1, 1))], axis=1)
    return np.asarray(drift.MOVES)[np.asarray(agent.policy(params, obs, ())[0].mode())]


def cloned(env, seed, episodes=EPISODES):
    """The cost of a clone of the expert."""

    def expert(carry, obs, key):
        return carry, env.expert(obs), ()

    demo_key, key = jax.random.split(jax.random.key(seed))
    data = jax.tree.map(jnp.asarray, record_episodes(expert, env, demo_key, num_episodes=episodes))
    agent = BehaviourCloning(
        policy_network=jaxrl.networks.SoftmaxLinear(blind), learning_rate=0.05, held_out=0.0,
        batch_size=1024,
    )  # fmt: skip
    state, _ = jax.jit(
        lambda key: jaxrl.train(agent, env, key, total_steps=300, data=data, num_evaluations=0)
    )(key)
    return env.blind_cost(moves_of(agent.bind(env.spec), env, state.agent.best))


def taught(env, seed, episodes=EPISODES):
    """The cost of DAgger's pupil, which the expert labels wherever it goes."""
    agent = DAgger(
        expert=env.expert, policy_network=jaxrl.networks.SoftmaxLinear(blind), learning_rate=0.05,
        num_envs=50, num_steps=env.horizon, num_updates=50, batch_size=1024, beta=0.0,
        capacity=episodes * env.horizon,
    )  # fmt: skip
    steps = episodes * env.horizon
    state, _ = jax.jit(
        lambda key: jaxrl.train(agent, env, key, total_steps=steps, num_evaluations=0)
    )(jax.random.key(seed))
    return env.blind_cost(moves_of(agent.bind(env.spec), env, state.agent.params))


def slope(costs):
    """The slope of log cost over log horizon."""
    return float(np.polyfit(np.log(HORIZONS), np.log(costs), 1)[0])


METHODS = {"cloning": cloned, "DAgger": taught}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    options = parser.parse_args()
    found = {}
    for name, cost_of in METHODS.items():
        costs = np.array(
            [
                [cost_of(drift.make(horizon=t), seed, options.episodes) for t in HORIZONS]
                for seed in range(options.seeds)
            ]
        )
        slopes = [slope(row) for row in costs]
        low, high = student_interval(np.asarray(slopes)[:, None], 0.95)
        found[name] = {"costs": costs.tolist(), "slopes": slopes}
        print(f"{name}: slope {np.mean(slopes):.2f} [{low:.2f}, {high:.2f}], costs {costs.mean(0)}")
    RESULTS.write_text(json.dumps({"horizons": HORIZONS, **found}, indent=2) + "\n")
    with figure(
        FIGURE, xlabel="steps of an episode, T", ylabel="expected cost of an episode", yscale="log"
    ) as axes:
        for name, one in found.items():
            costs = np.array(one["costs"])
            label = f"{name}: cost ~ T^{np.mean(one['slopes']):.2f}"
            (line,) = axes.plot(HORIZONS, costs.mean(0), marker="o", label=label)
            axes.fill_between(
                HORIZONS, costs.min(0), costs.max(0), color=line.get_color(), alpha=0.2
            )
        label_ticks(axes, HORIZONS)


if __name__ == "__main__":
    main()
