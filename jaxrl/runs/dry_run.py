"""Dry runs: compile a run and report shapes, parameters, memory and operations."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agent import OnPolicy, Population, Replay
from jaxrl.engine import hosted
from jaxrl.engine.training import Training
from jaxrl.errors import InvalidValue
from jaxrl.networks.variables import trained
from jaxrl.runs.host_programs import programs_of
from jaxrl.runs.members import Members
from jaxrl.runs.programs import Programs, memory_of
from jaxrl.runs.run_options import RunOptions
from jaxrl.trees import shapes_text
from jaxrl.types import PyTree
from jaxrl.xla.deadlock import jaxprs_inside
from jaxrl.xla.precision import in_float32


@in_float32
def dry_run(members: Members, options: RunOptions) -> dict[str, str]:
    """Compiles a run of these members and returns the lines of a report, by title.

    Args:
      members: the members.
      options: how the run is trained.

    Raises:
      ValueError: under `jax_disable_jit`, since nothing is compiled.
    """
    if jax.config.jax_disable_jit:
        raise InvalidValue(
            "a dry run needs compilation, which jax_disable_jit turns off: unset JAX_DISABLE_JIT, "
            "or leave out --dry-run"
        )
    training, key = members.training, members.key
    spec, plan = training.envs.spec, training.agent.plan
    state = jax.eval_shape(training.init, key if key.ndim == 0 else key[0])
    updates = training.num_iterations * plan.updates_per_iteration
    programs = programs_of(members, options)
    memory = {name: _memory(program) for name, program in programs.named().items()}
    of_seeds = f" ({len(members)} seeds)" if len(members) > 1 else ""
    compiled = programs.compiled
    return {
        "observation": shapes_text(spec.observation),
        "action": str(spec.action),
        "trajectory": _trajectory(training),
        "parameters": f"{_parameters(state.agent):,}",
        "iterations": f"{training.num_iterations:,} of {plan.steps_per_iteration:,} steps: "
        f"{training.total_steps:,} steps, {updates:,} updates",
        "devices": str(members.placement),
        "memory": ", ".join(f"{name} {text}" for name, text in memory.items()) + of_seeds,
        **_operations(members, programs, of_seeds),
        "compile time": f"{compiled.trace_seconds + compiled.compile_seconds:.1f} s "
        f"(tracing {compiled.trace_seconds:.1f}, XLA {compiled.compile_seconds:.1f})",
    }


def _operations(members: Members, programs: Programs, of_seeds: str) -> dict[str, str]:
    """Lines on the operations of an iteration; none if a part of it is not compiled."""
    training = members.training
    if hosted.collects(training):
        return {}
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(training.init, key)
    one = jax.make_jaxpr(training.iteration)(state, key, jnp.int32(0))
    products = len(members) * operations_in_products(one.jaxpr)
    counted = (programs.named()["training"].cost_analysis() or {}).get("flops")
    return {
        "operations": f"at most {_flops(products)} in the matrix products and convolutions of an "
        f"iteration, {_flops(products * training.num_iterations)} in total{of_seeds}",
        "XLA's count": "none on this device"
        if counted is None
        else f"{_flops(counted)} for one iteration, with the body of each loop (steps, "
        "minibatches) counted once: a lower bound",
    }


def _trajectory(training: Training) -> str:
    match training.agent.plan:
        case OnPolicy() | Replay() as plan:
            step = jax.eval_shape(training._transition_like)
            size = f"{plan.num_steps} steps x {plan.num_envs} environments"
            return f"{size} of {shapes_text(step)}"
        case Population() as plan:
            return (
                f"returns of {plan.population_size} candidates x "
                f"{plan.episodes_per_candidate} episodes"
            )
    return f"none: a data set of {shapes_text(training.data)}"


def _parameters(agent_state: PyTree) -> int:
    """Number of values in `params` or, for agents without `params`, of floats in the state."""
    leaves = jax.tree.leaves(trained(getattr(agent_state, "params", agent_state)))
    return sum(math.prod(x.shape) for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact))


def _memory(program: Any) -> str:
    size = memory_of(program)
    if size is None:
        return "unknown"
    return f"{_mib(size.kept + size.temporary)} MiB ({_mib(size.temporary)} of it temporary)"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.2f}"


def _flops(count: float) -> str:
    power = min(int(math.log10(max(count, 1.0)) // 3), 5)
    return f"{count / 1000**power:.3g} {' kMGTP'[power].strip()}FLOP"


def operations_in_products(jaxpr: Any) -> float:
    """Operations in matrix products and convolutions.

    Scans count with their length, a `cond` as its most expensive branch, a `while` loop once.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, inner = (
            equation.primitive.name,
            [operations_in_products(j) for j in jaxprs_inside(equation)],
        )
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if name == "dot_general":
            lhs = equation.invars[0].aval.shape
            contracted = equation.params["dimension_numbers"][0][0]
            total += 2.0 * out * math.prod(lhs[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            rhs = equation.invars[1].aval.shape
            out_features = equation.params["dimension_numbers"].rhs_spec[0]
            total += 2.0 * out * math.prod(rhs) / rhs[out_features]
        elif name == "cond":
            total += max(inner)
        elif name == "scan":
            total += equation.params["length"] * sum(inner)
        else:
            total += sum(inner)
    return total
