"""The cost of convolutions on a CPU, alone and inside a loop: jaxrl's against lax's.

    python -m benchmarks.convolution
    python -m benchmarks.convolution --only-gradients

First, the gradient of a network alone and as a step of a scan, in milliseconds; then steps per
second of PPO with `networks.CNN` on gymnax's Breakout-MinAtar. The programs of a row alternate, and
medians are printed. `jaxrl/xla/convolution.py` can be deleted when lax's columns "alone" and "in a
scan" agree; `python -m benchmarks.workarounds convolution` is a short version.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

import jaxrl
import jaxrl_envs
from jaxrl.networks.torsos import CNN
from jaxrl.xla import convolution

STEPS = 8
MINATAR = ((16, 3, 1), (32, 3, 1))
ATARI = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
NETWORKS = {
    "MinAtar, 128 images 10 x 10 x 4": (128, (10, 10, 4), MINATAR, None),
    "MinAtar, 32 images, 3 seeds under vmap": (32, (10, 10, 4), MINATAR, 3),
    "Atari, 32 images 84 x 84 x 4": (32, (84, 84, 4), ATARI, None),
    "tiles of 16, 32 images 64 x 64 x 3": (32, (64, 64, 3), ((64, 16, 16),), None),
}


def compiled(function: Callable, *arguments: Any, ours: bool) -> Callable[[], Any]:
    """Compiles the function with jaxrl's or with lax's convolution."""
    with mock.patch.object(convolution, "layout") as patched:
        patched.is_cpu.return_value = ours
        program = jax.jit(lambda *x: function(*x)).lower(*arguments).compile()
    return lambda: program(*arguments)


def gradients(batch: int, shape: tuple[int, ...], layers: Any, num_seeds: int | None) -> dict:
    """Four programs: alone and in a scan, with jaxrl's and with lax's convolution."""
    network, keys = CNN(layers), jax.random.split(jax.random.key(0), num_seeds or 1)
    images = jax.random.normal(jax.random.key(1), (batch, *shape))
    params = jax.vmap(lambda key: network.init(key, images[:1]))(keys)

    def step(params, images):
        gradient = jax.grad(lambda p: jnp.mean(network.apply(p, images) ** 2))(params)
        return jax.tree.map(lambda x, dx: x - 1e-3 * dx, params, gradient)

    def scan(params, images):
        return jax.lax.scan(lambda p, _: (step(p, images), None), params, length=STEPS)[0]

    def of_all(f):
        if num_seeds:
            return jax.vmap(f, (0, None))
        return lambda params, images: f(jax.tree.map(lambda x: x[0], params), images)

    return {
        (name, where): compiled(of_all(f), params, images, ours=name == "ours")
        for name in ("ours", "lax")
        for where, f in (("alone", step), ("in a scan", scan))
    }


def training(num_iterations: int) -> tuple[dict, int]:
    """PPO from pixels with each convolution, and the number of steps per program."""
    agent = jaxrl.agents.PPO(num_envs=8, num_steps=128, torso=CNN())
    env = jaxrl_envs.make("gymnax/Breakout-MinAtar")
    steps = num_iterations * 8 * 128

    def run(key):
        return jaxrl.train(agent, env, key, total_steps=steps, num_evaluations=0)

    key = jax.random.key(0)
    return {name: compiled(run, key, ours=name == "ours") for name in ("ours", "lax")}, steps


def seconds(programs: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, float]:
    """The median time of each program.

    An extra run before each measurement warms up memory, which the previous program has replaced;
    without it, short programs appear five times slower.
    """
    times: dict[Any, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            jax.block_until_ready(run())
            began = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(x) for name, x in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--iterations", type=int, default=1, help="iterations of PPO, of 1,024 steps each"
    )
    parser.add_argument("--only-gradients", action="store_true", help="skip PPO")
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].platform}")
    print("\n| gradient, ms | ours alone | ours in a scan | lax alone | lax in a scan |")
    print("|---|---|---|---|---|")
    for name, network in NETWORKS.items():
        times = seconds(gradients(*network), options.rounds)
        cells = [
            1e3 * times[which, where] / (STEPS if where == "in a scan" else 1)
            for which in ("ours", "lax")
            for where in ("alone", "in a scan")
        ]
        print(f"| {name} | {' | '.join(f'{x:.1f}' for x in cells)} |", flush=True)
    if not options.only_gradients:
        programs, steps = training(options.iterations)
        times = seconds(programs, min(options.rounds, 2))
        print("\n| PPO from pixels | steps/s |\n|---|---|")
        for name, median in times.items():
            print(f"| {name} | {steps / median:,.0f} |")


if __name__ == "__main__":
    main()
