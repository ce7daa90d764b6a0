"""TD3 (Fujimoto, van Hoof and Meger, "Addressing function approximation error", 2018)."""

from jaxrl.agents.ddpg import DDPG
from jaxrl.types import Scalar


class TD3(DDPG):
    """DDPG with two critics, a delayed policy and smoothed targets (algorithm 1)."""

    num_critics: int = 2
    policy_delay: int = 2
    target_noise: Scalar = 0.2
