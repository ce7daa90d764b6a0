"""Evaluations a second against the population, beside evosax's own rollout: docs/evolution.png.

    python -m benchmarks.evolution                        measure what is missing, then draw
    python -m benchmarks.evolution --populations 1024 --rounds 5
    python -m benchmarks.evolution --draw                 only draw

An evaluation is one episode of CartPole, of at most 500 steps, by one candidate. Both programs run
the same CMA-ES of evosax on a policy with 8 hidden units that acts greedily, compiled as one
program of several generations, in turns, and the median of the rounds counts. "From the start"
begins at an untrained policy, whose episodes are short: evosax steps on to the limit, jaxrl stops
when all episodes have ended. In "whole episodes" none ends before the limit. Measure on an idle
machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import jaxrl_envs
from benchmarks.figures import figure, label_ticks
from benchmarks.scores import machine
from jaxrl.agents import Evolution
from jaxrl.engine.train import train

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "evolution.json"
FIGURE = ROOT / "docs" / "evolution.png"
POPULATIONS = (16, 64, 256, 1024, 4096, 16384, 65536)
NEVER_ENDING = {"theta_threshold_radians": 1e9, "x_threshold": 1e9}
CASES = {"from the start": {}, "whole episodes": NEVER_ENDING}
HIDDEN = 8
STD = 0.3


def ours(population: int, generations: int, params: dict[str, float]) -> Callable:
    """A function of a key that trains for some generations."""
    env = jaxrl_envs.make("gymnax/CartPole-v1").with_params(**params)
    agent = Evolution(
        strategy="CMA_ES", population_size=population, std=STD, hidden_sizes=(HIDDEN,)
    )
    steps = generations * agent.bind(env.spec).plan.steps_per_iteration

    def run(key: jax.Array) -> Any:
        return train(agent, env, key, total_steps=steps, num_evaluations=0)[0].agent.params

    return jax.jit(run)


def theirs(population: int, generations: int, params: dict[str, float]) -> Callable:
    """The same by evosax's own problem and loop."""
    from evosax.algorithms import CMA_ES
    from evosax.problems.networks import MLP
    from evosax.problems.rl.gymnax import GymnaxProblem

    def greedy(x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return jnp.argmax(x, axis=-1)

    policy = MLP(layer_sizes=(HIDDEN, 2), output_fn=greedy)
    problem = GymnaxProblem(
        "CartPole-v1", policy, episode_length=500, use_normalize_obs=False, env_params=params
    )
    start = problem.sample(jax.random.key(0))
    strategy = CMA_ES(population, start)
    options = strategy.default_params.replace(std_init=jnp.float32(STD))

    def run(key: jax.Array) -> Any:
        def generation(carry: Any, key: jax.Array) -> tuple[Any, None]:
            state, world = carry
            ask_key, eval_key, tell_key = jax.random.split(key, 3)
            candidates, state = strategy.ask(ask_key, state, options)
            returns, world, _ = problem.eval(eval_key, candidates, world)
            state, _ = strategy.tell(tell_key, candidates, -returns, state, options)
            return (state, world), None

        begin = strategy.init(key, start, options), problem.init(key)
        (state, _), _ = jax.lax.scan(generation, begin, jax.random.split(key, generations))
        return state.mean

    return jax.jit(run)


def seconds(run: Callable, seed: int) -> float:
    """How long one run takes."""
    key = jax.random.key(seed)
    begin = time.perf_counter()
    jax.block_until_ready(run(key))
    return time.perf_counter() - begin


def measure(population: int, params: dict[str, float], rounds: int) -> dict[str, Any]:
    """Evaluations a second of both, the median of several rounds in turns."""
    generations = max(2, min(50, 65536 // population))
    programs = {"jaxrl": ours, "evosax": theirs}
    runs = {name: make(population, generations, params) for name, make in programs.items()}
    for run in runs.values():  # compile
        seconds(run, 0)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for seed in range(1, rounds + 1):
        for name, run in runs.items():
            found[name].append(population * generations / seconds(run, seed))
    rates = {name: statistics.median(x) for name, x in found.items()}
    return {"population": population, "generations": generations, "rounds": rounds, **rates}


def draw(results: dict[str, Any]) -> None:
    styles = {"jaxrl": "C0", "evosax": "C1"}
    with figure(
        FIGURE, xlabel="candidates", ylabel="episodes of CartPole a second", yscale="log"
    ) as axes:
        for case, line in zip(CASES, ("-", "--"), strict=True):
            points = sorted(results[case].values(), key=lambda x: x["population"])
            sizes = [x["population"] for x in points]
            for name, color in styles.items():
                rates = [x[name] for x in points]
                axes.plot(sizes, rates, line, color=color, marker="o", label=f"{name}, {case}")
        label_ticks(axes, POPULATIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--populations", type=int, nargs="+", default=POPULATIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="replace existing points")
    parser.add_argument("--draw", action="store_true", help="only draw")
    args = parser.parse_args()
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = stored.setdefault(machine(), {case: {} for case in CASES})
    for case, params in {} if args.draw else CASES.items():
        for population in args.populations:
            if str(population) in results[case] and not args.again:
                continue
            found = results[case][str(population)] = measure(population, params, args.rounds)
            ratio = found["jaxrl"] / found["evosax"]
            print(f"{case}, {population}: {found['jaxrl']:,.0f} a second, {ratio:.2f} x evosax")
            RESULTS.write_text(json.dumps(stored, indent=2) + "\n")
    draw(results)


if __name__ == "__main__":
    main()
