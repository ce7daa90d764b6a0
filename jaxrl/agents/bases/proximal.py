"""Base class of PPO and PPO with a penalty: epochs of minibatches on an advantage actor-critic."""

import dataclasses
from typing import Any, Literal

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.actor_critic import JointLossAgent, Sample
from jaxrl.agents.bases.learning import AdamAgent, MinibatchAgent
from jaxrl.hyper import hyper
from jaxrl.losses import standardize
from jaxrl.types import Array, Clock, Scalar, Trajectory


class ProximalAgent(MinibatchAgent, JointLossAgent, AdamAgent):
    """Several epochs of minibatches on each rollout; subclasses add `loss` and `update`."""

    num_envs: int = 4
    num_steps: int = 128
    adam_epsilon: Scalar = 1e-5
    normalize_over: Literal["minibatch", "rollout"] = hyper(
        "minibatch",
        static=True,
        doc="Steps over which normalize_advantages standardises: each minibatch, or all steps of "
        "the rollout.",
    )
    recompute_advantages: bool = hyper(
        False,
        static=True,
        doc="Compute values, advantages and value targets again before each epoch, not only the "
        "first (Andrychowicz et al., 2021). clip_value then starts from the new values.",
    )

    @property
    def plan(self) -> OnPolicy:
        return dataclasses.replace(super().plan, prepare_each_epoch=self.recompute_advantages)

    @property
    def steps_per_standardization(self) -> int:
        if self.normalize_over == "rollout":
            return self.plan.steps_per_iteration
        return super().steps_per_standardization

    def prepare(self, state: Any, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Computes values, GAE and value targets, and standardises if over the whole rollout."""
        prepared = super().prepare(state, trajectory, clock)
        if not self._standardizes_rollouts:
            return prepared
        sample: Sample = prepared.steps
        return prepared.replace(steps=sample.replace(advantage=standardize(sample.advantage)))

    def advantages(self, sample: Sample) -> Array:
        """Advantages of a minibatch, standardised if that has not been done for the rollout."""
        return sample.advantage if self._standardizes_rollouts else super().advantages(sample)

    @property
    def _standardizes_rollouts(self) -> bool:
        return self.normalize_advantages and self.normalize_over == "rollout"
