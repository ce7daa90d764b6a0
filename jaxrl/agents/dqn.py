"""DQN (Mnih et al., "Human-level control through deep reinforcement learning", 2015), its kin."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrl.agent import Replay
from jaxrl.agents.bases.action_values import QAgent, weighted_mean
from jaxrl.agents.bases.learning import ReplayAgent, TargetState, every
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.variables import polyak_update
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Linear, Scheduled, at
from jaxrl.types import Array, Clock, Key, PyTree, Scalar

Double = Literal["none", "target", "two_networks"]


class DQN(ReplayAgent, QAgent):
    """Q-learning from replayed transitions; double, dueling, distributional, ... by choice."""

    target_every: int = hyper(
        100, static=True, doc="Updates from one move of the target network to the next."
    )
    tau: Scalar = hyper(
        1.0,
        low=0.0,
        high=1.0,
        open_low=True,
        doc="How far the target network then moves: 1 copies, less is Polyak's average.",
    )
    double: Double = hyper(
        "none",
        static=True,
        doc="Choose the next action by the target network, by the online one, or by another of "
        "two.",
    )
    prioritized: bool = hyper(
        False, static=True, doc="Replay transitions in proportion to their error."
    )
    priority_exponent: Scalar = hyper(
        0.6, low=0.0, high=1.0, doc="How much the error matters, alpha."
    )
    importance_exponent: Scheduled = hyper(
        Linear(0.4, 1.0),
        low=0.0,
        high=1.0,
        doc="How much of the bias that brings is weighted away, beta.",
    )

    has_target = True

    @property
    def plan(self) -> Replay:
        return dataclasses.replace(super().plan, prioritized=self.prioritized)

    def init_params(self, key: Key) -> PyTree:
        if self.double == "two_networks":
            return tuple(map(super().init_params, jax.random.split(key)))
        return super().init_params(key)

    def q_values(self, params: PyTree, obs: PyTree, key: Key | None = None) -> Array:
        if self.double == "two_networks":  # which act by their mean
            first, second = (self.network_values(p, obs, key) for p in params)
            return 0.5 * (first + second)
        return super().q_values(params, obs, key)

    def update(self, state: TargetState, rows: Replayed, key: Key, clock: Clock) -> Any:
        """One gradient step, and where it is due a move of the target network."""

        def loss(params):
            rows_loss, error, carried = self._td_errors(params, state.target, rows, key)
            loss = weighted_mean(rows_loss, rows, at(self.importance_exponent, clock))
            return loss, (carried, error)

        params, optimizer, value, error = learn(
            self.transform(clock), loss, state.params, state.optimizer
        )
        target = every(
            self.target_every, clock, lambda x: polyak_update(params, x, self.tau), state.target
        )
        metrics = {"loss": value, "error": mean(error, rows.valid)}
        if not self.prioritized:
            return TargetState(params, target, optimizer), metrics
        priorities = (error + 1e-6) ** self.priority_exponent
        return TargetState(params, target, optimizer), metrics, priorities

    def _td_errors(
        self, params: PyTree, target: PyTree, rows: Replayed, key: Key
    ) -> tuple[Array, Array, PyTree]:
        """Losses and errors of the rows, by the chosen way to name the next action; and what
        collections this changes, of either network where there are two."""
        if self.double != "two_networks":
            fixed = jax.lax.stop_gradient(params)
            selector = fixed if self.double == "target" else None
            return self.td_errors(params, target, rows, key, selector=selector)
        # van Hasselt, "Double Q-learning", 2010: each row teaches one network, which the other's
        # value of its own best action corrects.
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
