"""Export of policies as stand-alone programs: `jax.export`, which runs without jaxrl, and ONNX.

The program maps raw observations `[n, ...]`, for any n, to greedy or mean actions; it includes the
normalisation of observations and the clipping of actions.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.errors import InvalidValue
from jaxrl.runs.directory import plain, versions
from jaxrl.runs.disk import WriteError, is_disk_error, replace, user_path, writing
from jaxrl.runs.loaded_policy import LoadedPolicy
from jaxrl.trees import named_leaves
from jaxrl.types import PyTree
from jaxrl.xla.precision import in_float32

PROGRAM, ONNX, DESCRIPTION = "policy.jax", "policy.onnx", "policy.json"
PLATFORMS = ("cpu", "cuda", "tpu")
HOW_TO_CALL = (
    "program = jax.export.deserialize(open('policy.jax', 'rb').read()); action = program.call(obs)"
)


@in_float32
def export_policy(policy: LoadedPolicy, path: Path | str, *, onnx: bool = False) -> None:
    """Writes policy.jax and policy.json, and optionally policy.onnx, into the directory `path`.

    The exported policy is deterministic (greedy or mean actions), even if the run was evaluated
    with sampled actions.

    An observation that is not a single array is a dict with the names in policy.json. So is the
    recurrent carry, which a recurrent policy takes after the observation and returns after the
    action, and which starts as zeros.

    Args:
      policy: the policy to export.
      path: a directory, created if missing; existing files are replaced.
      onnx: whether to write policy.onnx; needs the extra `onnx`.

    Raises:
      ValueError: the directory cannot be written to, or the ONNX converter is missing.
      WriteError: a disk error, such as a full disk.
    """
    path = user_path(path)
    function, arguments = _flat(policy)
    (n,) = jax.export.symbolic_shape("n")
    symbolic = jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), arguments)
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*symbolic)
    description = {
        "how_to_call": HOW_TO_CALL if len(arguments) == 1 else HOW_TO_CALL_RECURRENT,
        "observation": _described(arguments[0]),
        "action_space": str(policy.spec.action),
        "carry": _described(arguments[1]) if len(arguments) > 1 else None,
        "platforms": PLATFORMS,
        "calling_convention_version": exported.calling_convention_version,
        "versions": versions(),
    }
    try:
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        replace(path / PROGRAM, bytes(exported.serialize()))
        replace(path / DESCRIPTION, json.dumps(plain(description), indent=2) + "\n")
    except WriteError as error:
        if is_disk_error(error):
            raise
        raise InvalidValue(str(error)) from error
    if onnx:
        with writing(path / ONNX):
            _write_onnx(function, arguments, path / ONNX)


HOW_TO_CALL_RECURRENT = HOW_TO_CALL.replace("action =", "action, carry =").replace(
    "(obs)", "(obs, carry)"
)


def _flat(policy: LoadedPolicy) -> tuple[Callable[..., Any], tuple[PyTree, ...]]:
    """The policy as a function of plain dicts, and the shapes of one row of its arguments."""
    carry = policy.initial_carry(1)
    if any(np.asarray(x).any() for x in jax.tree.leaves(carry)):
        raise InvalidValue("a recurrent carry that does not start as zeros cannot be exported")
    carry = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), carry)
    obs = policy.spec.observation

    def act(plain_obs: PyTree) -> PyTree:
        return policy.act(_own(plain_obs, obs))[0]

    def act_with_carry(plain_obs: PyTree, plain_carry: PyTree) -> tuple[PyTree, PyTree]:
        action, after = policy.act(_own(plain_obs, obs), _own(plain_carry, carry))
        return action, _named(after)

    if policy.recurrent:
        return act_with_carry, (_named(obs), _named(carry))
    return act, (_named(obs),)


def _named(tree: PyTree) -> PyTree:
    """A single array unchanged, any other tree as a dict of its leaves by name."""
    return tree if jax.tree_util.all_leaves([tree]) else named_leaves(tree)


def _own(named: PyTree, like: PyTree) -> PyTree:
    """The inverse of `_named`."""
    names = _named(like)
    if names is like:
        return named
    return jax.tree.unflatten(jax.tree.structure(like), [named[name] for name in names])


def _described(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda x: f"{x.dtype}[n{''.join(f', {k}' for k in x.shape)}]", shapes)


def _write_onnx(function: Callable[..., Any], arguments: tuple[PyTree, ...], path: Path) -> None:
    """Converts with jax2onnx, which keeps a symbolic first axis."""
    try:
        from jax2onnx import to_onnx
    except ImportError:
        raise InvalidValue("jax2onnx is not installed: pip install 'jaxrl[onnx]'") from None
    structure = jax.tree.structure(arguments)
    leaves = jax.tree_util.tree_leaves_with_path(arguments)
    names = [_onnx_name(path) for path, _ in leaves]

    def of_leaves(*inputs: jax.Array) -> Any:
        return tuple(jax.tree.leaves(function(*jax.tree.unflatten(structure, inputs))))

    with jax.numpy_rank_promotion("allow"):  # jax2onnx's own code relies on it
        to_onnx(
            _without_dead_code(of_leaves),
            [jax.ShapeDtypeStruct(("n", *x.shape), x.dtype) for _, x in leaves],
            input_names=names,
            return_mode="file",
            output_path=str(path),
        )


def _without_dead_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without dead code, which the converter would keep.

    An agent also computes log-probabilities, for example, with operations that ONNX lacks.
    """
    from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
    from jax.interpreters.partial_eval import dce_jaxpr

    def lean(*inputs: jax.Array) -> Any:
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
        closed, out = jax.make_jaxpr(function, return_shape=True)(*shapes)
        all_results = [True] * len(closed.jaxpr.outvars)
        jaxpr, _ = dce_jaxpr(closed.jaxpr, all_results, instantiate=True)
        results = jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))(*inputs)
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return lean


def _onnx_name(path: Any) -> str:
    argument, *rest = path
    first = ("obs", "carry")[argument.idx]
    return ".".join([first, *(str(getattr(key, "key", key)) for key in rest)])
