"""Environments of gymnasium, or with its interface: `make("gymnasium/CartPole-v1")`."""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from jaxrl.environment import HostEnvironment, HostStep
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.types import EnvSpec, Masked, PyTree
from jaxrl_envs import gymnasium_spaces
from jaxrl_envs.library import check_none, making

VECTORIZATION = ("sync", "async")


class GymnasiumEnv(HostEnvironment):
    """A gymnasium environment, from a function that makes one copy.

    Observations and actions are converted as in `jaxrl_envs.gymnasium_spaces`. If `info` has an
    `action_mask`, observations are `Masked`. Its other entries are ignored.

    Attributes:
      name: its name in messages.
      spec: the spec; `truncates` is "at_max_steps" only for gymnasium's own environments.
    """

    def __init__(
        self, make_env: Callable[[], gymnasium.Env], name: str, vectorization: str = "sync"
    ):
        if vectorization not in VECTORIZATION:
            raise InvalidValue(f"vectorization is {vectorization!r}: use 'sync' or 'async'")
        self.make_env, self.name, self.vectorization = make_env, name, vectorization
        env = make_env()
        if not isinstance(env, gymnasium.Env):
            raise InvalidType(
                f"{name} made a {type(env).__name__}, which is no gymnasium.Env: make a single "
                "environment, not a vector of them"
            )
        shape, self.read = gymnasium_spaces.observation(env.observation_space, name)
        space, self.write = gymnasium_spaces.action(env.action_space, name)
        _, info = env.reset(seed=0)
        mask = gymnasium_spaces.mask_of(space, info)
        self.masked = mask is not None
        if mask is not None:
            shape = Masked(shape, jax.ShapeDtypeStruct(mask.shape, bool))
        limit = None if env.spec is None else env.spec.max_episode_steps
        known = limit is not None and gymnasium_spaces.is_from_gymnasium(env)
        self.spec = EnvSpec(shape, space, limit, truncates="at_max_steps" if known else "anywhere")
        env.close()

    def vector(self, num_envs: int) -> "GymnasiumVector":
        makers = [self.make_env] * num_envs
        kind = SyncVectorEnv if self.vectorization == "sync" else AsyncVectorEnv
        return GymnasiumVector(self, kind(makers, autoreset_mode=AutoresetMode.SAME_STEP))


class GymnasiumVector:
    """Copies of a gymnasium environment; see `jaxrl.environment.HostVector`."""

    def __init__(self, env: GymnasiumEnv, envs: Any):
        self.env, self.envs = env, envs

    def reset(self, seeds: np.ndarray | None = None) -> PyTree:
        obs, info = self.envs.reset(seed=None if seeds is None else seeds.tolist())
        return self._observed(obs, info)

    def step(self, action: PyTree) -> HostStep:
        obs, reward, terminated, truncated, info = self.envs.step(self.env.write(action))
        now = self._observed(obs, info)
        after = now
        if "final_obs" in info:
            after = jax.tree.map(np.copy, now)
            ended = np.flatnonzero(info["_final_obs"])
            finals = [info["final_obs"][i] for i in ended]
            batch = jax.tree.map(lambda *x: np.stack(x), *finals)
            final_info = info.get("final_info", {})
            last = self._observed(batch, jax.tree.map(lambda x: x[ended], final_info))
            for x, new in zip(jax.tree.leaves(after), jax.tree.leaves(last), strict=True):
                x[ended] = new
        truncated = truncated & ~terminated
        return HostStep(now, after, reward.astype(np.float32), terminated, truncated)

    def _observed(self, obs: Any, info: dict[str, Any]) -> PyTree:
        found = self.env.read(obs)
        if not self.env.masked:
            return found
        mask = np.asarray(info["action_mask"])
        if mask.dtype == object:  # of environments whose info has no mask in this step
            mask = np.stack(list(mask))
        return Masked(found, mask.astype(bool).reshape(len(mask), -1))

    def close(self) -> None:
        if isinstance(self.envs, AsyncVectorEnv):
            self.envs.close(terminate=True)
        else:
            self.envs.close()


def make(name: str, /, vectorization: str = "sync", **params: Any) -> GymnasiumEnv:
    """Builds an environment from gymnasium's id.

    Args:
      name: the id, such as "CartPole-v1".
      vectorization: "sync" steps the copies one after the other, "async" each in its own process.
      **params: arguments of `gymnasium.make`, such as `max_episode_steps`.
    """
    with making(name, params):
        return GymnasiumEnv(
            functools.partial(gymnasium.make, name, **params), f"gymnasium/{name}", vectorization
        )


def adapt(env: Any, /, **params: Any) -> GymnasiumEnv:
    """Adapts an object of `gymnasium.make`, whose spec tells how to make more of them."""
    check_none(env, params)
    if isinstance(env, gymnasium.vector.VectorEnv):
        raise InvalidType(
            f"{type(env).__name__} is a vector of environments, but jaxrl makes its own copies: "
            "pass jaxrl_envs.gymnasium.GymnasiumEnv(make_env, name)"
        )
    if env.spec is None:
        raise InvalidType(
            f"{type(env.unwrapped).__name__} does not say how to make copies of it: pass "
            "jaxrl_envs.gymnasium.GymnasiumEnv(make_env, name), where make_env() makes one"
        )
    return GymnasiumEnv(functools.partial(gymnasium.make, env.spec), f"gymnasium/{env.spec.id}")


def names() -> list[str]:
    """Ids registered with gymnasium."""
    return list(gymnasium.registry)
