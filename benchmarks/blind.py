"""Environments whose velocities are hidden, so that one observation is not enough.

jaxrl train ppo benchmarks.blind:cartpole --core lstm
"""

from typing import Any

import jaxrl_envs
from jaxrl.wrappers import MaskVelocity


def cartpole() -> Any:
    """CartPole-v1 with positions and angles alone."""
    return MaskVelocity(jaxrl_envs.make("gymnax/CartPole-v1"), indices=(1, 3))


def pendulum() -> Any:
    """Pendulum-v1 with the angle alone."""
    return MaskVelocity(jaxrl_envs.make("gymnax/Pendulum-v1"), indices=(2,))
