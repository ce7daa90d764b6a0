"""`check(env)`: whether an environment keeps the contract that training relies on."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.distributions import Categorical, MultiCategorical
from jaxrl.engine.first_step import FirstStep
from jaxrl.environment import Environment, NoEnvironment
from jaxrl.errors import JaxrlError
from jaxrl.types import (
    ActionSpace,
    Array,
    Discrete,
    EnvSpec,
    Key,
    Mixed,
    MultiDiscrete,
    PyTree,
    sample_action,
    split_mask,
)
from jaxrl.xla.precision import in_float32
from jaxrl_envs.objects import as_environment

NUM_COPIES = 4
_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Compiles in half the time; what a program computes stays the same."""


class ConformanceError(JaxrlError, AssertionError):
    """What is wrong with an environment, a line each."""


@in_float32
def check(env: Environment, *, num_steps: int = 200, seed: int = 0) -> None:
    """Plays random episodes and compares what happens with the contract.

    Looks at: a pytree of numbers and arrays; a spec that can be, hashable, whose action mask fits
    its action space; shapes, dtypes and strong types of states and observations, the same
    from `reset` and `step`; scalars `reward`, `terminated` and `truncated`, the last two never
    both; finite numbers; purity (the same arguments give the same answers, compiled or not); `vmap`
    over copies equal to each alone; action masks that leave a choice; episodes that end with the
    time limit of the spec, and are truncated nowhere else where the spec promises that.

    Args:
      env: one copy of the environment, or an object that `jaxrl_envs.adapt` takes.
      num_steps: steps to play, or the spec's limit and one more where that is more, at most 2,000.
      seed: of the actions and starts.

    Raises:
      ConformanceError: with a line for each thing that is wrong, and how to mend it.
    """
    problems = list(_problems(env, num_steps, jax.random.key(seed)))
    if problems:
        name = type(env).__name__
        raise ConformanceError("\n".join([f"{name} breaks the contract:", *problems]))


def _problems(env: Any, num_steps: int, key: Key) -> Iterator[str]:
    """Each problem that is found; later checks need what the earlier ones found in order."""
    try:
        env = as_environment(env)
        spec = env.spec
    except Exception as error:  # whatever a stranger's code raises is the finding
        yield f"- {error}"
        return
    try:
        hash(spec)
    except TypeError as error:
        yield f"- spec cannot be hashed ({error}): give its observation hashable structure"
        return
    twin: Any = jax.tree.map(lambda x: x, env)
    if not _same_structure(env, twin):
        yield (
            "- the environment is not equal to a copy of itself: make it a frozen pytree "
            "(flax.struct.PyTreeNode) whose static fields compare by value"
        )
        return
    try:
        step = FirstStep.of(env)
    except NoEnvironment as error:
        yield f"- {error}"
        return
    except Exception as error:
        yield (
            f"- reset or step cannot be traced: {type(error).__name__}: {error}. "
            "Use jax.numpy, and jnp.where or jax.lax.cond instead of `if`"
        )
        return
    wrong = [*step.problems(spec), *_weak_types(step)]
    yield from wrong
    yield from _impurities(env, step.state, key)
    if not wrong:
        yield from _problems_in_play(env, spec, num_steps, key)


def _weak_types(step: FirstStep) -> Iterator[str]:
    """Lines on Python numbers among what reset and step return."""
    end = step.timestep
    parts = {"the state of reset": step.state, "the observation of reset": step.obs}
    parts |= {"the state after step": step.next_state, "the observation of step": end.obs}
    ends = {name: getattr(end, name) for name in ("reward", "terminated", "truncated")}
    for what, tree in (parts | ends).items():
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            if getattr(x, "weak_type", False):
                yield (
                    f"- {what}{jax.tree_util.keystr(path)} is weakly typed (a Python number): "
                    f"write jnp.asarray(x, jnp.{x.dtype})"
                )


