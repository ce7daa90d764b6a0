"""PPO with the clipped surrogate (Schulman, Wolski, Dhariwal, Radford and Klimov, 2017)."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.actor_critic import ActorCriticAgent, Sample, check_advantages
from jaxrl.hyper import check_range
from jaxrl.losses import (
    approximate_kl,
    clip_fraction,
    clipped_surrogate,
    clipped_value_loss,
    mean,
    standardize,
)
from jaxrl.optimizers import adam, descend
from jaxrl.schedules import Scheduled, at
from jaxrl.types import (
    Array,
    Clock,
    EnvSpec,
    Key,
    Mean,
    Metrics,
    PyTree,
    Scalar,
    Trajectory,
    static,
)


class PPOState(struct.PyTreeNode):
    """Attributes:
    params: of policy and value.
    optimizer: Adam's moments.
    stopped: `bool[]`, this iteration's policy has moved `target_kl` away.
    """

    params: PyTree
    optimizer: optax.OptState
    stopped: Array


class PPO(ActorCriticAgent):
    """Proximal policy optimisation: several epochs of clipped policy-gradient steps."""

    num_envs: int = static(default=4)
    """Copies of the environment."""
    num_steps: int = static(default=128)
    """Steps of each copy between updates."""
    num_epochs: int = static(default=4)
    """Passes over the collected steps."""
    num_minibatches: int = static(default=4)
    """Parts into which each pass is divided, one gradient step each."""
    learning_rate: Scheduled = 2.5e-4
    """Adam's step size."""
    clip_epsilon: Scheduled = 0.2
    """How far the probability ratio may move before its gradient stops; a schedule may end at 0."""
    clip_value: bool = static(default=True)
    """Clip the change of the value by clip_epsilon, too."""
    normalize_advantages: bool = static(default=True)
    """Standardise the advantages within each minibatch."""
    entropy_coefficient: Scheduled = 0.01
    """Weight of the entropy bonus."""
    value_coefficient: Scalar = 0.5
    """Weight of the value loss."""
    max_grad_norm: Scalar | None = 0.5
    """Global norm above which gradients are scaled down; none: never."""
    adam_epsilon: Scalar = 1e-5
    """Adam's epsilon."""
    target_kl: Scalar | None = None
    """Stop an iteration's updates once the policy has moved this far (nats); none: never."""

    flattened = ("params",)

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(
            num_envs=self.num_envs,
            num_steps=self.num_steps,
            num_epochs=self.num_epochs,
            num_minibatches=self.num_minibatches,
            layout="flat" if self.core == "none" else "env",
        )

    def bind(self, spec: EnvSpec) -> Self:
        check_range(self, "learning_rate")
        check_range(self, "clip_epsilon", open_low=True, may_end_low=True)
        check_range(self, "entropy_coefficient")
        check_range(self, "value_coefficient")
        check_range(self, "max_grad_norm", open_low=True)
        check_range(self, "adam_epsilon", open_low=True)
        check_range(self, "target_kl", open_low=True)
        check_advantages(self)
        return super().bind(spec)

    def optimizer(self, clock: Clock) -> optax.GradientTransformation:
        """Adam, on the gradient scaled to a global norm."""
        return adam(
            self.learning_rate,
            clock,
            epsilon=self.adam_epsilon,
            max_grad_norm=self.max_grad_norm,
        )

    def init(self, key: Key) -> PPOState:
        params = self.init_params(key)
        return PPOState(params, self.optimizer(Clock.start()).init(params), jnp.array(False))

    def loss(
        self, params: PyTree, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """L^CLIP + value and entropy terms (eq. 9), to be minimised, and what to report."""
        sample: Sample = batch.steps
        both: Any = self.network.apply(params, sample.obs, batch.carry, batch.first)
        policy, values, _ = both
        log_ratio = policy.log_prob(sample.action) - sample.log_prob
        advantages = sample.advantage
        if self.normalize_advantages:
            advantages = standardize(advantages)
        clip_epsilon = at(self.clip_epsilon, clock)
        policy_loss = clipped_surrogate(log_ratio, advantages, clip_epsilon)
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
            self.optimizer(clock),
            lambda params: self.loss(params, batch, clock),
            state.params,
            state.optimizer,
        )
        return state.replace(params=params, optimizer=optimizer), metrics
