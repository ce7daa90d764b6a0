"""Q-based policy gradient with random horizons.

Zhang, Koppel, Zhu and Basar, "Global convergence of policy gradient methods to (almost) locally
optimal policies", 2020, algorithms 1 and 2; the undiscounted roll-out is that of Agarwal, Kakade,
Lee and Mahajan, "On the theory of policy gradient methods", 2021.
"""

from typing import Any, Literal

import jax.numpy as jnp

from jaxrl.agents.bases.learning import Networks
from jaxrl.agents.bases.random_horizon import RandomHorizonAgent, Visit
from jaxrl.hyper import hyper
from jaxrl.types import Array, Key, PyTree, Trajectory


class RPG(RandomHorizonAgent):
    """Random-horizon policy gradient: the score at a geometric time, times an unbiased Q."""

    baseline: Literal["none", "learned"] = hyper(
        "learned",
        static=True,
        doc="State baseline: none, or V(obs) fitted to y, which also stands for the rewards after "
        "a roll-out that is cut off.",
    )

    @property
    def fits_critic(self) -> bool:
        return self.baseline == "learned"

    def evaluate(self, params: Networks, batch: Trajectory, key: Key) -> Trajectory:
        """Subtracts V(s) from y, after adding discount V(s') where the roll-out was cut."""
        if not self.fits_critic:
            return batch
        visit: Visit = batch.steps

        def value(obs: PyTree) -> Array:
            apply: Any = self.network.apply
            return apply(params.critic, obs, (), None, method="value")[0]

        beyond = jnp.where(visit.cut, self.discount * value(visit.next_obs), 0.0)
        target = visit.target + beyond
        visit = visit.replace(target=target, advantage=target - value(visit.obs))
        return batch.replace(steps=visit)
