"""Bias and variance of a fitted Q against roll-outs: writes docs/fitted_q.png.

    python -m benchmarks.fitted_q_bias

On a random MDP with exact values, the policy gradient at geometric times is weighted by roll-outs
(y, or y minus the exact state value: unbiased) or by a critic f(s, a). The critic is Q plus a
random error, or the regression of y on some samples (s, a, y). The bias is the distance of the
expected gradient from the exact one. All samples and gradients come from the agents' own code;
`tests/agents/test_fitted_q_actor_critic.py` compares their means with the exact expectations.
"""

import argparse
from pathlib import Path

import numpy as np

import jaxrl
from benchmarks.figures import figure
from jaxrl.agents import RPG, FittedQActorCritic
from tests.helpers.geometric import (
    EXACT,
    LOGITS,
    PER_BATCH,
    POLICY,
    VALUE,
    Q,
    batch_gradients,
    endless,
    expected,
    experience,
    params_of,
    visits,
)
from tests.helpers.gradients import tabular_params

FIGURE = Path(__file__).parent.parent / "docs" / "fitted_q.png"
ERRORS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
SAMPLES = (128, 512, 2048)
EPISODES = 256
"""Episodes per batch, for the standard deviation."""


def size(x) -> float:
    """The error of a table of action values that the advantages see, root mean square."""
    return float(np.sqrt(np.mean((x - (POLICY * x).sum(-1, keepdims=True)) ** 2)))


def deviation(gradients) -> float:
    """The standard deviation of a batch's gradient, relative to the exact one's norm."""
    of_one = PER_BATCH * gradients.var(0).sum()
    return float(np.sqrt(of_one / EPISODES) / np.linalg.norm(EXACT))


def bias(f) -> float:
    """The bias with the critic f, relative to the exact gradient's norm."""
    return float(np.linalg.norm(expected(f) - EXACT) / np.linalg.norm(EXACT))


def with_rollouts() -> dict[str, float]:
    """Name -> deviation of the unbiased gradients."""
    agent, trajectory = experience(endless, RPG)
    params = tabular_params(LOGITS, VALUE)
    plain = agent.replace(baseline="none")
    return {
        "deviation of y": deviation(batch_gradients(plain, params, trajectory)),
        "deviation of y - V(s)": deviation(batch_gradients(agent, params, trajectory)),
    }


def with_errors(seed: int = 0) -> list[tuple[float, float, float, float]]:
    """Relative error of f, bias, measured bias and deviation, for Q plus a random error."""
    agent, trajectory = experience(endless, FittedQActorCritic)
    noise = np.random.default_rng(seed).standard_normal(Q.shape)
    noise *= size(Q) / size(noise)
    rows = []
    for error in ERRORS:
        f = Q + error * noise
        found = batch_gradients(agent, params_of(f), trajectory)
        measured = np.linalg.norm(found.mean(0) - EXACT) / np.linalg.norm(EXACT)
        rows.append((error, bias(f), float(measured), deviation(found)))
    return rows


def with_regression(actions: str) -> list[tuple[int, float, float]]:
    """Number of samples, error and bias of the regression, means over disjoint sets of samples.

    The regression has a parameter for each state and action: the mean of y, 0 without samples.
    """
    agent, trajectory = experience(endless, FittedQActorCritic, fitted_actions=actions)
    visit, state = visits(agent, trajectory)
    cell = np.where(visit.valid, state * Q.shape[1] + visit.action, Q.size)
    rows = []
    for num in SAMPLES:
        sets = np.nonzero(visit.valid)[0]
        sets = sets[: len(sets) // num * num].reshape(-1, num)
        fits = []
        for rows_of_fit in sets:
            count = np.bincount(cell[rows_of_fit], minlength=Q.size)
            total = np.bincount(cell[rows_of_fit], visit.target[rows_of_fit], minlength=Q.size)
            fits.append((total / np.maximum(count, 1)).reshape(Q.shape))
        rows.append(
            (num, np.mean([size(f - Q) for f in fits]) / size(Q), np.mean([bias(f) for f in fits]))
        )
    return rows


def draw(path: Path, rollouts, errors, fits) -> None:
    error, exact, measured, spread = np.array(errors).T
    with figure(
        path,
        (7.5, 4.8),
        {"fontsize": 8, "loc": "upper left"},
        xlabel="error of f / size of the advantage (root mean squares)",
        ylabel="relative to the norm of the exact gradient",
        title=f"Policy gradient from {EPISODES} episodes: a fitted Q and roll-outs",
    ) as axes:
        (line,) = axes.plot(error, exact, label="bias of f = Q + random error")
        axes.plot(error, measured, "o", color=line.get_color(), label="the same, measured")
        axes.plot(error, spread, marker="s", label="deviation with f")
        for (name, y), style in zip(rollouts.items(), ("--", ":"), strict=True):
            axes.axhline(y, ls=style, color="black", label=name)
        for (actions, rows), marker in zip(fits.items(), ("^", "v"), strict=True):
            num, x, y = zip(*rows, strict=True)
            axes.plot(x, y, marker, ms=8, label=f"bias of f fitted to {actions} actions")
            for at in zip(num, x, y, strict=True):
                axes.annotate(f"{at[0]}", at[1:], xytext=(6, -4), textcoords="offset points")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    print("jaxrl", jaxrl.__version__)
    rollouts, errors = with_rollouts(), with_errors()
    fits = {actions: with_regression(actions) for actions in ("policy", "uniform")}
    for name, y in rollouts.items():
        print(f"{name:24} {y:.3f}")
    for error, exact, measured, spread in errors:
        print(f"error {error:.3f}: bias {exact:.3f} (measured {measured:.3f}), {spread:.3f}")
    for actions, rows in fits.items():
        for num, error, found in rows:
            print(f"{num:5} samples of {actions:8} error {error:.3f}, bias {found:.3f}")
    draw(options.figure, rollouts, errors, fits)


if __name__ == "__main__":
    main()
