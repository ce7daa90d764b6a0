"""Rainbow.

Hessel et al., "Rainbow: combining improvements in deep reinforcement learning", 2018.
"""

from jaxrl.agents.bases.action_values import Head
from jaxrl.agents.dqn import DQN, Double
from jaxrl.schedules import Scheduled
from jaxrl.types import Scalar, static


class Rainbow(DQN):
    """DQN with all six: double, dueling, prioritised, n-step, distributional and noisy."""

    double: Double = static(default="target")
    """Choose the next action by the target network, by the online one, or by another of two."""
    dueling: bool = static(default=True)
    """A stream for the state and one for the actions."""
    prioritized: bool = static(default=True)
    """Replay transitions in proportion to their error."""
    priority_exponent: Scalar = 0.5
    """How much the error matters, alpha."""
    n_step: int = static(default=3)
    """Rewards summed before a value is looked up."""
    head: Head = static(default="c51")
    """What the network says of an action: its value, or a distribution of the return."""
    noisy: bool = static(default=True)
    """Noisy layers, whose noise explores."""
    epsilon: Scheduled = 0.0
    """Probability of an action at random."""
    adam_epsilon: Scalar = 1.5e-4
    """Adam's epsilon."""
