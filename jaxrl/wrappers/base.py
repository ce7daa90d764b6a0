"""Base classes of environment wrappers."""

import dataclasses
from typing import Any, Self

import jax
from flax import struct

from jaxrl.environment import Timestep
from jaxrl.types import (
    EnvSpec,
    Key,
    Masked,
    PyTree,
    split_mask,
)


class Wrapper(struct.PyTreeNode):
    """Forwards everything to `env`; subclasses override what they change.

    Attributes:
      env: the wrapped environment.
    """

    env: Any

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        return self.env.reset(key)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        return self.env.step(key, state, action)

    def with_params(self, /, **params: Any) -> Self:
        """The same wrapper around `env.with_params(**params)`."""
        return self.replace(env=self.env.with_params(**params))


def with_observation(spec: EnvSpec, proper: PyTree) -> EnvSpec:
    """Replaces the spec's observation and keeps its action mask."""
    masked = isinstance(spec.observation, Masked)
    observation = Masked(proper, spec.observation.action_mask) if masked else proper
    return dataclasses.replace(spec, observation=observation)


def on_observation(f: Any, obs: PyTree) -> PyTree:
    """Applies `f` to the observation and keeps its action mask."""
    return Masked(f(obs.obs), obs.action_mask) if isinstance(obs, Masked) else f(obs)


class ObservationWrapper(Wrapper):
    """Applies `observe` to each observation."""

    def observe(self, obs: PyTree) -> PyTree:
        """Maps an observation, without its action mask, to the new one."""
        raise NotImplementedError

    @property
    def spec(self) -> EnvSpec:
        inner = self.env.spec
        return with_observation(
            inner, jax.eval_shape(self.observe, split_mask(inner.observation)[0])
        )

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        state, obs = self.env.reset(key)
        return state, on_observation(self.observe, obs)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        state, timestep = self.env.step(key, state, action)
        return state, timestep.replace(obs=on_observation(self.observe, timestep.obs))
