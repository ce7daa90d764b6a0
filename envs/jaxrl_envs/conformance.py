"""`check(env)`: tests whether an environment satisfies the contract that training relies on."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.distributions import Categorical, MultiCategorical
from jaxrl.engine.first_step import FirstStep
from jaxrl.environment import Environment, Hosted, NoEnvironment
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
from jaxrl_envs import host_conformance
from jaxrl_envs.objects import as_environment

NUM_COPIES = 4
_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Compiles in half the time, with the same results."""


class ConformanceError(JaxrlError, AssertionError):
    """An environment violates the contract; the message has a line for each problem."""


@in_float32
def check(env: Environment, *, num_steps: int = 200, seed: int = 0) -> None:
    """Plays random episodes and checks the environment against the contract.

    It checks that the environment is a pytree of numbers and arrays; that the spec is valid and
    hashable, with a mask that matches the action space; that states and observations of `reset` and
    `step` have the same shapes, dtypes and strong types; that `reward`, `terminated` and
    `truncated` are scalars, the last two never both true; that numbers are finite; that functions
    are pure; that `vmap` over copies equals each copy alone; that action masks leave a choice; and
    that episodes end at the spec's time limit, and are not truncated earlier if the spec promises
    that.

    Of an environment that steps outside JAX it checks shapes, dtypes, numbers, flags, seeds and
    time limits in `num_steps` random steps of a few copies.

    Args:
      env: one environment, or an object that `jaxrl_envs.adapt` accepts.
      num_steps: steps to play; at least one more than the spec's limit, at most 2,000.
      seed: seed of actions and resets.

    Raises:
      ConformanceError: with a line for each problem and its fix.
    """
    problems = list(_problems(env, num_steps, jax.random.key(seed)))
    if problems:
        name = type(env).__name__
        raise ConformanceError("\n".join([f"{name} violates the contract:", *problems]))


def _problems(env: Any, num_steps: int, key: Key) -> Iterator[str]:
    """Yields each problem; later checks run only if earlier ones passed."""
    try:
        env = as_environment(env)
        spec = env.spec
    except Exception as error:  # user code may raise anything
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
    if isinstance(env, Hosted):
        yield from host_conformance.problems(env.host, _actions(spec), num_steps, key)
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


def _actions(spec: EnvSpec) -> Any:
    """A compiled function from observations `[N, ...]` and a key to random available actions."""

    def one(obs: PyTree, key: Key) -> PyTree:
        return _available(spec.action, split_mask(obs)[1], key)

    def act(obs: PyTree, key: Key) -> PyTree:
        num = jax.tree.leaves(obs)[0].shape[0]
        return jax.vmap(one)(obs, jax.random.split(key, num))

    return _jit(act)


def _weak_types(step: FirstStep) -> Iterator[str]:
    """Lines on weakly typed results of reset and step."""
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
        """Plays one copy with auto-reset."""
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
        yield "- the same key gave two different results: keep no state outside of `state`"
    alone = jax.device_get(_jit(play)(env, keys[1]))
    if not _close(alone, jax.tree.map(lambda x: x[1], played)):
        yield "- a copy under vmap differs from the same copy alone: do not reduce across copies"
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
                f"- an episode continued after spec.max_steps = {spec.max_steps} steps: truncate "
                "it there, for example with jaxrl.wrappers.TimeLimit"
            )
    if spec.truncates == "at_max_steps":
        early = truncated if spec.max_steps is None else truncated & (age < spec.max_steps)
        if early.any():
            yield (
                f"- an episode was truncated after {age[early].min()} steps, though spec.truncates "
                f"= 'at_max_steps' and spec.max_steps = {spec.max_steps}: declare 'anywhere', or "
                "replay has no room for the final observations"
            )


def _impurities(env: Any, state: PyTree, key: Key) -> Iterator[str]:
    """Traces a step twice to see if it modifies its arguments or depends on changing state."""
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

    def program() -> str:  # a new function each time, because jax caches traces
        return str(jax.make_jaxpr(lambda *arguments: step(*arguments))(state, action))

    programs = {re.sub("0x[0-9a-f]+", "", program()) for _ in range(2)}
    if written:
        yield "- step modifies the state that it is given: build a new one"
    if len(programs) > 1:
        yield "- two traces of step differ: read nothing that changes outside of `state`"


def _same_structure(x: PyTree, y: PyTree) -> bool:
    structures: list[Any] = [jax.tree.structure(x), jax.tree.structure(y)]
    return bool(structures[0] == structures[1])


def _equal(x: PyTree, y: PyTree) -> bool:
    same = jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=_is_float(a)), x, y)
    return all(jax.tree.leaves(same))


def _close(x: PyTree, y: PyTree) -> bool:
    """Equal up to rounding, comparing only the first 64 floats, before chaos drives them apart."""

    def one(a, b):
        if not _is_float(a):
            return a.shape == np.shape(b)
        return np.allclose(np.ravel(a)[:64], np.ravel(b)[:64], rtol=1e-2, atol=1e-2, equal_nan=True)

    return all(jax.tree.leaves(jax.tree.map(lambda a, b: one(np.asarray(a), b), x, y)))


def _is_float(x: Any) -> bool:
    return np.asarray(x).dtype.kind == "f"


def _available(space: ActionSpace, mask: PyTree, key: Key) -> PyTree:
    """A random available action."""
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
    """Whether the mask allows at least one value for each part of an action, `bool[]`."""
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
