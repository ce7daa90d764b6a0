"""SAC (Haarnoja et al., "Soft actor-critic algorithms and applications", 2018).

For a few actions: Christodoulou, "Soft actor-critic for discrete action settings", 2019.
"""

import math
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agents.bases.action_values import of_actions
from jaxrl.agents.bases.continuous import ContinuousAgent, regression
from jaxrl.distributions import Categorical, TanhGaussian
from jaxrl.errors import InvalidValue
from jaxrl.hyper import check_range
from jaxrl.losses import mean
from jaxrl.networks.critics import Critics, Outputs
from jaxrl.networks.own_modules import learning_pass
from jaxrl.networks.variables import polyak_update, trained
from jaxrl.optimizers import adam, learn
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Scheduled
from jaxrl.types import (
    Array,
    Clock,
    Discrete,
    EnvSpec,
    Key,
    Metrics,
    PyTree,
    Scalar,
    Stream,
    split_mask,
    static,
    stream,
)
from jaxrl.validation import UNROLLED, check_whole

LOG_STD_RANGE = (-20.0, 2.0)


class SACState(struct.PyTreeNode):
    """Attributes:
    actor: parameters of the policy.
    critic: parameters of the critics.
    target: their slow copy.
    log_temperature: `float32[]`.
    actor_optimizer, critic_optimizer, temperature_optimizer: Adam's moments.
    """

    actor: PyTree
    critic: PyTree
    target: PyTree
    log_temperature: Array
    actor_optimizer: optax.OptState
    critic_optimizer: optax.OptState
    temperature_optimizer: optax.OptState


