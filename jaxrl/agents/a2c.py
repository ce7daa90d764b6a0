"""A2C, the synchronous version of A3C.

Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016.
"""

from typing import Any

from jaxrl.agent import Update
from jaxrl.agents.bases.actor_critic import JointLossAgent, Sample
from jaxrl.agents.bases.learning import TrainState
from jaxrl.hyper import hyper
from jaxrl.losses import mean, policy_gradient_loss, value_loss
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, Key, PyTree, Scalar, Trajectory


class A2C(JointLossAgent):
    """Advantage actor-critic: one policy-gradient step on each short rollout."""

    num_envs: int = 16
    num_steps: int = 5
    gae_lambda: Scalar = hyper(
        1.0,
        low=0.0,
        high=1.0,
        doc="Lambda of generalised advantage estimation; 1, as in the paper, gives n-step returns.",
    )
    learning_rate: Scheduled = 7e-4
    normalize_advantages: bool = False
    rmsprop_decay: Scalar = hyper(
        0.99,
        low=0.0,
        high=1.0,
        doc="RMSprop's decay of the mean of squared gradients.",
    )
    rmsprop_epsilon: Scalar = hyper(
        1e-5, low=0.0, open_low=True, doc="RMSprop's epsilon, inside the square root."
    )

    default_optimizer = "rmsprop"

    @property
    def optimizer_options(self) -> dict[str, Any]:
        options = {"rmsprop_decay": self.rmsprop_decay, "rmsprop_epsilon": self.rmsprop_epsilon}
        return super().optimizer_options | options

    def loss(
        self, params: PyTree, state: Any, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """The loss -log pi(a | s) A + value and entropy terms (section 4), and metrics."""
        sample: Sample = batch.steps
        policy, values = self.policy_and_values(params, batch)
        log_prob = policy.log_prob(sample.action)
        policy_loss = policy_gradient_loss(log_prob, self.advantages(sample))
        error = value_loss(values, sample.target)
        return self.joint_loss(policy_loss, error, mean(policy.entropy()), clock)

    def update(self, state: TrainState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """One gradient step on the whole rollout."""
        return self.step(state, batch, clock)
