"""A2C: the actor-critic of Mnih et al., 2016 ("Asynchronous methods ..."), all workers in step."""

from typing import Any

from jaxrl.agents.bases.actor_critic import ActorCriticAgent, Sample
from jaxrl.agents.bases.learning import GradientAgent, TrainState
from jaxrl.hyper import hyper
from jaxrl.losses import mean, policy_gradient_loss, value_loss
from jaxrl.optimizers import descend
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, Key, Metrics, PyTree, Scalar, Trajectory


class A2C(ActorCriticAgent, GradientAgent):
    """Advantage actor-critic: one policy-gradient step on each short rollout."""

    num_envs: int = 16
    num_steps: int = 5
    gae_lambda: Scalar = hyper(
        1.0,
        low=0.0,
        high=1.0,
        doc="Lambda of generalised advantage estimation; 1 is the paper's: all rewards of the "
        "rollout, then the value.",
    )
    learning_rate: Scheduled = 7e-4
    normalize_advantages: bool = False
    entropy_coefficient: Scheduled = hyper(0.01, low=0.0, doc="Weight of the entropy bonus.")
    value_coefficient: Scalar = hyper(0.5, low=0.0, doc="Weight of the value loss, 0.5 (R - V)^2.")
    max_grad_norm: Scalar | None = 0.5
    rmsprop_decay: Scalar = hyper(
        0.99,
        low=0.0,
        high=1.0,
        doc="How much of its mean of squared gradients RMSprop keeps each step.",
    )
    rmsprop_epsilon: Scalar = hyper(
        1e-5, low=0.0, open_low=True, doc="Added to that mean, below the root."
    )

    default_optimizer = "rmsprop"

    @property
    def optimizer_options(self) -> dict[str, Any]:
        options = {"rmsprop_decay": self.rmsprop_decay, "rmsprop_epsilon": self.rmsprop_epsilon}
        return super().optimizer_options | options

    def loss(
        self, params: PyTree, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """Minus log pi(a | s) A, value and entropy terms (section 4), and what to report."""
        sample: Sample = batch.steps
        both: Any = self.network.apply(params, sample.obs, batch.carry, batch.first)
        policy, values, _ = both
        log_prob = policy.log_prob(sample.action)
        policy_loss = policy_gradient_loss(log_prob, self.advantages(sample))
        error = value_loss(values, sample.target)
        entropy = mean(policy.entropy())
        bonus = at(self.entropy_coefficient, clock) * entropy
        loss = policy_loss + self.value_coefficient * error - bonus
        return loss, {"policy_loss": policy_loss, "value_loss": error, "entropy": entropy}

    def update(
        self, state: TrainState, batch: Trajectory, key: Key, clock: Clock
    ) -> tuple[TrainState, Metrics]:
        """One gradient step on the whole rollout."""
        params, optimizer, _, metrics = descend(
            self.transform(clock),
            lambda params: self.loss(params, batch, clock),
            state.params,
            state.optimizer,
        )
        return TrainState(params, optimizer), metrics
