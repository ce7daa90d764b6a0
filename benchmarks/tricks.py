"""Ablation of PPO on two environments: one trick removed or added at a time.

    python -m benchmarks.tricks                  everything, into docs/tricks.png
    python -m benchmarks.tricks --only entropy   variants whose name contains a word, as a table

Each variant differs from the base in one trick and trains ten seeds under one vmap. Scores are
those of the last state: mean of 100 greedy episodes for each seed, and the 95% interval of the mean
over seeds. The base is the preset of the environment, for a third of its steps, so that variants
have room to differ. Results are kept in benchmarks/results/tricks.json, and those of variants that
are there are not measured again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxrl
import jaxrl_envs
from benchmarks.figures import panels
from benchmarks.rows import ROWS, Row
from benchmarks.scores import agent_of
from jaxrl import wrappers
from jaxrl.agents import PPO
from jaxrl.analysis.statistics import summarize

ROOT = Path(__file__).parent
FIGURE = ROOT.parent / "docs" / "tricks.png"
RESULTS = ROOT / "results" / "tricks.json"
SEEDS = 10


def of_row(row: Row, total_steps: int) -> tuple[PPO, int, dict[str, Any]]:
    """The agent of a row of the score table, its steps here, and options of training."""
    scaled = {"normalize_rewards": True} if row.normalize_rewards else {}
    return agent_of(row), total_steps, scaled  # type: ignore[return-value]


BASES = {
    "CartPole-v1": of_row(ROWS["S1"], 170_000),
    "Pendulum-v1": of_row(ROWS["S9-ppo"], 100_000),
}


def clipped_rewards(env: Any) -> Any:
    return wrappers.ClipReward(env, -1.0, 1.0)


def variants(name: str) -> dict[str, tuple[dict[str, Any], dict[str, Any], Any]]:
    """Name -> what changes: of the agent, of training, and a wrapper or None."""
    base, _, options = BASES[name]
    rate, box = base.learning_rate.start, name == "Pendulum-v1"  # type: ignore[union-attr]
    rewards = not options.get("normalize_rewards", False)
    found: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
        "base": ({}, {}, None),
        "scaled observations": ({}, {"normalize_observations": True}, None),
        "scaled rewards" if rewards else "rewards not scaled": (
            {},
            {"normalize_rewards": rewards},
            None,
        ),
        "lambda 1 (returns)": ({"gae_lambda": 1.0}, {}, None),
        "lambda 0 (one step)": ({"gae_lambda": 0.0}, {}, None),
        "advantages not standardised": ({"normalize_advantages": False}, {}, None),
        "standardised over the rollout": ({"normalize_over": "rollout"}, {}, None),
        "advantages recomputed": ({"recompute_advantages": True}, {}, None),
        "entropy bonus 0" if base.entropy_coefficient else "entropy bonus 0.01": (
            {"entropy_coefficient": 0.0 if base.entropy_coefficient else 0.01},
            {},
            None,
        ),
        "one epoch": ({"num_epochs": 1}, {}, None),
        "one minibatch": ({"num_minibatches": 1}, {}, None),
        "constant learning rate": ({"learning_rate": rate}, {}, None),
        "RMSprop": ({"optimizer": "rmsprop"}, {}, None),
        "Adam's epsilon 1e-8": ({"adam_epsilon": 1e-8}, {}, None),
        "gradients not clipped": ({"max_grad_norm": None}, {}, None),
        "values not clipped" if base.clip_value else "values clipped": (
            {"clip_value": not base.clip_value},
            {},
            None,
        ),
        "ratios and values not clipped" if base.clip_value else "ratios not clipped": (
            {"clip_epsilon": 1e6},
            {},
            None,
        ),
        "shared torso": ({"shared_torso": True}, {}, None),
        "relu": ({"activation": "relu"}, {}, None),
        "lecun kernels": ({"initialization": "lecun"}, {}, None),
        "PyTorch's kernels": ({"initialization": "pytorch"}, {}, None),
    }
    if box:
        found |= {
            "clipped, not scaled rewards": ({}, {"normalize_rewards": False}, clipped_rewards),
            "squashed policy": ({"box_policy": "squashed"}, {}, None),
            "Beta policy": ({"box_policy": "beta"}, {}, None),
            "std as an output": ({"std_from": "output"}, {}, None),
            "gSDE, every 4 steps": (
                {"std_from": "features", "initial_log_std": -2.0, "noise_every": 4},
                {},
                None,
            ),
        }
    return found


def scores(name: str, variant: str, seeds: int) -> list[float]:
    """The final return of each seed."""
    base, steps, options = BASES[name]
    agent, training, wrap = variants(name)[variant]
    env = jaxrl_envs.make(f"gymnax/{name}")

    def run(key: Any) -> Any:
        _state, metrics = jaxrl.train(
            base.replace(**agent),
            env if wrap is None else wrap(env),
            key,
            eval_env=env,
            total_steps=steps,
            num_evaluations=1,
            num_eval_episodes=100,
            **{**options, **training},
        )
        return metrics.evaluation.returns[-1]

    keys = jax.random.split(jax.random.key(1_000), seeds)
    returns = np.asarray(jax.jit(jax.vmap(run))(keys), np.float64)
    return [float(x) for x in returns.mean(-1)]


def configuration(name: str, variant: str) -> str:
    """Everything that affects a variant's scores."""
    agent, training, wrap = variants(name)[variant]
    wrapper = "" if wrap is None else wrap.__name__
    return repr((BASES[name], agent, training, wrapper))


def measure(seeds: int, word: str) -> dict[str, dict[str, Any]]:
    """The stored results, after what is missing of those whose names contain the word.

    Only results of ten seeds are stored.
    """
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() and seeds == SEEDS else {}
    for name in BASES:
        of_env = found.setdefault(name, {})
        for variant in (variant for variant in variants(name) if word in variant):
            of = configuration(name, variant)
            if of_env.get(variant, {}).get("configuration") != of:
                returns = scores(name, variant, seeds)
                of_env[variant] = {"configuration": of, "returns": returns}
                if seeds == SEEDS:
                    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            summary = summarize(np.array(of_env[variant]["returns"]))
            low, high = summary["ci_low"], summary["ci_high"]
            mean = f"{summary['mean']:8.1f}"
            print(f"{name:<12} {variant:<32} {mean}  [{low:.1f}, {high:.1f}]", flush=True)
    return found


def draw(found: dict[str, dict[str, Any]]) -> None:
    """Means and intervals, one panel for each environment."""
    each = [{"title": name, "xlabel": "return"} for name in BASES]
    with panels(FIGURE, (11, 7), None, each) as rows:
        for axes, name in zip(rows, BASES, strict=True):
            names = list(variants(name))[::-1]
            summaries = [summarize(np.array(found[name][variant]["returns"])) for variant in names]
            means = np.array([s["mean"] for s in summaries])
            ends = np.array([[s["ci_low"], s["ci_high"]] for s in summaries])
            errors = np.abs(ends.T - means)
            axes.errorbar(means, np.arange(len(names)), xerr=errors, fmt="o", capsize=3)
            axes.axvline(means[-1], color="grey", linestyle="--", label="base")
            axes.set_yticks(np.arange(len(names)), names)
    print(FIGURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="(default: 10)")
    parser.add_argument("--only", default="", metavar="WORD", help="variants with this word alone")
    options = parser.parse_args()
    found = measure(options.seeds, options.only)
    if not options.only and options.seeds == SEEDS:
        draw(found)


if __name__ == "__main__":
    main()
