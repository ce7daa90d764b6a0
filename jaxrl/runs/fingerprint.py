"""What tells one environment's code and parameters from another's, and one installation's too."""

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
    """Hashes of the environment's program, start and step, and of its parameters and data.

    The program is the traced one, so that comments and names do not count, and what a start or a
    step computes does.
    """
    program = FirstStep.of(training.envs.env, training.envs.batched).jaxpr
    text = re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr))  # addresses of Python's functions
    return {
        "code": _hash([text.encode(), *map(_bytes, program.consts)]),
        "parameters": _hash(
            map(_bytes, jax.tree.leaves((training.envs.env, training.eval_envs.env, training.data)))
        ),
    }


def check(
    then: Mapping[str, str] | None, now: Mapping[str, str], ran_on: Mapping[str, str]
) -> None:
    """Raises ValueError where the environment is not the one of an earlier time.

    Args:
      then, now: what `of` found; None: it was not looked at.
      ran_on: versions of the earlier time. Another jax may trace the same code to other text.
    """
    if then is None:
        return
    if ran_on.get("jax") == versions()["jax"] and then["code"] != now["code"]:
        raise InvalidValue(
            "the environment's code has changed since the checkpoint: bring it back, or train anew "
            "in another directory"
        )
    if then["parameters"] != now["parameters"]:
        raise InvalidValue(
            "the environment's parameters, or the data, have changed since the checkpoint: bring "
            "them back, or train anew in another directory"
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
