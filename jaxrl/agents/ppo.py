"""PPO with the clipped surrogate (Schulman, Wolski, Dhariwal, Radford and Klimov, 2017)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.actor_critic import ActorCriticAgent, Sample
from jaxrl.agents.bases.learning import AdamAgent, TrainState
from jaxrl.hyper import hyper
from jaxrl.losses import (
    approximate_kl,
    clip_fraction,
    clipped_surrogate,
    clipped_value_loss,
    mean,
)
from jaxrl.optimizers import descend
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, Key, Mean, Metrics, PyTree, Scalar, Trajectory


class PPOState(TrainState):
    """Attributes:
    stopped: `bool[]`, this iteration's policy has moved `target_kl` away.
    """

    stopped: Array


class PPO(ActorCriticAgent, AdamAgent):
    """Proximal policy optimisation: several epochs of clipped policy-gradient steps."""

    num_envs: int = 4
    num_epochs: int = hyper(4, static=True, doc="Passes over the collected steps.")
    num_minibatches: int = hyper(
        4, static=True, doc="Parts into which each pass is divided, one gradient step each."
    )
    clip_epsilon: Scheduled = hyper(
        0.2,
        low=0.0,
        open_low=True,
        may_end_low=True,
        doc="How far the probability ratio may move before its gradient stops.",
    )
    clip_value: bool = hyper(
        True, static=True, doc="Clip the change of the value by clip_epsilon, too."
    )
    entropy_coefficient: Scheduled = hyper(0.01, low=0.0, doc="Weight of the entropy bonus.")
    value_coefficient: Scalar = hyper(0.5, low=0.0, doc="Weight of the value loss.")
    max_grad_norm: Scalar | None = 0.5
    adam_epsilon: Scalar = 1e-5
    target_kl: Scalar | None = hyper(
        None,
        low=0.0,
        open_low=True,
        doc="Stop an iteration's updates once the policy has moved this far (nats); none: never.",
    )

    flattened = ("params",)

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(
            self.num_envs, self.num_steps, self.num_epochs, self.num_minibatches, self.layout
        )

    def init(self, key: Key) -> PPOState:
        start = super().init(key)
        return PPOState(start.params, start.optimizer, jnp.array(False))

    def loss(
        self, params: PyTree, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """L^CLIP + value and entropy terms (eq. 9), to be minimised, and what to report."""
        sample: Sample = batch.steps
        both: Any = self.network.apply(params, sample.obs, batch.carry, batch.first)
        policy, values, _ = both
        log_ratio = policy.log_prob(sample.action) - sample.log_prob
        clip_epsilon = at(self.clip_epsilon, clock)
        policy_loss = clipped_surrogate(log_ratio, self.advantages(sample), clip_epsilon)
        value_loss = clipped_value_loss(
            values, sample.value, sample.target, clip_epsilon if self.clip_value else None
        )
        entropy = mean(policy.entropy())
        loss = (
            policy_loss
            + self.value_coefficient * value_loss
            - at(self.entropy_coefficient, clock) * entropy
        )
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approximate_kl": approximate_kl(log_ratio),
            "clip_fraction": clip_fraction(log_ratio, clip_epsilon),
        }

    def update(
        self, state: PPOState, batch: Trajectory, key: Key, clock: Clock
    ) -> tuple[PPOState, Metrics]:
        """One gradient step on one minibatch."""
        if self.target_kl is None:
            return self._step(state, batch, clock)
        target_kl = self.target_kl
        opens_iteration = clock.update % self.plan.updates_per_iteration == 0
        stopped = state.stopped & ~opens_iteration

        def go_on(state):
            new_state, metrics = self._step(state, batch, clock)
            too_far = metrics["approximate_kl"] > target_kl
            new_state = jax.tree.map(
                lambda old, new: jnp.where(too_far, old, new), state, new_state
            )
            weight = {name: Mean.of(x) for name, x in metrics.items()}
            return new_state.replace(stopped=too_far), weight

        def stay(state):
            _, metrics = jax.eval_shape(go_on, state)
            return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

        return jax.lax.cond(stopped, stay, go_on, state.replace(stopped=stopped))

    def _step(self, state: PPOState, batch: Trajectory, clock: Clock) -> tuple[PPOState, Any]:
        params, optimizer, _, metrics = descend(
            self.transform(clock),
            lambda params: self.loss(params, batch, clock),
            state.params,
            state.optimizer,
        )
        return state.replace(params=params, optimizer=optimizer), metrics
