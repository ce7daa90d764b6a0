"""A2C: the actor-critic of Mnih et al., 2016 ("Asynchronous methods ..."), all workers in step."""

from typing import Any, Self

import optax
from flax import struct

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.actor_critic import ActorCriticAgent, Sample, check_advantages
from jaxrl.hyper import check_range
from jaxrl.losses import mean, policy_gradient_loss, standardize, value_loss
from jaxrl.optimizers import descend, rmsprop
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, Metrics, PyTree, Scalar, Trajectory, static


class A2CState(struct.PyTreeNode):
    """Attributes:
    params: of policy and value.
    optimizer: RMSprop's mean of squared gradients.
    """

    params: PyTree
    optimizer: optax.OptState


class A2C(ActorCriticAgent):
    """Advantage actor-critic: one policy-gradient step on each short rollout."""

    num_envs: int = static(default=16)
    """Copies of the environment."""
    num_steps: int = static(default=5)
    """Steps of each copy between updates."""
    gae_lambda: Scalar = 1.0
    """Lambda of generalised advantage estimation, in [0, 1]; 1 is the paper's: all rewards of the
    rollout, then the value."""
    learning_rate: Scheduled = 7e-4
    """RMSprop's step size."""
    normalize_advantages: bool = static(default=False)
    """Standardise the advantages of each rollout."""
    entropy_coefficient: Scheduled = 0.01
    """Weight of the entropy bonus."""
    value_coefficient: Scalar = 0.5
    """Weight of the value loss, 0.5 (R - V)^2."""
    max_grad_norm: Scalar | None = 0.5
    """Global norm above which gradients are scaled down; none: never."""
    rmsprop_decay: Scalar = 0.99
    """How much of its mean of squared gradients RMSprop keeps each step, in [0, 1]."""
    rmsprop_epsilon: Scalar = 1e-5
    """Added to that mean, below the root."""

    @property
    def plan(self) -> OnPolicy:
        flat = self.core == "none"
        return OnPolicy(self.num_envs, self.num_steps, layout="flat" if flat else "env")

    def bind(self, spec: EnvSpec) -> Self:
        check_range(self, "learning_rate")
        check_range(self, "entropy_coefficient")
        check_range(self, "value_coefficient")
        check_range(self, "max_grad_norm", open_low=True)
        check_range(self, "rmsprop_decay", 0.0, 1.0)
        check_range(self, "rmsprop_epsilon", open_low=True)
        check_advantages(self)
        return super().bind(spec)

    def optimizer(self, clock: Clock) -> optax.GradientTransformation:
        """RMSprop, on the gradient scaled to a global norm."""
        return rmsprop(
            self.learning_rate,
            clock,
            decay=self.rmsprop_decay,
            epsilon=self.rmsprop_epsilon,
            max_grad_norm=self.max_grad_norm,
        )

    def init(self, key: Key) -> A2CState:
        params = self.init_params(key)
        return A2CState(params, self.optimizer(Clock.start()).init(params))

    def loss(
        self, params: PyTree, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """Minus log pi(a | s) A, value and entropy terms (section 4), and what to report."""
        sample: Sample = batch.steps
        both: Any = self.network.apply(params, sample.obs, batch.carry, batch.first)
        policy, values, _ = both
        advantages = sample.advantage
        if self.normalize_advantages:
            advantages = standardize(advantages)
        policy_loss = policy_gradient_loss(policy.log_prob(sample.action), advantages)
        error = value_loss(values, sample.target)
        entropy = mean(policy.entropy())
        bonus = at(self.entropy_coefficient, clock) * entropy
        loss = policy_loss + self.value_coefficient * error - bonus
        return loss, {"policy_loss": policy_loss, "value_loss": error, "entropy": entropy}

    def update(
        self, state: A2CState, batch: Trajectory, key: Key, clock: Clock
    ) -> tuple[A2CState, Metrics]:
        """One gradient step on the whole rollout."""
        params, optimizer, _, metrics = descend(
            self.optimizer(clock),
            lambda params: self.loss(params, batch, clock),
            state.params,
            state.optimizer,
        )
        return A2CState(params, optimizer), metrics
