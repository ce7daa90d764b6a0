"""Initial networks of eight seeds on two threads: one seed after the other, and batched.

`jaxrl/xla/deadlock.py`. A hang depends on how XLA schedules the calls: "could be deleted" also
needs jaxlib 0.10.0 to 0.11.0 to be unsupported.
"""

import jax

from benchmarks.workarounds.harness import compare_faults
from jaxrl.xla import deadlock


def program(is_applied: bool) -> None:
    import jaxrl
    import jaxrl_envs

    deadlock.is_affected = lambda: is_applied  # what `one_by_one` asks, whatever the version
    env = jaxrl_envs.make("gymnax/CartPole-v1")
    agent = jaxrl.agents.PPO(num_envs=4, num_steps=8, num_epochs=1, num_minibatches=1)

    @jax.jit
    @jax.vmap
    def train(seed):
        state, _ = jaxrl.train(agent, env, jax.random.key(seed), total_steps=32, num_evaluations=0)
        return state.agent.params

    for i in range(20):
        jax.block_until_ready(train(8 * i + jax.numpy.arange(8)))


if __name__ == "__main__":
    compare_faults(
        "PPO, 8 seeds under vmap",
        program,
        NPROC="2",
        XLA_FLAGS="",
        **{deadlock.OPT_OUT: "1"},
    )
