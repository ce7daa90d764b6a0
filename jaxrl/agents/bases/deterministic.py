"""A deterministic policy mu(s) that follows the gradient of a critic Q(s, mu(s))."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.learning import Networks, every
from jaxrl.agents.bases.q_critics import QCriticsAgent, dropout_keys
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.critics import Outputs
from jaxrl.networks.own_modules import learning_pass
from jaxrl.networks.variables import polyak_update, trained
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, Key, PyTree, Scalar


class DeterministicState(struct.PyTreeNode):
    """Attributes:
    params: parameters of policy and critics.
    target: target networks, slow copies of `params`.
    actor_optimizer, critic_optimizer: states of the optimisers.
    """

    params: Networks
    target: Networks
    actor_optimizer: optax.OptState
    critic_optimizer: optax.OptState


class DeterministicAgent(QCriticsAgent):
    """The update of DDPG and TD3; subclasses add where rows come from."""

    learning_rate: Scheduled = hyper(3e-4, low=0.0, doc="Learning rate of the policy.")
    num_critics: int = 1
    policy_delay: int = hyper(
        1, static=True, doc="Critic updates per update of the policy and the target networks."
    )
    target_noise: Scalar = hyper(
        0.0,
        low=0.0,
        doc="Standard deviation of the noise on target actions, relative to half the action range.",
    )
    target_noise_clip: Scalar = hyper(
        0.5, low=0.0, doc="Maximum of the noise on target actions, relative to half the range."
    )

    @property
    def actor(self) -> Outputs:
        return self.outputs(self.num_values)

    def policy(self, params: PyTree, obs: PyTree) -> Array:
        """mu(obs), `float32[N, num_values]` in [-1, 1]."""
        outputs: Any = self.actor.apply(params, obs)
        return jnp.tanh(outputs)

    def init(self, key: Key) -> DeterministicState:
        actor_key, critic_key = jax.random.split(key)
        actor = self.new_params(self.actor, actor_key, self.bound_spec.dummy_observation(1))
        critic, critic_optimizer = self.init_critic(critic_key)
        actor_optimizer = self.optimizer_at(self.learning_rate, Clock.start()).init(trained(actor))
        params = Networks(actor, critic)
        return DeterministicState(params, params, actor_optimizer, critic_optimizer)

    def choose(self, state: DeterministicState, obs: PyTree) -> Array:
        """Greedy actions, `[N, *shape]`."""
        return self.unscale_action(self.policy(state.params.actor, obs))

    def update(self, state: DeterministicState, rows: Replayed, key: Key, clock: Clock) -> Update:
        """Updates the critics and, every `policy_delay` updates, policy and target networks.

        The policy follows equation 6 of Lillicrap et al., "Continuous control with deep
        reinforcement learning", 2016.
        """
        critic_key, actor_key = dropout_keys(key)
        action = self.policy(state.target.actor, rows.next_obs)
        noise = self.target_noise * jax.random.normal(key, action.shape)
        noise = jnp.clip(noise, -self.target_noise_clip, self.target_noise_clip)
        action = jnp.clip(action + noise, -1.0, 1.0)
        next_q: Any = self.critic.apply(state.target.critic, rows.next_obs, action)
        target = self.bellman_target(rows, jnp.min(next_q, axis=0))
        critic, critic_optimizer, metrics, priorities = self.learn_critic(
            state.params.critic, state.critic_optimizer, rows, target, critic_key, clock
        )
        state = state.replace(
            params=state.params.replace(critic=critic), critic_optimizer=critic_optimizer
        )
        state = every(
            self.policy_delay, clock, lambda s: self._improve(s, rows, actor_key, clock), state
        )
        return Update(state, metrics, priorities)

    def policy_loss(self, values: Array, action: Array, rows: Replayed) -> Array:
        """What the policy minimises, `float32[]`.

        Args:
          values: Q(s, mu(s)) by the first critic, `float32[B]`.
          action: mu(s) in [-1, 1], `float32[B, num_values]`.
          rows: the transitions `[B]`.
        """
        return -mean(values)

    def _improve(
        self, state: DeterministicState, rows: Replayed, key: Key, clock: Clock
    ) -> DeterministicState:
        """One gradient step of the policy, and an update of the target networks."""

        def loss(params):
            outputs, carried = learning_pass(self.actor, params, rows.obs, key=key)
            action = jnp.tanh(outputs)
            values: Any = self.critic.apply(state.params.critic, rows.obs, action)
            return self.policy_loss(values[0], action, rows), (carried, None)

        actor, actor_optimizer, *_ = learn(
            self.optimizer_at(self.learning_rate, clock),
            loss,
            state.params.actor,
            state.actor_optimizer,
        )
        params = state.params.replace(actor=actor)
        target = polyak_update(params, state.target, self.tau)
        return state.replace(params=params, target=target, actor_optimizer=actor_optimizer)
