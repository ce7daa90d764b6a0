"""Traces one environment step and compares it with the spec."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.environment import Environment, NoEnvironment, Timestep, is_data, traceable
from jaxrl.types import (
    EnvSpec,
    Key,
    PyTree,
    sample_action,
)


class FirstStep(NamedTuple):
    """Shapes and dtypes of one reset and one random step, traced without computing anything.

    Attributes:
      jaxpr: the traced program.
      state: state after the reset.
      obs: first observation.
      next_state: state after the step.
      timestep: the step's `Timestep`.
    """

    jaxpr: Any
    state: PyTree
    obs: PyTree
    next_state: PyTree
    timestep: Timestep

    @classmethod
    def of(cls, env: Environment, batched: bool = False) -> "FirstStep":
        """Traces one environment; with `batched`, one slice of the leaves' leading axis.

        Of an environment that steps outside JAX, it has only the shapes that the spec promises.

        Raises:
          NoEnvironment: `reset` or `step` returns values of the wrong type.
        """

        def one(x: Any) -> jax.ShapeDtypeStruct:
            shape = jnp.shape(x)[1:] if batched else jnp.shape(x)
            return jax.ShapeDtypeStruct(shape, jnp.result_type(x))

        env = traceable(env)

        def program(env: Environment, key: Key) -> Any:
            reset_key, act_key, step_key = jax.random.split(key, 3)
            state, obs = _returned("reset", env.reset(reset_key))
            action = sample_action(env.spec.action, act_key)
            ends = ("obs", "reward", "terminated", "truncated")
            return state, obs, *_returned("step", env.step(step_key, state, action), ends)

        key = jax.eval_shape(lambda: jax.random.key(0))  # a real one would start the backend
        jaxpr, shapes = jax.make_jaxpr(program, return_shape=True)(jax.tree.map(one, env), key)
        return cls(jaxpr, *shapes)

    def problems(self, spec: EnvSpec) -> Iterator[str]:
        """A line for each shape or dtype that violates the spec or the contract."""
        reward, end = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.bool_)
        step, contract = self.timestep, "but must be"
        yield from differences(
            "the observation of reset", self.obs, "spec.observation", spec.observation
        )
        yield from differences("the observation of step", step.obs, "that of reset", self.obs)
        yield from differences("the state after step", self.next_state, "that of reset", self.state)
        yield from differences("reward", step.reward, contract, reward)
        yield from differences("terminated", step.terminated, contract, end)
        yield from differences("truncated", step.truncated, contract, end)


def _returned(name: str, result: Any, fields: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Checks that `reset` or `step` returned a pair of pytrees of arrays and returns it.

    The second entry must have the given `fields` (those of a timestep, none for an observation).
    Raises NoEnvironment otherwise.
    """
    entries = result if isinstance(result, tuple | list) else (result,)
    if len(entries) != 2 or not all(hasattr(entries[1], field) for field in fields):
        kinds = ", ".join(type(x).__name__ for x in entries)
        wanted = "(state, jaxrl.Timestep)" if fields else "(state, observation)"
        raise NoEnvironment(f"{name} returned ({kinds}), but must return {wanted}")
    parts = ("state", "timestep" if fields else "observation")
    for part, tree in zip(parts, entries, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not is_data(leaf):
                raise NoEnvironment(
                    f"{name} returned {leaf!r} in {part}{jax.tree_util.keystr(path)}: only numbers "
                    "and arrays are allowed"
                )
    return entries[0], entries[1]


def acting_differences(name: str, spec: EnvSpec, wanted: EnvSpec) -> Iterator[str]:
    """Lines on why a policy trained for `wanted` cannot act in `name`, whose spec is `spec`.

    Time limits, reset policies and `truncates` may differ.
    """
    yield from differences(
        f"the observation of {name}", spec.observation, "that of env", wanted.observation
    )
    if spec.action != wanted.action:
        yield f"- the action space of {name} is {spec.action!r}, that of env {wanted.action!r}"


def differences(what: str, found: PyTree, like: str, wanted: PyTree) -> Iterator[str]:
    """A line for each difference in structure, shape or dtype between two trees."""
    structures: list[Any] = [jax.tree.structure(found), jax.tree.structure(wanted)]
    if structures[0] != structures[1]:
        yield f"- {what} has the structure {structures[0]}, {like} {structures[1]}"
        return
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(found)]
    for path, x, y in zip(paths, jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            is_wide = jax.dtypes.canonicalize_dtype(y.dtype) != y.dtype
            why = " (jaxrl computes in 32 bits)" if is_wide else ""
            yield (
                f"- {what}{path} is {x.dtype}{list(x.shape)}, {like} {y.dtype}{list(y.shape)}{why}"
            )
