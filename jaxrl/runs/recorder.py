"""Writes a run into its directory while it happens."""

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxrl.engine.train import Training
from jaxrl.runs.checkpoint import save
from jaxrl.runs.directory import RunDirectory
from jaxrl.runs.fit import Evaluation, Event, Result
from jaxrl.runs.plot import learning_curve
from jaxrl.runs.statistics import summarize


class Recorder:
    """Turns the events of `fit` into the files of a run directory."""

    def __init__(self, directory: RunDirectory, training: Training, seed: int, num_seeds: int):
        self.directory = directory
        self.training = training
        self.seeds = [seed + i for i in range(num_seeds)]

    def begin(self, config: dict[str, Any]) -> None:
        """Writes config.json: `config` and everything else that repeats the run."""
        training = self.training
        self.directory.write_config(
            {
                **config,
                "seeds": self.seeds,
                "total_steps": training.total_steps,
                "num_eval_episodes": training.eval_envs.num_envs,
                "normalize_observations": training.normalize_observations,
                "normalize_rewards": training.normalize_rewards,
                "reset_policy": training.envs.reset_policy,
                "hyper_parameters": describe(training.agent),
                "device": jax.devices()[0].device_kind,
                "platform": jax.default_backend(),
            }
        )

    def __call__(self, event: Event) -> None:
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

    def finish(self, result: Result, *, title: str) -> dict[str, Any]:
        """Writes the checkpoint, the plot and summary.json, whose content is returned."""
        curve = np.array([_mean_of_finished(e.returns) for e in result.evaluations])
        steps = np.array([e.steps for e in result.evaluations])
        save(result.state, self.directory.checkpoints / str(steps[-1]))
        learning_curve(steps, curve, self.directory.plot, title=title)
        summary = {
            "env_steps": result.env_steps,
            "steps_per_second": result.steps_per_second,
            "trace_seconds": result.compiled.trace_seconds,
            "compile_seconds": result.compiled.compile_seconds,
            "train_seconds": result.train_seconds,
            "final_return": summarize(curve[-1]),
        }
        self.directory.write_summary(summary)
        return summary


def _mean_of_finished(returns: np.ndarray) -> np.ndarray:
    """The mean return of each seed, `[seeds]`, over its finished episodes; NaN without any."""
    finished = np.isfinite(returns)
    total, count = np.where(finished, returns, 0.0).sum(-1), finished.sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _of_episodes(returns: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    finished = returns[np.isfinite(returns)]
    some = finished.size > 0
    return {
        "return_mean": finished.mean() if some else None,
        "return_std": finished.std() if some else None,
        "return_min": finished.min() if some else None,
        "return_max": finished.max() if some else None,
        "length_mean": lengths.mean(),
        "episodes": finished.size,
        "unfinished_episodes": returns.size - finished.size,
    }


def describe(agent: Any) -> dict[str, Any]:
    """An agent's hyper-parameters as plain values; schedules by name and numbers."""
    described = {}
    for field in dataclasses.fields(agent):
        value = getattr(agent, field.name)
        if field.name == "spec":
            continue
        if dataclasses.is_dataclass(value) and jax.tree.leaves(value):
            described[field.name] = {type(value).__name__.lower(): describe(value)}
        elif isinstance(value, jax.Array):
            described[field.name] = float(value)
        else:
            described[field.name] = value
    return described
