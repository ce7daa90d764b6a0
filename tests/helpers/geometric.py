"""A random MDP with a tabular policy, its exact values, and samples at geometric times from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agents.bases.learning import Networks
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.types import Clock
from jaxrl_envs.exact import garnet, gradients, values

from .gradients import State, tabular_agent, tabular_params

DISCOUNT = 0.6
LONG = 40
"""Steps after which next to nothing of the discounted return is missing: 0.6^40 is below 1e-8."""


def endless(max_steps=None):
    """A random MDP in which the discounted and the undiscounted return disagree."""
    return garnet.make(6, 3, branching=2, termination=0.1, seed=16, max_steps=max_steps)


def limited():
    return endless(max_steps=3)


def paid():
    """With rewards far from 0."""
    return endless().replace(reward=endless().reward + 2.0)


MDP = endless()
LOGITS = np.random.default_rng(0).standard_normal((6, 3))
POLICY = values.softmax(LOGITS)
VALUE = values.policy_value(MDP, POLICY, DISCOUNT)
Q = values.action_value(MDP, POLICY, DISCOUNT)
EXACT = gradients.policy_gradient(MDP, POLICY, DISCOUNT).reshape(-1)
BATCHES, PER_BATCH = 4096, 4
KEY = jax.random.key(0)


STATES = values.discounted_states(MDP, POLICY, DISCOUNT)


def expected(f):
    """The gradient with f instead of Q, sum_s d(s) pi(a | s) (f - E f) / (1 - discount)."""
    centred = f - (POLICY * f).sum(-1, keepdims=True)
    return (STATES[:, None] * POLICY * centred).reshape(-1) / (1.0 - DISCOUNT)


def params_of(f):
    """The tabular policy, and a critic with the values f `[S, A]`."""
    out = {"kernel": jnp.asarray(f, jnp.float32), "bias": jnp.zeros(3)}
    return Networks(tabular_params(LOGITS, np.zeros(6)).actor, {"params": {"out_0": out}})


@functools.cache
def experience(mdp_of, kind, **options):
    """An agent and its rollout of `BATCHES * PER_BATCH` copies from fresh starts, `[T, N]`."""
    mdp, num_envs = mdp_of(), BATCHES * PER_BATCH
    options = {"num_envs": num_envs, "num_steps": LONG, "discount": DISCOUNT} | options
    agent = tabular_agent(kind, mdp, **options)
    envs, state = VectorEnv(mdp, num_envs), State(tabular_params(LOGITS, np.zeros(6)))

    def policy(carry, obs, key):
        return agent.act(state, carry, obs, key, Clock.start(), explore=True)

    @jax.jit
    def run(start, key):
        carry = agent.initial_carry(num_envs)
        return rollout(policy, envs, envs.reset(start), carry, carry, key, agent.num_steps)[2]

    return agent, run(*jax.random.split(KEY))


def visits(agent, trajectory):
    """The samples as NumPy arrays `[N]` (of the first pair of stops), and their states."""
    visit = agent.prepare(None, trajectory, Clock.start()).steps
    first = jax.tree.map(lambda x: np.asarray(x[0]), visit)
    return first, first.obs.argmax(-1)


def batch_gradients(agent, params, trajectory):
    """Gradients that the agent ascends, `[BATCHES, 18]`, from `PER_BATCH` episodes each."""
    batch = agent.evaluate(params, agent.prepare(None, trajectory, Clock.start()), KEY)

    def parts(x):  # [K, N] to [BATCHES, K, PER_BATCH]
        return jnp.moveaxis(x.reshape(x.shape[0], BATCHES, PER_BATCH, *x.shape[2:]), 1, 0)

    def one(batch):
        return agent.gradient(params.actor, batch, Clock.start())[0]

    (found,) = jax.tree.leaves(jax.jit(jax.vmap(one))(jax.tree.map(parts, batch)))
    return np.asarray(found)
