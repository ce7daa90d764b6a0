"""PPO with the clipped surrogate (Schulman, Wolski, Dhariwal, Radford and Klimov, 2017)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agent import Update
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.agents.bases.kl_control import adapted_rate, check_adaptive_rate
from jaxrl.agents.bases.learning import TrainState
from jaxrl.agents.bases.proximal import ProximalAgent
from jaxrl.hyper import hyper
from jaxrl.losses import approximate_kl, clip_fraction, clipped_surrogate, clipped_value_loss, mean
from jaxrl.optimizers import TransformOf
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, Mean, PyTree, Scalar, Trajectory


class PPOState(TrainState):
    """Attributes:
    stopped: `bool[]`, whether `target_kl` has stopped the current iteration.
    learning_rate: `float32[]`, the learning rate if `desired_kl` adapts it, else `()`.
    """

    stopped: Array
    learning_rate: Any = ()


class PPO(ProximalAgent):
    """Proximal policy optimisation with a clipped surrogate."""

    clip_epsilon: Scheduled = hyper(
        0.2,
        low=0.0,
        open_low=True,
        may_end_low=True,
        doc="Clipping range of the probability ratio.",
    )
    clip_value: bool = hyper(
        True, static=True, doc="Also clip the change of the value, by clip_epsilon."
    )
    target_kl: Scalar | None = hyper(
        None,
        low=0.0,
        open_low=True,
        doc="Approximate KL divergence (nats) at which an iteration stops; none for no limit.",
    )
    desired_kl: Scalar | None = hyper(
        None,
        low=0.0,
        open_low=True,
        doc="Approximate KL divergence (nats) from the old policy, to which the learning rate "
        "adapts before each step, from learning_rate on; none for no adaptation.",
    )

    flattened = ("params",)

    def init(self, key: Key) -> PPOState:
        start = super().init(key)
        adapts = self.desired_kl is not None
        rate = jnp.asarray(self.learning_rate, jnp.float32) if adapts else ()
        return PPOState(start.params, start.optimizer, jnp.array(False), rate)

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.desired_kl is not None:
            check_adaptive_rate(self.learning_rate)

    def loss(
        self, params: PyTree, state: Any, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """The loss -L^CLIP + value and entropy terms (eq. 9), and metrics."""
        sample: Sample = batch.steps
        policy, values = self.policy_and_values(params, batch)
        log_ratio = policy.log_prob(sample.action) - sample.log_prob
        clip_epsilon = at(self.clip_epsilon, clock)
        policy_loss = clipped_surrogate(log_ratio, self.advantages(sample), clip_epsilon)
        value_loss = clipped_value_loss(
            values, sample.value, sample.target, clip_epsilon if self.clip_value else None
        )
        loss, metrics = self.joint_loss(policy_loss, value_loss, mean(policy.entropy()), clock)
        return loss, metrics | {
            "approximate_kl": approximate_kl(log_ratio),
            "clip_fraction": clip_fraction(log_ratio, clip_epsilon),
        }

    def step(
        self, state: PPOState, batch: Trajectory, clock: Clock, transform: TransformOf | None = None
    ) -> Update:
        """One gradient step, whose learning rate may adapt to the KL divergence before it."""
        if self.desired_kl is None:
            return super().step(state, batch, clock, transform)
        desired_kl = self.desired_kl

        def rate(metrics):  # the policy has not moved yet in an iteration's first step
            adapted = adapted_rate(state.learning_rate, metrics["approximate_kl"], desired_kl)
            return jnp.where(self.opens_iteration(clock), state.learning_rate, adapted)

        def of_rate(metrics):
            return self.optimizer_at(rate(metrics), clock, **self.optimizer_options)

        new_state, metrics, _ = super().step(state, batch, clock, transform or of_rate)
        now = rate(metrics)
        return Update(new_state.replace(learning_rate=now), metrics | {"learning_rate": now})

    def opens_iteration(self, clock: Clock) -> Array:
        """Whether this is the first update of an iteration, `bool[]`."""
        return clock.update % self.plan.updates_per_iteration == 0

    def update(self, state: PPOState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """One gradient step on one minibatch."""
        if self.target_kl is None:
            return self.step(state, batch, clock)
        target_kl = self.target_kl
        stopped = state.stopped & ~self.opens_iteration(clock)

        def go_on(state):
            new_state, metrics, _ = self.step(state, batch, clock)
            too_far = metrics["approximate_kl"] > target_kl
            kept = jax.tree.map(lambda old, new: jnp.where(too_far, old, new), state, new_state)
            rate = new_state.learning_rate  # slower next time, also if this step was too far
            weight = {name: Mean.of(x) for name, x in metrics.items()}
            return Update(kept.replace(stopped=too_far, learning_rate=rate), weight)

        def stay(state):
            metrics = jax.eval_shape(go_on, state).metrics
            return Update(state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics))

        return jax.lax.cond(stopped, stay, go_on, state.replace(stopped=stopped))
