"""COPDAC-Q: compatible off-policy deterministic actor-critic with a Q-learning critic.

Silver, Lever, Heess, Degris, Wierstra and Riedmiller, "Deterministic policy gradient algorithms",
2014, sections 4.2 and 4.3. With `critic_fit="regression"` it is COPDAC-B of section 5.1.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.bases.compatible import CompatibleAgent
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.schedules import Scheduled, at
from jaxrl.solvers import directional_derivative
from jaxrl.types import Array, Box, Clock, EnvSpec, Key, PyTree, Trajectory


class COPDAC(CompatibleAgent):
    """Compatible deterministic actor-critic: the gradient of a policy without noise.

    mu is the mode of the policy network, of whose spread nothing is used. Each batch is used once,
    so that the behaviour is mu plus noise; another behaviour would do as well.
    """

    exploration_noise: Scheduled = hyper(
        0.1,
        low=0.0,
        open_low=True,
        may_end_low=True,
        doc="Standard deviation of the behaviour's noise, in units of the action.",
    )

    eval_modes = ("greedy",)
    keeps_noise = False

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        for field, plain in (("initial_log_std", 0.0), ("std_from", "parameter")):
            if (value := getattr(self, field)) != plain:
                raise InvalidValue(
                    f"{field} is {value!r}: COPDAC's policy is deterministic. Leave "
                    f"{field}={plain!r}, and set exploration_noise"
                )
        if not isinstance(spec.action, Box):
            raise InvalidValue(
                f"COPDAC needs a Box of actions, but the action space is {spec.action}: a "
                "deterministic policy has no gradient there. Use CompatibleActorCritic or A2C"
            )

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """mu(s), with normal noise if exploring."""
        action = self.acting_policy(state, carry, obs, explore=explore)[0].mode()
        if explore:
            noise = at(self.exploration_noise, clock)
            action = action + noise * jax.random.normal(key, action.shape)
        return carry, action, ()

    def mu(self, actor: PyTree, weights: PyTree, batch: Trajectory) -> tuple[Array, Array]:
        """mu(s) and (grad mu(s))^T w, both `[B, D]`."""
        mu, slope = directional_derivative(lambda x: self.policy(x, batch).mode(), actor, weights)
        rows = batch.first.shape
        return mu.reshape(*rows, -1), slope.reshape(*rows, -1)

    def advantage(self, actor: PyTree, weights: PyTree, batch: Trajectory) -> Array:
        """(a - mu(s))^T (grad mu(s))^T w (theorem 3), so that Q(s, mu(s)) = V(s)."""
        mu, slope = self.mu(actor, weights, batch)
        action = batch.steps.action.reshape(mu.shape)
        return jnp.sum((action - mu) * slope, axis=-1)

    def gain(self, actor: PyTree, weights: PyTree, batch: Trajectory) -> Array:
        """Its gradient is the mean of grad mu(s) (grad mu(s)^T w) (eq. 20)."""
        mu, slope = self.mu(actor, weights, batch)
        return mean(jnp.sum(mu * jax.lax.stop_gradient(slope), axis=-1))
