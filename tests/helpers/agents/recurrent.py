"""A recurrent policy gradient: REINFORCE with a GRU on whole sequences."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Agent, OnPolicy, Update
from jaxrl.distributions import Categorical
from jaxrl.estimators import discounted_returns
from jaxrl.losses import policy_gradient_loss, standardize
from jaxrl.networks.recurrent import Core
from jaxrl.types import Scalar, static


class Network(nn.Module):
    num_actions: int
    size: int

    @nn.compact
    def __call__(self, carry, obs, first):
        carry, x, _ = Core("gru", self.size)(carry, obs, first)
        return carry, Categorical(nn.Dense(self.num_actions)(x))


class State(struct.PyTreeNode):
    params: dict
    optimizer: optax.OptState


class RecurrentPolicyGradient(Agent):
    learning_rate: Scalar = 1e-2
    discount: Scalar = 1.0
    size: int = static(default=16)
    num_envs: int = static(default=32)
    num_steps: int = static(default=16)
    num_minibatches: int = static(default=1)

    @property
    def plan(self):
        return OnPolicy(
            self.num_envs, self.num_steps, num_minibatches=self.num_minibatches, layout="env"
        )

    @property
    def network(self):
        return Network(self.spec.action.num, self.size)

    def init(self, key):
        obs, first = self.spec.dummy_observation(1, 1), jnp.ones((1, 1), bool)
        params = self.network.init(key, self.initial_carry(1), obs, first)
        return State(params, optax.adam(self.learning_rate).init(params))

    def initial_carry(self, num_envs):
        return jnp.zeros((num_envs, self.size))

    def act(self, state, carry, obs, key, clock, *, explore):
        first = jnp.zeros((1, obs.shape[0]), bool)  # the engine has reset the carry
        carry, policy = self.network.apply(state.params, carry, obs[None], first)
        policy = jax.tree.map(lambda x: x[0], policy)
        return carry, policy.sample(key) if explore else policy.mode(), ()

    def prepare(self, state, trajectory, clock):
        steps = trajectory.steps
        zeros = jnp.zeros_like(steps.reward)
        returns = discounted_returns(
            steps.reward, zeros, steps.terminated, steps.truncated, self.discount
        )
        return trajectory.replace(steps=(steps.obs, steps.action, returns))

    def update(self, state, batch, key, clock):
        obs, action, returns = batch.steps

        def loss(params):
            _, policy = self.network.apply(params, batch.carry, obs, batch.first)
            return policy_gradient_loss(policy.log_prob(action), standardize(returns))

        value, gradient = jax.value_and_grad(loss)(state.params)
        updates, optimizer = optax.adam(self.learning_rate).update(gradient, state.optimizer)
        new = State(optax.apply_updates(state.params, updates), optimizer)
        return Update(new, {"loss": value})
