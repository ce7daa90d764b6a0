"""Environments of EnvPool, stepped by threads in C++: `make("envpool/Pong-v5")`."""

from typing import Any, Self

import envpool
import jax
import numpy as np

from jaxrl.environment import HostEnvironment, HostStep
from jaxrl.errors import InvalidType
from jaxrl.types import EnvSpec, PyTree
from jaxrl_envs import gymnasium_spaces
from jaxrl_envs.host import channels_last, check_not_set, replaced
from jaxrl_envs.library import library_code, making

CLASSIC = {"episodic_life": True, "reward_clip": True}
"""Atari in training, as in Mnih et al. (2015): a lost life ends an episode, rewards are signs."""

SET_BY_JAXRL = ("num_envs", "batch_size", "seed", "env_seed")


class EnvPoolEnv(HostEnvironment):
    """An environment of EnvPool.

    Images come as `[height, width, channels]`.

    Attributes:
      task: EnvPool's id.
      params: arguments of `envpool.make`.
      in_evaluations: those of them that differ in evaluations.
    """

    def __init__(self, task: str, params: dict[str, Any], in_evaluations: dict[str, Any]):
        self.task, self.params, self.in_evaluations = task, params, in_evaluations
        self.name = f"envpool/{task}"
        with library_code():
            spec = envpool.make_spec(task, **params)
            images, choices = spec.gymnasium_observation_space, spec.gymnasium_action_space
        if spec.config.max_num_players > 1:
            raise InvalidType(f"{self.name} has several players, which jaxrl does not support")
        shape, self.read = gymnasium_spaces.observation(images, self.name)
        shape, self.turn = channels_last(shape)
        space, self.write = gymnasium_spaces.action(choices, self.name)
        limit = getattr(spec.config, "max_episode_steps", None)
        # A game that goes on after a lost life may be cut off earlier: replay drops that one step.
        self.spec = EnvSpec(shape, space, limit, truncates="at_max_steps" if limit else "anywhere")

    def evaluation(self) -> Self:
        if not self.in_evaluations:
            return self
        return type(self)(self.task, {**self.params, **self.in_evaluations}, {})

    def vector(self, num_envs: int) -> "EnvPoolVector":
        return EnvPoolVector(self, num_envs)


class EnvPoolVector:
    """Copies of an environment of EnvPool; see `jaxrl.environment.HostVector`.

    EnvPool resets a copy in the step after the end of an episode; it is sent right away here.
    """

    def __init__(self, env: EnvPoolEnv, num_envs: int):
        self.env, self.num_envs = env, num_envs
        self.all = np.arange(num_envs, dtype=np.int32)
        self.pool: Any = None

    def reset(self, seeds: np.ndarray | None = None) -> PyTree:
        with library_code():
            if seeds is not None:  # they are fixed when a pool is made
                self.close()
                size: Any = {"num_envs": self.num_envs, "env_seed": seeds.tolist()}
                self.pool = envpool.make(
                    self.env.task, env_type="gymnasium", **size, **self.env.params
                )
            obs, info = self.pool.reset()
        return self._observed(obs, info)

    def step(self, action: PyTree) -> HostStep:
        action = self.env.write(action)
        obs, reward, terminated, truncated, info = self.pool.step(action, self.all)
        order = _order(info)
        next_obs = self._observed(obs, info)
        reward, terminated, truncated = reward[order], terminated[order], truncated[order]
        now, ended = next_obs, self.all[terminated | truncated]
        if len(ended):
            nothing = jax.tree.map(lambda x: x[ended], action)  # a reset ignores its action
            start, *_, info = self.pool.step(nothing, ended)
            now = replaced(next_obs, ended, self._observed(start, info))
        return HostStep(now, next_obs, reward, terminated, truncated & ~terminated)

    def _observed(self, obs: Any, info: dict[str, Any]) -> PyTree:
        order = _order(info)
        return self.env.turn(self.env.read(jax.tree.map(lambda x: x[order], obs)))

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
            self.pool = None


def _order(info: dict[str, Any]) -> np.ndarray:
    return np.argsort(info["env_id"], kind="stable")


def make(name: str, /, **params: Any) -> EnvPoolEnv:
    """Builds an environment from EnvPool's id.

    Args:
      name: the id, such as "CartPole-v1" or "Pong-v5".
      **params: arguments of `envpool.make`, such as `num_threads` or `max_episode_steps`. For
        Atari, `episodic_life` and `reward_clip` are on unless given, and always off in evaluations.
    """
    check_not_set(f"envpool/{name}", params, SET_BY_JAXRL)
    with making(name, params), library_code():
        is_atari = hasattr(envpool.make_spec(name).config, "episodic_life")
        if is_atari:
            params = {**CLASSIC, **params}
        return EnvPoolEnv(name, params, dict.fromkeys(CLASSIC, False) if is_atari else {})


def names() -> list[str]:
    """Ids of EnvPool."""
    return list(envpool.list_all_envs())
