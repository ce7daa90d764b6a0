"""Base classes of on-policy actor-critics: advantages by GAE, and a joint loss."""

from abc import abstractmethod
from typing import Any

from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.learning import GradientAgent
from jaxrl.agents.bases.networks import NetworkAgent
from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidValue
from jaxrl.estimators import gae
from jaxrl.hyper import hyper
from jaxrl.losses import explained_variance, standardize
from jaxrl.optimizers import TransformOf, descend
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Metrics, PyTree, Scalar, Trajectory


class Sample(struct.PyTreeNode):
    """A step as `update` needs it; leading axes `[B]`, or `[T, N]` for whole sequences.

    Attributes:
      obs: normalised observations.
      action: the action taken.
      log_prob: its log-probability under the policy that took it.
      value: V(obs) before the update.
      advantage: the GAE advantage.
      target: the value target, advantage + value.
      valid: which steps the critic learns from; None for all.
    """

    obs: PyTree
    action: PyTree
    log_prob: Array
    value: Array
    advantage: Array
    target: Array
    valid: Array | None = None


def with_advantages(
    trajectory: Trajectory, values: Array, next_values: Array, discount: Scalar, lambda_: Scalar
) -> Trajectory:
    """The trajectory with `Sample`s as steps: GAE and value targets.

    Args:
      trajectory: of transitions `[T, N]`, with `log_prob` among their extras.
      values, next_values: see `NetworkAgent.values`.
      discount: gamma.
      lambda_: of generalised advantage estimation.
    """
    steps = trajectory.steps
    ends = steps.terminated, steps.truncated
    advantages = gae(steps.reward, values, next_values, *ends, discount, lambda_)
    sample = Sample(
        obs=steps.obs,
        action=steps.action,
        log_prob=steps.extras["log_prob"],
        value=values,
        advantage=advantages,
        target=advantages + values,
    )
    return trajectory.replace(steps=sample)


class ActorCriticAgent(NetworkAgent):
    """Actor-critic with GAE; subclasses add `init` and `update`."""

    gae_lambda: Scalar = hyper(
        0.95, low=0.0, high=1.0, doc="Lambda of generalised advantage estimation."
    )
    normalize_advantages: bool = hyper(
        True, static=True, doc="Standardise the advantages of each update."
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.normalize_advantages and self.steps_per_standardization == 1:
            parts = " / num_minibatches" if hasattr(self, "num_minibatches") else ""
            fewer = ", take fewer minibatches" if parts else ""
            raise InvalidValue(
                f"normalize_advantages standardises over num_envs * num_steps{parts} = 1 step per "
                "update: a single advantage always becomes 0, and the policy never learns. Collect "
                f"more steps{fewer} or set normalize_advantages=False"
            )

    @property
    def steps_per_standardization(self) -> int:
        """Number of steps whose advantages are standardised together."""
        return self.plan.steps_per_iteration // self.plan.num_minibatches

    def prepare(self, state: Any, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Computes values, GAE and value targets (Schulman et al., 2016, eq. 16)."""
        values = self.values(self.critic_params(state), trajectory)
        return with_advantages(trajectory, *values, self.discount, self.gae_lambda)

    def policy(self, params: PyTree, batch: Trajectory) -> Distribution:
        """The policy's distribution at each step of the batch.

        Args:
          params: those that the method `policy` of the network needs.
          batch: of `Sample`s, or of other steps with `obs`.
        """
        sample: Sample = batch.steps
        apply: Any = self.network.apply
        return apply(params, sample.obs, batch.carry, batch.first, method="policy")[0]

    def advantages(self, sample: Sample) -> Array:
        """Advantages of a batch, standardised if `normalize_advantages` is set."""
        return standardize(sample.advantage) if self.normalize_advantages else sample.advantage

    def report(self, state: Any, batch: Trajectory, clock: Clock) -> Metrics:
        """The explained variance of the value targets, before the update."""
        sample: Sample = batch.steps
        return {"explained_variance": explained_variance(sample.value, sample.target)}


class JointLossAgent(ActorCriticAgent, GradientAgent):
    """Actor-critic with a joint loss: policy loss + c_1 value loss - c_2 entropy."""

    entropy_coefficient: Scheduled = hyper(0.01, low=0.0, doc="Weight of the entropy bonus.")
    value_coefficient: Scalar = hyper(0.5, low=0.0, doc="Weight of the value loss, 0.5 (R - V)^2.")
    max_grad_norm: Scalar | None = 0.5

    @abstractmethod
    def loss(
        self, params: PyTree, state: Any, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """The loss of a minibatch, a function of `params`, and what to report.

        `state` is the agent's state, whose other fields (a coefficient that adapts) are constants.
        """

    def policy_and_values(self, params: PyTree, batch: Trajectory) -> tuple[Distribution, Array]:
        """The policy's distribution and V(obs) at each step of the batch."""
        sample: Sample = batch.steps
        both: Any = self.network.apply(params, sample.obs, batch.carry, batch.first)
        policy, values, _ = both
        return policy, values

    def joint_loss(
        self, policy_loss: Array, value_loss: Array, entropy: Array, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """The weighted sum of the three terms, and the terms as metrics."""
        bonus = at(self.entropy_coefficient, clock) * entropy
        loss = policy_loss + self.value_coefficient * value_loss - bonus
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}

    def step(
        self, state: Any, batch: Trajectory, clock: Clock, transform: TransformOf | None = None
    ) -> Update:
        """One gradient step on a minibatch; `transform` is the optimiser, given the metrics."""
        params, optimizer, _, metrics = descend(
            self.transform(clock) if transform is None else transform,
            lambda params: self.loss(params, state, batch, clock),
            state.params,
            state.optimizer,
            as_vector="params" in self.flattened,
        )
        return Update(state.replace(params=params, optimizer=optimizer), metrics)
