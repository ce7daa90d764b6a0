"""Writes a run into its directory while it happens."""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import struct

from jaxrl.engine.train import Training
from jaxrl.runs.checkpoint import save
from jaxrl.runs.directory import RunDirectory
from jaxrl.runs.events import Compiled, Evaluation, Event, Origin, Result
from jaxrl.runs.plot import learning_curve
from jaxrl.types import Key


class Recorder:
    """Turns the events of a run into the files of its directory."""

    def __init__(
        self,
        directory: RunDirectory,
        training: Training,
        key: Key,
        num_evaluations: int,
        origin: Origin | None = None,
    ):
        self.directory = directory
        self.training = training
        self.key = key
        self.num_evaluations = num_evaluations
        self.seeds = seeds_of(key)
        agent, env = type(training.agent).__name__, type(training.envs.env).__name__
        self.origin = origin or Origin(agent, env)

    def _begin(self) -> None:
        """Writes config.json: everything that repeats the run."""
        training = self.training
        self.directory.write_config(
            {
                **dataclasses.asdict(self.origin),
                "hyper_parameters": describe(training.agent),
                "seeds": self.seeds,
                "key_type": str(jax.random.key_impl(self.key)),
                "total_steps": training.total_steps,
                "num_evaluations": self.num_evaluations,
                "num_eval_episodes": training.eval_envs.num_envs,
                "normalize_observations": training.normalize_observations,
                "normalize_rewards": training.normalize_rewards,
                "reset_policy": training.envs.reset_policy,
                "pool_size": training.envs.pool_size,
                "device": jax.devices()[0].device_kind,
                "platform": jax.default_backend(),
            }
        )

    def __call__(self, event: Event) -> None:
        """Writes config.json once the programs are compiled, so that a run which never begins
        leaves nothing; a line a seed of metrics.jsonl for an evaluation. Other events pass."""
        if isinstance(event, Compiled):
            self._begin()
        if not isinstance(event, Evaluation):
            return
        self.directory.append_metrics(
            [
                {
                    "step": event.steps,
                    "seed": seed,
                    **_of_episodes(event.returns[i], event.lengths[i]),
                    "train_seconds": event.train_seconds,
                    **{name: values[i] for name, values in event.training.items()},
                }
                for i, seed in enumerate(self.seeds)
            ]
        )

    def finish(self, result: Result) -> None:
        """Writes the checkpoint, the plot and, last, summary.json: with it the run is complete."""
        curve = np.array([e.return_means for e in result.evaluations])
        steps = np.array([e.steps for e in result.evaluations])
        save(result.state, self.directory.checkpoints / str(steps[-1]))
        title = f"{self.origin.algorithm} on {self.origin.environment}"
        learning_curve(steps, curve, self.directory.plot, title=title)
        self.directory.write_summary(result.summary())


def seeds_of(key: Key) -> list[int]:
    """Each key's words read as one number: `s` for `jax.random.key(s)`."""
    words = np.asarray(jax.random.key_data(key))
    rows = words.reshape(-1, words.shape[-1]).tolist()
    return [sum(word << 32 * i for i, word in enumerate(reversed(row))) for row in rows]


def _of_episodes(returns: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    lengths = lengths[np.isfinite(returns)]
    finished = returns[np.isfinite(returns)].astype(np.float64)
    some = finished.size > 0
    return {
        "return_mean": finished.mean() if some else None,
        "return_std": finished.std() if some else None,
        "return_min": finished.min() if some else None,
        "return_max": finished.max() if some else None,
        "length_mean": lengths.mean() if some else None,
        "episodes": finished.size,
        "unfinished_episodes": returns.size - finished.size,
    }


def describe(x: Any) -> Any:
    """A tree of dataclasses as plain values: arrays as numbers, schedules by name and numbers."""
    if isinstance(x, jax.Array):
        # float32's own shortest text: 0.99 and not 0.9900000095367432
        return float(str(np.asarray(x)[()])) if x.ndim == 0 else x.tolist()
    if not isinstance(x, struct.PyTreeNode):
        return x
    described = {}
    for field in dataclasses.fields(x):  # type: ignore[arg-type]
        value = getattr(x, field.name)
        if field.name != "spec":
            nested = isinstance(value, struct.PyTreeNode)
            plain = describe(value)
            described[field.name] = {type(value).__name__.lower(): plain} if nested else plain
    return described
