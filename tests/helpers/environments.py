"""Small environments with known solutions; each isolates one possible failure."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.environment import Timestep
from jaxrl.types import Box, Discrete, EnvSpec, Masked, Mixed, MultiDiscrete, static

FLOAT = jax.ShapeDtypeStruct((1,), jnp.float32)


def timestep(obs: Any, reward: Any, terminated: Any, truncated: Any = False) -> Timestep:
    return Timestep(
        obs=obs,
        reward=jnp.asarray(reward, jnp.float32),
        terminated=jnp.asarray(terminated, bool),
        truncated=jnp.asarray(truncated, bool),
    )


class OneStep(struct.PyTreeNode):
    """Episodes of one step; subclasses define observation and reward."""

    spec = EnvSpec(FLOAT, Discrete(2), max_steps=1)

    def draw(self, key):
        return jnp.zeros(1)

    def reward(self, obs, action):
        return 1.0

    def reset(self, key):
        obs = self.draw(key)
        return obs, obs

    def step(self, key, state, action):
        return state, timestep(state, self.reward(state, action), True)


class ConstantReward(OneStep):
    """Probe 1: the value of the only state is 1."""


class Coin(OneStep):
    """The reward is 1 or -1 at random."""

    def draw(self, key):
        return jnp.ones(1)

    def step(self, key, state, action):
        return state, timestep(state, jax.random.rademacher(key), True)


class RewardIsObservation(OneStep):
    """Probe 2: the value is the observation, -1 or 1."""

    def draw(self, key):
        return jax.random.rademacher(key, (1,), jnp.float32)

    def reward(self, obs, action):
        return obs[0]


class DelayedReward(struct.PyTreeNode):
    """Probe 3: two steps with a reward of 1 for the second: V(1) = 1, V(0) = discount."""

    spec = EnvSpec(FLOAT, Discrete(2), max_steps=2)

    def reset(self, key):
        return jnp.zeros(1), jnp.zeros(1)

    def step(self, key, state, action):
        return state + 1, timestep(state + 1, state[0], state[0] > 0.5)


class BestAction(OneStep):
    """Probe 4: action 1 pays 1, action 0 pays -1."""

    def reward(self, obs, action):
        return 2.0 * action - 1.0


class BestActionByObservation(RewardIsObservation):
    """Probe 5: the action that matches the sign of the observation pays 1, the other -1."""

    def reward(self, obs, action):
        return obs[0] * (2.0 * action - 1.0)


class BestContinuousAction(RewardIsObservation):
    """Probe 5 with a box: the reward is minus the squared distance to half the observation."""

    spec = EnvSpec(FLOAT, Box.of(-1.0, 1.0, (1,)), max_steps=1)

    def reward(self, obs, action):
        return -jnp.square(action[0] - 0.5 * obs[0])


class BestMixedAction(RewardIsObservation):
    """Probe 5 with a product of spaces: each part is rewarded separately."""

    spec = EnvSpec(
        FLOAT,
        Mixed((Discrete(2), Box.of(-1.0, 1.0, (1,)), MultiDiscrete((2, 3)))),
        max_steps=1,
    )

    def reward(self, obs, action):
        choice, position, pair = action
        return (
            obs[0] * (2.0 * choice - 1.0)
            - jnp.square(position[0] - 0.5 * obs[0])
            + (pair[0] == (obs[0] > 0))
            + (pair[1] == 2)
        )


class Endless(struct.PyTreeNode):
    """One state with a reward of 1 per step and a time limit: the value is 1 / (1 - discount).

    An agent that treats the time limit as termination learns at most `limit`.
    """

    limit: int = static(default=5)

    @property
    def spec(self):
        return EnvSpec(FLOAT, Discrete(2), max_steps=self.limit)

    def reset(self, key):
        return jnp.int32(0), jnp.ones(1)

    def step(self, key, state, action):
        return state + 1, timestep(jnp.ones(1), 1.0, False, state + 1 >= self.limit)


class Counter(struct.PyTreeNode):
    """Observes (start, steps since); starts are drawn from [0, 1), so that episodes differ.

    It terminates after `lifetime` steps or is truncated after `limit`, whichever comes first. The
    reward is start plus steps after the step, plus `bonus`.
    """

    bonus: Any = 0.0
    lifetime: int = static(default=1000)
    limit: int = static(default=1000)

    @property
    def spec(self):
        return EnvSpec(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(3), max_steps=self.limit)

    def reset(self, key):
        state = jnp.stack([jax.random.uniform(key), jnp.float32(0.0)])
        return state, state

    def step(self, key, state, action):
        state = state + jnp.array([0.0, 1.0])
        terminated = state[1] >= self.lifetime
        truncated = (state[1] >= self.limit) & ~terminated
        return state, timestep(state, state[1] + self.bonus, terminated, truncated)


class Recall(struct.PyTreeNode):
    """A cue of -1 or 1 is shown once; after `delay` blank steps, the action must match it.

    The mean return is 0 without memory, and 1 with it.
    """

    delay: int = static(default=3)

    @property
    def spec(self):
        return EnvSpec(
            jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2), max_steps=self.delay + 1
        )

    def reset(self, key):
        cue = jax.random.rademacher(key, dtype=jnp.float32)
        return (cue, jnp.int32(0)), jnp.stack([cue, jnp.float32(0.0)])

    def step(self, key, state, action):
        cue, time = state
        last = time >= self.delay
        reward = jnp.where(last, cue * (2.0 * action - 1.0), 0.0)
        obs = jnp.stack([jnp.float32(0.0), (time + 1 >= self.delay).astype(jnp.float32)])
        return (cue, time + 1), timestep(obs, reward, last)


class MaskedChoice(struct.PyTreeNode):
    """Two random actions out of four are available; the one with the larger index pays 1.

    An unavailable action ends the episode with -100, so that a single one shows in the return.
    """

    length: int = static(default=4)

    @property
    def spec(self):
        obs = Masked(jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.bool_))
        return EnvSpec(obs, Discrete(4), max_steps=self.length)

    def _observe(self, key):
        mask = jnp.argsort(jax.random.uniform(key, (4,))) < 2
        return Masked(mask.astype(jnp.float32), mask)

    def reset(self, key):
        obs = self._observe(key)
        return (obs.action_mask, jnp.int32(0)), obs

    def step(self, key, state, action):
        mask, time = state
        best = jnp.max(jnp.where(mask, jnp.arange(4), -1))
        reward = jnp.where(mask[action], (action == best).astype(jnp.float32), -100.0)
        obs = self._observe(key)
        done = time + 1 >= self.length
        return (obs.action_mask, time + 1), timestep(obs, reward, done | ~mask[action])


class Picture(struct.PyTreeNode):
    """A dictionary observation: an image of bytes with one bright half, and a noisy number.

    The action must name the bright half (0 left, 1 right).
    """

    spec = EnvSpec(
        {
            "image": jax.ShapeDtypeStruct((6, 6, 1), jnp.uint8),
            "noise": jax.ShapeDtypeStruct((), jnp.float32),
        },
        Discrete(2),
        max_steps=1,
    )

    def reset(self, key):
        side = jax.random.bernoulli(key).astype(jnp.int32)
        columns = (jnp.arange(6) >= 3).astype(jnp.int32)
        image = jnp.broadcast_to((columns == side)[None, :, None], (6, 6, 1))
        obs = {"image": (image * 255).astype(jnp.uint8), "noise": jax.random.normal(key)}
        return (side, obs), obs

    def step(self, key, state, action):
        side, obs = state
        return state, timestep(obs, jnp.where(action == side, 1.0, -1.0), True)


class Chain(struct.PyTreeNode):
    """A tabular chain of states 0 to 4 with actions left and right and one-hot observations.

    Reaching 4 pays 1 and terminates; moving left in 0 stays. Episodes start anywhere but in 4 and
    have at most 20 steps. With discount d, the optimal value of state s is d ** (3 - s).
    """

    size: int = static(default=5)

    @property
    def spec(self):
        return EnvSpec(jax.ShapeDtypeStruct((self.size,), jnp.float32), Discrete(2), max_steps=20)

    def _observe(self, position):
        return jax.nn.one_hot(position, self.size)

    def reset(self, key):
        position = jax.random.randint(key, (), 0, self.size - 1)
        return (position, jnp.int32(0)), self._observe(position)

    def step(self, key, state, action):
        position, time = state
        position = jnp.clip(position + 2 * action - 1, 0, self.size - 1)
        goal = position == self.size - 1
        return (position, time + 1), timestep(
            self._observe(position), goal, goal, (time + 1 >= 20) & ~goal
        )
