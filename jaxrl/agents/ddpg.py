"""DDPG (Lillicrap et al., "Continuous control with deep reinforcement learning", 2016)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.continuous import ContinuousAgent, dropout_keys
from jaxrl.agents.bases.learning import Networks, every
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.critics import Outputs
from jaxrl.networks.own_modules import learning_pass
from jaxrl.networks.variables import polyak_update, trained
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar
from jaxrl.validation import holds_anywhere

Noise = Literal["normal", "ou"]


class DDPGState(struct.PyTreeNode):
    """Attributes:
    params: parameters of policy and critics.
    target: target networks, slow copies of `params`.
    actor_optimizer, critic_optimizer: states of the optimisers.
    """

    params: Networks
    target: Networks
    actor_optimizer: optax.OptState
    critic_optimizer: optax.OptState


class DDPG(ContinuousAgent):
    """Deep deterministic policy gradient. TD3 is a subclass with other defaults."""

    learning_rate: Scheduled = hyper(3e-4, low=0.0, doc="Learning rate of the policy.")
    exploration_noise: Scheduled = hyper(
        0.1,
        low=0.0,
        doc="Standard deviation of action noise, relative to half the action range; sigma of an "
        "Ornstein-Uhlenbeck process, which starts at 0 in each episode and tends to a standard "
        "deviation of sigma / sqrt(2 theta).",
    )
    noise: Noise = hyper(
        "normal",
        static=True,
        doc="Noise of exploration: a new draw in each step (normal), or an Ornstein-Uhlenbeck "
        "process (ou), which pushes in one direction for a while.",
    )
    ou_rate: Scalar = hyper(
        0.15, low=0.0, doc="Pull of the Ornstein-Uhlenbeck process towards 0, theta."
    )
    ou_step: Scalar = hyper(
        0.01, low=0.0, open_low=True, doc="Time of the Ornstein-Uhlenbeck process in each step, dt."
    )
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

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        rate, step = self.ou_rate, self.ou_step
        if self.noise == "ou" and holds_anywhere(lambda r, s: r * s >= 2.0, rate, step):
            raise InvalidValue(
                f"ou_rate is {rate} and ou_step is {step}: where their product is 2 or more, the "
                "noise grows without limit. Make ou_step smaller"
            )

    @property
    def actor(self) -> Outputs:
        return self.outputs(self.num_values)

    def policy(self, params: PyTree, obs: PyTree) -> Array:
        """mu(obs), `float32[N, num_values]` in [-1, 1]."""
        outputs: Any = self.actor.apply(params, obs)
        return jnp.tanh(outputs)

    def init(self, key: Key) -> DDPGState:
        actor_key, critic_key = jax.random.split(key)
        actor = self.new_params(self.actor, actor_key, self.bound_spec.dummy_observation(1))
        critic, critic_optimizer = self.init_critic(critic_key)
        actor_optimizer = self.optimizer_at(self.learning_rate, Clock.start()).init(trained(actor))
        params = Networks(actor, critic)
        return DDPGState(params, params, actor_optimizer, critic_optimizer)

    def initial_carry(self, num_envs: int) -> PyTree:
        """An Ornstein-Uhlenbeck process, `float32[N, num_values]`, starts at 0; else `()`."""
        return jnp.zeros((num_envs, self.num_values)) if self.carry_only_explores else ()

    @property
    def carry_only_explores(self) -> bool:
        return self.noise == "ou"

    def choose(self, state: DDPGState, obs: PyTree) -> Array:
        return self.unscale_action(self.policy(state.params.actor, obs))

    def explore(
        self, state: DDPGState, carry: PyTree, obs: PyTree, key: Key, clock: Clock
    ) -> tuple[PyTree, Array]:
        """mu(obs) + noise; a process x moves by -theta x dt + sigma sqrt(dt) N(0, 1) in a step."""
        action = self.policy(state.params.actor, obs)
        noise = at(self.exploration_noise, clock) * jax.random.normal(key, action.shape)
        if self.carry_only_explores:
            step = self.ou_step
            carry = noise = carry - self.ou_rate * carry * step + jnp.sqrt(step) * noise
        return carry, self.unscale_action(jnp.clip(action + noise, -1.0, 1.0))

    def update(self, state: DDPGState, rows: Replayed, key: Key, clock: Clock) -> Update:
        """Updates the critics and, every `policy_delay` updates, policy (eq. 6) and targets."""
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

    def _improve(self, state: DDPGState, rows: Replayed, key: Key, clock: Clock) -> DDPGState:
        """Updates the policy by the gradient of the first critic, and the target networks."""

        def actor_loss(params):
            outputs, carried = learning_pass(self.actor, params, rows.obs, key=key)
            values: Any = self.critic.apply(state.params.critic, rows.obs, jnp.tanh(outputs))
            return -mean(values[0]), (carried, None)

        actor, actor_optimizer, *_ = learn(
            self.optimizer_at(self.learning_rate, clock),
            actor_loss,
            state.params.actor,
            state.actor_optimizer,
        )
        params = state.params.replace(actor=actor)
        target = polyak_update(params, state.target, self.tau)
        return state.replace(params=params, target=target, actor_optimizer=actor_optimizer)
