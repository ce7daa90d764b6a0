"""Gradients through the environment and by the score function: docs/through_environment.png.

    python -m benchmarks.through_environment

Left, a linear-quadratic regulator: the standard deviation of both gradients over the horizon.
Right, a push against a wall: the reward rises by 1 where the action passes a threshold, the more
steeply the stiffer the contact is. A stiff contact makes the derivative noisy, and a hard one has
none, so that the gradient misses it. Gradients are those of the agents (SHAC without values,
REINFORCE). Suh, Simchowitz, Zhang and Tedrake, "Do differentiable simulators give better policy
gradients?", 2022.
"""

import argparse
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import jaxrl
from benchmarks.figures import label_ticks, panels
from jaxrl.agents import REINFORCE, SHAC
from jaxrl.agents.bases.learning import Networks
from jaxrl.distributions import DiagonalGaussian
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.environment import Timestep
from jaxrl.types import Box, Clock, EnvSpec
from jaxrl_envs.exact import lqr
from tests.helpers.gradients import estimates, reinforce_gradient

FIGURE = Path(__file__).parent.parent / "docs" / "through_environment.png"
EPISODES = 16
"""Per gradient."""
HORIZONS = (2, 4, 8, 16, 32, 64)
STIFFNESS = (1, 3, 10, 30, 100, 300, 1000)
STD = 0.3
GAIN = (1.5, 0.5)
"""Of the regulator's policy; the closed loop is stable."""


class LinearPolicy(nn.Module):
    """u ~ N(-K x, STD^2); without an observation that matters, u ~ N(-K, STD^2)."""

    start: tuple[float, ...]

    @nn.compact
    def __call__(self, obs, mask=None):
        gain = self.param("gain", lambda key: jnp.asarray(self.start, jnp.float32))
        mean = -jnp.expand_dims(obs @ gain, -1)
        return DiagonalGaussian(mean, jnp.full_like(mean, np.log(STD)))


class Wall(struct.PyTreeNode):
    """One step: the reward is the share of the wall that gives way, 1 if the push is over 0."""

    stiffness: Any

    spec = EnvSpec(
        jax.ShapeDtypeStruct((1,), jnp.float32),
        Box.of(-np.inf, np.inf, (1,)),
        max_steps=1,
        truncates="at_max_steps",
    )

    def reset(self, key):
        return (), jnp.ones(1)

    def step(self, key, state, action):
        push, hard = action[0], jnp.isinf(self.stiffness)
        soft = jax.nn.sigmoid(jnp.where(hard, 1.0, self.stiffness) * push)
        reward = jnp.where(hard, (push > 0).astype(jnp.float32), soft)
        return (), Timestep(jnp.ones(1), reward, jnp.bool_(True), jnp.bool_(False))


def through(agent: Any, env: Any, number: int) -> np.ndarray:
    """Gradients through the environment, `[number, K]`."""
    state, envs, clock = agent.init(jax.random.key(0)), VectorEnv(env, EPISODES), Clock.start()

    def one(key):
        start, key = jax.random.split(key)

        def objective(actor):
            own = state.replace(params=Networks(actor, state.params.critic))

            def policy(carry, obs, key):
                return agent.act(own, carry, obs, key, clock, explore=True)

            found = rollout(policy, envs, envs.reset(start), (), (), key, agent.num_steps)
            return agent.objective(own, found[2], clock)

        return jax.grad(objective)(state.params.actor)["params"]["actor"]["gain"]

    keys = jax.random.split(jax.random.key(1), number)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=64))(keys), np.float64)


def scores(agent: Any, env: Any, number: int) -> np.ndarray:
    """Gradients by the score function, `[number, K]`."""
    return estimates(agent, env, agent.init(jax.random.key(0)).params, reinforce_gradient, number)


def both(env: Any, start: tuple[float, ...], horizon: int, number: int) -> list[np.ndarray]:
    """Gradients through the environment, and by the score function with a baseline by time."""
    options: dict[str, Any] = {
        "policy_network": LinearPolicy(start), "num_envs": EPISODES, "num_steps": horizon,
        "discount": 1.0, "hidden_sizes": (4,),
    }  # fmt: skip
    path = SHAC(**options, bootstrap=False).bind(env.spec)
    score = REINFORCE(**options, whole_episodes=True, baseline="time").bind(env.spec)
    return [through(path, env, number), scores(score, env, number)]


def relative(samples: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Bias and standard deviation of a gradient, relative to the norm of the exact one."""
    size = np.linalg.norm(exact)
    bias = np.linalg.norm(samples.mean(0) - exact)
    return float(bias / size), float(np.sqrt(samples.var(0).sum()) / size)


def slope_of_the_wall(stiffness: float, mean: float) -> np.ndarray:
    """d E[reward] / d K at u ~ N(mean, STD^2), where mean = -K."""
    push = np.linspace(mean - 8 * STD, mean + 8 * STD, 200_001)
    density = np.exp(-0.5 * ((push - mean) / STD) ** 2) / (STD * np.sqrt(2 * np.pi))
    if np.isinf(stiffness):
        return np.array([-density[np.argmin(np.abs(push))]])
    tail = np.exp(-np.abs(stiffness * push))
    rise = stiffness * tail / (1 + tail) ** 2
    return np.array([-np.sum(rise * density) * (push[1] - push[0])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gradients", type=int, default=1024, help="(default: 1024)")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    print("jaxrl", jaxrl.__version__)
    names = ("through the environment", "score function, baseline by time")
    found: dict[str, dict[float, list[tuple[float, float]]]] = {"horizon": {}, "stiffness": {}}
    for horizon in HORIZONS:
        pair = both(lqr.make(max_steps=horizon), GAIN, horizon, options.gradients)
        exact = pair[0].mean(0)  # unbiased, as `tests/agents/test_shac.py` shows
        found["horizon"][horizon] = [relative(x, exact) for x in pair]
    for stiffness in (*STIFFNESS, np.inf):
        pair = both(Wall(jnp.float32(stiffness)), (0.2,), 1, options.gradients)
        exact = slope_of_the_wall(stiffness, -0.2)
        found["stiffness"][stiffness] = [relative(x, exact) for x in pair]
    for axis, rows in found.items():
        for value, pair in rows.items():
            for name, (bias, deviation) in zip(names, pair, strict=True):
                print(f"{axis} {value:6}: {name:34} bias {bias:6.3f} deviation {deviation:8.3f}")
    draw(options.figure, names, found)


def draw(path: Path, names: tuple[str, ...], found: dict) -> None:
    left = {"title": "Linear-quadratic regulator", "xlabel": "horizon"}
    right = {"title": "Push against a wall", "xlabel": "stiffness of the contact"}
    with panels(
        path,
        (10.5, 4.4),
        {"fontsize": 8},
        [left, right],
        yscale="log",
        ylabel=f"deviation from {EPISODES} episodes / norm of the gradient",
    ) as both:
        for axes, rows, ticks in zip(both, found.values(), (HORIZONS, STIFFNESS), strict=True):
            for i, name in enumerate(names):
                axes.plot(ticks, [rows[x][i][1] for x in ticks], "o-", label=name)
            label_ticks(axes, ticks)
        lost = found["stiffness"][np.inf][0][0]
        both[1].axhline(lost, ls=":", color="C0", label="bias through a hard contact")


if __name__ == "__main__":
    main()
