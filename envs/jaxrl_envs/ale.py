"""Atari games by ale-py's own vector environment, stepped by threads in C++: `make("ale/pong")`."""

from typing import Any, Self

import numpy as np
from ale_py.roms import get_all_rom_ids
from ale_py.vector_env import AtariVectorEnv

from jaxrl.environment import HostEnvironment, HostStep
from jaxrl.errors import InvalidValue
from jaxrl.types import EnvSpec, PyTree
from jaxrl_envs import gymnasium_spaces
from jaxrl_envs.host import channels_last, check_not_set, replaced
from jaxrl_envs.library import making

PROTOCOLS: dict[str, dict[str, Any]] = {
    "classic": {"episodic_life": True, "reward_clipping": True, "noop_max": 30},
    "sticky": {
        "repeat_action_probability": 0.25,
        "full_action_space": True,
        "use_fire_reset": False,
        "noop_max": 0,
        "reward_clipping": True,
    },
}
"""Two ways to train on Atari: that of Mnih et al. (2015), where a lost life ends an episode and a
game starts with up to 30 idle steps; and that of Machado et al. (2018), where an action is repeated
with probability 0.25 and all 18 actions are available. In both, rewards are clipped to their sign;
evaluations play whole games and count the real score."""
IN_EVALUATIONS = {"episodic_life": False, "reward_clipping": False}
SET_BY_JAXRL = ("num_envs", "batch_size", "autoreset_mode")


class AtariEnv(HostEnvironment):
    """An Atari game. Images come as `[height, width, frames]`.

    Attributes:
      game: ale-py's name of it.
      params: arguments of `ale_py.vector_env.AtariVectorEnv`.
    """

    def __init__(self, game: str, params: dict[str, Any]):
        self.game, self.params, self.name = game, params, f"ale/{game}"
        env = self._start(1)
        shape, self.read = gymnasium_spaces.observation(env.single_observation_space, self.name)
        shape, self.turn = channels_last(shape)
        space, self.write = gymnasium_spaces.action(env.single_action_space, self.name)
        frames = params.get("max_num_frames_per_episode", 108_000)
        limit = -(-frames // params.get("frameskip", 4))
        # A game that goes on after a lost life may be cut off earlier: replay drops that one step.
        self.spec = EnvSpec(shape, space, limit, truncates="at_max_steps")
        env.close()

    def evaluation(self) -> Self:
        return type(self)(self.game, {**self.params, **IN_EVALUATIONS})

    def _start(self, num_envs: int) -> AtariVectorEnv:
        return AtariVectorEnv(self.game, num_envs, autoreset_mode="SameStep", **self.params)

    def vector(self, num_envs: int) -> "AtariVector":
        return AtariVector(self, self._start(num_envs))


class AtariVector:
    """Copies of an Atari game; see `jaxrl.environment.HostVector`."""

    def __init__(self, env: AtariEnv, envs: AtariVectorEnv):
        self.env, self.envs = env, envs

    def reset(self, seeds: np.ndarray | None = None) -> PyTree:
        given: Any = None if seeds is None else seeds.astype(np.int32)
        obs: Any = self.envs.reset(seed=given)[0]
        return self._observed(obs)

    def step(self, action: PyTree) -> HostStep:
        step: Any = self.envs.step(self.env.write(action))
        obs, reward, terminated, truncated, info = step
        now = last = self._observed(obs)
        if len(ended := np.flatnonzero(terminated | truncated)):
            last = replaced(now, ended, self._observed(info["final_obs"][ended]))
        return HostStep(now, last, reward.astype(np.float32), terminated, truncated & ~terminated)

    def _observed(self, obs: np.ndarray) -> PyTree:
        return self.env.turn(self.env.read(obs))

    def close(self) -> None:
        self.envs.close()


def make(name: str, /, protocol: str = "classic", **params: Any) -> AtariEnv:
    """Builds a game.

    Args:
      name: ale-py's name, such as "pong" or "space_invaders".
      protocol: one of `PROTOCOLS`.
      **params: arguments of `ale_py.vector_env.AtariVectorEnv`, over those of the protocol.
    """
    check_not_set(f"ale/{name}", params, SET_BY_JAXRL)
    with making(name, {"protocol": protocol, **params}):
        if protocol not in PROTOCOLS:
            raise InvalidValue(f"there is no such protocol: use {' or '.join(PROTOCOLS)}")
        return AtariEnv(name, {**PROTOCOLS[protocol], **params})


def names() -> list[str]:
    """The games that ale-py has."""
    return sorted(get_all_rom_ids())
