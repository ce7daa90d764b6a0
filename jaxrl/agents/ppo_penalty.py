"""PPO with a KL penalty (Schulman, Wolski, Dhariwal, Radford and Klimov, 2017, section 4)."""

from typing import Any, Literal

import jax.numpy as jnp

from jaxrl.agent import Update
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.agents.bases.kl_control import adapted_coefficient
from jaxrl.agents.bases.learning import TrainState
from jaxrl.agents.bases.proximal import ProximalAgent
from jaxrl.distributions import Distribution
from jaxrl.hyper import hyper
from jaxrl.losses import largest, mean, surrogate_loss, value_loss
from jaxrl.types import Array, Clock, Key, PyTree, Scalar, Trajectory
from jaxrl.xla.blocks import map_blocks

Direction = Literal["forward", "reverse"]
Reduction = Literal["mean", "max"]


class PPOPenaltyState(TrainState):
    """Attributes:
    old_params: parameters of pi_old, the policy that collects the data of an iteration.
    kl_coefficient: `float32[]`, the weight of the penalty, beta.
    """

    old_params: PyTree
    kl_coefficient: Array


class PPOPenalty(ProximalAgent):
    """Proximal policy optimisation with a KL penalty, whose coefficient adapts.

    With `kl_reduction="max"` and the constant 4 epsilon gamma / (1 - gamma)^2 as a fixed
    coefficient, epsilon = max |A|, the objective is the lower bound of Schulman et al., 2015,
    eq. 9, for the states of the batch. At a discount of 0.99 this is about 40,000 epsilon, and
    steps are too small to use: so the coefficient adapts.
    """

    kl_coefficient: Scalar = hyper(
        1.0, low=0.0, high=1e8, doc="Weight of the KL penalty, beta: the initial one if it adapts."
    )
    target_kl: Scalar | None = hyper(
        0.01,
        low=0.0,
        open_low=True,
        doc="KL divergence (nats) per iteration to which the penalty adapts, d_targ; none for a "
        "fixed kl_coefficient.",
    )
    min_kl_coefficient: Scalar = hyper(
        1e-6,
        low=0.0,
        open_low=True,
        doc="Smallest kl_coefficient that adaptation reaches. The paper has no limit; but a "
        "penalty that faded, because a solved task moves the policy little, grows back slowly.",
    )
    kl_direction: Direction = hyper(
        "forward",
        static=True,
        doc="Divergence of the penalty: KL(old || new) (forward, as in the paper) or "
        "KL(new || old) (reverse).",
    )
    kl_reduction: Reduction = hyper(
        "mean",
        static=True,
        doc="Penalise the mean divergence over states, or the largest (max, as in TRPO's theory).",
    )

    flattened = ("params", "old_params")

    def init(self, key: Key) -> PPOPenaltyState:
        start = super().init(key)
        beta = jnp.asarray(self.kl_coefficient, jnp.float32)
        return PPOPenaltyState(start.params, start.optimizer, start.params, beta)

    def loss(
        self, params: PyTree, state: Any, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """The loss -L^KLPEN (eq. 8) + value and entropy terms, and metrics."""
        sample: Sample = batch.steps
        policy, values = self.policy_and_values(params, batch)
        log_ratio = policy.log_prob(sample.action) - sample.log_prob
        loss, metrics = self.joint_loss(
            surrogate_loss(log_ratio, self.advantages(sample)),
            value_loss(values, sample.target),
            mean(policy.entropy()),
            clock,
        )
        # pi_old is computed from its parameters, one more forward pass, instead of being stored at
        # each step: this suits any distribution, also one with a standard deviation that all states
        # share, and takes no memory per step.
        kl = self.reduced(self.divergence(self.policy(state.old_params, batch), policy))
        penalty = state.kl_coefficient * kl
        return loss + penalty, metrics | {"kl_penalty": penalty}

    def divergence(self, old: Distribution, new: Distribution) -> Array:
        """The exact divergence in each state, in nats."""
        return old.kl(new) if self.kl_direction == "forward" else new.kl(old)

    def reduced(self, divergence: Array) -> Array:
        """The mean over states, or the largest, `float32[]`."""
        return mean(divergence) if self.kl_reduction == "mean" else largest(divergence)

    def update(self, state: PPOPenaltyState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """One gradient step on one minibatch."""
        return self.step(state, batch, clock)

    def end_iteration(
        self, state: PPOPenaltyState, batch: Trajectory, key: Key, clock: Clock
    ) -> Update:
        """Adapts beta to d, the divergence over the whole batch after the update (section 4)."""

        def divergence(batch):
            old, new = (self.policy(p, batch) for p in (state.old_params, state.params))
            return self.divergence(old, new)

        each = divergence(batch) if self.core != "none" else map_blocks(divergence, batch)
        kl, beta = self.reduced(each), state.kl_coefficient
        if self.target_kl is not None:
            beta = adapted_coefficient(beta, kl, self.target_kl, self.min_kl_coefficient)
        state = state.replace(old_params=state.params, kl_coefficient=beta)
        return Update(state, {"kl": kl, "kl_coefficient": beta})
