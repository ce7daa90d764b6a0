"""When XLA runs small operations on a second thread, and how much that gains.

    python -m benchmarks.threads                  one operation on which others depend
    python -m benchmarks.threads P3 P1 --rounds 3 trainings of the speed comparison
    python -m benchmarks.threads --sizes          PPO with 128 to 8,192 rows in an update

Without arguments: the loop's body has one operation on which K others depend, each on 64 x 64
numbers. Prints microseconds per iteration, and processor time over wall-clock time, which is above
1 if several threads are used.

With rows of the speed comparison, or `--sizes`: seconds of a run with all threads, with one thread,
and with all threads but operations in order, in turns. `jaxrl train` chooses by these
(`jaxrl.engine.threads`).
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from benchmarks.throughput import Worker
from benchmarks.workloads import WORKLOADS, Workload
from jaxrl.xla.deadlock import FLAG

TURNS = 2_000
SIZES = {
    "4 x 128": Workload("ppo", 4, 128, 800),
    "8 x 128": Workload("ppo", 8, 128, 400),
    "16 x 128": Workload("ppo", 16, 128, 200),
    "32 x 128": Workload("ppo", 32, 128, 100),
    "64 x 128": Workload("ppo", 64, 128, 50),
    "4 x 128, 256 wide": Workload("ppo", 4, 128, 200, width=256),
    "4 x 128, 512 wide": Workload("ppo", 4, 128, 50, width=512),
    "16 x 128, 256 wide": Workload("ppo", 16, 128, 50, width=256),
}
"""An update has a fourth of the rows."""
SETTINGS = {
    "all threads": {},
    "one thread": {"NPROC": "1"},
    "in order": {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FLAG}=false".strip()},
}


def turn(i, carry):
    first, others = carry
    scale = jnp.sum(jnp.tanh(first))  # all others depend on it
    others = [jnp.tanh(x * scale + k) for k, x in enumerate(others)]
    return first + 1e-9 * others[0][:1, :1], others


def trainings(name: str, workload: str, rounds: int) -> None:
    """Seconds of a run with each setting, in turns; the median and its factor."""
    workers = {
        setting: Worker("jaxrl", sys.executable, workload, "", environment)
        for setting, environment in SETTINGS.items()
    }
    seconds: dict[str, list[float]] = {setting: [] for setting in workers}
    for seed in range(rounds + 1):  # the first is to warm up
        for setting, worker in workers.items():
            seconds[setting].append(worker.ask(f"run {seed}")["seconds"])
    base = statistics.median(seconds["all threads"][1:])
    for setting, worker in workers.items():
        worker.end()
        found = statistics.median(seconds[setting][1:])
        each = " ".join(f"{x:.2f}" for x in seconds[setting][1:])
        print(f"{name} {setting:<12} {found:6.2f} s  {base / found:5.2f} x  ({each})", flush=True)


def operations() -> None:
    print(f"jax {jax.__version__}\n{'K':>3} {'us a turn':>10} {'processor / wall':>17}")
    for width in (2, 4, 6, 8, 9, 10, 12, 16, 32):
        run = jax.jit(lambda carry: jax.lax.fori_loop(0, TURNS, turn, carry))
        carry = jnp.full((64, 64), 0.1), [jnp.full((64, 64), 0.1 * k) for k in range(width)]
        jax.block_until_ready(run(carry))
        wall, processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(run(carry))
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(f"{width:3} {wall / TURNS * 1e6:10.1f} {processor / wall:17.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--sizes", action="store_true", help="PPO with updates of several sizes")
    options = parser.parse_args()
    chosen = {name: name for name in options.rows}
    if options.sizes:
        chosen |= {name: json.dumps(dataclasses.asdict(x)) for name, x in SIZES.items()}
    for name, workload in chosen.items():
        trainings(name, workload, options.rounds)
    if not chosen:
        operations()


if __name__ == "__main__":
    main()
