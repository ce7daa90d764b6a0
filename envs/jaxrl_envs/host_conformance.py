"""What `jaxrl_envs.check` does with an environment that steps outside JAX."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxrl.engine.checked_vector import Checked, EnvironmentFault
from jaxrl.environment import HostEnvironment, HostStep
from jaxrl.types import Key, PyTree

NUM_COPIES = 4

RandomActions = Callable[[PyTree, Key], PyTree]
"""Available actions `[N, ...]` for observations `[N, ...]`."""


def problems(host: HostEnvironment, act: RandomActions, num_steps: int, key: Key) -> Iterator[str]:
    """Plays random steps with a few copies and yields each problem."""
    try:
        once, again = (_played(host, act, num_steps, key) for _ in range(2))
    except EnvironmentFault as error:
        yield f"- {error}"
        return
    for x, y in zip(jax.tree.leaves(once), jax.tree.leaves(again), strict=True):
        if not np.array_equal(x, y):
            yield "- the same seeds gave two different results: reset(seeds) must decide everything"
            break
    age = np.zeros(NUM_COPIES, int)
    found: dict[str, None] = {}  # in order, each once
    for step in once:
        valid = np.ones(NUM_COPIES, bool) if step.valid is None else step.valid
        over = valid & (step.terminated | step.truncated)
        age += valid
        if (valid & step.terminated & step.truncated).any():
            found["- a step was terminated and truncated: truncated &= ~terminated"] = None
        goes_on = valid & ~over
        for x, y in zip(*map(jax.tree.leaves, (step.obs, step.next_obs)), strict=True):
            if not np.array_equal(x[goes_on], y[goes_on]):
                found["- obs differs from next_obs, although no episode ended"] = None
        limit = host.spec.max_steps
        if limit is not None and (age[goes_on] >= limit).any():
            found[f"- an episode continued after spec.max_steps = {limit} steps"] = None
        early = valid & step.truncated & (age < (limit or np.inf))
        if host.spec.truncates == "at_max_steps" and early.any():
            found[
                f"- an episode was truncated after {age[early].min()} steps, though spec.truncates "
                "is 'at_max_steps': declare 'anywhere'"
            ] = None
        age[over] = 0
    yield from found


def _played(host: HostEnvironment, act: RandomActions, num_steps: int, key: Key) -> list[HostStep]:
    vector = Checked.start(host, NUM_COPIES)
    steps: list[HostStep] = []
    try:
        obs = vector.reset(np.arange(NUM_COPIES))
        for i in range(num_steps):
            action = jax.tree.map(np.asarray, act(obs, jax.random.fold_in(key, i)))
            step: Any = jax.tree.map(np.copy, vector.step(action))
            obs = step.obs
            steps.append(step)
    finally:
        vector.close()
    return steps
