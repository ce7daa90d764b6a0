"""The variance of policy-gradient estimators over the horizon: writes docs/gradient_variance.png.

    python -m benchmarks.gradient_variance

All estimators are gradients computed by the agents themselves, from batches of rollouts on a random
tabular MDP (Garnet) with the same policy. Their expectations are known exactly
(`jaxrl_envs.exact`); `tests/agents/test_policy_gradients.py` compares the two.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.figures import figure, label_ticks
from jaxrl.agents import REINFORCE, TRPO
from jaxrl_envs.exact import garnet, values
from tests.helpers.gradients import (
    estimates,
    reinforce_gradient,
    surrogate_gradient,
    tabular_agent,
    tabular_params,
)

FIGURE = Path(__file__).parent.parent / "docs" / "gradient_variance.png"
DISCOUNT = 0.99
HORIZONS = (4, 8, 16, 32, 64)


def estimators(horizon: int, num_envs: int = 4):
    """Name -> (agent class, options, gradient), in order of decreasing variance."""
    whole = {
        "num_envs": num_envs,
        "num_steps": horizon,
        "whole_episodes": True,
        "discount": DISCOUNT,
    }
    generalized = {
        "num_envs": num_envs,
        "num_steps": horizon,
        "discount": DISCOUNT,
        "normalize_advantages": False,
        "critic_minibatches": 1,
    }
    return {
        "whole return": (REINFORCE, {**whole, "credit": "return", "baseline": "none"}),
        "whole return, optimal baseline": (
            REINFORCE,
            {**whole, "credit": "return", "baseline": "optimal"},
        ),
        "reward to go": (REINFORCE, {**whole, "baseline": "none"}),
        "reward to go, baseline by time": (REINFORCE, {**whole, "baseline": "time"}),
        "GAE, lambda 1": (TRPO, {**generalized, "gae_lambda": 1.0}),
        "GAE, lambda 0.9": (TRPO, {**generalized, "gae_lambda": 0.9}),
        "GAE, lambda 0": (TRPO, {**generalized, "gae_lambda": 0.0}),
    }


def variances(horizon: int, num_batches: int) -> dict[str, float]:
    """The total variance of each estimator per episode, at a random policy."""
    mdp = garnet.make(num_states=10, num_actions=3, max_steps=horizon, seed=1)
    mdp = mdp.replace(reward=mdp.reward + 1.0)  # as most rewards are: not centred
    logits = np.random.default_rng(0).standard_normal((10, 3))
    value = values.policy_value(mdp, values.softmax(logits), DISCOUNT)
    found = {}
    for name, (kind, options) in estimators(horizon).items():
        agent = tabular_agent(kind, mdp, **options)
        gradient_of = reinforce_gradient if kind is REINFORCE else surrogate_gradient
        samples = estimates(agent, mdp, tabular_params(logits, value), gradient_of, num_batches)
        scale = 1.0 if kind is REINFORCE else float(horizon)  # a mean over steps, not a sum
        found[name] = float((scale * samples).var(0).sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, default=4096, help="rollouts of 4 episodes each")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    table = {horizon: variances(horizon, options.batches) for horizon in HORIZONS}
    names = list(table[HORIZONS[0]])
    for name in names:
        row = [table[h][name] for h in HORIZONS]
        growth = np.polyfit(np.log(HORIZONS), np.log(row), 1)[0]
        print(f"{name:32s}", *(f"{v:10.4g}" for v in row), f"   ~ H^{growth:.1f}")
    draw(table, names, options.figure)


def draw(table, names, path: Path) -> None:
    with figure(
        path,
        (7, 4.5),
        {"fontsize": 9},
        yscale="log",
        xlabel="horizon (steps of an episode)",
        ylabel="total variance of the gradient",
        title="Policy-gradient estimators on a random MDP, 4 episodes a batch",
    ) as axes:
        for name in names:
            axes.plot(HORIZONS, [table[h][name] for h in HORIZONS], marker="o", label=name)
        label_ticks(axes, HORIZONS)


if __name__ == "__main__":
    main()
