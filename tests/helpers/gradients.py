"""Independent estimates of policy gradients, computed by the agents' own code."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agents.bases.critic import SeparateAgent
from jaxrl.agents.bases.learning import Networks
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.losses import standardize
from jaxrl.networks.policies import SoftmaxLinear
from jaxrl.types import Clock


class Identity(nn.Module):
    """A torso that returns the observation, so that values are linear in it."""

    @nn.compact
    def __call__(self, x):
        return x


def tabular_features(num_states: int, num_actions: int):
    """One-hot features phi(s, a); theta is the flattened table of logits `[S, A]`."""

    def features(obs):
        phi = jnp.einsum("...s,ab->...asb", obs, jnp.eye(num_actions))  # [..., A, S, A]
        return phi.reshape(*phi.shape[:-2], num_states * num_actions)

    return features


def tabular_params(logits, value):
    """Parameters of a tabular policy and of a critic with values `value[S]`."""
    critic = {"kernel": jnp.asarray(value, jnp.float32)[:, None], "bias": jnp.zeros(1)}
    actor = {"theta": jnp.asarray(logits, jnp.float32).reshape(-1)}
    return Networks({"params": {"actor": actor}}, {"params": {"critic_head": critic}})


def kept(agent, params):
    """`Networks` in the layout of the agent's state: one tree if actor and critic share a loss."""
    if isinstance(agent, SeparateAgent):
        return params
    own = jax.eval_shape(agent.init_params, jax.random.key(0))["params"]
    both = params.actor["params"] | params.critic["params"]
    return {"params": {name: x for name, x in both.items() if name in own}}


def tabular_agent(kind, mdp, **options):
    """An agent of this class with a tabular policy and value function, bound to the MDP."""
    features = tabular_features(*mdp.reward.shape)
    return kind(policy_network=SoftmaxLinear(features), torso=Identity(), **options).bind(mdp.spec)


class State:
    """The state of an agent that only acts: its parameters."""

    def __init__(self, params):
        self.params = params


def estimates(agent, env, params, gradient_of, num_batches: int, seed: int = 0):
    """`num_batches` independent estimates of the policy gradient, `[num_batches, K]`.

    Args:
      agent: an agent bound to the environment.
      env: one copy of the environment.
      params: `Networks`.
      gradient_of: (agent, parameters, prepared batch) -> gradient to ascend.
      num_batches: number of rollouts, each of the agent's size and from fresh starts.
      seed: seed of the rollouts.
    """
    params = kept(agent, params)
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
    """The gradient that REINFORCE ascends."""
    return agent.gradient(params.actor, batch, Clock.start())[0]


def surrogate_gradient(agent, params, batch):
    """The gradient that TRPO, NPG, A2C and the first step of PPO ascend, without normalisation."""
    if agent.normalize_advantages:
        sample = batch.steps
        batch = batch.replace(steps=sample.replace(advantage=standardize(sample.advantage)))
    return jax.grad(agent.surrogate)(params.actor, batch)
