"""A lower bound on a run's memory, computed from shapes and compared with what is available.

An oversized run would otherwise overflow somewhere inside JAX or be killed by the system. Arrays
that exist at the same time are added up in Python integers before anything is compiled. Temporary
arrays are left out, so only runs that could never fit are rejected.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import Agent, OnPolicy, Population, Replay
from jaxrl.devices import machine
from jaxrl.errors import InvalidValue
from jaxrl.spaces import ActionSpace, Discrete, Mixed, MultiDiscrete, sample_action
from jaxrl.types import PyTree

LARGE = 2**14
"""Layer widths, observation sizes (bytes) and numbers of actions below this cannot make an agent
too large."""

MANY_COPIES = 2**10
"""Fewer copies cannot make state of an agent for each of them too large, if its layers are not."""


class Part(NamedTuple):
    """An allocation: what it is, its bytes, and the fields that set its size."""

    what: str
    size: int
    fields: dict[str, Any]


def check(training: Any, state: PyTree = (), eval_state: PyTree = (), num_seeds: int = 1) -> None:
    """Raises ValueError, naming the fields, if a run exceeds the memory or a count exceeds int32.

    Args:
      training: a `Training` whose agent is not batched by a sweep.
      state, eval_state: state (or its shapes) of one training and one evaluation environment;
        `()` if unknown.
      num_seeds: number of seeds trained at once.
    """
    limit = memory()
    if limit is not None:
        _check_memory(training, state, eval_state, num_seeds, limit)
    agent = training.agent
    for owner in (agent.plan, agent):
        for field in dataclasses.fields(owner):
            if _largest(value := getattr(owner, field.name)) >= 2**31:
                raise InvalidValue(f"{field.name} is {value}: it must be at most 2**31 - 1")


def _check_memory(
    training: Any, state: PyTree, eval_state: PyTree, num_seeds: int, limit: int
) -> None:
    found = parts(training, _bytes(state), _bytes(eval_state))
    total = sum(part.size for part in found)
    if total > limit:
        largest = max(found, key=lambda part: part.size)
        names = ", ".join(f"{name} is {value}" for name, value in largest.fields.items())
        smaller = "it" if len(largest.fields) == 1 else "one of them"
        raise InvalidValue(
            f"{names}: {largest.what} would take at least {_gib(largest.size)}, but there is only "
            f"{_gib(limit)} of memory: make {smaller} smaller"
        )
    if num_seeds * total > limit:
        raise InvalidValue(
            f"{num_seeds:,} seeds at once would take at least {_gib(num_seeds * total)}, but there "
            f"is only {_gib(limit)} of memory: train fewer at a time"
        )


def check_episodes(env: Any, num_episodes: int) -> None:
    """Raises ValueError unless `num_episodes` is at least 1 and the copies fit into memory."""
    if num_episodes < 1:
        raise InvalidValue(f"num_episodes is {num_episodes}: it must be at least 1")
    if num_episodes < LARGE or (limit := memory()) is None:
        return
    size = num_episodes * (_bytes(jax.eval_shape(env.reset, _key())) + 9)
    if size > limit or num_episodes >= 2**31:
        raise InvalidValue(
            f"num_episodes is {num_episodes}: that many copies of the environment would take at "
            f"least {_gib(size)}, but there is only {_gib(limit)} of memory: play fewer"
        )


def parts(training: Any, state: int, eval_state: int) -> list[Part]:
    """Allocations of one seed that exist at the same time: a lower bound."""
    agent, envs = training.agent, training.envs
    plan, obs = agent.plan, _bytes(envs.spec.observation)
    action = _bytes(jax.eval_shape(functools.partial(sample_action, envs.spec.action), _key()))
    copy = obs + 9  # + episode_return, episode_length, first
    step = obs + action + 6  # + reward, terminated, truncated
    num_eval = training.eval_envs.num_envs
    found = [
        Part("the agent's state", *_agent_bytes(agent, obs)),
        _part("the copies to evaluate on", copy + eval_state, num_eval_episodes=num_eval),
    ]
    if isinstance(plan, OnPolicy | Replay):
        found.append(_part("the copies of the environment", copy + state, num_envs=plan.num_envs))
        if envs.reset_policy == "pool" and envs.pool_size is not None:
            found.append(_part("the pool of starts", obs + state, pool_size=envs.pool_size))
    match plan:
        case OnPolicy(num_envs, num_steps):
            found.append(_part("the trajectory", step, num_envs=num_envs, num_steps=num_steps))
        case Replay():
            found.append(_part("the replay memory", step, capacity=plan.capacity))
            found.append(_part("a batch", 2 * obs + action, batch_size=plan.batch_size))
        case Population(population_size, episodes):
            sizes = {"population_size": population_size, "episodes_per_candidate": episodes}
            if (at_once := plan.candidates_at_once) is not None:
                sizes = {"candidates_at_once": at_once, "episodes_per_candidate": episodes}
            found.append(_part("the copies of the environment", copy + state, **sizes))
    return found


def _part(what: str, size: int, **counts: int) -> Part:
    """`size` times the product of the counts; counts of 1 are not reported as a cause."""
    fields = {name: count for name, count in counts.items() if count > 1}
    return Part(what, size * math.prod(counts.values()), fields or counts)


def memory() -> int | None:
    """Bytes of memory of all devices, or of the machine on CPU; None if unknown."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return machine.memory()
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats["bytes_limit"] * len(devices) if "bytes_limit" in stats else None


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _agent_bytes(agent: Agent, obs: int) -> tuple[int, dict[str, Any]]:
    """Bytes of parameters and optimiser state (0 if small) and the fields that set them."""
    named = {f.name: getattr(agent, f.name) for f in dataclasses.fields(agent)}
    wide = {
        name: value
        for name, value in named.items()
        if not hasattr(agent.plan, name) and _largest(value) >= LARGE
    }
    spec, plan = agent.bound_spec, agent.plan
    if agent.candidates:
        wide["population_size"] = agent.plan.population_size  # type: ignore[union-attr]
    fields = wide
    for name, value, large in (
        ("observation", spec.observation, obs >= LARGE),
        ("action", spec.action, _num_choices(spec.action) >= LARGE),
        ("num_envs", plan.num_envs, plan.num_envs >= MANY_COPIES),  # traces, for example
    ):
        fields = fields or ({name: value} if large else {})
    if not fields:
        return 0, {}
    try:
        state = jax.eval_shape(agent.init, _key())
    except (OverflowError, MemoryError, ValueError, TypeError, RuntimeError):
        if _largest(tuple(wide.values())) < LARGE:
            raise
        names = ", ".join(f"{name} is {value}" for name, value in wide.items())
        raise InvalidValue(
            f"{names}: parameters of this size overflow array indices: make it smaller"
        ) from None
    return _bytes(state), fields


def _num_choices(space: ActionSpace) -> int:
    """The number of discrete choices, for each of which a network may have an output."""
    match space:
        case Discrete(num):
            return num
        case MultiDiscrete(nums):
            return sum(nums)
        case Mixed(spaces):
            return sum(map(_num_choices, spaces))
    return 0


def _bytes(tree: PyTree) -> int:
    """Bytes of arrays or shapes; a key counts 8, the smallest kind."""

    def one(x: Any) -> int:
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.extended)
        return math.prod(x.shape) * (8 if is_key else x.dtype.itemsize)

    return sum(map(one, jax.tree.leaves(tree)))


def _largest(value: Any) -> int:
    """The largest integer in a value; 0 if there is none."""
    match value:
        case bool():
            return 0
        case int() | np.integer():
            return int(value)
        case tuple() | list():
            return max(map(_largest, value), default=0)
    return 0


def _gib(size: int) -> str:
    gib = size / 2**30 if size < 2**1000 else math.inf
    if gib < 0.1:
        return f"{size / 2**20:,.3f} MiB"
    return f"{gib:,.1f} GiB" if gib < 1e6 else f"{gib:.1e} GiB"
