"""Adapter for brax: raw steps, time limits as truncation, the physical system as leaves.

brax's own wrappers are not used: its auto-reset always replays the same start, and its `time_out`
reports a fallen pendulum as a time-out.
"""

import contextlib
import copy
import functools
import inspect
import io
import math
import warnings
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.trees import strong
from jaxrl.types import Box, EnvSpec, Key, PyTree, static
from jaxrl.wrappers import ActionRepeat, TimeLimit
from jaxrl.xla import deadlock
from jaxrl_envs.library import check_kind, library_code, like, making
from jaxrl_envs.parameters import Kinds, check_size, fit, fitted

deadlock.protect()  # brax's physics calls LAPACK
with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mujoco warns that warp is missing
    from brax import envs as brax_envs
    from brax import fluid
    from brax.envs.wrappers import training


class _OldNumpy:
    """`jax.numpy` with the argument names that `clip` had until jax 0.10.

    brax 0.14.2 uses them for fluid forces, which only swimmer has.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def clip(x: Any, a_min: Any = None, a_max: Any = None) -> jax.Array:
        return jnp.clip(x, a_min, a_max)


if "a_min" not in inspect.signature(jnp.clip).parameters:
    fluid.jp = _OldNumpy()

BACKENDS = ("generalized", "spring", "positional", "mjx")
TAKEN_OFF = (training.EpisodeWrapper, training.VmapWrapper, training.AutoResetWrapper)
WRAPPERS = tuple(
    x
    for x in vars(training).values()
    if getattr(x, "__module__", "") == training.__name__
    and isinstance(x, type)
    and issubclass(x, brax_envs.Wrapper)
)
MAX_STEPS = 1000
"""The time limit of brax's own trainers, in steps."""

SCALES = {
    "mass_scale": (
        ("link.inertia.mass", "link.inertia.i", "body_mass", "body_inertia", "body_subtreemass"),
        ("link.invweight", "dof.invweight", "body_invweight0", "dof_invweight0"),
    ),
    "friction_scale": (("geom_friction", "pair_friction"), ()),
    "damping_scale": (("dof.damping", "dof_damping"), ()),
    "gear_scale": (("actuator.gear", "actuator_gear"), ()),
    "gravity_scale": (("gravity", "opt.gravity"), ()),
}
"""Parameters with the same meaning on every backend: fields of the system that each multiplies, and
fields that it divides."""


class BraxEnv(struct.PyTreeNode):
    """A brax environment without a time limit, which `make` adds.

    `Timestep.info` has brax's metrics: rewards summed over the episode so far, and current values
    of the others (such as the distance reached, which brax's evaluation sums as well).

    Attributes:
      params: changes to brax's system: names of scales, or dotted paths of fields of
        `brax.base.System`, to values; every value is a leaf and may be vmapped.
      env: brax's object, shared by equal arguments, so that equal environments have equal
        structure.
      spec: shapes and spaces.
    """

    params: dict[str, Any]
    env: Any = static()
    spec: EnvSpec = static()

    def with_params(self, /, **params: Any) -> Self:
        """The same environment with a changed system; arrays and traced values may be given.

        Args:
          **params: `mass_scale`, `friction_scale`, `damping_scale`, `gear_scale`, `gravity_scale`,
            or fields of the system by their dotted path: `**{"link.inertia.mass": masses}`.

        Raises:
          ValueError: an unknown field, a wrong shape, or not a number.
        """
        new = {name: _change(self.env, name, value) for name, value in params.items()}
        changed = {**self.params, **{name: jnp.asarray(x, float) for name, x in new.items()}}
        return self.replace(params=dict(sorted(changed.items())))

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        with library_code():
            state = strong(self._physics().reset(key))
        return state, state.obs

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        # info has sums of rewards so far, so that the last step has those of the episode. brax gets
        # zeros instead, so that rewards which it sums itself are not counted twice.
        rewards = {k: x for k, x in state.metrics.items() if "reward" in k}
        seen = state.replace(metrics=state.metrics | jax.tree.map(jnp.zeros_like, rewards))
        with library_code():
            # A copy, because brax writes into its dictionaries.
            stepped = self._physics().step(jax.tree.map(lambda x: x, seen), action)
        stepped = like(state, stepped)
        added = {k: stepped.metrics[k] for k in rewards}
        metrics = stepped.metrics | jax.tree.map(jnp.add, rewards, added)
        stepped = stepped.replace(metrics=metrics)
        return stepped, Timestep(
            obs=stepped.obs,
            reward=stepped.reward.astype(jnp.float32),
            terminated=stepped.done > 0,
            truncated=jnp.bool_(False),
            info=stepped.metrics,
        )

    def _physics(self) -> Any:
        """brax's object with the changed system."""
        if not self.params:
            return self.env
        env = copy.copy(self.env)
        env.sys = _changed(env.sys, self.params)
        return env


