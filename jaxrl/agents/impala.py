"""IMPALA: actors behind the learner, corrected by V-trace, as a pure function.

Espeholt, Soyer, Munos et al., "IMPALA: scalable distributed deep-RL with importance weighted
actor-learner architectures", 2018.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agent import Update
from jaxrl.agents.a2c import A2C
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.agents.bases.learning import TrainState
from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidValue
from jaxrl.estimators import vtrace
from jaxrl.hyper import hyper
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar, Trajectory
from jaxrl.validation import holds_anywhere


class IMPALAState(TrainState):
    """Attributes:
    past: the parameters before each of the last `lag` updates, leaves `[lag, ...]`, oldest first.
    """

    past: PyTree


class IMPALA(A2C):
    """Advantage actor-critic whose actors are behind the learner, corrected by V-trace."""

    num_steps: int = 20
    lag: int = hyper(
        1,
        low=0,
        static=True,
        doc="Updates by which the actors' parameters are behind the learner's; with 0 and the "
        "other defaults, V-trace has nothing to correct, and this is A2C.",
    )
    gae_lambda: Scalar = hyper(1.0, low=0.0, high=1.0, doc="Lambda of V-trace's traces.")
    clip_rho: Scalar = hyper(
        1.0,
        low=0.0,
        open_low=True,
        doc="Largest importance ratio of a TD error and of a gradient.",
    )
    clip_c: Scalar = hyper(1.0, low=0.0, open_low=True, doc="Largest importance ratio of a trace.")

    eval_modes = ("greedy",)  # exploring actions are those of the actors

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if holds_anywhere(operator.gt, self.clip_c, self.clip_rho):
            raise InvalidValue(
                f"clip_c is {self.clip_c} and clip_rho is {self.clip_rho}: V-trace needs clip_c of "
                "at most clip_rho"
            )

    def init(self, key: Key) -> IMPALAState:
        start = super().init(key)
        past = jax.tree.map(lambda x: jnp.stack([x] * self.lag), start.params) if self.lag else ()
        return IMPALAState(start.params, start.optimizer, past)

    def acting_policy(
        self, state: Any, carry: PyTree, obs: PyTree, *, explore: bool
    ) -> tuple[Distribution, PyTree]:
        """The policy of `lag` updates ago; without `explore`, the latest one."""
        if explore and self.lag:
            state = state.replace(params=jax.tree.map(lambda x: x[0], state.past))
        return super().acting_policy(state, carry, obs, explore=explore)

    def prepare(self, state: Any, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """V-trace's targets and advantages (eq. 1 and section 4.2), by the latest parameters."""
        steps, log_prob = trajectory.steps, trajectory.steps.extras["log_prob"]
        values, next_values = self.values(state.params, trajectory)
        found = vtrace(
            steps.reward,
            values,
            next_values,
            steps.terminated,
            steps.truncated,
            self.policy(state.params, trajectory).log_prob(steps.action) - log_prob,
            self.discount,
            self.gae_lambda,
            self.clip_rho,
            self.clip_c,
            self.clip_rho,
        )
        sample = Sample(steps.obs, steps.action, log_prob, values, found.advantages, found.targets)
        return trajectory.replace(steps=sample)

    def update(self, state: Any, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """One gradient step on the whole rollout; the actors move on by one update."""
        new, metrics, *rest = self.step(state, batch, clock)
        if self.lag:

            def moved_on(past: Array, now: Array) -> Array:
                return jnp.concatenate([past[1:], now[None]])

            past = jax.tree.map(moved_on, state.past, state.params)
            new = new.replace(past=past)
        return Update(new, metrics, *rest)
