"""Policy gradients on a linear-quadratic regulator: writes docs/lqr_methods.png.

    python -m benchmarks.lqr_methods

Finite differences, REINFORCE with a constant and a time-dependent baseline, the natural policy
gradient and the episodic natural actor-critic learn the gain of a linear policy from the same
number of episodes of 20 steps. The excess cost of a gain over the best constant one is exact
(`jaxrl_envs.exact.lqr`). The learning rate of each method is the one of LEARNING_RATES with the
lowest mean cost on other seeds, on which no gain may diverge. Similar comparisons: Peters and
Schaal, "Reinforcement learning of motor skills with policy gradients", 2008, section 4.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from benchmarks.figures import figure
from jaxrl.agents import NPG, REINFORCE, FiniteDifference, NaturalActorCritic
from jaxrl.distributions import DiagonalGaussian
from jaxrl.engine.training import Training
from jaxrl_envs.exact import lqr

FIGURE = Path(__file__).parent.parent / "docs" / "lqr_methods.png"
HORIZON, EPISODES, ITERATIONS, POINTS = 20, 32, 160, 16
STD = 0.3
"""Of the policy's actions; it is not learned."""
START = (0.2, 0.2)
"""The gain before training, which is stable."""
LEARNING_RATES = tuple(float(x) for x in np.logspace(-4, 1, 16))
ENV = lqr.make(max_steps=HORIZON)


class LinearPolicy(nn.Module):
    """u ~ N(-K x, STD^2)."""

    @nn.compact
    def __call__(self, obs, mask=None):
        gain = self.param("gain", lambda key: jnp.asarray(START))
        mean = -jnp.expand_dims(obs @ gain, -1)
        return DiagonalGaussian(mean, jnp.full(1, np.log(STD)))


def agents() -> dict[str, jaxrl.Agent]:
    """The methods, with EPISODES whole episodes per iteration."""
    policy: dict[str, Any] = {"policy_network": LinearPolicy(), "optimizer": "sgd"}
    episodes = {"num_envs": EPISODES, "num_steps": HORIZON, "discount": 1.0, **policy}
    whole = {**episodes, "whole_episodes": True}
    return {
        "finite differences": FiniteDifference(
            population_size=EPISODES, perturbation=0.1, **policy
        ),
        "REINFORCE, constant baseline": REINFORCE(**whole, baseline="constant"),
        "REINFORCE, baseline by time": REINFORCE(**whole, baseline="time"),
        "natural policy gradient": NPG(
            **{**episodes, "optimizer": None}, kl_radius=None, damping=0.0,
            normalize_advantages=False, critic_minibatches=1, critic_epochs=4, hidden_sizes=(16,),
        ),
        "natural actor-critic, episodic": NaturalActorCritic(
            **episodes, kl_radius=None, damping=1e-4
        ),
    }  # fmt: skip


def cost_of(gain: Any) -> float:
    """The expected cost of an episode with u = -K x; infinite if it cannot be computed."""
    K = np.asarray(gain, np.float64).reshape(1, 2)
    Q, R = (np.asarray(x, np.float64) for x in (ENV.Q, ENV.R))
    with np.errstate(over="ignore", invalid="ignore"):
        moment = lqr.rollout_moment(ENV, K, np.full(1, -40.0), HORIZON)
        cost = HORIZON * np.trace((Q + K.T @ R @ K) @ moment)
    return float(cost) if np.isfinite(cost) else np.inf


def best() -> tuple[np.ndarray, float]:
    """The best constant gain, by a grid that shrinks around its best point, and its cost."""
    centre, width = np.zeros(2), 8.0
    for _ in range(40):
        grid = [centre + width * np.array([i, j]) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        centre = min(grid, key=cost_of)
        width *= 0.7
    return centre, cost_of(centre)


def gain_of(state: Any) -> np.ndarray:
    """The gains of all seeds, `[seeds, 2]`."""
    params = getattr(state.agent.params, "actor", state.agent.params)
    return np.asarray(params["params"]["actor"]["gain"])


def learn(agent: jaxrl.Agent, rates: tuple[float, ...], seeds: range) -> np.ndarray:
    """Costs after each part of training, `[rates, POINTS + 1, seeds]`."""
    training = Training.create(agent, ENV, total_steps=ITERATIONS * EPISODES * HORIZON)

    def at(rate: jax.Array) -> Training:
        return training.replace(agent=training.agent.replace(learning_rate=rate))

    init = jax.jit(jax.vmap(lambda rate, key: at(rate).init(key)))
    chunk = jax.jit(
        jax.vmap(lambda rate, *args: at(rate).chunk(*args)[0], (0, 0, 0, None, None)),
        donate_argnums=1,
    )
    rate = jnp.repeat(jnp.asarray(rates, jnp.float32), len(seeds))
    key = jax.vmap(jax.random.key)(jnp.tile(jnp.asarray(seeds), len(rates)))
    state, stops = init(rate, key), np.linspace(0, ITERATIONS, POINTS + 1).astype(int)
    costs = [[cost_of(K) for K in gain_of(state)]]
    for start, stop in itertools.pairwise(stops):
        state = chunk(rate, state, key, jnp.int32(start), jnp.int32(stop))
        costs.append([cost_of(K) for K in gain_of(state)])
    return np.array(costs).reshape(POINTS + 1, len(rates), len(seeds)).swapaxes(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--seeds", type=int, default=20, help="(default: 20)")
    options = parser.parse_args()
    gain, cost = best()
    print("jaxrl", jaxrl.__version__, "best gain", gain.round(3), "cost", round(cost, 4))
    with figure(
        options.figure,
        (7.5, 4.8),
        {"fontsize": 8},
        xlabel="episodes",
        ylabel="cost above that of the best gain",
        title=f"Linear-quadratic regulator: median and quartiles of {options.seeds} seeds",
        yscale="log",
    ) as axes:
        episodes = np.linspace(0, ITERATIONS * EPISODES, POINTS + 1)
        for name, agent in agents().items():
            tuned = np.nan_to_num(learn(agent, LEARNING_RATES, range(100, 120)), nan=np.inf)
            index = int(np.argmin(tuned.mean(axis=(1, 2))))
            rate = LEARNING_RATES[index]
            costs = learn(agent, (rate,), range(options.seeds))[0] - cost
            low, middle, high = np.quantile(costs, (0.25, 0.5, 0.75), axis=1)
            (line,) = axes.plot(episodes, middle, label=f"{name} (rate {rate:.2g})")
            axes.fill_between(episodes, low, high, alpha=0.2, color=line.get_color())
            lost = int((costs[-1] > costs[0]).sum())
            print(
                f"{name:32} rate {rate:.2g}: median excess cost {middle[-1]:.4f}; "
                f"{lost} of {options.seeds} seeds ended worse than they began",
                flush=True,
            )


if __name__ == "__main__":
    main()
