"""DQN (Mnih et al., "Human-level control through deep reinforcement learning", 2015)."""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxrl.agent import Update
from jaxrl.agents.bases.learning import TargetState, every
from jaxrl.agents.bases.munchausen import MunchausenAgent
from jaxrl.agents.bases.prioritized import PrioritizedAgent
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.variables import polyak_update
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Array, Clock, Key, PyTree, Scalar

Double = Literal["none", "target", "two_networks"]


class DQN(PrioritizedAgent, MunchausenAgent):
    """Deep Q-network, with options for double, dueling, distributional, noisy and prioritised."""

    target_every: int = hyper(100, static=True, doc="Updates between target network updates.")
    tau: Scalar = hyper(
        1.0,
        low=0.0,
        high=1.0,
        open_low=True,
        doc="Weight of the new parameters in a target update: 1 copies, less is Polyak averaging.",
    )
    double: Double = hyper(
        "none",
        static=True,
        doc="Double Q-learning: none, by online and target network (target), or with two networks.",
    )

    has_target = True

    def init_params(self, key: Key) -> PyTree:
        if self.double == "two_networks":
            return tuple(map(super().init_params, jax.random.split(key)))
        return super().init_params(key)

    def q_values(self, params: PyTree, obs: PyTree, key: Key | None = None) -> Array:
        if self.double == "two_networks":  # act by their mean
            first, second = (self.network_values(p, obs, key) for p in params)
            return 0.5 * (first + second)
        return super().q_values(params, obs, key)

    def update(self, state: TargetState, rows: Replayed, key: Key, clock: Clock) -> Update:
        """One gradient step and, every `target_every` updates, an update of the target network."""

        def loss(params):
            rows_loss, error, carried = self._td_errors(params, state.target, rows, key)
            return self.weighted_mean(rows_loss, rows, clock), (carried, error)

        params, optimizer, value, error = learn(
            self.transform(clock), loss, state.params, state.optimizer
        )
        target = every(
            self.target_every, clock, lambda x: polyak_update(params, x, self.tau), state.target
        )
        metrics = {"loss": value, "error": mean(error, rows.valid)}
        return Update(TargetState(params, target, optimizer), metrics, self.priorities(error))

    def _td_errors(
        self, params: PyTree, target: PyTree, rows: Replayed, key: Key
    ) -> tuple[Array, Array, PyTree]:
        """Losses and TD errors of the rows, and the collections changed by the learning pass."""
        if self.double != "two_networks":
            fixed = jax.lax.stop_gradient(params)
            selector = fixed if self.double == "target" else None
            return self.td_errors(params, target, rows, key, selector=selector)
        # van Hasselt, "Double Q-learning", 2010: each row updates one network, whose best next
        # action is evaluated by the other.
        coin_key, *keys = jax.random.split(key, 3)
        first = jax.random.bernoulli(coin_key, 0.5, rows.reward.shape)
        found = [
            self.td_errors(p, target[1 - i], rows, keys[i], selector=jax.lax.stop_gradient(p))
            for i, p in enumerate(params)
        ]
        losses, errors, carried = zip(*found, strict=True)
        return (
            jnp.where(first, losses[0], losses[1]),
            jnp.where(first, errors[0], errors[1]),
            carried,
        )
