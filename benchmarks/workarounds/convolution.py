"""Gradient steps of `networks.CNN` in a scan: matrix products, and `jax.lax`'s convolutions.

`jaxrl/xla/convolution.py`; `python -m benchmarks.convolution` measures more networks and training.
"""

from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.workarounds.harness import compare_times, used_on
from jaxrl.networks.torsos import CNN
from jaxrl.xla import layout


def main() -> None:
    if not used_on("CPU"):
        return
    network = CNN(((16, 3, 1), (32, 3, 1)))
    images = jax.random.normal(jax.random.key(0), (64, 10, 10, 4))
    params = network.init(jax.random.key(1), images)

    def steps(params, images):
        def step(params, _):
            gradient = jax.grad(lambda p: jnp.mean(jnp.square(network.apply(p, images))))(params)
            return jax.tree.map(lambda x, dx: x - 1e-3 * dx, params, gradient), None

        return jax.lax.scan(step, params, length=3)[0]

    def by_lax(params, images):
        with mock.patch.object(layout, "is_cpu", return_value=False):
            return steps(params, images)

    compare_times("3 steps on 64 images of MinAtar", steps, by_lax, params, images)


if __name__ == "__main__":
    main()
