"""gymnax's environments under our contract: raw steps, parameters as leaves, strong types."""

import functools
from typing import Any, Self

import gymnax
import gymnax.environments.spaces as gymnax_spaces
import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.environment import Timestep
from jaxrl.types import ActionSpace, Box, Discrete, EnvSpec, Key, Mixed, PyTree, static, strong

NEEDS_NETWORK = frozenset({"MNISTBandit-bsuite"})
"""Ids whose environment downloads data when it is made."""


class GymnaxEnv(struct.PyTreeNode):
    """One gymnax environment.

    Attributes:
      params: gymnax's parameters; every leaf is an array and may be vmapped.
      env: gymnax's object; one an id, so that equal environments have equal structure.
      spec: shapes and spaces.
    """

    params: PyTree
    env: Any = static()
    spec: EnvSpec = static()

    @classmethod
    def make(cls, name: str, **params: Any) -> Self:
        """Builds the environment called `name` with some of its parameters changed.

        Raises:
          ValueError: a parameter that the environment does not have.
        """
        env = _gymnax_object(name)
        defaults = env.default_params
        unknown = sorted(set(params) - set(vars(defaults)))
        if unknown:
            raise ValueError(
                f"{name} has no parameter {unknown[0]!r}; it has: {', '.join(vars(defaults))}"
            )
        chosen = defaults.replace(**params)
        observation = jax.eval_shape(lambda key: env.reset_env(key, chosen)[0], jax.random.key(0))
        limit = getattr(chosen, "max_steps_in_episode", None)
        spec = EnvSpec(
            observation=observation,
            action=_space(env.action_space(chosen), name),
            max_steps=None if limit is None else int(limit),
        )
        return cls(strong(chosen), env, spec)

    def with_params(self, **params: Any) -> Self:
        """The same environment with other parameters; arrays and traced values may be given."""
        return self.replace(params=self.params.replace(**params))

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        obs, state = self.env.reset_env(key, self.params)
        return strong(state), obs

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        obs, stepped, reward, terminated, info = self.env.step_env(
            key, state, action, self.params
        )
        truncated = self.env.is_truncated(stepped, self.params)
        # gymnax mixes Python numbers with arrays: keep the dtypes that the state came with.
        stepped = jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), state, stepped)
        terminated = jnp.asarray(terminated, bool)
        return stepped, Timestep(
            obs=jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), obs, self.spec.observation),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=terminated,
            truncated=jnp.asarray(truncated, bool) & ~terminated,
            info=info,
        )


@functools.cache
def _gymnax_object(name: str) -> Any:
    return gymnax.make(name)[0]


def names() -> list[str]:
    """The ids that gymnax registers."""
    return list(gymnax.registered_envs)


def _space(space: Any, name: str) -> ActionSpace:
    match space:
        case gymnax_spaces.Discrete():
            return Discrete(int(space.n))
        case gymnax_spaces.Box():
            return Box.of(space.low, space.high, tuple(space.shape))
        case gymnax_spaces.Tuple():
            return Mixed(tuple(_space(s, name) for s in space.spaces))
    raise TypeError(f"{name} has the action space {space!r}, which jaxrl does not know")
