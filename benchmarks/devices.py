"""Steps a second on one CPU device, and on one device for each core.

    python -m benchmarks.devices                 16 seeds of 4 x 128 steps (row P4)
    python -m benchmarks.devices --one-member    one seed, whose environments devices share

PPO on CartPole by `fit`; each run is a process of its own, in turns. With `--one-member` there is a
row for each number of environments: 4 x 128 (P3), 64 x 128 (P2), 2048 x 32 (P1), and some between.
"""

import argparse
import os
import statistics
import subprocess
import sys

from jaxrl.devices import machine

RUN = """
import sys
import jax
import jaxrl
import jaxrl_envs

seeds, steps, num_envs, num_steps, devices = map(int, sys.argv[1:])
agent = jaxrl.agents.PPO(num_envs=num_envs, num_steps=num_steps)
key = jax.random.key(0)
keys = key if seeds == 1 else jax.random.split(key, seeds)
result = jaxrl.fit(
    agent, jaxrl_envs.make("gymnax/CartPole-v1"), keys,
    total_steps=steps, num_evaluations=1, num_eval_episodes=2, devices=devices,
)
print(result.steps_per_second)
"""
SIZES = ((4, 128), (8, 128), (16, 128), (32, 128), (64, 128), (256, 64), (2048, 32))
"""Environments and steps of a rollout; an update has a fourth of the rows."""


def measure(devices: int, seeds: int, steps: int, num_envs: int, num_steps: int) -> float:
    """Environment steps a second of all seeds together, without compilation."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    numbers = map(str, (seeds, steps, num_envs, num_steps, devices))
    command = [sys.executable, "-c", RUN, *numbers]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--one-member", action="store_true", help="one seed, of several sizes")
    parser.add_argument("--seeds", type=int, default=16, help="(default: 16)")
    parser.add_argument("--steps", type=int, default=100_000, help="of each seed (default: 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    options = parser.parse_args()
    numbers = sorted({1, machine.cores()})
    for size in SIZES if options.one_member else SIZES[:1]:
        seeds = 1 if options.one_member else options.seeds
        found: dict[int, list[float]] = {number: [] for number in numbers}
        for _ in range(options.rounds):
            for number in numbers:
                found[number].append(measure(number, seeds, options.steps, *size))
        alone = statistics.median(found[1])
        print(f"{seeds} x {size[0]} environments, {size[1]} steps", flush=True)
        for number, speeds in found.items():
            median = statistics.median(speeds)
            each = " ".join(f"{x:,.0f}" for x in speeds)
            factor = f"{median / alone:.2f} x"
            print(f"{number:2} devices: {median:>9,.0f} steps/s, {factor}  ({each})", flush=True)


if __name__ == "__main__":
    main()
