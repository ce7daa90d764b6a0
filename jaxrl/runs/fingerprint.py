"""Fingerprints of an environment's code, parameters and data, to detect changes on resume."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.engine.first_step import FirstStep
from jaxrl.engine.training import Training
from jaxrl.errors import InvalidValue
from jaxrl.runs.directory import versions
from jaxrl.types import PyTree


def of(training: Training) -> dict[str, str]:
    """Hashes of the environment's program (reset and step), and of its parameters and data.

    The traced program is hashed, so only changes of the computation count, not comments or names.
    """
    program = FirstStep.of(training.envs.env, training.envs.batched).jaxpr
    text = re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr))  # addresses of Python's functions
    # An expert is no leaf of its agent, but what it has learned decides what is learned from it.
    expert = getattr(training.agent, "expert", None)
    learned = tuple(getattr(expert, name, ()) for name in ("state", "stats"))
    data = training.envs.env, training.eval_envs.env, training.data, learned
    return {
        "code": _hash([text.encode(), *map(_bytes, program.consts)]),
        "parameters": _hash(map(_bytes, jax.tree.leaves(data))),
    }


def check(
    then: Mapping[str, str] | None, now: Mapping[str, str], ran_on: Mapping[str, str]
) -> None:
    """Raises ValueError if the environment has changed.

    Args:
      then, now: results of `of`; None if unknown.
      ran_on: package versions of the earlier run. Another jax may trace the same code differently.
    """
    if then is None:
        return
    if ran_on.get("jax") == versions()["jax"] and then["code"] != now["code"]:
        raise InvalidValue(
            "the environment's code has changed since the checkpoint: restore it, or start a new "
            "run in another directory"
        )
    if then["parameters"] != now["parameters"]:
        raise InvalidValue(
            "the environment's parameters, the data, or the expert have changed since the "
            "checkpoint: restore them, or start a new run in another directory"
        )


def _bytes(x: PyTree) -> bytes:
    x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    x = np.asarray(x)
    return f"{x.dtype}{x.shape}".encode() + x.tobytes()


def _hash(pieces: Any) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()[:16]
