"""Recorded data: a clone of a random policy, and a far better policy from the same data.

    python examples/demonstrations.py

A random policy plays CartPole. Its clone can only do what it did; implicit Q-learning also learns
what came of it.
"""

import argparse

import jax

import jaxrl
import jaxrl_envs


def at_random(carry, obs, key):
    """A policy for `record_episodes`: actions `[N]` for observations `[N, ...]`."""
    return carry, jax.random.randint(key, obs.shape[:1], 0, 2), ()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=100, help="recorded episodes")
    parser.add_argument("--updates", type=int, default=5_000, help="gradient steps of each agent")
    options = parser.parse_args()

    env = jaxrl_envs.make("gymnax/CartPole-v1")
    data = jaxrl.record_episodes(at_random, env, jax.random.key(0), num_episodes=options.episodes)
    print(f"the data: {data.reward.sum() / options.episodes:.0f} steps an episode")

    both = {"hidden_sizes": (64, 64), "learning_rate": 1e-3}
    agents = (
        jaxrl.agents.BehaviourCloning(**both),
        jaxrl.agents.IQL(**both, critic_learning_rate=1e-3),
    )
    for agent in agents:
        result = jaxrl.fit(
            agent, env, jax.random.key(1), data=data, total_steps=options.updates,
            num_evaluations=1, normalize_observations=True,
        )  # fmt: skip
        print(
            f"{type(agent).__name__}: {result.evaluations[-1].returns.mean():.0f} steps an episode"
        )


if __name__ == "__main__":
    main()
