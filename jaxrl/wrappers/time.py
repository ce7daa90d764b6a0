"""Time limits and repeated actions."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.trees import tree_where
from jaxrl.types import (
    EnvSpec,
    Key,
    PyTree,
    static,
)
from jaxrl.validation import check_whole, whole_number
from jaxrl.wrappers.base import Wrapper


class TimeLimit(Wrapper):
    """Ends an episode after `max_steps` steps: by truncation, or by termination with `terminates`.

    `spec.truncates` is unchanged: it says whether anything but the time limit truncates.

    Attributes:
      max_steps: the limit, in steps of this wrapper.
      terminates: the limit belongs to the task: it terminates the episode, and nothing is
        bootstrapped. The agent should then see the time, see `TimeAwareObservation`.
    """

    max_steps: int = static(default=1000)
    terminates: bool = static(default=False)

    @property
    def spec(self) -> EnvSpec:
        whole_number("max_steps", self.max_steps, most=2**31 - 1)  # steps are counted in int32
        inner = self.env.spec
        if self.terminates and (inner.max_steps or self.max_steps) < self.max_steps:
            raise InvalidValue(
                f"max_steps is {self.max_steps} and terminates is True, but the environment itself "
                f"truncates after {inner.max_steps} steps: give a limit of at most that"
            )
        return dataclasses.replace(
            inner, max_steps=min(self.max_steps, inner.max_steps or self.max_steps)
        )

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        state, obs = self.env.reset(key)
        return (state, jnp.int32(0)), obs

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        inner, time = state
        inner, timestep = self.env.step(key, inner, action)
        time = time + 1
        late = time >= self.max_steps
        if self.terminates:
            return (inner, time), timestep.replace(
                terminated=timestep.terminated | late, truncated=timestep.truncated & ~late
            )
        truncated = timestep.truncated | (late & ~timestep.terminated)
        return (inner, time), timestep.replace(truncated=truncated)


class ActionRepeat(Wrapper):
    """Repeats each action `num_repeats` times, or until the episode ends, and sums the rewards.

    Attributes:
      num_repeats: steps of the wrapped environment per step of this wrapper.
    """

    num_repeats: int = static(default=4)

    @property
    def spec(self) -> EnvSpec:
        check_whole("num_repeats", self.num_repeats, 1)
        inner = self.env.spec
        limit = None if inner.max_steps is None else math.ceil(inner.max_steps / self.num_repeats)
        return dataclasses.replace(inner, max_steps=limit)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        def again(last, key):
            state, timestep = last
            next_state, following = self.env.step(key, state, action)
            over = timestep.terminated | timestep.truncated
            following = following.replace(reward=timestep.reward + following.reward)
            return tree_where(over, last, (next_state, following)), None

        first_key, *others = jax.random.split(key, self.num_repeats)
        first = self.env.step(first_key, state, action)
        return jax.lax.scan(again, first, jnp.stack(others))[0] if others else first
