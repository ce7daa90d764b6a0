"""The variance of policy-gradient estimators, by the horizon: writes docs/gradient_variance.png.

    python -m benchmarks.gradient_variance

Every estimator is the gradient that the agents themselves compute, from batches of rollouts on a
random tabular MDP (Garnet), at the same policy. What each should be on average is known exactly
(`jaxrl_envs.exact`); `tests/agents/test_policy_gradients.py` compares the two.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.figures import figure, label_ticks
from jaxrl.agents import REINFORCE, TRPO
from jaxrl.agents.bases.critic import join, split
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.losses import standardize
from jaxrl.networks.policies import SoftmaxLinear
from jaxrl.types import Clock
from jaxrl_envs.exact import garnet, values

FIGURE = Path(__file__).parent.parent / "docs" / "gradient_variance.png"
DISCOUNT = 0.99
HORIZONS = (4, 8, 16, 32, 64)


class Identity(nn.Module):
    """Features are the observation: the value is linear in it, exact on one-hot states."""

    @nn.compact
    def __call__(self, x):
        return x


def tabular_features(num_states: int, num_actions: int):
    """phi(s, a), one-hot over both: theta is the table of logits `[S, A]`, flat."""

    def features(obs):
        phi = jnp.einsum("...s,ab->...asb", obs, jnp.eye(num_actions))  # [..., A, S, A]
        return phi.reshape(*phi.shape[:-2], num_states * num_actions)

    return features


def tabular_params(logits, value):
    """The parameters of a tabular policy and of a value that is `value[S]`."""
    critic = {"kernel": jnp.asarray(value, jnp.float32)[:, None], "bias": jnp.zeros(1)}
    actor = {"theta": jnp.asarray(logits, jnp.float32).reshape(-1)}
    return join({"params": {"actor": actor}}, {"params": {"critic_head": critic}})


def tabular_agent(kind, mdp, **options):
    """An agent of this kind with such a policy and value, bound to the MDP."""
    features = tabular_features(*mdp.reward.shape)
    return kind(policy_network=SoftmaxLinear(features), torso=Identity(), **options).bind(mdp.spec)


class State:
    """Of an agent that only acts: parameters."""

    def __init__(self, params):
        self.params = params


def estimates(agent, env, params, gradient_of, num_batches: int, seed: int = 0):
    """`num_batches` independent estimates of the policy's gradient, `[num_batches, K]`.

    Args:
      agent: bound to the environment.
      env: one copy of it.
      params: of policy and critic.
      gradient_of: (agent, actor's parameters, prepared batch) -> gradient, to be ascended.
      num_batches: each is a rollout of the agent's own size, from fresh starts.
      seed: of the rollouts.
    """
    envs, clock, state = VectorEnv(env, agent.plan.num_envs), Clock.start(), State(params)

    def policy(carry, obs, key):
        return agent.act(state, carry, obs, key, clock, explore=True)

    def one(key):
        start, key = jax.random.split(key)
        carry = agent.initial_carry(agent.plan.num_envs)
        _, _, trajectory, _ = rollout(
            policy, envs, envs.reset(start), carry, carry, key, agent.plan.num_steps
        )
        return gradient_of(agent, params, agent.prepare(state, trajectory, clock))

    at_once = min(num_batches, 256)
    rounds = -(-num_batches // at_once)
    keys = jax.random.split(jax.random.key(seed), (rounds, at_once))
    found = jax.jit(lambda keys: jax.lax.map(jax.vmap(one), keys))(keys)
    flat = [
        np.asarray(x, np.float64).reshape(rounds * at_once, -1)[:num_batches]
        for x in jax.tree.leaves(found)
    ]
    return np.concatenate(flat, axis=1)


def reinforce_gradient(agent, params, batch):
    """What REINFORCE ascends."""
    return agent.gradient(split(params)[0], batch, Clock.start())[0]


def surrogate_gradient(agent, params, batch):
    """What TRPO, NPG, A2C and the first step of PPO ascend; advantages as they are."""
    if agent.normalize_advantages:
        sample = batch.steps
        batch = batch.replace(steps=sample.replace(advantage=standardize(sample.advantage)))
    return jax.grad(agent.surrogate)(split(params)[0], batch)


def estimators(horizon: int, num_envs: int = 4):
    """Name -> (agent class, options, gradient): from the noisiest to the calmest."""
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
    """The total variance of each estimator of the gradient per episode, at a random policy."""
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
