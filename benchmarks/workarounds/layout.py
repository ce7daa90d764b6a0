"""A rollout of 2,048 CartPoles on an accelerator: four steps a turn of the loop, and one.

`jaxrl/xla/layout.py`.
"""

import jax

import jaxrl
import jaxrl_envs
from benchmarks.workarounds.harness import compare_times, used_on
from jaxrl.spaces import sample_action
from jaxrl.xla.layout import SCAN_UNROLL


def rollout(scan_unroll):
    envs = jaxrl.VectorEnv(jaxrl_envs.make("gymnax/CartPole-v1"), 2048, scan_unroll=scan_unroll)

    def act(carry, obs, key):
        draw = jax.vmap(lambda k: sample_action(envs.spec.action, k))
        return carry, draw(jax.random.split(key, 2048)), ()

    def run(key):
        return jaxrl.rollout(act, envs, envs.reset(key), (), (), key, 64)

    return run


def main() -> None:
    if used_on("accelerator"):
        case = "64 steps of 2,048 environments"
        compare_times(case, rollout(SCAN_UNROLL), rollout(1), jax.random.key(0))


if __name__ == "__main__":
    main()
