"""Your own environment in twenty lines: check it, train on it, evaluate the result.

    python examples/custom_env.py
    python examples/custom_env.py --total-steps 500_000 --seed 3

A ship drifts along a line and has to stop in the dock at 0: it can push left, right or not at all.
"""

import argparse

import jax
import jax.numpy as jnp
from flax import struct

import jaxrl
import jaxrl_envs


class Docking(struct.PyTreeNode):
    """Position and speed on a line; the ship is lost far out, and time is up after 100 steps."""

    thrust: float = 0.05  # a leaf: `jax.vmap` can train with many values of it at once

    spec = jaxrl.EnvSpec(jax.ShapeDtypeStruct((2,), jnp.float32), jaxrl.Discrete(3), max_steps=100)

    def reset(self, key):
        start = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.array([1.0, 0.1])
        return (start, jnp.int32(0)), start

    def step(self, key, state, action):
        (position, speed), time = state
        speed = speed + self.thrust * (action - 1.0)
        position, time = position + speed, time + 1
        lost = jnp.abs(position) > 3.0
        ship = jnp.stack([position, speed])
        timestep = jaxrl.Timestep(
            obs=ship,
            reward=jnp.where(lost, -100.0, -jnp.abs(position)),
            terminated=lost,
            truncated=~lost & (time >= self.spec.max_steps),
        )
        return (ship, time), timestep


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--total-steps", type=int, default=200_000, help="(default: 200000)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    options = parser.parse_args()

    env = Docking()
    jaxrl_envs.check(env)  # plays random episodes; raises an error with a line for each problem
    print("Docking satisfies the environment contract")

    agent = jaxrl.agents.PPO(num_envs=16, num_steps=64, learning_rate=1e-3)
    train = jax.jit(
        lambda key: jaxrl.train(
            agent, env, key, total_steps=options.total_steps, normalize_rewards=True
        )
    )
    _, metrics = train(jax.random.key(options.seed))
    steps = metrics.iterations * agent.plan.steps_per_iteration
    for step, returns in zip(steps, metrics.evaluation.returns, strict=True):
        print(f"step {step:>9,}  return {returns.mean():8.2f}  worst episode {returns.min():8.2f}")


if __name__ == "__main__":
    main()
