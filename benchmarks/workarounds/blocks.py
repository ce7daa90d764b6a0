"""Values of 65,536 observations: in blocks of 2,048 rows, and all at once.

`jaxrl/xla/blocks.py`.
"""

import jax

from benchmarks.workarounds.harness import compare_times, used_on
from jaxrl.networks.layers import MLP
from jaxrl.xla.blocks import map_blocks


def main() -> None:
    if not used_on("CPU"):
        return
    network = MLP((64, 64, 1))
    obs = jax.random.normal(jax.random.key(0), (32, 2048, 4))
    params = network.init(jax.random.key(1), obs)

    def values(params, obs):
        return network.apply(params, obs)[..., 0]

    def in_blocks(params, obs):
        return map_blocks(lambda obs: values(params, obs), obs)

    compare_times("32 x 2,048 observations", in_blocks, values, params, obs)


if __name__ == "__main__":
    main()
