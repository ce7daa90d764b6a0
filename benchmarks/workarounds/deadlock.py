"""Initialising networks of eight seeds on two threads: sequentially, and batched.

See `jaxrl/xla/deadlock.py`. Whether a batched call hangs depends on XLA's schedule: with jaxlib
0.10.2 this program does, but the same agent on CartPole does not.
"""

import jax
import jax.numpy as jnp
from flax import struct

import jaxrl
from benchmarks.workarounds.harness import compare_faults
from jaxrl.agents import PPO
from jaxrl.spaces import Discrete
from jaxrl.types import EnvSpec
from jaxrl.xla import deadlock


class Chain(struct.PyTreeNode):
    """Five states in a row, actions left and right; reaching the last one pays 1 and ends."""

    spec = EnvSpec(jax.ShapeDtypeStruct((5,), jnp.float32), Discrete(2), max_steps=20)

    def reset(self, key):
        position = jax.random.randint(key, (), 0, 4)
        return (position, jnp.int32(0)), jax.nn.one_hot(position, 5)

    def step(self, key, state, action):
        position, time = state
        position = jnp.clip(position + 2 * action - 1, 0, 4)
        goal = position == 4
        return (position, time + 1), jaxrl.Timestep(
            obs=jax.nn.one_hot(position, 5),
            reward=jnp.float32(goal),
            terminated=goal,
            truncated=(time + 1 >= 20) & ~goal,
        )


def program(is_applied: bool) -> None:
    deadlock.is_affected = lambda: is_applied  # decides in `one_by_one`, for any version
    agent = PPO(num_envs=4, num_steps=8, num_epochs=1, num_minibatches=1)

    @jax.jit
    @jax.vmap
    def train(seed):
        key = jax.random.key(seed)
        return jaxrl.train(agent, Chain(), key, total_steps=32, num_evaluations=0)[0].agent.params

    for i in range(20):
        jax.block_until_ready(train(8 * i + jnp.arange(8)))


if __name__ == "__main__":
    compare_faults(
        "PPO, 8 seeds under vmap",
        program,
        NPROC="2",
        XLA_FLAGS="",
        **{deadlock.OPT_OUT: "1"},
    )
