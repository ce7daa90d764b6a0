"""The content of config.json."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.runs.members import Members
from jaxrl.runs.run_config import Origin, Records, RunConfig
from jaxrl.runs.run_options import RunOptions
from jaxrl.schedules import Schedule


def schedule_changes(agent: Any, iteration: int, then: int, now: int) -> str:
    """A text that says how a new horizon changes the agent's schedules at this iteration.

    Args:
      agent: an agent without an axis of members.
      iteration: iterations so far.
      then, now: the old and the new number of iterations.
    """
    lines = []
    for field in dataclasses.fields(agent):
        schedule = getattr(agent, field.name)
        if isinstance(schedule, Schedule):
            old, new = (float(np.mean(schedule(jnp.float32(iteration / n)))) for n in (then, now))
            lines.append(f"{field.name} changes from {old:.4g} to {new:.4g} at this step")
    if not lines:
        return "the agent has no schedules"
    return "schedules stretch over it; " + ", ".join(lines)


def describe(x: Any) -> Any:
    """Converts a tree of dataclasses to plain values: arrays to numbers, schedules to dicts."""
    if isinstance(x, jax.Array):
        # the shortest text of a float32: 0.99 instead of 0.9900000095367432
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


def defaults(agent: Any) -> dict[str, Any]:
    """The hyper-parameters in config.json of an agent of this class with all defaults."""
    known = {f.name: f.default for f in dataclasses.fields(agent)}
    known = {name: x for name, x in known.items() if x is not dataclasses.MISSING}
    return describe(agent.replace(**known))


def configuration(members: Members, options: RunOptions, origin: Origin) -> dict[str, Any]:
    """The content of config.json: everything needed to repeat the run, and where it ran."""
    hyper_parameters = describe(members.base)
    if origin.expert is not None:
        hyper_parameters.pop("expert", None)
    config = RunConfig(
        **Origin.of(origin.values()).values(),
        hyper_parameters=hyper_parameters,
        points=members.points,
        seeds=members.seeds,
        key_type=str(jax.random.key_impl(members.key)),
        training=members.training.options,
        options=options,
    )
    records = Records(
        vmapped=members.key.ndim > 0,
        device=jax.devices()[0].device_kind,
        platform=jax.default_backend(),
    )
    noted = {name: value for name, value in records.values().items() if value is not None}
    return {**config.config(), **noted}
