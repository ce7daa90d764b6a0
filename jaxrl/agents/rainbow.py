"""Rainbow.

Hessel et al., "Rainbow: combining improvements in deep reinforcement learning", 2018.
"""

from jaxrl.agents.bases.action_values import Head
from jaxrl.agents.dqn import DQN, Double
from jaxrl.schedules import Scheduled
from jaxrl.types import Scalar


class Rainbow(DQN):
    """DQN with double, dueling, prioritised, n-step, distributional (C51) and noisy learning."""

    double: Double = "target"
    dueling: bool = True
    prioritized: bool = True
    priority_exponent: Scalar = 0.5
    n_step: int = 3
    head: Head = "c51"
    noisy: bool = True
    epsilon: Scheduled = 0.0
    adam_epsilon: Scalar = 1.5e-4
