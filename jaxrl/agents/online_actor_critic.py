"""One-step actor-critic and actor-critic with eligibility traces, for episodes.

Sutton and Barto, "Reinforcement learning: an introduction", 2nd edition, 2018, section 13.5.
"""

from typing import Any

import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.critic import SeparateAgent
from jaxrl.agents.bases.learning import Networks
from jaxrl.agents.bases.traces import along_traces, no_traces
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.optimizers import ascend
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar, Trajectory


class OnlineState(struct.PyTreeNode):
    """Attributes:
    params: of the policy and of the value.
    optimizer, critic_optimizer: states of their optimisers.
    weight: I, discount^t in step t of an episode, of each copy of the environment, `float32[N]`.
    traces: eligibility traces of the policy and of the value, leaves `[N, ...]`; `()` for none.
    """

    params: Networks
    optimizer: optax.OptState
    critic_optimizer: optax.OptState
    weight: Array
    traces: Networks


class Step(struct.PyTreeNode):
    """A step as `update` needs it: `td_error` is r + discount V(s') - V(s).

    `ratio` is rho = pi(a | s) / beta(a | s) for actions of another policy beta; None for 1.
    """

    obs: PyTree
    action: PyTree
    td_error: Array
    ratio: Array | None = None


class OnlineActorCritic(SeparateAgent):
    """Episodic actor-critic: an update at every step, optionally with eligibility traces."""

    num_steps: int = 1
    learning_rate: Scheduled = hyper(1e-3, low=0.0, doc="Learning rate of the policy.")
    critic_learning_rate: Scheduled = hyper(1e-2, low=0.0, doc="Learning rate of the value.")
    lambda_actor: Scalar | None = hyper(
        None, low=0.0, high=1.0, doc="Lambda of the policy's traces; none for the one-step method."
    )
    lambda_critic: Scalar | None = hyper(
        None, low=0.0, high=1.0, doc="Lambda of the value's traces, TD(lambda); none for TD(0)."
    )
    discount_states: bool = hyper(
        True,
        static=True,
        doc="Weight the policy's step in step t of an episode by discount^t (the factor I); "
        "without it, this is not the gradient of the discounted return.",
    )

    default_optimizer = "sgd"

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        name = type(self).__name__
        if self.num_steps != 1:
            raise InvalidValue(
                f"num_steps is {self.num_steps}: {name} learns from each step before the next. "
                "Leave it 1, or use A2C"
            )
        if self.core != "none":
            raise InvalidValue(
                f"core is {self.core!r}: {name} learns from single steps, so that no gradient "
                "reaches a recurrent state. Leave it 'none', or use A2C"
            )

    def check_shards(self, number: int) -> None:
        name = type(self).__name__
        raise InvalidValue(f"{name} keeps the environments of a member together, and their traces")

    def init(self, key: Key) -> OnlineState:
        params, start = self.init_params(key), Clock.start()
        optimizer = self.optimizer_at(self.learning_rate, start).init(params.actor)
        fitted = self.optimizer_at(self.critic_learning_rate, start).init(params.critic)
        traces = Networks(
            no_traces(params.actor, self.num_envs) if self.lambda_actor is not None else (),
            no_traces(params.critic, self.num_envs) if self.lambda_critic is not None else (),
        )
        return OnlineState(params, optimizer, fitted, jnp.ones(self.num_envs), traces)

    def prepare(self, state: OnlineState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """The TD error, delta = R + gamma v(S') - v(S), with v(S') = 0 after termination."""
        steps = trajectory.steps
        values, next_values = self.values(state.params.critic, trajectory)
        td_error = steps.reward + self.discount * next_values - values
        return trajectory.replace(steps=Step(steps.obs, steps.action, td_error))

    def update(self, state: OnlineState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """A step of policy and value along delta z, the mean over copies of the environment."""
        step: Step = batch.steps  # [N], in the order of the copies
        params, traces, first, apply = state.params, state.traces, batch.first, self.network.apply
        ones = jnp.ones_like(step.td_error)
        weight = jnp.where(first, 1.0, self.discount * state.weight)
        rho = ones if step.ratio is None else step.ratio
        scale = rho * weight if self.discount_states else rho

        def log_prob(actor: PyTree, step: Step) -> Array:
            policy: Any = apply(actor, step.obs, method="policy")[0]
            return policy.log_prob(step.action)

        def value(critic: PyTree, step: Step) -> Array:
            values: Any = apply(critic, step.obs, method="value")[0]
            return values

        def fade(decay: Scalar | None) -> Any:
            return None if decay is None else rho * jnp.where(first, 0.0, self.discount * decay)

        delta = step.td_error
        of_policy, z_actor = along_traces(
            log_prob, params.actor, step, delta, scale, traces.actor, fade(self.lambda_actor)
        )
        of_value, z_critic = along_traces(
            value, params.critic, step, delta, rho, traces.critic, fade(self.lambda_critic)
        )
        descent = self.optimizer_at(self.learning_rate, clock)
        actor, optimizer = ascend(descent, of_policy, params.actor, state.optimizer)
        descent = self.optimizer_at(self.critic_learning_rate, clock)
        critic, fitted = ascend(descent, of_value, params.critic, state.critic_optimizer)
        new = OnlineState(
            Networks(actor, critic), optimizer, fitted, weight, Networks(z_actor, z_critic)
        )
        return Update(new, {"value_loss": 0.5 * mean(jnp.square(delta))})
