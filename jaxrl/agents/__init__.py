"""The algorithms, one file each."""

from jaxrl.agents.npg import NPG
from jaxrl.agents.ppo import PPO
from jaxrl.agents.reinforce import REINFORCE
from jaxrl.agents.trpo import TRPO

__all__ = ["NPG", "PPO", "REINFORCE", "TRPO"]
