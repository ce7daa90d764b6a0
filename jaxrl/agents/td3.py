"""TD3 (Fujimoto, van Hoof and Meger, "Addressing function approximation error", 2018)."""

from jaxrl.agents.ddpg import DDPG
from jaxrl.types import Scalar


class TD3(DDPG):
    """Twin delayed DDPG: two critics, delayed policy updates and target smoothing (algorithm 1)."""

    num_critics: int = 2
    policy_delay: int = 2
    target_noise: Scalar = 0.2
