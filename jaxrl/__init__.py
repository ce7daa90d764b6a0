"""jaxrl: reinforcement learning as one compiled program over thousands of environments.

Names are imported lazily, so `import jaxrl` is fast.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl import (
        agents,
        distributions,
        engine,
        errors,
        estimators,
        hyper,
        losses,
        networks,
        optimizers,
        replay,
        schedules,
        solvers,
        types,
        wrappers,
    )
    from jaxrl.agent import Agent, Offline, OnPolicy, Population, Replay, Update
    from jaxrl.engine.evaluate import evaluate
    from jaxrl.engine.rollout import rollout
    from jaxrl.engine.sweep import sweep
    from jaxrl.engine.train import train
    from jaxrl.engine.training import Training
    from jaxrl.engine.vector_env import VectorEnv
    from jaxrl.environment import HostEnvironment, HostStep, Timestep
    from jaxrl.runs.dataset import load_dataset, record_episodes, save_dataset
    from jaxrl.runs.export import export_policy
    from jaxrl.runs.fit import fit
    from jaxrl.runs.load import load_policy, load_run
    from jaxrl.types import (
        Box,
        Clock,
        Discrete,
        EnvSpec,
        Masked,
        Mean,
        Mixed,
        MultiDiscrete,
        Observed,
        Stream,
        Trajectory,
        Transition,
    )

__version__ = importlib.metadata.version("jaxrl")

_HOME = {
    "Agent": "agent",
    "Box": "types",
    "Clock": "types",
    "Discrete": "types",
    "EnvSpec": "types",
    "HostEnvironment": "environment",
    "HostStep": "environment",
    "Masked": "types",
    "Mean": "types",
    "Mixed": "types",
    "MultiDiscrete": "types",
    "Observed": "types",
    "Offline": "agent",
    "OnPolicy": "agent",
    "Population": "agent",
    "Replay": "agent",
    "Stream": "types",
    "Timestep": "environment",
    "Training": "engine.training",
    "Trajectory": "types",
    "Transition": "types",
    "Update": "agent",
    "VectorEnv": "engine.vector_env",
    "evaluate": "engine.evaluate",
    "export_policy": "runs.export",
    "fit": "runs.fit",
    "load_dataset": "runs.dataset",
    "load_policy": "runs.load",
    "load_run": "runs.load",
    "record_episodes": "runs.dataset",
    "rollout": "engine.rollout",
    "save_dataset": "runs.dataset",
    "sweep": "engine.sweep",
    "train": "engine.train",
}
_MODULES = (
    "agents",
    "distributions",
    "engine",
    "errors",
    "estimators",
    "hyper",
    "losses",
    "networks",
    "optimizers",
    "replay",
    "schedules",
    "solvers",
    "types",
    "wrappers",
)

__all__ = [
    "Agent",
    "Box",
    "Clock",
    "Discrete",
    "EnvSpec",
    "HostEnvironment",
    "HostStep",
    "Masked",
    "Mean",
    "Mixed",
    "MultiDiscrete",
    "Observed",
    "Offline",
    "OnPolicy",
    "Population",
    "Replay",
    "Stream",
    "Timestep",
    "Training",
    "Trajectory",
    "Transition",
    "Update",
    "VectorEnv",
    "__version__",
    "agents",
    "distributions",
    "engine",
    "errors",
    "estimators",
    "evaluate",
    "export_policy",
    "fit",
    "hyper",
    "load_dataset",
    "load_policy",
    "load_run",
    "losses",
    "networks",
    "optimizers",
    "record_episodes",
    "replay",
    "rollout",
    "save_dataset",
    "schedules",
    "solvers",
    "sweep",
    "train",
    "types",
    "wrappers",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"jaxrl.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"jaxrl.{name}")
    raise AttributeError(f"module 'jaxrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
