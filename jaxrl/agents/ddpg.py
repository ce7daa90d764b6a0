"""DDPG (Lillicrap et al., "Continuous control with deep reinforcement learning", 2016)."""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxrl.agents.bases.continuous import ContinuousAgent
from jaxrl.agents.bases.deterministic import DeterministicAgent, DeterministicState
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar
from jaxrl.validation import holds_anywhere

Noise = Literal["normal", "ou"]


class DDPG(DeterministicAgent, ContinuousAgent):
    """Deep deterministic policy gradient. TD3 is a subclass with other defaults."""

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

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        rate, step = self.ou_rate, self.ou_step
        if self.noise == "ou" and holds_anywhere(lambda r, s: r * s >= 2.0, rate, step):
            raise InvalidValue(
                f"ou_rate is {rate} and ou_step is {step}: where their product is 2 or more, the "
                "noise grows without limit. Make ou_step smaller"
            )

    def initial_carry(self, num_envs: int) -> PyTree:
        """An Ornstein-Uhlenbeck process, `float32[N, num_values]`, starts at 0; else `()`."""
        return jnp.zeros((num_envs, self.num_values)) if self.carry_only_explores else ()

    @property
    def carry_only_explores(self) -> bool:
        return self.noise == "ou"

    def explore(
        self, state: DeterministicState, carry: PyTree, obs: PyTree, key: Key, clock: Clock
    ) -> tuple[PyTree, Array]:
        """mu(obs) + noise; a process x moves by -theta x dt + sigma sqrt(dt) N(0, 1) in a step."""
        action = self.policy(state.params.actor, obs)
        noise = at(self.exploration_noise, clock) * jax.random.normal(key, action.shape)
        if self.carry_only_explores:
            step = self.ou_step
            carry = noise = carry - self.ou_rate * carry * step + jnp.sqrt(step) * noise
        return carry, self.unscale_action(jnp.clip(action + noise, -1.0, 1.0))
