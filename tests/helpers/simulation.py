"""Simulates environments and compares statistics with exact values."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.engine.vector_env import VectorEnv


class Play(NamedTuple):
    """A rollout of N copies with auto-reset, as NumPy arrays `[T, N, ...]`."""

    obs: Any
    action: Any
    reward: Any
    terminated: Any
    truncated: Any
    next_obs: Any

    @property
    def alive(self):
        """Whether the step belongs to the copy's first episode, `float64[T, N]`."""
        ended = self.terminated | self.truncated
        before = np.concatenate([np.zeros_like(ended[:1]), ended[:-1]])
        return 1.0 - np.maximum.accumulate(before, axis=0)


def play(env, act, *, num_envs, num_steps, seed=0):
    """Rolls out `act(key, obs) -> action`, unbatched."""
    vector = VectorEnv(env, num_envs)
    reset_key, start_key, key = jax.random.split(jax.random.key(seed), 3)

    @jax.jit
    def run():
        draws, starts = vector.restarts(start_key, num_steps)

        def one(state, inputs):
            key, draw = inputs
            act_key, step_key = jax.random.split(key)
            action = jax.vmap(act)(jax.random.split(act_key, num_envs), state.obs)
            keys = jax.random.split(step_key, num_envs)
            following, step, _ = vector.step(keys, state, action, starts(draw))
            seen = (state.obs, action, step.reward, step.terminated, step.truncated, step.obs)
            return following, Play(*seen)

        inputs = (jax.random.split(key, num_steps), draws)
        return jax.lax.scan(one, vector.reset(reset_key), inputs)[1]

    return jax.tree.map(np.asarray, run())


def tabular(policy):
    """An `act` function for a tabular policy `[S, A]` on one-hot observations."""
    log_policy = jnp.log(jnp.asarray(policy, jnp.float32))

    def act(key, obs):
        return jax.random.categorical(key, log_policy[jnp.argmax(obs)])

    return act


def agrees(samples, truth):
    """Whether the mean over the first axis of `samples` is within 4 standard errors of `truth`."""
    samples = np.asarray(samples, np.float64)
    error = samples.std(0, ddof=1) / np.sqrt(len(samples))
    return bool((np.abs(samples.mean(0) - truth) <= 4.0 * error + 1e-6).all())


def slope(function, x, step=1e-5):
    """The gradient of a scalar function by central differences, with the shape of `x`."""
    x = np.asarray(x, np.float64)
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        result[index] = (function(ahead) - function(behind)) / (2 * step)
    return result
