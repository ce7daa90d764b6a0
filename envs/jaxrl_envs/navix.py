"""navix's environments (MiniGrid in JAX) under our contract: raw steps, strong types, small states.

navix's own `step` starts the next episode by itself; the step beneath it does not. A step draws
from its own key, not from the one that navix keeps in the state.
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
"""Arguments of navix's classes that follow from the id and from the other arguments."""


class NavixEnv(struct.PyTreeNode):
    """One navix environment.

    The state is navix's `Timestep` without what the next step does not read: the observation, and
    the picture of the empty grid where observations are not drawn, which would be most of it.

    Attributes:
      env: navix's object; one for equal arguments, so that equal environments have equal structure.
      spec: shapes and spaces.
      drawn: whether observations are pictures.
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
            # of one step, because the state is kept without it; and returns are counted anyway
            info={name: x for name, x in timestep.info.items() if name != "return"},
        )


def _kept(timestep: Any, drawn: bool) -> Any:
    """The part of navix's `Timestep` that the next step reads."""
    state = timestep.state if drawn else timestep.state.replace(cache=None)
    return timestep.replace(observation=(), info={}, state=state)


@functools.cache
def _navix_object(constructor: Any, arguments: tuple[tuple[str, Any], ...]) -> Any:
    # Not by `navix.make`, whose time limit is 100 steps in navix 0.7 and MiniGrid's in navix 4.
    return _hashable(constructor(**dict(arguments)))


def _hashable(env: Any) -> Any:
    # No step reads the spaces, and the arrays that they hold have no hash.
    return env.replace(observation_space=None, action_space=None, reward_space=None)


@jax.ensure_compile_time_eval()  # inside a traced program, too, what is kept holds no tracer
def make(name: str, **params: Any) -> NavixEnv:
    """Builds the navix environment called `name`.

    Args:
      name: "Navix-Empty-5x5-v0", "Navix-DoorKey-8x8-v0", ...
      **params: arguments of navix's class, such as `max_steps` (else the class's own limit, mostly
        4 x height x width) or `observation_fn`, a function or the name of one of navix's:
        `observation_fn="symbolic_first_person"` shows the 7 x 7 cells before the agent.

    Raises:
      ValueError: an argument that the class does not have or cannot use.
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


@jax.ensure_compile_time_eval()  # inside a traced program, too, what is kept holds no tracer
def adapt(env: Any, **params: Any) -> NavixEnv:
    """Adapts an object of navix; it was built with its parameters, and takes no more."""
    check_kind(env, "navix", (navix.Environment,))
    check_none(env, params)
    return _of(_hashable(env))


def _of(env: Any) -> NavixEnv:
    """navix's object under our contract."""
    with library_code():
        start = jax.eval_shape(env.reset, jax.random.key(0))
        observation = jax.eval_shape(strong, start.observation)
    # A random maze costs two to five steps.
    spec = EnvSpec(
        observation,
        Discrete(len(env.action_set)),
        env.max_steps,
        reset_policy="pool",
        truncates="at_max_steps" if is_part_of(("navix",), env) else "anywhere",
    )
    return NavixEnv(env, spec, _is_drawn(env, start))


def _with_function(params: dict[str, Any]) -> dict[str, Any]:
    """`params` with the function of an `observation_fn` that is given by its name."""
    function = params.get("observation_fn")
    if not isinstance(function, str):
        return params
    return params | {"observation_fn": getattr(navix.observations, function)}


def _is_drawn(env: Any, start: Any) -> bool:
    """Whether a step reads the picture of the empty grid."""
    try:
        with library_code():
            jax.eval_shape(env._step, _kept(start, drawn=False), jnp.int32(0))
    except AttributeError:
        return True
    return False


def names() -> list[str]:
    """The ids that navix registers."""
    return sorted(navix.registry())
