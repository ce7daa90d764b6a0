"""The algorithms, one file each."""

from jaxrl.agents.ppo import PPO

__all__ = ["PPO"]