def _problems_in_play(env: Any, spec: EnvSpec, num_steps: int, key: Key) -> Iterator[str]:
    num_steps = min(max(num_steps, (spec.max_steps or 0) + 1), 2000)

    def play(env: Any, key: Key) -> tuple[PyTree, ...]:
        """One copy, started anew where its episode ends."""
        reset_key, key = jax.random.split(key)
        start = env.reset(reset_key)

        def one(loop, key):
            state, obs, age = loop
            act_key, step_key, again_key = jax.random.split(key, 3)
            mask = split_mask(obs)[1]
            action = _available(spec.action, mask, act_key)
            state, timestep = env.step(step_key, state, action)
            age = age + 1
            over = timestep.terminated | timestep.truncated
            seen = (timestep.obs, timestep.reward, timestep.terminated, timestep.truncated, age)
            fresh = env.reset(again_key)
            following = jax.tree.map(
                lambda a, b: jnp.where(over, a, b), (*fresh, 0), (state, timestep.obs, age)
            )
            return following, (seen, _leaves_a_choice(spec.action, mask))

        _, (seen, choice) = jax.lax.scan(one, (*start, 0), jax.random.split(key, num_steps))
        return start[1], *seen, choice

    keys = jax.random.split(key, NUM_COPIES)
    compiled = _jit(jax.vmap(play, (None, 0)))
    played = jax.device_get(compiled(env, keys))
    first_obs, obs, reward, terminated, truncated, age, choice = played

    if not _equal(played, jax.device_get(compiled(env, keys))):
        yield "- the same key gave two different runs: keep no state outside of `state`"
    alone = jax.device_get(_jit(play)(env, keys[1]))
    if not _close(alone, jax.tree.map(lambda x: x[1], played)):
        yield "- a copy in vmap plays another game than alone: use no reduction across copies"
    for what, tree in (("an observation", (first_obs, obs)), ("a reward", reward)):
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(tree) if x.dtype.kind == "f"):
            yield f"- {what} was not finite"
    if (terminated & truncated).any():
        yield "- a step was terminated and truncated: truncated &= ~terminated"
    if not choice.all():
        yield "- an action mask left no action to take"
    if spec.max_steps is not None:
        over = terminated | truncated
        if (age > spec.max_steps).any() or not over[age == spec.max_steps].all():
            yield (
                f"- an episode went on after spec.max_steps = {spec.max_steps} steps: truncate it "
                "there, with jaxrl.wrappers.TimeLimit for instance"
            )
    if spec.truncates == "at_max_steps":
        early = truncated if spec.max_steps is None else truncated & (age < spec.max_steps)
        if early.any():
            yield (
                f"- an episode was truncated after {age[early].min()} steps, though spec.truncates "
                f"= 'at_max_steps' and spec.max_steps = {spec.max_steps}: declare 'anywhere', or "
                "replay has no room for the observations where episodes are cut"
            )


def _impurities(env: Any, state: PyTree, key: Key) -> Iterator[str]:
    """Traces a step twice: whether it writes into its arguments, or reads what changes."""
    written = False
    action = jax.eval_shape(lambda k: sample_action(env.spec.action, k), key)

    def step(state: PyTree, action: PyTree) -> Any:
        nonlocal written
        before = jax.tree.leaves_with_path(state)
        result = env.step(key, state, action)
        after = jax.tree.leaves_with_path(state)
        written |= len(before) != len(after) or any(
            p != q or x is not y for (p, x), (q, y) in zip(before, after, strict=True)
        )
        return result

    def program() -> str:  # of a new function, for jax remembers the traces of an old one
        return str(jax.make_jaxpr(lambda *arguments: step(*arguments))(state, action))

    programs = {re.sub("0x[0-9a-f]+", "", program()) for _ in range(2)}
    if written:
        yield "- step changes the state that it is given: build a new one"
    if len(programs) > 1:
        yield "- two calls of step are two programs: read nothing that changes outside of `state`"


def _same_structure(x: PyTree, y: PyTree) -> bool:
    structures: list[Any] = [jax.tree.structure(x), jax.tree.structure(y)]
    return bool(structures[0] == structures[1])


def _equal(x: PyTree, y: PyTree) -> bool:
    same = jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=_is_float(a)), x, y)
    return all(jax.tree.leaves(same))


def _close(x: PyTree, y: PyTree) -> bool:
    """Equal within rounding; floats that chaos has driven apart count as equal where both exist."""

    def one(a, b):
        if not _is_float(a):
            return a.shape == np.shape(b)
        return np.allclose(np.ravel(a)[:64], np.ravel(b)[:64], rtol=1e-2, atol=1e-2, equal_nan=True)

    return all(jax.tree.leaves(jax.tree.map(lambda a, b: one(np.asarray(a), b), x, y)))


def _is_float(x: Any) -> bool:
    return np.asarray(x).dtype.kind == "f"


def _available(space: ActionSpace, mask: PyTree, key: Key) -> PyTree:
    """A random action among the available ones."""
    if mask is None:
        return sample_action(space, key)
    match space:
        case Discrete(num):
            return Categorical(jnp.zeros(num), mask).sample(key)
        case MultiDiscrete(nums):
            return MultiCategorical(jnp.zeros(sum(nums)), nums, mask).sample(key)
        case Mixed(spaces):
            keys = jax.random.split(key, len(spaces))
            return tuple(_available(s, m, k) for s, m, k in zip(spaces, mask, keys, strict=True))
    return sample_action(space, key)


def _leaves_a_choice(space: ActionSpace, mask: PyTree) -> Array:
    """Whether each part of an action has a value that the mask allows, `bool[]`."""
    if mask is None:
        return jnp.bool_(True)
    match space:
        case MultiDiscrete(nums):
            parts = jnp.split(mask, np.cumsum(nums)[:-1])
            return functools.reduce(jnp.logical_and, (jnp.any(part) for part in parts))
        case Mixed(spaces):
            pairs = zip(spaces, mask, strict=True)
            return functools.reduce(jnp.logical_and, (_leaves_a_choice(*pair) for pair in pairs))
    return jnp.any(mask)
