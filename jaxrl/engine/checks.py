"""Checks that agent, environments and options fit together, before anything is compiled."""

from typing import Any

import jax

from jaxrl.agent import Agent, EvalMode
from jaxrl.engine.first_step import FirstStep, acting_differences, differences
from jaxrl.engine.learners import Learned
from jaxrl.environment import Environment, named_info
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.types import EnvSpec, PyTree
from jaxrl.validation import declares


def check_agent(agent: Any) -> None:
    """Raises TypeError unless `agent` is an agent (and not a class or an environment)."""
    if isinstance(agent, type):
        raise InvalidType(f"agent is the class {agent.__name__}: pass {agent.__name__}(...)")
    if missing := [part for part in ("bind", "plan", "update") if not declares(agent, part)]:
        raise InvalidType(
            f"{type(agent).__name__} is not an agent, it has no {' and no '.join(missing)}: pass a "
            "jaxrl.Agent first, such as jaxrl.agents.PPO(), and the environment after it"
        )


def check_contract(name: str, first_step: FirstStep, spec: EnvSpec) -> None:
    if problems := list(first_step.problems(spec)):
        raise InvalidValue(
            f"{name} violates the environment contract (jaxrl_envs.check finds more):"
            + "".join(f"\n{line}" for line in problems)
        )


def check_eval_env(eval_env: Environment, spec: EnvSpec) -> None:
    """Raises ValueError unless an agent for `spec` can act in `eval_env`."""
    if problems := list(acting_differences("eval_env", eval_env.spec, spec)):
        raise InvalidValue(
            "eval_env does not match env, so one agent cannot act in both:"
            + "".join(f"\n{line}" for line in problems)
        )
    check_contract(f"eval_env, {type(eval_env).__name__},", FirstStep.of(eval_env), eval_env.spec)


def check_eval_mode(agent: Agent, eval_mode: EvalMode) -> None:
    if eval_mode not in agent.eval_modes:
        raise InvalidValue(
            f"eval_mode is {eval_mode!r}: for {type(agent).__name__} use "
            f"{' or '.join(map(repr, agent.eval_modes))}"
        )


def check_info(agent: Agent, info: PyTree) -> None:
    """Raises ValueError unless the environment's `Timestep.info` has what the agent names."""
    found = named_info(info)
    if missing := [name for name in agent.info if name not in found]:
        has = f"has {', '.join(found)}" if found else "is empty"
        raise InvalidValue(
            f"{type(agent).__name__}.info names {', '.join(missing)}, but Timestep.info of this "
            f"environment {has}: name these only, or wrap the environment"
        )


def check_start(agent: Agent, start: Learned, wanted: PyTree) -> None:
    """Raises ValueError unless the agent can start from `start`.

    `wanted` are the shapes of the run's observation statistics.
    """
    found = () if start.stats is None else start.stats.obs
    if wanted and start.stats is None:
        raise InvalidValue(
            "agent_state has no statistics to normalise observations with, but "
            "normalize_observations is on: pass the whole TrainState, or load_run(path).start()"
        )
    if wanted and not found:
        raise InvalidValue(
            "agent_state comes from a run without normalised observations: leave "
            "normalize_observations off"
        )
    if found and not wanted:
        raise InvalidValue(
            "agent_state comes from a run with normalised observations: set normalize_observations"
        )
    like = jax.eval_shape(agent.init, jax.eval_shape(lambda: jax.random.key(0)))
    name = type(agent).__name__
    problems = [
        *differences("it", start.agent, f"the state of this {name}", like),
        *differences("its statistics", found, "those of these observations", wanted),
    ]
    if problems:
        raise InvalidValue(
            "agent_state comes from another agent:" + "".join(f"\n{x}" for x in problems)
        )
