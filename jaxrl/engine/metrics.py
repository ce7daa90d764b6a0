"""Metrics of training iterations, and the first one that is not finite."""

from typing import Any

import jax.numpy as jnp
from flax import struct

from jaxrl.types import Array, EpisodeStats, Mean
from jaxrl.xla.flatten import Flattened


class IterationMetrics(struct.PyTreeNode):
    """Metrics of one iteration, or the sum of several.

    Attributes:
      episodes: statistics of the training episodes that ended.
      updates: the agent's own metrics, each a `Mean` over calls of `update` (or of `report`).
    """

    episodes: EpisodeStats
    updates: dict[str, Mean]

    def __add__(self, other: "IterationMetrics") -> "IterationMetrics":
        updates = {name: self.updates[name] + other.updates[name] for name in self.updates}
        return IterationMetrics(self.episodes + other.episodes, updates)


class Divergence(struct.PyTreeNode):
    """The first iteration with a non-finite metric.

    Attributes:
      iteration: `int32[]`; -1 as long as all metrics are finite.
      metrics: names to `bool[]`, true for those that were not finite in that iteration.
    """

    iteration: Array
    metrics: dict[str, Array]

    @classmethod
    def none(cls, metrics: IterationMetrics) -> "Divergence":
        """No divergence yet, for metrics with these names."""
        return cls(jnp.int32(-1), dict.fromkeys(totals(metrics), jnp.bool_(False)))

    def watch(self, metrics: IterationMetrics, iteration: Array) -> "Divergence":
        """Adds an iteration; the first divergence is kept."""
        bad = ~jnp.isfinite(Flattened.of(totals(metrics)).vector)
        fine = self.iteration < 0
        found: Any = self.metrics
        return Divergence(
            jnp.where(fine & jnp.any(bad), iteration, self.iteration),
            found.replace(vector=jnp.where(fine, bad, found.vector)),
        )


def totals(metrics: IterationMetrics) -> dict[str, Array]:
    """The totals that are watched, by name."""
    updates = {name: mean.total for name, mean in metrics.updates.items()}
    return {"training_return": metrics.episodes.returns.total, **updates}
