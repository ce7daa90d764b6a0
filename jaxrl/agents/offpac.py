"""Off-policy actor-critic (OffPAC): importance ratios, optional eligibility traces, a TD critic.

Degris, White and Sutton, "Off-policy actor-critic", 2012, with TD(lambda) in place of GTD(lambda)
for the value: "OffPAC-TD" in Silver et al., "Deterministic policy gradient algorithms", 2014.
"""

from typing import Any

import jax.numpy as jnp

from jaxrl.agents.online_actor_critic import OnlineActorCritic, OnlineState
from jaxrl.distributions import Categorical, DiagonalGaussian, Distribution
from jaxrl.errors import InvalidValue
from jaxrl.estimators import importance_ratio
from jaxrl.hyper import hyper
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Box, Clock, Discrete, EnvSpec, Key, PyTree, Trajectory, split_mask


class OffPAC(OnlineActorCritic):
    """Off-policy actor-critic: learns about its policy from the actions of another one.

    The behaviour takes uniformly random actions of a discrete space; in a box, it is normal around
    the mode of the policy. The update weighs the behaviour's states equally.
    """

    behaviour_std: Scheduled = hyper(
        1.0,
        low=0.0,
        open_low=True,
        doc="Standard deviation of the behaviour's actions in a box, around the policy's mode.",
    )
    discount_states: bool = hyper(
        False, static=True, doc="Weight step t of an episode by discount^t in the policy's step."
    )

    eval_modes = ("greedy",)
    keeps_noise = False

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.box_policy != "gaussian":
            raise InvalidValue(
                f"box_policy is {self.box_policy!r}: OffPAC's behaviour policy samples outside the "
                "box, where the density is 0. Use 'gaussian'"
            )
        if not isinstance(spec.action, Box | Discrete):
            raise InvalidValue(
                f"OffPAC's behaviour needs discrete actions or a Box, but the action space is "
                f"{spec.action}: use OnlineActorCritic, which is on-policy"
            )

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Actions of the behaviour and their log-probabilities, or the policy's mode."""
        if not explore:
            return super().act(state, carry, obs, key, clock, explore=False)
        policy, _ = self.acting_policy(state, carry, obs, explore=True)
        behaviour = self.behaviour(policy, obs, clock)
        action = behaviour.sample(key)
        return carry, action, {"log_prob": behaviour.log_prob(action)}

    def behaviour(self, policy: Distribution, obs: PyTree, clock: Clock) -> Distribution:
        """beta(. | s): uniform over available actions, or normal around the policy's mode."""
        space, mode = self.bound_spec.action, policy.mode()
        if isinstance(space, Discrete):
            return Categorical(jnp.zeros((*mode.shape, space.num)), split_mask(obs)[1])
        log_std = jnp.broadcast_to(jnp.log(at(self.behaviour_std, clock)), mode.shape)
        return DiagonalGaussian(mode, log_std, len(space.shape))  # type: ignore[union-attr]

    def prepare(self, state: OnlineState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Also rho = pi(a | s) / beta(a | s), which scales the traces of both (section 2.2)."""
        steps, apply = trajectory.steps, self.network.apply
        policy: Any = apply(state.params.actor, steps.obs, method="policy")[0]
        ratio = importance_ratio(policy.log_prob(steps.action) - steps.extras["log_prob"])
        prepared = super().prepare(state, trajectory, clock)
        return prepared.replace(steps=prepared.steps.replace(ratio=ratio))
