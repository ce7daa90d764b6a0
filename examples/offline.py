"""Offline learning: fitted Q iteration on random play, compared with exact values.

    python examples/offline.py

A random policy plays a random MDP (Garnet) whose optimal values are known. The agent learns from
its transitions alone and never acts.
"""

import argparse

import jax
import jax.numpy as jnp

import jaxrl
import jaxrl_envs
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl_envs.exact import values

DISCOUNT = 0.9


def random_play(env, num_envs, num_steps, key):
    """Transitions `[num_envs * num_steps, ...]` of a uniformly random policy."""
    envs = VectorEnv(env, num_envs)

    def policy(carry, obs, key):
        return carry, jax.random.randint(key, (num_envs,), 0, env.spec.action.num), ()

    reset_key, key = jax.random.split(key)
    *_, trajectory, _ = rollout(policy, envs, envs.reset(reset_key), (), (), key, num_steps)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), trajectory.steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-envs", type=int, default=256, help="copies of the environment")
    parser.add_argument("--num-steps", type=int, default=64, help="steps of each copy")
    parser.add_argument("--fits", type=int, default=80, help="fitted Q iterations")
    options = parser.parse_args()

    env = jaxrl_envs.make("jaxrl/garnet", num_states=8, num_actions=3, max_steps=20, seed=2)
    data = jax.jit(random_play, static_argnums=(1, 2))(
        env, options.num_envs, options.num_steps, jax.random.key(0)
    )
    print(f"{data.reward.size:,} transitions, {int(data.truncated.sum()):,} of them truncated")

    agent = jaxrl.agents.FittedQ(
        discount=DISCOUNT, num_updates=50, batch_size=512, hidden_sizes=(64,), learning_rate=3e-3
    )

    @jax.jit
    def train(key):
        return jaxrl.train(agent, env, key, total_steps=50 * options.fits, data=data)

    state, metrics = train(jax.random.key(1))
    found = agent.bind(env.spec).q_values(state.agent.params, jnp.eye(8))
    exact = values.optimal_action_value(env, DISCOUNT)
    print("best action, fitted: ", *jnp.argmax(found, axis=-1))
    print("best action, exact:  ", *exact.argmax(-1))
    print(f"largest value error: {abs(found - exact).max():.2f} of {abs(exact).max():.2f}")
    before, after = (metrics.evaluation.returns[i].mean() for i in (0, -1))
    print(f"mean return: {before:.1f} after a tenth of the fits, {after:.1f} at the end")


if __name__ == "__main__":
    main()
