"""Adapter for navix (MiniGrid in JAX): raw steps, strong types, small states.

navix's `step` auto-resets; `_step` does not. Random numbers come from the step's key, not from the
key in navix's state.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.environment import Timestep
from jaxrl.trees import strong
from jaxrl.types import Array, Discrete, EnvSpec, Key, PyTree, static
from jaxrl_envs.library import (
    check_kind,
    check_known,
    check_limit,
    check_none,
    is_part_of,
    library_code,
    like,
    making,
)
from jaxrl_envs.parameters import fitted

with library_code():
    import navix


FIXED = ("height", "width", "observation_space", "action_space", "reward_space")
"""Arguments of navix's classes that are determined by the id and the other arguments."""


class NavixEnv(struct.PyTreeNode):
    """A navix environment.

    The state is navix's `Timestep` without the parts that the next step does not read: the
    observation and, unless observations are images, the image of the empty grid, which would be
    most of it.

    Attributes:
      env: navix's object, shared by equal arguments, so that equal environments have equal
        structure.
      spec: shapes and spaces.
      drawn: whether observations are images.
    """

    env: Any = static()
    spec: EnvSpec = static()
    drawn: bool = static()

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        with library_code():
            timestep = self.env.reset(key)
        return strong(_kept(timestep, self.drawn)), strong(timestep.observation)

    def step(self, key: Key, state: PyTree, action: Array) -> tuple[PyTree, Timestep]:
        with library_code():
            given = state.replace(state=state.state.replace(key=key))
            timestep = self.env._step(given, action)
        return like(state, _kept(timestep, self.drawn)), Timestep(
            obs=like(self.spec.observation, timestep.observation),
            reward=jnp.asarray(timestep.reward, jnp.float32),
            terminated=timestep.is_termination(),
            truncated=timestep.is_truncation(),
            # "return" would cover a single step only; the engine computes returns anyway
            info={name: x for name, x in timestep.info.items() if name != "return"},
        )


def _kept(timestep: Any, drawn: bool) -> Any:
    """The part of navix's `Timestep` that the next step reads."""
    state = timestep.state if drawn else timestep.state.replace(cache=None)
    return timestep.replace(observation=(), info={}, state=state)


@functools.cache
def _navix_object(constructor: Any, arguments: tuple[tuple[str, Any], ...]) -> Any:
    # Not `navix.make`, whose time limit is 100 steps in navix 0.7 and MiniGrid's in navix 4.
    return _hashable(constructor(**dict(arguments)))


def _hashable(env: Any) -> Any:
    # Steps do not read the spaces, whose arrays are not hashable.
    return env.replace(observation_space=None, action_space=None, reward_space=None)


@jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
def make(name: str, /, **params: Any) -> NavixEnv:
    """Builds the navix environment called `name`.

    Args:
      name: "Navix-Empty-5x5-v0", "Navix-DoorKey-8x8-v0", ...
      **params: arguments of navix's class, such as `max_steps` (by default the class's own limit,
        mostly 4 x height x width) or `observation_fn`, a function or the name of one of navix's:
        `observation_fn="symbolic_first_person"` shows the 7 x 7 cells in front of the agent.

    Raises:
      ValueError: an unknown or invalid argument.
    """
    with library_code():
        constructor = navix.registry()[name]
        kind_of = type(_navix_object(constructor, ()))
        fields = [field.name for field in dataclasses.fields(kind_of)]
        check_known(name, params, [field for field in fields if field not in FIXED])
        params = fitted(kind_of, params, name)
        if params.get("max_steps") is not None:
            check_limit(name, "max_steps", params["max_steps"])
        with making(name, params):
            env = _navix_object(constructor, tuple(sorted(_with_function(params).items())))
            return _of(env)


@jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
def adapt(env: Any, /, **params: Any) -> NavixEnv:
    """Adapts a navix object; `params` must be empty, since its parameters are already set."""
    check_kind(env, "navix", (navix.Environment,))
    check_none(env, params)
    return _of(_hashable(env))


def _of(env: Any) -> NavixEnv:
    """Wraps navix's object."""
    with library_code():
        start = jax.eval_shape(env.reset, jax.random.key(0))
        observation = jax.eval_shape(strong, start.observation)
    # Generating a random maze costs as much as two to five steps.
    spec = EnvSpec(
        observation,
        Discrete(len(env.action_set)),
        env.max_steps,
        reset_policy="pool",
        truncates="at_max_steps" if is_part_of(("navix",), env) else "anywhere",
    )
    return NavixEnv(env, spec, _is_drawn(env, start))


def _with_function(params: dict[str, Any]) -> dict[str, Any]:
    """Replaces the name of an `observation_fn` by the function."""
    function = params.get("observation_fn")
    if not isinstance(function, str):
        return params
    return params | {"observation_fn": getattr(navix.observations, function)}


def _is_drawn(env: Any, start: Any) -> bool:
    """Whether a step reads the image of the empty grid."""
    try:
        with library_code():
            jax.eval_shape(env._step, _kept(start, drawn=False), jnp.int32(0))
    except AttributeError:
        return True
    return False


def names() -> list[str]:
    """Ids registered with navix."""
    return sorted(navix.registry())
