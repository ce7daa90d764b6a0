"""Steps a second of 16 seeds on one CPU device, and spread over one device for each core.

    python -m benchmarks.devices

PPO on CartPole with 4 x 128 steps (row P4), by `fit`; each run is a process of its own, in turns.
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

seeds, steps = map(int, sys.argv[1:])
agent = jaxrl.agents.PPO(num_envs=4, num_steps=128)
keys = jax.random.split(jax.random.key(0), seeds)
result = jaxrl.fit(
    agent, jaxrl_envs.make("gymnax/CartPole-v1"), keys,
    total_steps=steps, num_evaluations=1, num_eval_episodes=1,
)
print(result.steps_per_second)
"""


def measure(devices: int, seeds: int, steps: int) -> float:
    """Environment steps a second of all seeds together, without compilation."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-c", RUN, str(seeds), str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=16, help="(default: 16)")
    parser.add_argument("--steps", type=int, default=100_000, help="of each seed (default: 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    options = parser.parse_args()
    numbers = sorted({1, machine.cores()})
    found: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(options.rounds):
        for number in numbers:
            found[number].append(measure(number, options.seeds, options.steps))
    alone = statistics.median(found[1])
    for number, speeds in found.items():
        median = statistics.median(speeds)
        each = " ".join(f"{x:,.0f}" for x in speeds)
        print(f"{number:2} devices: {median:>9,.0f} steps/s, {median / alone:.2f} x  ({each})")


if __name__ == "__main__":
    main()
