"""Short-horizon actor-critic: policy gradients through the environment (Xu, Makoviychuk, Narang,
Ramos, Matusik, Garg and Macklin, "Accelerated policy learning with parallel differentiable
simulation", 2022).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import OnPolicy, Update
from jaxrl.agents.bases.actor_critic import with_advantages
from jaxrl.agents.bases.critic import CriticAgent, finite
from jaxrl.agents.bases.learning import GradientAgent, Networks
from jaxrl.errors import InvalidValue
from jaxrl.estimators import discount_weights
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.variables import polyak_update
from jaxrl.optimizers import ascend
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Box, Clock, EnvSpec, Key, PyTree, Scalar, Trajectory


class ShortHorizonState(struct.PyTreeNode):
    """Attributes:
    params: of the policy and of the critic.
    target: parameters of the target critic.
    optimizer: the policy's.
    critic_optimizer: the critic's.
    """

    params: Networks
    target: PyTree
    optimizer: optax.OptState
    critic_optimizer: Any


class SHAC(CriticAgent, GradientAgent):
    """Short-horizon actor-critic: ascends the return of a short rollout by its own derivative.

    For environments whose step has a useful derivative by state and action. Actions beyond the
    bounds of the space are clipped, and have none.
    """

    num_envs: int = 64
    num_steps: int = 32
    critic_epochs: int = 16
    critic_minibatches: int = 4
    learning_rate: Scheduled = 2e-3
    max_grad_norm: Scalar | None = 1.0
    bootstrap: bool = hyper(
        True,
        static=True,
        doc="Add the target critic's value where a rollout or an episode is cut off. Without it, "
        "the gradient is that of the rewards of each rollout alone.",
    )
    td_lambda: Scalar = hyper(
        0.95, low=0.0, high=1.0, doc="Lambda of the critic's targets, TD(lambda)."
    )
    tau: Scalar = hyper(
        0.8, low=0.0, high=1.0, doc="Step of the target critic towards the critic per iteration."
    )

    keeps_noise = False  # noise linear in features would need its derivative by the state

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(self.num_envs, self.num_steps, layout=self.layout, differentiable=True)

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if not isinstance(spec.action, Box):
            raise InvalidValue(
                f"SHAC needs a Box of actions, but the action space is {spec.action}: a choice has "
                "no derivative. Use PPO"
            )
        if self.box_policy == "beta":
            raise InvalidValue(
                "box_policy is 'beta', whose samples have no derivative here: use 'gaussian' or "
                "'squashed'"
            )
        if self.core != "none":
            raise InvalidValue(
                f"core is {self.core!r}: SHAC's critic values single observations. Leave "
                "core='none', or use PPO"
            )

    def init(self, key: Key) -> ShortHorizonState:
        params = self.init_params(key)
        optimizer = self.transform(Clock.start()).init(params.actor)
        return ShortHorizonState(params, params.critic, optimizer, self.init_critic(params.critic))

    def transform(self, clock: Clock) -> optax.GradientTransformation:
        """The policy's optimiser, which skips gradients that are not finite."""
        return finite(super().transform(clock))

    def critic_params(self, state: ShortHorizonState) -> PyTree:
        return state.target

    def objective(self, state: ShortHorizonState, trajectory: Trajectory, clock: Clock) -> Array:
        """sum_t discount^t r_t + discount^h V(s_h), averaged over copies (eq. 5, times h).

        After a reset inside the rollout, t starts at 0 again.
        """
        steps = trajectory.steps
        terminated, truncated = steps.terminated, steps.truncated
        weight = discount_weights(terminated | truncated, self.discount)
        gain = weight * steps.reward
        if self.bootstrap:
            apply: Any = self.network.apply
            critic = jax.lax.stop_gradient(state.target)
            values, _ = apply(critic, steps.next_obs, (), None, method="value")
            cut = truncated.at[-1].set(True) & ~terminated
            gain = gain + jnp.where(cut, self.discount * weight * values, 0.0)
        return mean(jnp.sum(gain, axis=0))

    def follow(self, state: ShortHorizonState, gradient: ShortHorizonState, clock: Clock) -> Update:
        """A step of the policy."""
        uphill = gradient.params.actor
        actor, optimizer = ascend(
            self.transform(clock), uphill, state.params.actor, state.optimizer
        )
        state = state.replace(params=state.params.replace(actor=actor), optimizer=optimizer)
        return Update(state, {"gradient_norm": optax.tree.norm(uphill)})

    def prepare(self, state: ShortHorizonState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """The critic's targets, TD(lambda) with the target critic (eq. 7 to 9)."""
        values = self.values(state.target, trajectory)
        return with_advantages(trajectory, *values, self.discount, self.td_lambda)

    def update(self, state: ShortHorizonState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """The critic's epochs, and a step of its target."""
        critic, fitted, error = self.fit_critic(
            state.params.critic, state.critic_optimizer, batch, key, clock
        )
        state = state.replace(
            params=state.params.replace(critic=critic),
            target=polyak_update(critic, state.target, self.tau),
            critic_optimizer=fitted,
        )
        return Update(state, {"value_loss": error})
