"""Adapter for gymnax: raw steps, parameters as leaves, strong types."""

import dataclasses
import functools
import math
from typing import Any, Self

import gymnax
import gymnax.environments.environment as gymnax_environment
import gymnax.environments.spaces as gymnax_spaces
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.wrappers.purerl import GymnaxWrapper

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidType
from jaxrl.trees import strong
from jaxrl.types import ActionSpace, Box, Discrete, EnvSpec, Key, Mixed, PyTree, static
from jaxrl_envs.library import check_kind, check_known, is_part_of, making
from jaxrl_envs.parameters import NUMBERS, Kinds, check_size, fit

NEEDS_NETWORK = frozenset({"MNISTBandit-bsuite"})
"""Ids that download data when made."""


class GymnaxEnv(struct.PyTreeNode):
    """A gymnax environment.

    Attributes:
      params: gymnax's parameters; every leaf is an array and may be vmapped.
      env: gymnax's object, shared per id, so that equal environments have equal structure.
      spec: shapes and spaces.
    """

    params: PyTree
    env: Any = static()
    spec: EnvSpec = static()

    @classmethod
    @jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
    def make(cls, name: str, /, **params: Any) -> Self:
        """Builds the environment called `name` with some of its parameters changed.

        Raises:
          ValueError: a parameter that the environment does not have.
        """
        env = _gymnax_object(name)
        return cls.of(env, env.default_params, name, **params)

    @classmethod
    @jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
    def of(cls, env: Any, default: Any, name: str, /, **params: Any) -> Self:
        """Adapts gymnax's object, `name` in errors; `params` override some of `default`.

        Raises:
          ValueError: a parameter that the environment does not have.
        """
        chosen = _changed(default, params, name)
        with _any_ranks(), making(name, params):
            observation = jax.eval_shape(env.reset_env, jax.random.key(0), chosen)[0]
        spec = EnvSpec(
            observation=observation,
            action=_space(env.action_space(chosen), name),
            **_limits(env, getattr(chosen, "max_steps_in_episode", None)),
        )
        return cls(strong(chosen), env, spec)

    def with_params(self, /, **params: Any) -> Self:
        """The same environment with other parameters; arrays and traced values may be given.

        This updates the time limit in `spec`, but not the bounds of the action space: use `make`
        for that. Derived parameters, such as CartPole's `polemass_length` and `total_mass`, are not
        updated either: pass them, too.

        Raises:
          ValueError: a parameter that the environment does not have.
        """
        chosen = _changed(self.params, params, self.env.name)
        spec = self.spec
        if "max_steps_in_episode" in params:
            limits = _limits(self.env, params["max_steps_in_episode"])
            spec = dataclasses.replace(spec, **limits)
        return self.replace(params=chosen, spec=spec)

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        with _any_ranks():
            obs, state = self.env.reset_env(key, self.params)
        return strong(state), self._observed(obs)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        with _any_ranks():
            obs, stepped, reward, terminated, info = self.env.step_env(
                key, state, action, self.params
            )
            truncated = _truncated(self.env, stepped, self.params)
        # gymnax mixes Python numbers with arrays: keep the dtypes of the state.
        stepped = jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), state, stepped)
        terminated = jnp.asarray(terminated, bool)
        return stepped, Timestep(
            obs=self._observed(obs),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=terminated,
            truncated=jnp.asarray(truncated, bool) & ~terminated,
            # the discount only repeats `terminated`, so it is not a useful metric
            info={name: x for name, x in info.items() if name != "discount"},
        )

    def _observed(self, obs: PyTree) -> PyTree:
        return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), obs, self.spec.observation)


@jax.ensure_compile_time_eval()
def adapt(given: Any, /, **params: Any) -> GymnaxEnv:
    """Adapts a gymnax object, or (object, parameters); `params` override some parameters."""
    env, default = given if isinstance(given, tuple) else (given, None)
    check_kind(env, "gymnax", (gymnax_environment.Environment,), (GymnaxWrapper,))
    default = env.default_params if default is None else default
    return GymnaxEnv.of(env, default, env.name, **params)


def _truncated(env: Any, state: Any, params: Any) -> Any:
    """Whether gymnax truncates the episode; False if neither it nor the class has a limit."""
    inherited = type(env).is_truncated is gymnax_environment.Environment.is_truncated
    if inherited and not (hasattr(params, "max_steps_in_episode") and hasattr(state, "time")):
        return False
    return env.is_truncated(state, params)


_any_ranks = functools.partial(jax.numpy_rank_promotion, "allow")
"""Swimmer relies on rank promotion, which must work even if the user forbids it."""


@functools.cache
def _gymnax_object(name: str) -> Any:
    return gymnax.make(name)[0]


def _changed(params: Any, changes: dict[str, Any], name: str) -> Any:
    """gymnax's `params` with `changes`, promoted to the dtypes of the values they replace."""
    known = vars(params)
    check_known(name, changes, known)

    def like(field, new):
        old, said = jnp.asarray(known[field]), f"{name}'s {field} is {new!r}"
        new = fit(new, _kinds(old), field, said)
        if isinstance(new, int | float):
            check_size(new, said)
        new, dtype = jnp.asarray(new), old.dtype
        return new.astype(dtype if dtype == jnp.bool_ else jnp.promote_types(dtype, new.dtype))

    return params.replace(**{field: like(field, x) for field, x in changes.items()})


def _kinds(value: jax.Array) -> Kinds:
    """Kinds of values that may replace a parameter's value."""
    if value.dtype == bool:
        return Kinds({"bool"})
    return Kinds({"number", "list"}) if value.ndim else NUMBERS


def _limits(env: Any, limit: Any) -> dict[str, Any]:
    """The fields `max_steps` and `truncates` of the spec, for one time limit or one for each copy.

    The limit is None if there is none or if it is traced. If copies have different limits, it is
    the longest, and some copies are truncated earlier.
    """
    if limit is None or isinstance(limit, jax.core.Tracer):
        return {"max_steps": None, "truncates": "anywhere"}
    limits = np.asarray(limit)
    exact = is_part_of(("gymnax", "craftax"), env) and bool((limits == limits.max()).all())
    return {
        "max_steps": math.ceil(limits.max()),  # both cut once the time has reached it
        "truncates": "at_max_steps" if exact else "anywhere",
    }


def names() -> list[str]:
    """Ids registered with gymnax."""
    return list(gymnax.registered_envs)


def _space(space: Any, name: str) -> ActionSpace:
    match space:
        case gymnax_spaces.Discrete():
            return Discrete(int(space.n))
        case gymnax_spaces.Box():
            return Box.of(space.low, space.high, tuple(space.shape))
        case gymnax_spaces.Tuple():
            return Mixed(tuple(_space(s, name) for s in space.spaces))
    raise InvalidType(f"{name} has the action space {space!r}, which jaxrl does not support")
