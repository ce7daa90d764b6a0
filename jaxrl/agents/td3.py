"""TD3 (Fujimoto, van Hoof and Meger, "Addressing function approximation error", 2018)."""

from jaxrl.agents.ddpg import DDPG
from jaxrl.types import Scalar, static


class TD3(DDPG):
    """DDPG with two critics, a delayed policy and smoothed targets (algorithm 1)."""

    num_critics: int = static(default=2)
    """Critics; targets take the least of their values."""
    policy_delay: int = static(default=2)
    """Updates of the critics for one of the policy and of the targets."""
    target_noise: Scalar = 0.2
    """Standard deviation of the noise on the target policy's actions, in halves of their range."""