def _change(env: Any, name: str, value: Any) -> Any:
    """Validates a value that replaces or scales a part of the system."""
    # brax's wrappers expose the system of the inner environment, but changes would not reach it.
    system = None if isinstance(env, brax_envs.Wrapper) else getattr(env, "sys", None)
    if system is None:
        raise InvalidValue(f"{type(env).__name__} has no physics, so no parameter {name!r}")
    try:
        field = None if name in SCALES else _field(system, name)
    except AttributeError:
        raise InvalidValue(
            f"brax's system has no field {name!r}: use {', '.join(SCALES)}, the path of a field "
            "such as link.inertia.mass, or an argument of the environment"
        ) from None
    value = fit(value, Kinds({"number", "list"}), name, f"{name} is {value!r}")
    if isinstance(value, int | float):
        check_size(value, f"{name} is {value!r}")
    if field is not None and jnp.shape(value) != jnp.shape(field):
        raise InvalidValue(f"{name} must have the shape {jnp.shape(field)}, not {jnp.shape(value)}")
    return value


def _field(system: Any, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), system)


def _changed(system: Any, params: dict[str, Any]) -> Any:
    """The system with fields first replaced, then scaled."""
    for name, value in params.items():
        if name not in SCALES:
            system = system.tree_replace({name: value})
    for name, value in params.items():
        multiplied, divided = SCALES.get(name, ((), ()))
        fields = {path: _field(system, path) * value for path in multiplied}
        fields |= {path: _field(system, path) / value for path in divided}
        if fields:
            system = system.tree_replace(fields)
    return system


@functools.cache
def _brax_object(kind_of: Any, arguments: tuple[tuple[str, Any], ...]) -> Any:
    with library_code():
        return kind_of(**dict(arguments))


@jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
def make(
    name: str, /, *, backend: str = "generalized", max_steps: int = MAX_STEPS, **params: Any
) -> TimeLimit:
    """Builds the brax environment called `name`.

    Args:
      name: "ant", "hopper", ...
      backend: "generalized", "spring", "positional" or "mjx".
      max_steps: the time limit in steps.
      **params: as for `BraxEnv.with_params`, or arguments of brax's class.

    Raises:
      ValueError: an unknown backend or parameter, or a backend that the environment cannot use.
    """
    if backend not in BACKENDS:
        raise InvalidValue(f"backend is {backend!r}: use {', '.join(BACKENDS)}")
    max_steps = fit(max_steps, Kinds({"int"}), "max_steps", f"{name}'s max_steps is {max_steps!r}")
    kind_of = brax_envs._envs[name]
    known = inspect.signature(kind_of).parameters
    arguments = {k: v for k, v in params.items() if k in known and k not in SCALES}
    arguments = fitted(kind_of, arguments, name)
    chosen = dict(arguments)
    if "backend" in known or any(p.kind is p.VAR_KEYWORD for p in known.values()):
        chosen["backend"] = backend
    elif backend != BACKENDS[0]:
        raise InvalidValue(f"brax/{name} has no choice of backends: leave it out")
    try:
        env = _brax_object(kind_of, tuple(sorted(chosen.items())))
    except ValueError as error:
        if "backend" not in str(error):
            raise
        raise InvalidValue(
            f"brax/{name} cannot use the backend {backend!r} (brax says: {error}): leave it out"
        ) from error
    changes = {k: v for k, v in params.items() if k not in arguments}
    with making(name, arguments):
        adapted = _of(env)
    return TimeLimit(adapted.with_params(**changes), max_steps=max_steps)


def _of(env: Any) -> BraxEnv:
    """Adapts brax's object without changes of the system."""
    with library_code():
        observation = jax.eval_shape(env.reset, jax.random.key(0)).obs
    spec = EnvSpec(
        observation,
        Box.of(-1.0, 1.0, (env.action_size,)),
        reset_policy="pool",
        truncates="at_max_steps",
    )
    return BraxEnv({}, env, spec)


@jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
def adapt(env: Any, /, *, max_steps: int | None = None, **params: Any) -> TimeLimit:
    """Adapts a brax environment object.

    Args:
      env: the object; brax's training wrappers that end, batch and reset episodes are removed, but
        their time limit and action repeat are kept.
      max_steps: the time limit in steps; None for that of the object, or 1,000 if it has none.
      **params: as for `BraxEnv.with_params`.

    Raises:
      TypeError: it is not an environment, or another of brax's training wrappers.
      ValueError: an unknown field of the system, or a wrong shape.
    """
    repeats = 1
    while isinstance(env, TAKEN_OFF):
        if isinstance(env, training.EpisodeWrapper):
            repeats = int(env.action_repeat)
            # Counted in inner steps, but compared after each outer step.
            max_steps = max_steps or math.ceil(int(env.episode_length) / repeats)
        env = env.env
    check_kind(env, "brax", (brax_envs.Env,), WRAPPERS)
    adapted: Any = _of(env).with_params(**params)
    adapted = ActionRepeat(adapted, num_repeats=repeats) if repeats > 1 else adapted
    return TimeLimit(adapted, max_steps=MAX_STEPS if max_steps is None else max_steps)


def names() -> list[str]:
    """Ids registered with brax."""
    return sorted(brax_envs._envs)
