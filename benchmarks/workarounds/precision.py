"""Training under `jax_enable_x64`: traced in 32 bits, and as the setting has it.

`jaxrl/xla/precision.py`.
"""

import re

import jax

from benchmarks.workarounds.harness import compare_faults
from jaxrl.xla import precision


def program(is_applied: bool) -> str | None:
    if not is_applied:  # before the modules that use them are imported
        precision.in_float32 = lambda function: function
        precision.narrow = lambda tree: tree
    import jaxrl
    import jaxrl_envs

    env = jaxrl_envs.make("gymnax/CartPole-v1")
    agent = jaxrl.agents.PPO(num_envs=2, num_steps=4, hidden_sizes=(4,))

    def train(key):
        return jaxrl.train(agent, env, key, total_steps=8, num_evaluations=0)

    try:
        found = re.search(r"\b[fiu]64\b", str(jax.make_jaxpr(train)(jax.random.key(0))))
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__} while PPO is traced"
    return f"{found[0]} in the program of PPO" if found else None


if __name__ == "__main__":
    compare_faults("PPO with jax_enable_x64", program, JAX_ENABLE_X64="1")
