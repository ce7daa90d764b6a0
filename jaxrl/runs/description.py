"""What config.json says of a run, and how two of them differ."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.runs.members import Members
from jaxrl.runs.run_options import Origin, RunOptions
from jaxrl.schedules import Schedule

MAY_CHANGE = (
    *(field.name for field in dataclasses.fields(RunOptions)),
    "total_steps",
    "device",
    "platform",
)
"""What of a configuration a resumed run may have otherwise."""


ADDED = {"eval_mode": "greedy"}
"""What a configuration without these names had: it is from before there were any."""


def changes(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Any:
    """Phrases on what differs between two configurations."""
    ignored = {*MAY_CHANGE, "schema_version", "versions", "revision"}
    then = then if prefix else {**ADDED, **then}
    old_schema = then.get("schema_version") == 1  # which had fewer names
    for name in {**then, **now}:
        if name in ignored or (name not in then and (old_schema or now[name] is None)):
            continue
        old, new = then.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from changes(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name} was {old} and is {new}"


def of_schedules(agent: Any, iteration: int, then: int, now: int) -> str:
    """What another horizon does to the schedules of an agent, at this iteration."""
    lines = []
    for field in dataclasses.fields(agent):
        schedule = getattr(agent, field.name)
        if isinstance(schedule, Schedule):
            old, new = (float(np.mean(schedule(jnp.float32(iteration / n)))) for n in (then, now))
            lines.append(f"{field.name} was {old:.4g} here and is {new:.4g}")
    if not lines:
        return "no schedule depends on it"
    return "schedules stretch over it, " + ", ".join(lines)


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


def configuration(members: Members, run_options: RunOptions, origin: Origin) -> dict[str, Any]:
    """Everything that repeats the run."""
    training = members.training
    options = dataclasses.asdict(run_options)
    return {
        **dataclasses.asdict(origin),
        "hyper_parameters": describe(members.base),
        **({"points": members.points} if members.points else {}),
        "seeds": members.seeds,
        "vmapped": members.key.ndim > 0,
        "key_type": str(jax.random.key_impl(members.key)),
        "total_steps": training.total_steps,
        "num_evaluations": options.pop("num_evaluations"),
        "num_eval_episodes": training.eval_envs.num_envs,
        "normalize_observations": training.normalize_observations,
        "normalize_rewards": training.normalize_rewards,
        "reset_policy": training.envs.reset_policy,
        "pool_size": training.envs.pool_size,
        "eval_mode": training.eval_mode,
        **options,
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
    }
