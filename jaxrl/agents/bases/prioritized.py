"""Prioritised replay, as options of agents with a replay buffer.

Schaul, Quan, Antonoglou and Silver, "Prioritized experience replay", 2016.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxrl.agent import Replay
from jaxrl.agents.bases.learning import ReplayAgent
from jaxrl.hyper import hyper
from jaxrl.losses import largest, mean
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Linear, Scheduled, at
from jaxrl.types import Array, Clock, Scalar


class PrioritizedAgent(ReplayAgent):
    """An off-policy agent that can sample transitions by their TD error."""

    prioritized: bool = hyper(
        False, static=True, doc="Prioritised replay: sample transitions by their TD error."
    )
    priority_exponent: Scalar = hyper(
        0.6, low=0.0, high=1.0, doc="Exponent of priorities, alpha; 0 samples uniformly."
    )
    importance_exponent: Scheduled = hyper(
        Linear(0.4, 1.0),
        low=0.0,
        high=1.0,
        doc="Exponent of importance weights, beta; 1 corrects the bias of prioritised replay in "
        "the loss of the values.",
    )

    @property
    def plan(self) -> Replay:
        return dataclasses.replace(super().plan, prioritized=self.prioritized)

    def weighted_mean(self, loss: Array, rows: Replayed, clock: Clock) -> Array:
        """The mean of a loss `[B]`, with importance weights if replay is prioritised."""
        if not self.prioritized:
            return mean(loss, rows.valid)
        return weighted_mean(loss, rows, at(self.importance_exponent, clock))

    def priorities(self, error: Array) -> Array | None:
        """The priorities of rows with these absolute errors, `float32[B]`; None without them."""
        return (error + 1e-6) ** self.priority_exponent if self.prioritized else None


def weighted_mean(loss: Array, rows: Replayed, exponent: Any) -> Array:
    """The mean loss of valid rows with weights (N P)^-exponent, divided by the largest weight.

    Section 3.4 of the paper.
    """
    weight = jnp.where(rows.valid, jnp.maximum(rows.relative_probability, 1e-20) ** -exponent, 0.0)
    weight = weight / jnp.maximum(largest(weight), 1e-20)
    return mean(weight * loss, rows.valid)
