"""TRPO (Schulman, Levine, Moritz, Jordan and Abbeel, "Trust region policy optimization", 2015)."""

from typing import Self

import jax
import jax.numpy as jnp

from jaxrl.agents.bases.natural_gradient import NaturalGradientAgent, scale_to_radius
from jaxrl.hyper import check_range
from jaxrl.losses import mean
from jaxrl.schedules import Scheduled, at
from jaxrl.solvers import backtracking_line_search
from jaxrl.types import Clock, EnvSpec, Metrics, PyTree, Scalar, Trajectory, static
from jaxrl.validation import check_whole


class TRPO(NaturalGradientAgent):
    """Trust region policy optimisation: the natural gradient to a KL radius, then a line search."""

    kl_radius: Scheduled = 0.01
    """Mean KL divergence from the old policy that no step may exceed (nats), delta."""
    line_search_shrink: Scalar = 0.8
    """Factor by which a refused step is shortened, in (0, 1)."""
    line_search_steps: int = static(default=10)
    """Lengths tried before the policy stays as it is."""

    def bind(self, spec: EnvSpec) -> Self:
        check_range(self, "kl_radius", open_low=True, may_end_low=True)
        check_range(self, "line_search_shrink", 0.0, 0.999, open_low=True)
        check_whole("line_search_steps", self.line_search_steps)
        return super().bind(spec)

    def improve(self, actor: PyTree, batch: Trajectory, clock: Clock) -> tuple[PyTree, Metrics]:
        """Maximises L(theta) subject to mean KL(old || theta) <= delta (eq. 14; appendix C)."""
        kl_radius = at(self.kl_radius, clock)
        surrogate, gradient = jax.value_and_grad(self.surrogate)(actor, batch)
        solution, curvature = self.natural_gradient(actor, gradient, batch)
        beta = scale_to_radius(kl_radius, curvature)
        step = jax.tree.map(lambda x: beta * x, solution.x)
        old_policy = self.policy(actor, batch)

        def judge(candidate):
            new_surrogate = self.surrogate(candidate, batch)
            kl = mean(old_policy.kl(self.policy(candidate, batch)))
            return (new_surrogate > surrogate) & (kl <= kl_radius), (new_surrogate, kl)

        search = backtracking_line_search(
            judge,
            actor,
            step,
            shrink=self.line_search_shrink,
            max_tries=self.line_search_steps,
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
