"""What a checkpoint holds: how it is filled, and how a run is restored from it.

A checkpoint has two parts, so that acting does not need to read a replay buffer:

    learned     the agent's state and the statistics that normalise its observations
    progress    environments, recurrent carry, replay buffer, keys, metrics not yet reported

and a record, `Contents.record`, of everything else. With `keep_best`, the directory `best` holds
the learned part of the best evaluation, for acting, evaluation and export, but not for resuming.

`jaxrl.runs.checkpoint_files` writes and reads the files.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.engine.learners import TrainState
from jaxrl.errors import InvalidValue
from jaxrl.runs.directory import read_summary, versions
from jaxrl.runs.events import Diverged, Evaluation
from jaxrl.runs.members import Members
from jaxrl.runs.run_state import RunState
from jaxrl.trees import named_leaves
from jaxrl.types import Mean, PyTree

SCHEMA_VERSION = 5
"""Schema of the parts and of the record; 1 had a single part, 2 other names (`RENAMED`), 3 one tree
of parameters where agents now keep a policy and a critic (`ONE_TREE`), 4 one ring of final
observations for all copies (`jaxrl.replay.saved`)."""
RENAMED = {"finals": "final_obs", "final": "final_index", "num_finals": "num_truncated"}
"""Fields of the replay buffer in schemas 1 and 2, and their names since."""
ONE_TREE = re.compile(r"\.params\.(actor|critic)\.params\.")
"""In names of agents with `Networks`, whose two parts were one tree in schemas up to 3."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """Fills and restores the checkpoints of one run.

    Attributes:
      path: the run directory.
      members: the members of the run.
      config: the content of config.json.
      environment: fingerprints of the environment (`jaxrl.runs.fingerprint`).
    """

    path: Path
    members: Members
    config: Mapping[str, Any]
    environment: Mapping[str, str]

    def parts(self, run_state: RunState) -> dict[str, PyTree]:
        """The arrays, by part."""
        return {"learned": learned(run_state.state), "progress": self._progress(run_state)}

    def record(self, run_state: RunState) -> dict[str, Any]:
        """Everything else; `Checkpoints` adds the schema version and the names of the arrays."""
        return {
            **self._shared_record(run_state.iteration, run_state.train_seconds),
            "diverged": {i: dataclasses.asdict(x) for i, x in run_state.diverged.items()},
            "stopped": run_state.stopped,
        }

    def best_record(self, evaluation: Evaluation) -> dict[str, Any]:
        """The record of a best evaluation."""
        iteration = evaluation.steps // self.members.training.agent.plan.steps_per_iteration
        return {
            **self._shared_record(iteration, evaluation.train_seconds),
            "return_mean": evaluation.return_mean,
        }

    def _shared_record(self, iteration: int, train_seconds: float) -> dict[str, Any]:
        return {
            "iteration": iteration,
            "train_seconds": train_seconds,
            "num_iterations": self.members.training.num_iterations,
            "config": self.config,
            "versions": versions(),
            "devices": len(self.members.placement.devices),
            "environment": self.environment,
        }

    def _progress(self, run_state: RunState) -> dict[str, Any]:
        key = np.asarray(jax.random.key_data(self.members.key))
        return {**progress(run_state.state), "key": key, "since": run_state.since}

    def restore(
        self,
        run_state: RunState,
        step: int,
        record: dict[str, Any],
        load: Callable[[str, PyTree], PyTree],
    ) -> None:
        """Puts a checkpoint into `run_state`.

        Args:
          run_state: the state of a new run, with the structure that is expected.
          step: step of the checkpoint.
          record: its record.
          load: loads a part by name, structured like a template (`Checkpoints.load`).

        Raises:
          DamagedCheckpoint: a part is damaged.
          ValueError: the checkpoint is of another run.
        """
        state = run_state.state
        parts = statistics_in(record)
        if parts not in (None, len(state.stats.obs)):
            raise InvalidValue(
                f"{self.path} normalised {parts} parts of the observation, but this jaxrl "
                f"normalises {len(state.stats.obs)}, integers too: start a new run, or resume "
                "with the jaxrl that wrote it"
            )
        part = load("learned", learned(state))
        if record["schema_version"] == 1:  # of the end of a run, just after an evaluation
            rest = load("progress", progress(state))
            summary = read_summary(self.path) or {"train_seconds": 0.0}
            record |= {
                "iteration": step // self.members.training.agent.plan.steps_per_iteration,
                "train_seconds": summary["train_seconds"],
            }
        else:
            rest = self._restore_progress(run_state, record, load)
        run_state.state = state.replace(**part, **rest)
        run_state.iteration = record["iteration"]
        run_state.train_seconds = record["train_seconds"]
        run_state.diverged = {
            int(i): Diverged(**{**x, "metrics": tuple(x["metrics"])})
            for i, x in record.get("diverged", {}).items()
        }
        end = read_summary(self.path) or {}
        has_ended = end.get("env_steps") == step * len(self.members)
        run_state.stopped = None if has_ended else record.get("stopped")

    def _restore_progress(
        self, run_state: RunState, record: Mapping[str, Any], load: Callable[[str, PyTree], PyTree]
    ) -> dict[str, PyTree]:
        """Puts the metrics of `progress` into `run_state`; returns what belongs to its state."""
        saved = leaves_in(record, "progress")
        wanted = self._progress(run_state)
        self._check_buffer(saved, wanted["buffer"])
        now = run_state.since

        def known(part: str, means: dict[str, Mean]) -> dict[str, Mean]:
            return {k: x for k, x in means.items() if f"since.{part}.{k}.total" in saved}

        wanted["since"] = now.replace(
            episodes=now.episodes.replace(info=known("episodes.info", now.episodes.info)),
            updates=known("updates", now.updates),
        )
        rest = load("progress", wanted)
        if not np.array_equal(rest.pop("key"), jax.random.key_data(self.members.key)):
            raise InvalidValue(f"{self.path} contains a run with another key: pass that key")
        since = rest.pop("since")  # a metric that an older jaxrl did not have starts here
        run_state.since = since.replace(
            episodes=since.episodes.replace(info=now.episodes.info | since.episodes.info),
            updates=now.updates | since.updates,
        )
        return rest

    def _check_buffer(self, saved: Mapping[str, Any], buffer: PyTree) -> None:
        """Raises ValueError if the saved replay buffer stores final observations differently."""
        now = {f"buffer.{name}" for name in named_leaves(buffer)}
        if ("buffer.final_index" in saved) != ("buffer.final_index" in now):
            raise InvalidValue(
                f"{self.path} contains a replay buffer with other room for final observations: the "
                "environment's spec.truncates was different, or jaxrl was older. Declare truncates "
                "as it was, or start a new run, for instance from this agent"
            )


def learned(state: TrainState) -> PyTree:
    """The part of a state that is needed to act."""
    return {"agent": state.agent, "stats": state.stats}


def progress(state: TrainState) -> PyTree:
    """The rest of a state, needed to resume."""
    return {"envs": state.envs, "carry": state.carry, "buffer": state.buffer}


def statistics_in(record: Mapping[str, Any]) -> int | None:
    """Number of observation leaves with statistics in the checkpoint; None if not recorded."""
    if record["schema_version"] == 1:
        return None
    names = record["leaves"]["learned"]
    return sum(name.startswith("stats.obs.") and name.endswith(".count") for name in names)


def leaves_in(record: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Shape, dtype and checksum of the arrays of a part, by their current names."""
    return {current_name(name): x for name, x in record["leaves"][part].items()}


def as_networks(arrays: Mapping[str, np.ndarray], wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays by the wanted names, where policy and critic were one tree of parameters."""
    wanted = set(wanted)
    then = {ONE_TREE.sub(".params.params.", name): name for name in wanted}
    return {name if name in wanted else then.get(name, name): x for name, x in arrays.items()}


def current_name(name: str) -> str:
    """The name of an array of `progress`, which may have been written by an older jaxrl."""
    part, _, rest = name.partition(".")
    field, dot, rest = rest.partition(".")
    return f"{part}.{RENAMED[field]}{dot}{rest}" if part == "buffer" and field in RENAMED else name
