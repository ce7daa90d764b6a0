"""Experts: functions of raw observations, and policies of trained runs."""

from collections.abc import Callable
from typing import Any

import jax

from jaxrl.errors import InvalidValue
from jaxrl.trees import shapes_text
from jaxrl.types import EnvSpec, PyTree, sample_action

Expert = Callable[..., Any]
"""A function from observations `[N, ...]` to actions `[N, ...]`; or a policy from
`jaxrl.load_policy`, or another object with `act(obs, carry)` and `initial_carry(num_envs)`."""


def expert_carry(expert: Any, num_envs: int) -> PyTree:
    """The expert's recurrent state as an episode starts, leaves `[N, ...]`; `()` if it has none."""
    return expert.initial_carry(num_envs) if _is_policy(expert) else ()


def expert_action(expert: Any, obs: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
    """The expert's actions `[N, ...]`, and its recurrent state after them."""
    return expert.act(obs, carry) if _is_policy(expert) else (expert(obs), carry)


def check_expert(expert: Any, spec: EnvSpec) -> None:
    """Raises ValueError unless the expert acts in environments of this spec."""
    if not (_is_policy(expert) or callable(expert)):
        raise InvalidValue(
            f"expert is a {type(expert).__name__}: give a function from observations to actions, "
            "or a policy from jaxrl.load_policy"
        )
    try:
        hash(expert)
    except TypeError:
        raise InvalidValue(
            f"the expert, a {type(expert).__name__}, is not hashable: give a function"
        ) from None
    theirs = getattr(expert, "spec", spec)
    if isinstance(theirs, EnvSpec) and theirs.action != spec.action:
        raise InvalidValue(
            f"the expert's actions are {theirs.action}, but those of this environment are "
            f"{spec.action}"
        )
    number = 2
    obs = jax.eval_shape(lambda: spec.dummy_observation(number))
    try:
        found, _ = jax.eval_shape(
            lambda obs: expert_action(expert, obs, expert_carry(expert, number)), obs
        )
    except Exception as error:
        raise InvalidValue(
            "the expert cannot act on observations of this environment, "
            f"{shapes_text(obs)}: {error}"
        ) from error
    key = jax.eval_shape(lambda: jax.random.key(0))
    one = jax.eval_shape(lambda key: sample_action(spec.action, key), key)
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct((number, *x.shape), x.dtype), one)
    structures: list[Any] = [jax.tree.structure(x) for x in (found, wanted)]
    same = structures[0] == structures[1]
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=False)
    if not (same and all((x.shape, x.dtype) == (y.shape, y.dtype) for x, y in pairs)):
        raise InvalidValue(
            f"the expert gives {shapes_text(found)} for {number} observations, but the actions of "
            f"this environment are {shapes_text(wanted)}"
        )


def _is_policy(expert: Any) -> bool:
    return hasattr(expert, "act") and hasattr(expert, "initial_carry")
