"""TRPO (Schulman, Levine, Moritz, Jordan and Abbeel, "Trust region policy optimization", 2015)."""

import jax
import jax.numpy as jnp

from jaxrl.agents.bases.natural_gradient import NaturalGradientAgent, scale_to_radius
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.schedules import Scheduled, at
from jaxrl.solvers import backtracking_line_search
from jaxrl.types import Clock, Metrics, PyTree, Scalar, Trajectory


class TRPO(NaturalGradientAgent):
    """Trust region policy optimisation: a natural-gradient step with a line search."""

    kl_radius: Scheduled = hyper(
        0.01,
        low=0.0,
        open_low=True,
        may_end_low=True,
        doc="Maximum mean KL divergence from the old policy per step (nats), delta.",
    )
    line_search_shrink: Scalar = hyper(
        0.8,
        low=0.0,
        high=0.999,
        open_low=True,
        doc="Factor by which the line search shortens a rejected step.",
    )
    line_search_steps: int = hyper(
        10, static=True, doc="Maximum number of step lengths that the line search tries."
    )

    def improve(self, actor: PyTree, batch: Trajectory, clock: Clock) -> tuple[PyTree, Metrics]:
        """Maximises L(theta) subject to mean KL(old || theta) <= delta (eq. 14; appendix C)."""
        kl_radius = at(self.kl_radius, clock)
        surrogate, gradient = self.surrogate_and_gradient(actor, batch)
        solution, curvature = self.natural_gradient(actor, gradient, batch)
        beta = scale_to_radius(kl_radius, curvature)
        step = jax.tree.map(lambda x: beta * x, solution.x)
        old_policy = self.policy(actor, batch)

        def judge(candidate):
            new_surrogate = self.surrogate(candidate, batch)
            kl = mean(old_policy.kl(self.policy(candidate, batch)))
            return (new_surrogate > surrogate) & (kl <= kl_radius), (new_surrogate, kl)

        search = backtracking_line_search(
            judge, actor, step, shrink=self.line_search_shrink, max_tries=self.line_search_steps
        )
        new_surrogate, kl = search.report
        return search.x, {
            "kl": kl,
            "surrogate_gain": jnp.where(search.accepted, new_surrogate - surrogate, 0.0),
            "entropy": mean(old_policy.entropy()),
            "accepted": search.accepted,
            "line_search_tries": search.num_tries,
            "step_scale": search.scale,
            "cg_residual": solution.relative_residual,
            "cg_steps": solution.num_steps,
        }
