"""Your own agent in one class: a policy gradient with a learned baseline.

    python examples/custom_agent.py
    jaxrl train custom_agent:PolicyGradient gymnax/CartPole-v1 --learning-rate 3e-3   # in examples/

The loops, checkpoints, sweeps and export are jaxrl's; the class says how to act and what to learn.
"""

import argparse

import jax
import jax.numpy as jnp
from flax import struct

import jaxrl
import jaxrl_envs
from jaxrl import losses, networks, optimizers
from jaxrl.estimators import discounted_returns
from jaxrl.hyper import hyper
from jaxrl.types import PyTree, Scalar


class State(struct.PyTreeNode):
    """What training changes: arrays only."""

    params: PyTree
    optimizer: PyTree


class PolicyGradient(jaxrl.Agent):
    """REINFORCE with a value as baseline, on batches of fixed length."""

    num_envs: int = hyper(16, static=True, doc="Copies of the environment.")
    num_steps: int = hyper(64, static=True, doc="Steps of each copy in a batch.")
    discount: Scalar = hyper(0.99, low=0.0, high=1.0, doc="Discount factor, gamma.")
    learning_rate: Scalar = hyper(3e-3, low=0.0, doc="Adam's step size.")

    eval_modes = ("greedy", "sample")

    @property
    def plan(self):
        return jaxrl.OnPolicy(self.num_envs, self.num_steps, layout="env")  # sequences stay whole

    @property
    def network(self):
        spec = self.bound_spec
        return networks.ActorCritic(
            lambda: networks.default_torso(spec, (64, 64), "tanh"), spec.action
        )

    def optimizer(self, clock):
        return optimizers.adam(self.learning_rate, clock, max_grad_norm=0.5)

    def init(self, key):
        params = self.network.init(key, self.bound_spec.dummy_observation(1))
        return State(params, self.optimizer(jaxrl.Clock.start()).init(params))

    def act(self, state, carry, obs, key, clock, *, explore):
        policy, _ = self.network.apply(state.params, obs, method="policy")
        return carry, policy.sample(key) if explore else policy.mode(), {}

    def update(self, state, batch, key, clock):
        steps = batch.steps  # leaves [T, N, ...]
        _, next_values, _ = self.network.apply(state.params, steps.next_obs)
        returns = discounted_returns(
            steps.reward, next_values, steps.terminated, steps.truncated, self.discount
        )

        def loss(params):
            policy, values, _ = self.network.apply(params, steps.obs)
            advantages = losses.standardize(jax.lax.stop_gradient(returns - values))
            policy_loss = -losses.mean(policy.log_prob(steps.action) * advantages)
            entropy = losses.mean(policy.entropy())
            value_loss = losses.value_loss(values, returns)
            return policy_loss + 0.5 * value_loss - 0.01 * entropy, {"entropy": entropy}

        params, optimizer, value, metrics = optimizers.descend(
            self.optimizer(clock), loss, state.params, state.optimizer
        )
        return jaxrl.Update(State(params, optimizer), metrics | {"loss": value})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--total-steps", type=int, default=300_000, help="(default: 300000)")
    parser.add_argument("--seeds", type=int, default=4, help="(default: 4)")
    options = parser.parse_args()

    agent, env = PolicyGradient(), jaxrl_envs.make("gymnax/CartPole-v1")
    train = jax.jit(
        jax.vmap(lambda key: jaxrl.train(agent, env, key, total_steps=options.total_steps)[1])
    )
    metrics = train(jax.random.split(jax.random.key(0), options.seeds))
    steps = metrics.iterations[0] * agent.plan.steps_per_iteration
    for i, step in enumerate(steps):
        of_seeds = jnp.mean(metrics.evaluation.returns[:, i], axis=-1)
        print(f"step {step:>9,}  return {' '.join(f'{x:6.1f}' for x in of_seeds)}")


if __name__ == "__main__":
    main()
