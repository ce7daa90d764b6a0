"""Implicit Q-learning (Kostrikov, Nair and Levine, "Offline RL with implicit Q-learning", 2022)."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import EvalMode, Offline, Update
from jaxrl.agents.bases.q_critics import QCriticsAgent, dropout_keys
from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import expectile_loss, mean
from jaxrl.networks.critics import Critics, PolicyOutputs
from jaxrl.networks.own_modules import learning_pass
from jaxrl.networks.variables import polyak_update, trained
from jaxrl.optimizers import learn
from jaxrl.schedules import Scheduled
from jaxrl.types import (
    Array,
    Clock,
    Discrete,
    EnvSpec,
    Key,
    PyTree,
    Scalar,
    Stream,
    Transition,
    stream,
)
from jaxrl.validation import holds_anywhere


class IQLState(struct.PyTreeNode):
    """Attributes:
    actor: parameters of the policy.
    value: parameters of V(s).
    critic: parameters of the critics.
    target: target networks of the critics.
    actor_optimizer, value_optimizer, critic_optimizer: states of the optimisers.
    """

    actor: PyTree
    value: PyTree
    critic: PyTree
    target: PyTree
    actor_optimizer: optax.OptState
    value_optimizer: optax.OptState
    critic_optimizer: optax.OptState


class IQL(QCriticsAgent):
    """Values of the best actions that the data have, and a policy that clones these actions."""

    learning_rate: Scheduled = hyper(3e-4, low=0.0, doc="Learning rate of the policy.")
    num_updates: int = hyper(100, static=True, doc="Gradient steps per iteration.")
    batch_size: int = hyper(256, static=True, doc="Transitions per gradient step.")
    expectile: Scalar = hyper(
        0.7,
        low=0.0,
        high=1.0,
        open_low=True,
        doc="Expectile of Q(s, a) over the data's actions that V(s) is, tau: 0.5 for the mean; the "
        "closer to 1, the closer to the maximum.",
    )
    inverse_temperature: Scalar = hyper(
        3.0,
        low=0.0,
        doc="Weight of the advantage in the policy's exponent, beta: 0 clones the data.",
    )
    max_weight: Scalar = hyper(
        100.0, low=0.0, open_low=True, doc="Maximum of the weight of a transition for the policy."
    )

    instead = "it also takes Discrete; use BehaviourCloning for others"
    eval_modes: ClassVar[tuple[EvalMode, ...]] = ("greedy", "sample")

    def check_space(self, spec: EnvSpec) -> None:
        if not isinstance(spec.action, Discrete):
            super().check_space(spec)

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if holds_anywhere(lambda x: x >= 1.0, self.expectile):
            raise InvalidValue(
                f"expectile is {self.expectile}: it must be below 1, or V would never fall"
            )

    @property
    def plan(self) -> Offline:
        return Offline(self.num_updates, self.batch_size)

    @property
    def actor(self) -> PolicyOutputs:
        """The policy; for a box, of actions in [-1, 1]."""
        num, few = self.num_actions or self.num_values, self.num_actions > 0
        return PolicyOutputs(
            self.new_torso, self.hidden_sizes, self.activation, num, self._call, few
        )

    @property
    def value_network(self) -> Critics:
        """V(s), as the only output of one critic."""
        parts = self.new_torso, self.critic_widths, self.activation, 1, 1, self._call
        return Critics(*parts, self.layer_norm)

    def init(self, key: Key) -> IQLState:
        actor_key, critic_key = jax.random.split(key)
        obs, start = self.bound_spec.dummy_observation(1), Clock.start()
        actor = self.new_params(self.actor, actor_key, obs)
        critic, critic_optimizer = self.init_critic(critic_key)
        value = self.new_params(self.value_network, stream(critic_key, Stream.INIT), obs)
        return IQLState(
            actor,
            value,
            critic,
            critic,
            self.optimizer_at(self.learning_rate, start).init(trained(actor)),
            self.optimizer_at(self.critic_learning_rate, start).init(trained(value)),
            critic_optimizer,
        )

    def state_values(self, params: PyTree, obs: PyTree) -> Array:
        """V(obs), `float32[N]`."""
        values: Any = self.value_network.apply(params, obs)
        return values[0, :, 0]

    def policy(self, params: PyTree, obs: PyTree) -> Distribution:
        """The distribution over actions, `[N]`; for a box over actions in [-1, 1]."""
        found: Any = self.actor.apply(params, obs)
        return found

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        policy = self.policy(state.actor, obs)
        action = policy.sample(key) if explore else policy.mode()
        if not self.num_actions:
            action = self.unscale_action(jnp.clip(action, -1.0, 1.0))
        return carry, action, ()

    def update(self, state: IQLState, batch: Transition, key: Key, clock: Clock) -> Update:
        """Updates V (eq. 5), the policy (eq. 7), the critics (eq. 6) and the target networks."""
        rows, value_key = self.recorded(batch), stream(key, Stream.SAMPLE)
        critic_key, actor_key = dropout_keys(key)
        q = jnp.min(self.q_values(state.target, rows), axis=0)

        def value_loss(params):
            values, carried = learning_pass(self.value_network, params, rows.obs, key=value_key)
            return expectile_loss(q - values[0, :, 0], self.expectile), (carried, None)

        transform = self.optimizer_at(self.critic_learning_rate, clock)
        value, value_optimizer, value_error, _ = learn(
            transform, value_loss, state.value, state.value_optimizer
        )
        advantage = q - self.state_values(value, rows.obs)
        weight = jnp.minimum(jnp.exp(self.inverse_temperature * advantage), self.max_weight)
        action = rows.action if self.num_actions else self.scale_action(rows.action)

        def actor_loss(params):
            policy, carried = learning_pass(self.actor, params, rows.obs, key=actor_key)
            return -mean(weight * policy.log_prob(action)), (carried, None)

        actor, actor_optimizer, actor_error, _ = learn(
            self.optimizer_at(self.learning_rate, clock),
            actor_loss,
            state.actor,
            state.actor_optimizer,
        )
        target = self.bellman_target(rows, self.state_values(value, rows.next_obs))
        critic, critic_optimizer, metrics, _ = self.learn_critic(
            state.critic, state.critic_optimizer, rows, target, critic_key, clock
        )
        new = IQLState(
            actor,
            value,
            critic,
            polyak_update(critic, state.target, self.tau),
            actor_optimizer,
            value_optimizer,
            critic_optimizer,
        )
        losses = {"value_loss": value_error, "policy_loss": actor_error}
        return Update(new, metrics | losses | {"weight": mean(weight)})
