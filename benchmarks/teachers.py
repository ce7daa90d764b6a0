"""Teachers of three qualities on CartPole and Pendulum, and data that they record.

A random policy, PPO before it is done, and PPO after it; they sample actions, or take the most
likely ones.
"""

import functools

import jax
import jax.numpy as jnp

import jaxrl
import jaxrl_envs
from jaxrl.agents import PPO
from jaxrl.engine.acting import policy_of
from jaxrl.runs.dataset import record_episodes
from jaxrl.schedules import Linear
from jaxrl.types import Clock, sample_action

ENVIRONMENTS = {"CartPole": "gymnax/CartPole-v1", "Pendulum": "gymnax/Pendulum-v1"}
AGENTS = {
    "CartPole": PPO(num_envs=4, num_steps=128, learning_rate=Linear(2.5e-3, 0.0)),
    "Pendulum": PPO(
        num_envs=8, num_steps=256, num_epochs=10, num_minibatches=32, discount=0.95,
        learning_rate=Linear(1e-3, 0.0), entropy_coefficient=0.0,
    ),
}  # fmt: skip
STEPS = {
    "CartPole": {"medium": 5_000, "expert": 200_000},
    "Pendulum": {"medium": 40_000, "expert": 300_000},
}
LEVELS = "random", "medium", "expert"


def environment(task):
    return jaxrl_envs.make(ENVIRONMENTS[task])


@functools.cache
def teacher(task, level, explore=True):
    """A policy for `record_episodes` and `evaluate`; training starts from seed 1."""
    env = environment(task)
    if level == "random":

        def policy(carry, obs, key):
            draw = jax.vmap(lambda k: sample_action(env.spec.action, k))
            return carry, draw(jax.random.split(key, obs.shape[0])), ()

        return policy
    agent, steps = AGENTS[task], STEPS[task]["expert"]
    # One schedule for all: the medium teacher is the expert at an earlier time.
    training = jaxrl.Training.create(
        agent, env, total_steps=steps, normalize_rewards=task == "Pendulum"
    )
    stop = STEPS[task][level] // agent.plan.steps_per_iteration
    key = jax.random.key(1)
    state, *_ = jax.jit(
        lambda: training.chunk(training.init(key), key, jnp.int32(0), jnp.int32(stop))
    )()
    return policy_of(training.agent, state.agent, state.stats, Clock.start(), explore=explore)


def recorded(task, level, seed, episodes, explore=True, max_steps=None):
    """Transitions of episodes of a teacher, whole or of at most `max_steps` steps."""
    found = record_episodes(
        teacher(task, level, explore), environment(task), jax.random.key(seed),
        num_episodes=episodes, max_steps=max_steps,
    )  # fmt: skip
    return jax.tree.map(jnp.asarray, found)


def mean_return(data):
    """The mean return of recorded episodes."""
    return float(jnp.sum(data.reward) / (jnp.max(data.info["episode"]) + 1))
