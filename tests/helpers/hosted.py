"""Host environments for tests."""

import jax
import numpy as np

from jaxrl.agents import PPO
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.environment import HostEnvironment, HostStep
from jaxrl.types import Discrete, EnvSpec, Stream, stream
from jaxrl.xla.threefry import fast


class SteppedFromHost(HostEnvironment):
    """A JAX environment that is stepped from Python, with the keys of the compiled engine.

    `vector` must be called for training first, for evaluations after that.
    """

    def __init__(self, env, key, num_steps):
        self.name, self.spec, self.env = "stepped", env.spec, env
        self.key, self.num_steps = key, num_steps

    def vector(self, num_envs):
        return _Stepped(self, num_envs)


class _Stepped:
    def __init__(self, host, num_envs):
        self.host, self.envs = host, VectorEnv(host.env, num_envs)
        self._reset = jax.jit(self.envs.reset)
        self._step = jax.jit(self.envs.step)

        def draws(iteration):
            key = jax.random.fold_in(stream(fast(host.key), Stream.ITERATION), iteration)
            key = stream(key, Stream.ROLLOUT)
            starts, start_of = self.envs.restarts(stream(key, Stream.AUTO_RESET), host.num_steps)
            return self.envs.step_keys(stream(key, Stream.STEP), host.num_steps), starts, start_of

        def of_step(iteration, step):
            keys, starts, start_of = draws(iteration)
            return keys[step], start_of(jax.tree.map(lambda x: x[step], starts))

        self._draws = jax.jit(of_step)

    def reset(self, seeds=None):
        self.state, self.steps = self._reset(fast(self.host.key)), 0
        return jax.tree.map(np.array, self.state.obs)

    def step(self, action):
        keys, start = self._draws(*divmod(self.steps, self.host.num_steps))
        self.state, timestep, _ = self._step(keys, self.state, action, start)
        self.steps += 1
        found = (
            self.state.obs,
            timestep.obs,
            timestep.reward,
            timestep.terminated,
            timestep.truncated,
        )
        return HostStep(*jax.tree.map(np.array, found))

    def close(self):
        pass


class Counting(HostEnvironment):
    """Episodes of `length` steps; the observation counts them, and the reward is 1.

    Every second episode is truncated, the others terminate. `fail(vector, step)` may do anything.
    """

    name = "counting"

    def __init__(self, length=3, fail=lambda vector, step: None):
        self.length, self.fail = length, fail
        shape = jax.ShapeDtypeStruct((2,), np.float32)
        self.spec = EnvSpec(shape, Discrete(2), max_steps=length)
        self.vectors = []

    def vector(self, num_envs):
        self.vectors.append(_Counting(self, num_envs))
        return self.vectors[-1]


class _Counting:
    def __init__(self, host, num_envs):
        self.host, self.n, self.closed, self.steps = host, num_envs, False, 0

    def observed(self):
        return np.stack([self.count, self.episode], -1).astype(np.float32)

    def reset(self, seeds=None):
        self.count, self.episode = np.zeros(self.n, int), np.zeros(self.n, int)
        if seeds is not None:
            self.seeds = seeds
        return self.observed()

    def step(self, action):
        self.steps += 1
        self.count += 1
        next_obs, ended = self.observed(), self.count == self.host.length
        truncated = ended & (self.episode % 2 == 1)
        self.count[ended] = 0
        self.episode[ended] += 1
        step = HostStep(
            self.observed(), next_obs, np.ones(self.n, np.float32), ended & ~truncated, truncated
        )
        return self.host.fail(self, step) or step

    def close(self):
        self.closed = True


class Remembers(PPO):
    """Reports in `SEEN` what the learner gets."""

    def prepare(self, state, trajectory, clock):
        jax.debug.callback(SEEN.append, trajectory, ordered=True)
        return super().prepare(state, trajectory, clock)


SEEN = []