class SAC(ContinuousAgent):
    """A policy that is paid for its entropy, from replayed transitions; boxes and few actions."""

    learning_rate: Scheduled = 3e-4
    """Adam's step size for the policy and the temperature."""
    num_critics: int = static(default=2)
    """Critics; the least of their values counts."""
    temperature: Scalar = 1.0
    """Weight of the entropy, alpha; where it is learned, what it begins with."""
    learn_temperature: bool = static(default=True)
    """Move the temperature so that the entropy becomes target_entropy."""
    target_entropy: Scalar | None = None
    """Entropy to keep, in nats of actions in [-1, 1]; none: minus the action's numbers, or of a few
    actions 0.89 log of how many are available (Christodoulou, 2019, takes 0.98)."""

    eval_modes = ("greedy", "sample")

    def bind(self, spec: EnvSpec) -> Self:
        check_range(self, "learning_rate")
        check_range(self, "temperature", open_low=self.learn_temperature)
        check_range(self, "target_entropy", -math.inf)
        check_whole("num_critics", self.num_critics, most=UNROLLED)
        if self.n_step != 1:
            raise InvalidValue(
                f"n_step is {self.n_step}: sums of rewards lack the entropy of the steps between, "
                "which SAC's value counts. Use 1"
            )
        return super().bind(spec)

    def check_space(self, spec: EnvSpec) -> None:
        if not isinstance(spec.action, Discrete):
            super().check_space(spec)

    @property
    def num_actions(self) -> int:
        """Of a discrete space; 0 for a box."""
        space = self.bound_spec.action
        return space.num if isinstance(space, Discrete) else 0

    @property
    def policy_network(self) -> Outputs:
        return self.outputs(self.num_actions or 2 * self.num_values)

    @property
    def critic_network(self) -> Critics:
        return self.critics(self.num_critics, self.num_actions or 1)

    def policy(self, params: PyTree, obs: PyTree) -> Any:
        """The distribution of actions, in [-1, 1] for a box; `[N]`."""
        return self._distribution(self.policy_network.apply(params, obs), obs)

    def _distribution(self, outputs: Any, obs: PyTree) -> Any:
        if self.num_actions:
            return Categorical(outputs, split_mask(obs)[1])
        location, log_std = jnp.split(outputs, 2, axis=-1)
        return TanhGaussian(location, jnp.clip(log_std, *LOG_STD_RANGE))

    def init(self, key: Key) -> SACState:
        actor_key, critic_key = jax.random.split(key)
        obs, start = self.bound_spec.dummy_observation(1), Clock.start()
        action = None if self.num_actions else jnp.zeros((1, self.num_values))
        actor = self.policy_network.init(actor_key, obs)
        critic = self.critic_network.init(critic_key, obs, action)
        log_temperature = jnp.log(jnp.asarray(self.temperature, jnp.float32))
        actor_adam = adam(self.learning_rate, start)
        critic_adam = adam(self.critic_learning_rate, start)
        return SACState(
            actor,
            critic,
            critic,
            log_temperature,
            actor_adam.init(trained(actor)),
            critic_adam.init(trained(critic)),
            actor_adam.init(log_temperature),
        )

    def choose(self, state: SACState, obs: PyTree, key: Key | None, clock: Clock) -> Array:
        policy = self.policy(state.actor, obs)
        action = policy.mode() if key is None else policy.sample(key)
        return action if self.num_actions else self.unscale_action(action)

    def update(
        self, state: SACState, rows: Replayed, key: Key, clock: Clock
    ) -> tuple[SACState, Metrics]:
        """A step of the critics, of the policy, of the temperature, and of the targets."""
        next_key, policy_key = jax.random.split(key)
        temperature = jnp.exp(state.log_temperature)
        critic_key, actor_key = jax.random.split(stream(key, Stream.DROPOUT))
        next_policy = self.policy(state.actor, rows.next_obs)
        soft_value, _ = self._soft_value(
            next_policy, state.target, rows.next_obs, next_key, temperature
        )
        target = self.bellman_target(rows, soft_value)

        def critic_loss(params):
            inputs = (rows.obs,) if self.num_actions else (rows.obs, self.scale_action(rows.action))
            found, carried = learning_pass(self.critic_network, params, *inputs, key=critic_key)
            values = found
            if self.num_actions:  # [num, B, A]
                values = of_actions(jnp.moveaxis(found, 0, -1), rows.action).T
            return regression(values, target, rows), (carried, mean(values))

        critic, critic_optimizer, error, value = learn(
            adam(self.critic_learning_rate, clock),
            critic_loss,
            state.critic,
            state.critic_optimizer,
        )

        def actor_loss(params):
            outputs, carried = learning_pass(self.policy_network, params, rows.obs, key=actor_key)
            policy = self._distribution(outputs, rows.obs)
            value, entropy = self._soft_value(policy, critic, rows.obs, policy_key, temperature)
            return -mean(value), (carried, entropy)

        transform = adam(self.learning_rate, clock)
        actor, actor_optimizer, _, entropy = learn(
            transform, actor_loss, state.actor, state.actor_optimizer
        )
        log_temperature, temperature_optimizer = state.log_temperature, state.temperature_optimizer
        if self.learn_temperature:  # eq. 18, on log alpha
            slope = jax.lax.stop_gradient(mean(entropy - self._wanted_entropy(rows.obs)))
            updates, temperature_optimizer = transform.update(
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
        return new, {
            "critic_loss": error,
            "value": value,
            "entropy": mean(entropy),
            "temperature": temperature,
        }

    def _soft_value(
        self, policy: Any, critic: PyTree, obs: PyTree, key: Key, temperature: Array
    ) -> tuple[Array, Array]:
        """V(s) = E[min Q(s, a) - alpha log pi(a | s)] and the entropy, `float32[B]` both.

        By one sample for a box (eq. 3), exactly for a few actions.
        """
        apply = self.critic_network.apply
        if self.num_actions:
            q: Any = apply(critic, obs)
            probabilities = policy.probabilities()
            entropy = policy.entropy()
            expected = jnp.sum(probabilities * jnp.min(q, axis=0), axis=-1)
            return expected + temperature * entropy, entropy
        action, log_prob = policy.sample_and_log_prob(key)
        q = apply(critic, obs, action)
        return jnp.min(q, axis=0) - temperature * log_prob, -log_prob

    def _wanted_entropy(self, obs: PyTree) -> Any:
        """What the entropy in each row should be."""
        mask = split_mask(obs)[1]
        if self.target_entropy is not None:
            return self.target_entropy
        if mask is not None:  # no more is to be had than log of what is available
            return 0.89 * jnp.log(jnp.maximum(jnp.sum(mask, axis=-1), 1))
        return 0.89 * math.log(self.num_actions) if self.num_actions else -float(self.num_values)
