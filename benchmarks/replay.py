"""jaxrl's replay buffer against flashbax: the time to add 16 steps and sample 256, and its memory.

    python -m benchmarks.replay

Both run inside a compiled loop, as in training. flashbax's item buffer stores both observations of
each transition; jaxrl's stores each observation once.
"""

import argparse
import functools
import statistics
import time
from typing import get_args

import flashbax
import jax
import jax.numpy as jnp

from jaxrl.agent import Replay
from jaxrl.replay.buffer import ReplayBuffer
from jaxrl.trees import num_bytes
from jaxrl.types import Discrete, EnvSpec, Transition, Truncates

NUM_ENVS, BATCH, LIMIT = 16, 256, 500
OBSERVATIONS = {
    "4 floats": jax.ShapeDtypeStruct((4,), jnp.float32),
    "10 x 10 x 4 bytes": jax.ShapeDtypeStruct((10, 10, 4), jnp.uint8),
}


def transition(observation, *leading: int) -> Transition:
    """A transition of zeros with observations of this shape."""
    obs = jnp.zeros((*leading, *observation.shape), observation.dtype)
    flag = jnp.zeros(leading, bool)
    action, reward = jnp.zeros(leading, jnp.int32), jnp.zeros(leading, jnp.float32)
    return Transition(obs, action, reward, flag, flag, obs)


def ours(observation, capacity: int, prioritized: bool, truncates: Truncates = "at_max_steps"):
    """jaxrl's buffer and one round: (buffer, key, iteration) -> (buffer, number)."""
    plan = Replay(NUM_ENVS, 1, 1, BATCH, capacity, prioritized=prioritized)
    spec = EnvSpec(observation, Discrete(2), LIMIT, truncates=truncates)
    ring = ReplayBuffer.of(plan, spec)
    steps = transition(observation, 1, NUM_ENVS)

    def one(memory, key, iteration):
        memory = ring.add(memory, steps, steps.obs[0], iteration)
        rows = ring.sample(memory, key, iteration + 1, 0.99)
        if prioritized:
            memory = ring.prioritize(memory, rows, rows.reward + 1.0)
        return memory, jnp.sum(rows.reward) + jnp.sum(rows.next_obs.astype(jnp.float32))

    return lambda: ring.init(transition(observation)), one


def theirs(observation, capacity: int, prioritized: bool):
    """The same for flashbax."""
    if prioritized:
        buffer = flashbax.make_prioritised_flat_buffer(
            capacity, BATCH, BATCH, add_sequences=False, add_batch_size=NUM_ENVS
        )
        steps = transition(observation, NUM_ENVS).replace(next_obs=None)
    else:
        buffer = flashbax.make_item_buffer(capacity, BATCH, BATCH, add_batches=True)
        steps = transition(observation, NUM_ENVS)

    def one(memory, key, iteration):
        memory = buffer.add(memory, steps)
        drawn = buffer.sample(memory, key)
        rows = drawn.experience
        if prioritized:
            memory = buffer.set_priorities(memory, drawn.indices, drawn.probabilities + 1.0)
            return memory, jnp.sum(rows.first.reward) + jnp.sum(rows.second.obs.astype(jnp.float32))
        return memory, jnp.sum(rows.reward) + jnp.sum(rows.next_obs.astype(jnp.float32))

    like = transition(observation)
    like = like.replace(next_obs=None) if prioritized else like
    return lambda: buffer.init(like), one


def compiled(init, one, rounds: int, seeds: int):
    """A compiled function that runs `rounds` rounds, and the size of the buffer in bytes."""

    def run(key):
        def step(i, loop):
            memory, total = loop
            memory, number = one(memory, jax.random.fold_in(key, i), i)
            return memory, total + number

        return jax.lax.fori_loop(0, rounds, step, (init(), jnp.float32(0.0)))[1]

    keys = jax.random.split(jax.random.key(0), seeds)
    program = jax.jit(jax.vmap(run) if seeds > 1 else run)
    program = program.lower(keys if seeds > 1 else keys[0]).compile()
    size = num_bytes(jax.eval_shape(init))
    return lambda: jax.block_until_ready(program(keys if seeds > 1 else keys[0])), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument(
        "--truncates", choices=get_args(Truncates), default="at_max_steps",
        help="whether only the time limit truncates, which bounds the final observations",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, taking turns")
    options = parser.parse_args()
    jax.config.update("jax_numpy_rank_promotion", "allow")  # which flashbax needs
    print(f"{'':44}{'jaxrl':>22}{'flashbax':>22}")
    for shape, observation in OBSERVATIONS.items():
        for prioritized in (False, True):
            for capacity, seeds in ((10_000, 1), (1_000_000, 1), (10_000, 8)):
                makers = (functools.partial(ours, truncates=options.truncates), theirs)
                runs = [
                    compiled(*make(observation, capacity, prioritized), options.rounds, seeds)
                    for make in makers
                ]
                times: list[list[float]] = [[], []]
                for run, _ in runs:
                    run()
                for _ in range(options.repeats):
                    for taken, (run, _) in zip(times, runs, strict=True):
                        began = time.perf_counter()
                        run()
                        taken.append((time.perf_counter() - began) / options.rounds * 1e6)
                kind = "prioritised" if prioritized else "uniform"
                what = f"{shape}, {kind}, {capacity:,}" + (f", {seeds} seeds" if seeds > 1 else "")
                cells = [
                    f"{statistics.median(taken):9.1f} us {size / 2**20:6.1f} MiB"
                    for taken, (_, size) in zip(times, runs, strict=True)
                ]
                print(f"{what:44}{cells[0]:>22}{cells[1]:>22}", flush=True)


if __name__ == "__main__":
    main()
