"""Adapter for Craftax: raw steps, the time limit as truncation, parameters as leaves.

The first pixel environment renders Craftax's textures, which takes a minute or more; Craftax caches
them in its package, in `craftax/*/assets`. Nothing is downloaded.
"""

import contextlib
import dataclasses
import functools
import inspect
import io
from typing import Any, Self

import jax
import jax.numpy as jnp

from jaxrl.environment import Timestep
from jaxrl.trees import strong
from jaxrl.types import Discrete, EnvSpec, Key, PyTree
from jaxrl_envs.gymnax import GymnaxEnv, _changed, _limits
from jaxrl_envs.library import check_kind, check_known, library_code, like, making

with library_code():
    from craftax.craftax_env import make_craftax_env_from_name
    from craftax.environment_base.environment_bases import (
        EnvironmentAutoReset,
        EnvironmentNoAutoReset,
    )

NEVER = 2**31 - 1


class CraftaxEnv(GymnaxEnv):
    """A Craftax environment, which has the interface of old versions of gymnax.

    Attributes:
      params: Craftax's parameters; every leaf is an array and may be vmapped.
      env: Craftax's object without auto-reset, shared per id.
      spec: shapes and spaces.
    """

    @classmethod
    @jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
    def make(cls, name: str, /, **params: Any) -> Self:
        """Builds the environment called `name` with some of its parameters changed.

        Raises:
          ValueError: a parameter that the environment does not have.
        """
        env = _craftax_object(name)
        return cls.of(env, env.default_params, name, **params)

    @classmethod
    @jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
    def of(cls, env: Any, default: Any, name: str, /, **params: Any) -> Self:
        """Adapts Craftax's object, `name` in errors; `params` override some of `default`.

        Raises:
          ValueError: a parameter that the environment does not have.
        """
        chosen = strong(_chosen(default, params, name))
        with library_code(), making(name, params):
            observation = jax.eval_shape(
                lambda key: strong(env.reset_env(key, chosen)[0]), jax.random.key(0)
            )
        # Generating a world takes longer than many steps.
        spec = EnvSpec(
            observation,
            Discrete(env.num_actions),
            reset_policy="pool",
            **_limits(env, chosen.max_timesteps),
        )
        return cls(chosen, env, spec)

    def with_params(self, /, **params: Any) -> Self:
        """The same environment with other parameters; arrays and traced values may be given.

        Raises:
          ValueError: a parameter that the environment does not have.
        """
        chosen = _chosen(self.params, params, self.env.name)
        spec = dataclasses.replace(self.spec, **_limits(self.env, chosen.max_timesteps))
        return self.replace(params=chosen, spec=spec)

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        with library_code():
            obs, state = self.env.reset_env(key, self.params)
        return strong(state), strong(obs)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        with library_code():
            obs, stepped, reward, over, info = self.env.step_env(key, state, action, self.params)
            endless = self.params.replace(max_timesteps=NEVER)
            terminated = jnp.asarray(self.env.is_terminal(stepped, endless), bool)
            info = _told(self.env, stepped, info)
        return like(state, stepped), Timestep(
            obs=like(self.spec.observation, obs),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=terminated,
            truncated=over & ~terminated,
            info=info,
        )


@jax.ensure_compile_time_eval()
def adapt(given: Any, /, **params: Any) -> CraftaxEnv:
    """Adapts a Craftax object, or (object, parameters); `params` override some parameters."""
    env, default = given if isinstance(given, tuple) else (given, None)
    check_kind(env, "craftax", (EnvironmentAutoReset, EnvironmentNoAutoReset))
    default = env.default_params if default is None else default
    return CraftaxEnv.of(env, default, env.name, **params)


def _told(env: Any, state: Any, info: dict[str, Any]) -> dict[str, Any]:
    """Craftax's metrics: achievements so far, in percent.

    Its own are 0 until it ends an episode itself, so they would be 0 if a wrapper ends one.
    """
    module = vars(inspect.getmodule(type(env)))
    metrics = module.get("log_achievements_to_info") or module.get("compute_score")
    if metrics is not None:
        info = metrics(state, True)
    return {name: x for name, x in info.items() if name != "discount"}


def _chosen(params: Any, changes: dict[str, Any], name: str) -> Any:
    """Craftax's `params` with `changes`; the tuple `fractal_noise_angles` cannot be changed."""
    numbers = [param for param, value in vars(params).items() if not isinstance(value, tuple)]
    check_known(name, changes, numbers)
    return _changed(params, changes, name)


@functools.cache
def _craftax_object(name: str) -> Any:
    with library_code(), contextlib.redirect_stdout(io.StringIO()):  # it prints about textures
        return make_craftax_env_from_name(name, auto_reset=False)
