"""SAC (Haarnoja et al., "Soft actor-critic algorithms and applications", 2018).

Discrete actions: Christodoulou, "Soft actor-critic for discrete action settings", 2019.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.q_critics import dropout_keys
from jaxrl.agents.bases.soft_policy import SoftAgent
from jaxrl.errors import InvalidValue
from jaxrl.hyper import check_range, hyper
from jaxrl.losses import mean
from jaxrl.networks.own_modules import learning_pass
from jaxrl.networks.variables import polyak_update, trained
from jaxrl.optimizers import adam, learn
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar, split_mask


class SACState(struct.PyTreeNode):
    """Attributes:
    actor: parameters of the policy.
    critic: parameters of the critics.
    target: target networks of the critics.
    log_temperature: `float32[]`.
    actor_optimizer, critic_optimizer, temperature_optimizer: states of the optimisers.
    """

    actor: PyTree
    critic: PyTree
    target: PyTree
    log_temperature: Array
    actor_optimizer: optax.OptState
    critic_optimizer: optax.OptState
    temperature_optimizer: optax.OptState


class SAC(SoftAgent):
    """Soft actor-critic: maximum-entropy actor-critic, for continuous and discrete actions."""

    learning_rate: Scheduled = hyper(3e-4, low=0.0, doc="Learning rate of the policy.")
    temperature_learning_rate: Scheduled | None = hyper(
        None, low=0.0, doc="Learning rate of the temperature; none for that of the policy."
    )
    temperature: Scalar = hyper(
        1.0, low=0.0, doc="Weight of the entropy, alpha; its initial value if it is learned."
    )
    learn_temperature: bool = hyper(
        True, static=True, doc="Learn the temperature, to keep the entropy at target_entropy."
    )
    target_entropy: Scalar | None = hyper(
        None,
        doc="Target entropy in nats, of actions in [-1, 1]; none for minus the dimension of the "
        "action, or 0.89 log(available actions) if discrete (Christodoulou, 2019, uses 0.98).",
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        check_range(self, "temperature", open_low=self.learn_temperature)
        if self.n_step != 1:
            raise InvalidValue(
                f"n_step is {self.n_step}: n-step rewards leave out the entropy of the steps "
                "between, which is part of SAC's value. Use 1"
            )

    def init(self, key: Key) -> SACState:
        actor_key, critic_key = jax.random.split(key)
        actor = self.new_params(self.actor, actor_key, self.bound_spec.dummy_observation(1))
        critic, critic_optimizer = self.init_critic(critic_key)
        log_temperature = jnp.log(jnp.asarray(self.temperature, jnp.float32))
        start = Clock.start()
        return SACState(
            actor,
            critic,
            critic,
            log_temperature,
            self.optimizer_at(self.learning_rate, start).init(trained(actor)),
            critic_optimizer,
            self._temperature_optimizer(start).init(log_temperature),
        )

    def update(self, state: SACState, rows: Replayed, key: Key, clock: Clock) -> Update:
        """Updates critics, policy, temperature and target networks."""
        next_key, policy_key = jax.random.split(key)
        temperature = jnp.exp(state.log_temperature)
        critic_key, actor_key = dropout_keys(key)
        next_policy = self.policy(state.actor, rows.next_obs)
        soft_value, _ = self.soft_value(
            next_policy, state.target, rows.next_obs, next_key, temperature
        )
        target = self.bellman_target(rows, soft_value)
        critic, critic_optimizer, metrics, priorities = self.learn_critic(
            state.critic, state.critic_optimizer, rows, target, critic_key, clock
        )

        def actor_loss(params):
            outputs, carried = learning_pass(self.actor, params, rows.obs, key=actor_key)
            policy = self.distribution(outputs, rows.obs)
            value, entropy = self.soft_value(policy, critic, rows.obs, policy_key, temperature)
            return -mean(value), (carried, entropy)

        transform = self.optimizer_at(self.learning_rate, clock)
        actor, actor_optimizer, _, entropy = learn(
            transform, actor_loss, state.actor, state.actor_optimizer
        )
        log_temperature, temperature_optimizer = state.log_temperature, state.temperature_optimizer
        if self.learn_temperature:  # eq. 18, for log alpha; a scalar, so always with Adam
            slope = jax.lax.stop_gradient(mean(entropy - self._wanted_entropy(rows.obs)))
            updates, temperature_optimizer = self._temperature_optimizer(clock).update(
                temperature * slope, temperature_optimizer, log_temperature
            )
            log_temperature = optax.apply_updates(log_temperature, updates)
        new = SACState(
            actor,
            critic,
            polyak_update(critic, state.target, self.tau),
            log_temperature,
            actor_optimizer,
            critic_optimizer,
            temperature_optimizer,
        )
        metrics |= {"entropy": mean(entropy), "temperature": temperature}
        return Update(new, metrics, priorities)

    def _temperature_optimizer(self, clock: Clock) -> optax.GradientTransformation:
        rate = self.temperature_learning_rate
        return adam(self.learning_rate if rate is None else rate, clock)

    def _wanted_entropy(self, obs: PyTree) -> Any:
        """The target entropy of each row."""
        mask = split_mask(obs)[1]
        if self.target_entropy is not None:
            return self.target_entropy
        if mask is not None:  # the entropy is at most log(available actions)
            return 0.89 * jnp.log(jnp.maximum(jnp.sum(mask, axis=-1), 1))
        return 0.89 * math.log(self.num_actions) if self.num_actions else -float(self.num_values)
