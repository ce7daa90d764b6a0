"""Environments of gymnasium, or with its interface: `make("gymnasium/CartPole-v1")`."""

import functools
import multiprocessing
import signal
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
from jaxrl_envs.host import replaced
from jaxrl_envs.library import check_none, making


class GymnasiumEnv(HostEnvironment):
    """A gymnasium environment, from a function that makes one copy.

    Observations and actions are converted as in `jaxrl_envs.gymnasium_spaces`. If `info` has an
    `action_mask`, observations are `Masked`. Its other entries are ignored.

    Attributes:
      name: its name in messages.
      spec: the spec; `truncates` is "at_max_steps" only for gymnasium's own environments.
    """

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env],
        name: str,
        vectorization: str = "sync",
        make_vector: Callable[[int], gymnasium.vector.VectorEnv] | None = None,
    ):
        """
        Args:
          make_env: makes one copy.
          name: its name in messages.
          vectorization: "sync" steps the copies one after the other, "async" each in a process of
            its own.
          make_vector: makes a vector of that many copies instead.
        """
        if vectorization not in ("sync", "async"):
            raise InvalidValue(f"vectorization is {vectorization!r}: use 'sync' or 'async'")
        self.make_env, self.name, self.vectorization = make_env, name, vectorization
        self.make_vector = make_vector
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
        known &= make_vector is None  # whose resets may take a step, which leaves a gap
        self.spec = EnvSpec(shape, space, limit, truncates="at_max_steps" if known else "anywhere")
        env.close()

    def vector(self, num_envs: int) -> "GymnasiumVector":
        makers, same = [self.make_env] * num_envs, AutoresetMode.SAME_STEP
        if self.make_vector is not None:
            return GymnasiumVector(self, self.make_vector(num_envs))
        if self.vectorization == "sync":
            return GymnasiumVector(self, SyncVectorEnv(makers, autoreset_mode=same))
        makers = [functools.partial(_without_interrupts, self.make_env)] * num_envs
        return GymnasiumVector(
            self, AsyncVectorEnv(makers, context="forkserver", autoreset_mode=same)
        )


class GymnasiumVector:
    """Copies of a gymnasium environment; see `jaxrl.environment.HostVector`.

    Vectors that reset a copy in the same step, in the next one, or only if they are told to, all
    return the true last observation of an episode.
    """

    def __init__(self, env: GymnasiumEnv, envs: gymnasium.vector.VectorEnv):
        self.env, self.envs = env, envs
        self.mode = AutoresetMode(envs.metadata["autoreset_mode"])
        self.ended = np.zeros(envs.num_envs, bool)

    def reset(self, seeds: np.ndarray | None = None) -> PyTree:
        given: Any = None if seeds is None else seeds.tolist()
        if given and not isinstance(self.envs, SyncVectorEnv | AsyncVectorEnv):
            given = given[0]  # other vectors have one generator
        obs, info = self.envs.reset(seed=given)
        self.ended[:] = False
        return self._observed(obs, info)

    def step(self, action: PyTree) -> HostStep:
        found: Any = self.envs.step(self.env.write(action))
        obs, reward, terminated, truncated, info = found
        now = after = self._observed(obs, info)
        ended, valid = terminated | truncated, None
        if self.mode == AutoresetMode.NEXT_STEP and self.ended.any():
            valid = ~self.ended
        elif self.mode == AutoresetMode.SAME_STEP and ended.any():
            after = replaced(now, ended, self._last(info, np.flatnonzero(ended)))
        elif self.mode == AutoresetMode.DISABLED and ended.any():
            start = self._observed(*self.envs.reset(options={"reset_mask": ended}))
            now = replaced(after, ended, jax.tree.map(lambda x: x[ended], start))
        self.ended = ended
        reward, truncated = np.asarray(reward, np.float32), truncated & ~terminated
        return HostStep(now, after, reward, terminated, truncated, valid)

    def _last(self, info: dict[str, Any], ended: np.ndarray) -> PyTree:
        """The last observations of the episodes that ended, from the `info` of the same step."""
        obs: Any = jax.tree.map(lambda *x: np.stack(x), *(info["final_obs"][i] for i in ended))
        return self._observed(obs, info.get("final_info", {}), ended)

    def _observed(self, obs: Any, info: dict[str, Any], rows: Any = slice(None)) -> PyTree:
        found = self.env.read(obs)
        if not self.env.masked:
            return found
        mask = np.stack(list(np.asarray(info["action_mask"])[rows]))
        return Masked(found, mask.astype(bool).reshape(len(mask), -1))

    def close(self) -> None:
        if isinstance(self.envs, AsyncVectorEnv):
            self.envs.close(terminate=True)
        else:
            self.envs.close()


def _without_interrupts(make_env: Callable[[], gymnasium.Env]) -> gymnasium.Env:
    """Makes an environment in a process of its own, which Ctrl-C must not end before the run is."""
    if multiprocessing.parent_process() is not None:  # gymnasium makes one here, too
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return make_env()


def make(name: str, /, vectorization: str = "sync", **params: Any) -> GymnasiumEnv:
    """Builds an environment from gymnasium's id.

    Args:
      name: the id, such as "CartPole-v1".
      vectorization: "sync" steps the copies one after the other, "async" each in a process of its
        own; "own" is the vector that some environments bring along, such as CartPole's.
      **params: arguments of `gymnasium.make`, such as `max_episode_steps`.
    """
    if vectorization not in ("sync", "async", "own"):
        raise InvalidValue(f"vectorization is {vectorization!r}: use 'sync', 'async' or 'own'")
    with making(f"gymnasium/{name}", params):
        own = None
        if vectorization == "own":
            vectorization = "sync"
            own = functools.partial(
                gymnasium.make_vec, name, vectorization_mode="vector_entry_point", **params
            )
        one = functools.partial(gymnasium.make, name, **params)
        return GymnasiumEnv(one, f"gymnasium/{name}", vectorization, own)


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
