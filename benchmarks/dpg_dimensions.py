"""Deterministic and stochastic policy gradients over the action's dimension.

    python -m benchmarks.dpg_dimensions

Writes docs/dpg_dimensions.png, after section 5.1 of Silver et al., "Deterministic policy gradient
algorithms", 2014: on the continuous bandit, batches of 2 D actions (at least 20) are collected
until the given number of steps. Unlike there, rewards are noisy by default: without noise, spreads
close to 0 are best, gradients are exact for all compatible critics, and rounding decides.

For each dimension, the learning rate and the (first) spread of the actions are those with the least
cost of the worst of some seeds; the figure shows others, means of log10 of the cost with 95%
intervals. A cost counts at most as much as that of the start.

- COPDAC: the deterministic policy, with a normal behaviour of fixed spread.
- compatible: a normal policy that also learns its spread. Its critic and COPDAC's are regressions
  of each batch on compatible features.
- online: the same policy, with a state value as the critic.
- OffPAC: as online, but from the actions of a behaviour of fixed spread.
"""

import argparse
import itertools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from benchmarks.figures import figure, label_ticks
from jaxrl.agents import COPDAC, CompatibleActorCritic, OffPAC, OnlineActorCritic
from jaxrl.analysis.statistics import interval, mean
from jaxrl.distributions import DiagonalGaussian
from jaxrl.engine.training import Training
from jaxrl_envs.exact import continuous_bandit
from tests.helpers.gradients import Identity

FIGURE = Path(__file__).parent.parent / "docs" / "dpg_dimensions.png"
DIMENSIONS = (1, 2, 5, 10, 25, 50)
RATES = tuple(10.0 ** (-x / 2) for x in range(9))
SPREADS = (0.1, 0.3, 1.0, 3.0)
KINDS = {
    "COPDAC": COPDAC,
    "compatible": CompatibleActorCritic,
    "online": OnlineActorCritic,
    "OffPAC": OffPAC,
}


class Isotropic(nn.Module):
    """N(theta, exp(y)^2), as in the paper."""

    size: int

    @nn.compact
    def __call__(self, obs, mask=None):
        theta = self.param("theta", nn.initializers.zeros, (self.size,))
        y = self.param("y", nn.initializers.zeros, ())
        mode = jnp.broadcast_to(theta, (*obs.shape[:-1], self.size))
        return DiagonalGaussian(mode, jnp.broadcast_to(y, mode.shape))


def agent_of(kind: str, dimension: int):
    """The agent, which learns from a batch of 2 D steps (at least 20)."""
    shared = {
        "num_envs": max(2 * dimension, 20),
        "policy_network": Isotropic(dimension),
        "torso": Identity(),
        "discount": 0.0,
    }
    if kind in ("online", "OffPAC"):
        return KINDS[kind](**shared, critic_learning_rate=0.25)
    return KINDS[kind](**shared, critic_fit="regression", cg_iterations=dimension + 4)


def costs(kind: str, dimension: int, num_steps: int, std: float):
    """A function from keys, rates and spreads `[K]` to the costs of the mode after training."""
    env = continuous_bandit.make(dimension, std=std)
    agent = agent_of(kind, dimension)

    @jax.jit
    @jax.vmap
    def run(key, rate, spread):
        own = agent.replace(learning_rate=rate)
        if kind == "COPDAC":
            own = own.replace(exploration_noise=spread)
        elif kind == "OffPAC":
            own = own.replace(behaviour_std=spread)
        training = Training.create(own, env, total_steps=num_steps)
        state = training.init(key)
        params = state.agent.params
        start = {"theta": jnp.zeros(dimension), "y": jnp.log(spread)}
        params = params.replace(actor={"params": {"actor": start}})
        state = state.replace(agent=state.agent.replace(params=params))
        state, *_ = training.chunk(state, key, jnp.int32(0), jnp.int32(training.num_iterations))
        mode = state.agent.params.actor["params"]["actor"]["theta"]
        return -env.replace(std=0.0).step(key, jnp.ones(1), mode)[1].reward

    return run


def best_costs(kind: str, dimension: int, num_steps: int, std: float, seeds: int):
    """The best rate and spread, and the costs of other seeds with them, `[K]`.

    As many other seeds as the search took in all: the same program.
    """
    run = costs(kind, dimension, num_steps, std)
    grid = np.array(list(itertools.product(RATES, SPREADS)), np.float32)
    rates, spreads = (jnp.repeat(jnp.asarray(x), seeds) for x in grid.T)
    keys = jax.random.split(jax.random.key(0), (2, rates.size))
    found = np.asarray(run(keys[0], rates, spreads)).reshape(len(grid), seeds)
    rate, spread = grid[np.where(np.isfinite(found), found, np.inf).max(1).argmin()]
    others = run(keys[1], jnp.full_like(rates, rate), jnp.full_like(rates, spread))
    most = cost_at_start(dimension)
    return rate, spread, np.clip(np.nan_to_num(others, nan=most), 1e-12, most)


def cost_at_start(dimension: int) -> float:
    """The cost of the first policy, whose mode is 0."""
    return -continuous_bandit.objective(continuous_bandit.make(dimension), np.zeros(dimension))


def summary(rows: np.ndarray) -> np.ndarray:
    """The geometric mean of costs, and its interval."""
    logs = np.log10(rows)
    return 10 ** np.array([logs.mean(), *interval(mean, logs)])


def draw(path: Path, found: dict[str, np.ndarray]) -> None:
    with figure(
        path,
        yscale="log",
        xlabel="dimension of the action",
        ylabel="cost of the policy's mode at the end",
        title="Continuous bandit: cost over the dimension, best rate and spread for each",
    ) as axes:
        for kind, marker in zip(found, "osv^", strict=True):
            rows = found[kind]
            average, low, high = np.array([summary(row) for row in rows]).T
            (line,) = axes.plot(DIMENSIONS, average, marker=marker, label=kind)
            axes.fill_between(DIMENSIONS, low, high, alpha=0.2, color=line.get_color())
        start = [cost_at_start(size) for size in DIMENSIONS]
        axes.plot(DIMENSIONS, start, ls=":", color="black", label="at the start")
        label_ticks(axes, DIMENSIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--std", type=float, default=1.0, help="noise of the rewards")
    parser.add_argument("--seeds", type=int, default=3, help="for each rate and spread")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    print("jaxrl", jaxrl.__version__)
    found: dict[str, list] = {kind: [] for kind in KINDS}
    for dimension, kind in itertools.product(DIMENSIONS, KINDS):
        rate, spread, rows = best_costs(kind, dimension, options.steps, options.std, options.seeds)
        found[kind].append(rows)
        average, low, high = summary(rows)
        print(
            f"{dimension:3} {kind:10} {average:8.2g} [{low:.2g}, {high:.2g}], "
            f"rate {rate:.2g}, spread {spread:.2g}",
            flush=True,
        )
    draw(options.figure, {kind: np.array(rows) for kind, rows in found.items()})


if __name__ == "__main__":
    main()
