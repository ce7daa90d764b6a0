"""Checks of a fixed data set before anything is compiled."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.environment import differences
from jaxrl.types import Discrete, EnvSpec, PyTree, Transition, sample_action


def check_data(spec: EnvSpec, data: PyTree) -> None:
    """Raises ValueError unless these are transitions `[D, ...]` of an environment of this spec.

    A reward of shape `[D, 1]`, say, would broadcast against `[D]` and teach something else.
    """
    if not isinstance(data, Transition) or jnp.ndim(data.reward) < 1:
        raise ValueError("data is no Transition with leaves [num_transitions, ...]")
    problems = list(_differences(spec, data)) or list(_unknown_actions(spec, data))
    if problems:
        raise ValueError("data does not fit the environment:" + "".join(f"\n{x}" for x in problems))


def _differences(spec: EnvSpec, data: Transition) -> Iterator[str]:
    number = jnp.shape(data.reward)[0]

    def found(x):
        return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))

    def rows(x):
        return jax.ShapeDtypeStruct((number, *x.shape), x.dtype)

    key = jax.eval_shape(lambda: jax.random.key(0))  # a real one would start the backend
    end = jax.ShapeDtypeStruct((), jnp.bool_)
    wanted = {
        "obs": spec.observation,
        "action": jax.eval_shape(lambda key: sample_action(spec.action, key), key),
        "reward": jax.ShapeDtypeStruct((), jnp.float32),
        "terminated": end,
        "truncated": end,
        "next_obs": spec.observation,
    }
    for name, one in wanted.items():
        leaves = jax.tree.map(found, getattr(data, name))
        yield from differences(f"data.{name}", leaves, "but must be", jax.tree.map(rows, one))


def _unknown_actions(spec: EnvSpec, data: Transition) -> Iterator[str]:
    if not isinstance(spec.action, Discrete) or isinstance(data.action, jax.core.Tracer):
        return
    actions = np.asarray(data.action)
    if ((actions < 0) | (actions >= spec.action.num)).any():
        yield (
            f"- data.action lies in {actions.min()} to {actions.max()}, and the environment's "
            f"actions in 0 to {spec.action.num - 1}"
        )
