"""TD3+BC (Fujimoto and Gu, "A minimalist approach to offline reinforcement learning", 2021)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agent import Offline, Update
from jaxrl.agents.bases.deterministic import DeterministicAgent, DeterministicState
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Array, Clock, Key, PyTree, Scalar, Transition


class TD3BC(DeterministicAgent):
    """TD3 on a fixed data set, whose policy also stays close to the actions of the data.

    The paper standardises the observations: `normalize_observations=True`.
    """

    num_updates: int = hyper(100, static=True, doc="Gradient steps of the critics per iteration.")
    batch_size: int = hyper(256, static=True, doc="Transitions per gradient step.")
    num_critics: int = 2
    policy_delay: int = 2
    target_noise: Scalar = 0.2
    improvement: Scalar = hyper(
        2.5,
        low=0.0,
        doc="Weight of the values beside the squared distance to the data's actions, alpha: 0 "
        "clones the data.",
    )

    instead = "use CQL or IQL for Discrete, BehaviourCloning for others"

    @property
    def plan(self) -> Offline:
        return Offline(self.num_updates, self.batch_size)

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        return carry, self.choose(state, obs), ()

    def update(
        self, state: DeterministicState, batch: Transition, key: Key, clock: Clock
    ) -> Update:
        """TD3's update, with the policy's loss of equations 3 and 5.

        As in the authors' code, the mean absolute value of equation 5 is that of the policy's
        actions.
        """
        return super().update(state, self.recorded(batch), key, clock)

    def policy_loss(self, values: Array, action: Array, rows: Replayed) -> Array:
        size = mean(jnp.abs(jax.lax.stop_gradient(values)))
        weight = self.improvement / jnp.maximum(size, 1e-8)
        return mean(jnp.square(action - self.scale_action(rows.action))) - weight * mean(values)
