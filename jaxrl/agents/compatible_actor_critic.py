"""Stochastic actor-critic with a compatible critic.

Sutton, McAllester, Singh and Mansour, "Policy gradient methods for reinforcement learning with
function approximation", 2000, theorem 2; SAC in Silver et al., "Deterministic policy gradient
algorithms", 2014, where `critic_fit="regression"` is SAC-B of section 5.1. With
`natural_gradient`, Peters and Schaal, "Natural actor-critic", 2008.
"""

import jax

from jaxrl.agents.bases.compatible import CompatibleAgent
from jaxrl.losses import mean
from jaxrl.solvers import directional_derivative
from jaxrl.types import Array, PyTree, Trajectory


class CompatibleActorCritic(CompatibleAgent):
    """On-policy actor-critic with a critic linear in grad log pi.

    Its gradient is unbiased over the states of the rollout once w and V are exact. A regression on
    the batch of the policy's own step cancels w, because the residuals of a regression are
    orthogonal to its features: that step is then grad log pi times the TD error.
    """

    def score(self, actor: PyTree, weights: PyTree, batch: Trajectory) -> tuple[Array, Array]:
        """log pi(a | s) and grad log pi(a | s)^T w, both `[B]`."""

        def log_prob(actor):
            return self.policy(actor, batch).log_prob(batch.steps.action)

        return directional_derivative(log_prob, actor, weights)

    def advantage(self, actor: PyTree, weights: PyTree, batch: Trajectory) -> Array:
        """grad log pi(a | s)^T w, whose mean over the policy's actions is 0."""
        return self.score(actor, weights, batch)[1]

    def gain(self, actor: PyTree, weights: PyTree, batch: Trajectory) -> Array:
        """Its gradient is the mean of grad log pi(a | s) A(s, a)."""
        log_prob, advantage = self.score(actor, weights, batch)
        return mean(log_prob * jax.lax.stop_gradient(advantage))
