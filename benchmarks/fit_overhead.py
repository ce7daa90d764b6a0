"""The overhead of `fit` over `train`: the same run with logs and checkpoints, at P1's size.

    python -m benchmarks.fit_overhead

Both train PPO on CartPole with 2,048 environments x 32 steps and the same evaluations; their runs
alternate. `fit` writes metrics.jsonl, TensorBoard files and checkpoints. Measures wall-clock time
from the first step to the last file, without compilation.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import jax

import jaxrl
import jaxrl_envs
from jaxrl.runs.events import Compiled


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--total-steps", type=float, default=6e6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint-seconds", type=float, default=5.0)
    options = parser.parse_args()

    env = jaxrl_envs.make("gymnax/CartPole-v1")
    agent = jaxrl.agents.PPO(num_envs=2048, num_steps=32)
    same = dict(total_steps=int(options.total_steps), num_evaluations=10, num_eval_episodes=64)
    key = jax.random.key(0)
    train = jax.jit(lambda key: jaxrl.train(agent, env, key, **same)).lower(key).compile()

    def of_train() -> float:
        began = time.perf_counter()
        jax.block_until_ready(train(key))
        return time.perf_counter() - began

    def of_fit(**recorded: object) -> float:
        began = 0.0

        def start(event: object) -> None:
            nonlocal began
            if isinstance(event, Compiled):
                began = time.perf_counter()

        jaxrl.fit(agent, env, key, callbacks=[start], **same, **recorded)
        return time.perf_counter() - began

    seconds: dict[str, list[float]] = {"train": [], "fit": [], "fit, with files": []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(options.rounds):
            seconds["train"].append(of_train())
            seconds["fit"].append(of_fit())
            files = {"run_dir": Path(folder) / str(i)}
            files["checkpoint_seconds"] = options.checkpoint_seconds
            seconds["fit, with files"].append(of_fit(**files))
    least = statistics.median(seconds["train"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{name:<16} {median:6.2f} s  {same['total_steps'] / median:>9,.0f} steps/s  "
            f"{100 * (median / least - 1):+5.1f}%  (from {min(times):.2f} to {max(times):.2f})"
        )


if __name__ == "__main__":
    main()
