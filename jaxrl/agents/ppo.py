"""PPO with the clipped surrogate (Schulman, Wolski, Dhariwal, Radford and Klimov, 2017)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agent import Update
from jaxrl.agents.bases.actor_critic import JointLossAgent, Sample
from jaxrl.agents.bases.learning import AdamAgent, MinibatchAgent, TrainState
from jaxrl.hyper import hyper
from jaxrl.losses import approximate_kl, clip_fraction, clipped_surrogate, clipped_value_loss, mean
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, Key, Mean, PyTree, Scalar, Trajectory


class PPOState(TrainState):
    """Attributes:
    stopped: `bool[]`, whether `target_kl` has stopped the current iteration.
    """

    stopped: Array


class PPO(MinibatchAgent, JointLossAgent, AdamAgent):
    """Proximal policy optimisation with a clipped surrogate."""

    num_envs: int = 4
    num_steps: int = 128
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
    adam_epsilon: Scalar = 1e-5
    target_kl: Scalar | None = hyper(
        None,
        low=0.0,
        open_low=True,
        doc="Approximate KL divergence (nats) at which an iteration stops; none for no limit.",
    )

    flattened = ("params",)

    def init(self, key: Key) -> PPOState:
        start = super().init(key)
        return PPOState(start.params, start.optimizer, jnp.array(False))

    def loss(
        self, params: PyTree, state: Any, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """The loss -L^CLIP + value and entropy terms (eq. 9), and metrics."""
        sample: Sample = batch.steps
        both: Any = self.network.apply(params, sample.obs, batch.carry, batch.first)
        policy, values, _ = both
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

    def update(self, state: PPOState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """One gradient step on one minibatch."""
        if self.target_kl is None:
            return self.step(state, batch, clock)
        target_kl = self.target_kl
        opens_iteration = clock.update % self.plan.updates_per_iteration == 0
        stopped = state.stopped & ~opens_iteration

        def go_on(state):
            new_state, metrics, _ = self.step(state, batch, clock)
            too_far = metrics["approximate_kl"] > target_kl
            new_state = jax.tree.map(
                lambda old, new: jnp.where(too_far, old, new), state, new_state
            )
            weight = {name: Mean.of(x) for name, x in metrics.items()}
            return Update(new_state.replace(stopped=too_far), weight)

        def stay(state):
            metrics = jax.eval_shape(go_on, state).metrics
            return Update(state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics))

        return jax.lax.cond(stopped, stay, go_on, state.replace(stopped=stopped))
