"""Natural policy gradient (Kakade, "A natural policy gradient", 2001)."""

import jax
import jax.numpy as jnp

from jaxrl.agents.bases.natural_gradient import NaturalGradientAgent, scale_to_radius
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Clock, Metrics, PyTree, Trajectory


class NPG(NaturalGradientAgent):
    """Natural policy gradient: a step along F^-1 g, of fixed size or to a KL radius."""

    kl_radius: Scheduled | None = hyper(
        0.01,
        low=0.0,
        open_low=True,
        doc="Mean KL divergence (nats) to which the step is scaled, to second order; a step that "
        "exceeds it is shortened once. None for steps by learning_rate.",
    )
    learning_rate: Scheduled = hyper(
        0.1, low=0.0, doc="Step size along F^-1 g, if kl_radius is none."
    )

    def improve(self, actor: PyTree, batch: Trajectory, clock: Clock) -> tuple[PyTree, Metrics]:
        _, gradient = self.surrogate_and_gradient(actor, batch)
        solution, curvature = self.natural_gradient(actor, gradient, batch)
        if self.kl_radius is None:
            scale = jnp.where(curvature > 0, at(self.learning_rate, clock), 0.0)
        else:
            scale = scale_to_radius(at(self.kl_radius, clock), curvature)
        old_policy = self.policy(actor, batch)

        def step(scale):
            new = jax.tree.map(lambda p, x: p + scale * x, actor, solution.x)
            return new, mean(old_policy.kl(self.policy(new, batch)))

        new, kl = step(scale)
        if self.kl_radius is not None:
            # A tiny KL divergence may be negative because of rounding.
            share = jnp.clip(kl / at(self.kl_radius, clock), 1.0)
            scale = jnp.where(jnp.isfinite(share), scale / jnp.sqrt(share), 0.0)
            new, kl = step(scale)
        return new, {
            "kl": kl,
            "entropy": mean(old_policy.entropy()),
            "step_scale": scale,
            "cg_residual": solution.relative_residual,
            "cg_steps": solution.num_steps,
        }
