"""Loads trained agents from run directories, to act, evaluate, warm-start or export."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from jaxrl.agent import Agent, Offline
from jaxrl.engine.learners import Learned
from jaxrl.engine.options import TrainingOptions
from jaxrl.engine.training import Training
from jaxrl.environment import Environment
from jaxrl.errors import InvalidValue
from jaxrl.normalization import normalized_leaves
from jaxrl.runs.checkpoint import learned, statistics_in
from jaxrl.runs.checkpoint_files import Checkpoints, DamagedCheckpoint
from jaxrl.runs.dataset import load_dataset, stand_in
from jaxrl.runs.directory import RunDirectory, read_config
from jaxrl.runs.disk import user_path
from jaxrl.runs.loaded_policy import LoadedPolicy
from jaxrl.runs.members import Members, keys_of
from jaxrl.runs.run_config import RunConfig
from jaxrl.runs.text import resume_command
from jaxrl.types import EnvSpec, PyTree, sample_action
from jaxrl.xla.precision import in_float32
from jaxrl.xla.transfers import transfers_allowed
from jaxrl_envs.objects import as_environment


@dataclasses.dataclass(frozen=True)
class Trained:
    """A loaded checkpoint of a run.

    Attributes:
      members: the members of the run.
      learned: agent states and observation statistics; leaves `[M, ...]` for several members.
      iteration: number of finished iterations.
      steps: environment steps per member.
      path: the run directory.
    """

    members: Members
    learned: PyTree
    iteration: int
    steps: int
    path: Path

    def agent_state(self, member: int = 0) -> PyTree:
        """The agent state of a member, without observation statistics."""
        return self.start(member).agent

    def start(self, member: int = 0) -> Learned:
        """The agent state of a member with its statistics, for `train(..., agent_state=...)`.

        Raises:
          ValueError: `member` is out of range.
        """
        _, state = self._alone(member)
        return Learned(state["agent"], state["stats"])

    def policy(self, member: int = 0) -> LoadedPolicy:
        """The policy of a member, without exploration.

        Raises:
          ValueError: `member` is out of range.
        """
        training, state = self._alone(member)
        return LoadedPolicy(training, state["agent"], state["stats"], self.iteration)

    def _alone(self, member: int) -> tuple[Training, PyTree]:
        if not 0 <= member < len(self.members):
            raise InvalidValue(
                f"{self.path} has no member {member}: give a number from 0 to "
                f"{len(self.members) - 1}"
            )
        return self.members.alone(member, self.learned)


@transfers_allowed
@in_float32
def load_run(
    path: Path | str,
    *,
    step: int | Literal["best"] | None = None,
    agent: Agent | None = None,
    env: Environment | None = None,
    data: PyTree = None,
) -> Trained:
    """Loads a checkpoint of the run in `path`.

    Args:
      path: the run directory.
      step: the checkpoint, by its environment steps per seed; "best" for the best evaluation
        (saved with `keep_best`); None for the newest intact checkpoint.
      agent, env: the agent and the environment of a run that was started from Python.
      data: what an offline agent would go on to learn from; acting needs none.

    Raises:
      ValueError: there is no such run or checkpoint, or it belongs to another agent.
    """
    path = user_path(path)
    if (agent is None) != (env is None):
        raise InvalidValue("pass both agent and env, or neither")
    if agent is None or env is None:
        members = build(RunConfig.of_run(path).on_any_devices(), only_acts=True)
    else:
        members = _members_of(path, agent, env, data)
    for checkpoints, at in _chosen(path, step):
        try:
            members = _with_statistics_of(checkpoints.record(at), members)
            init = members.vmap(Training.init, 0)
            template = learned(jax.eval_shape(init, members.training, members.key))
            state = checkpoints.load(at, "learned", template)
        except DamagedCheckpoint:
            continue
        iteration = at // members.training.agent.plan.steps_per_iteration
        return Trained(members, state, iteration, at, path)
    if step is not None:
        raise InvalidValue(f"checkpoint {step} of {path} is damaged: choose another step")
    raise InvalidValue(
        f"{path} has no intact checkpoint: start or continue the run with {resume_command(path)}"
    )


def build(run_config: RunConfig, *, saved: bool = False, only_acts: bool = False) -> Members:
    """The members of a run, with what it starts and learns from.

    Args:
      run_config: the configuration.
      saved: whether the run has a checkpoint, and needs no other start.
      only_acts: whether to load only what acting needs: no data set, and no expert.

    Raises:
      ValueError, TypeError: the configuration is invalid.
    """
    start = data = expert = None
    env: Any = None
    if run_config.warm_start is not None and not (saved or only_acts):
        start = load_run(run_config.warm_start).start()
    if run_config.dataset is not None or run_config.expert is not None:
        env = run_config.make_env()
    if run_config.dataset is not None:
        data = stand_in(env.spec) if only_acts else load_dataset(run_config.dataset, env)
    if run_config.expert is not None:
        expert = Absent(env.spec) if only_acts else load_policy(run_config.expert)
    return run_config.build(start, data, expert, env)


@dataclasses.dataclass(frozen=True)
class Absent:
    """Stands in for an expert where only the shapes of its actions matter."""

    spec: EnvSpec

    def __call__(self, obs: PyTree) -> PyTree:
        keys = jax.random.split(jax.random.key(0), jax.tree.leaves(obs)[0].shape[0])
        return jax.vmap(functools.partial(sample_action, self.spec.action))(keys)


def _chosen(path: Path, step: int | str | None) -> list[tuple[Checkpoints, int]]:
    """The requested checkpoints, in the order in which to try them.

    Raises:
      ValueError: the requested one does not exist.
    """
    directory = RunDirectory(path)
    newest, best = Checkpoints(directory.checkpoints), Checkpoints(directory.best)
    if step is None:
        return [(newest, at) for at in newest.steps()]
    if step == "best":
        if not best.steps():
            raise InvalidValue(f"{path} has no best checkpoint: train with --keep-best")
        return [(best, at) for at in best.steps()]
    chosen = [(of, at) for of in (newest, best) for at in of.steps() if at == step]
    if not chosen:
        there = [str(at) for at in newest.steps()] + [f"best ({at})" for at in best.steps()]
        raise InvalidValue(
            f"{path} has no checkpoint of step {step}: it has {', '.join(there) or 'none'}"
        )
    return chosen


def _with_statistics_of(record: Mapping[str, Any], members: Members) -> Members:
    """The members, normalising only floats if the checkpoint has statistics only for those."""
    training = members.training
    saved = statistics_in(record)
    if saved is None or not training.options.normalize_observations:
        return members
    floats = len(normalized_leaves(training.envs.spec, "floats"))
    if saved != floats or saved == len(normalized_leaves(training.envs.spec)):
        return members
    return dataclasses.replace(members, training=training.replace(normalized="floats"))


def _members_of(path: Path, agent: Agent, env: Environment, data: PyTree) -> Members:
    config = read_config(path)
    env = as_environment(env)
    if data is None and isinstance(agent.bind(env.spec).plan, Offline):
        data = stand_in(env.spec)
    training = Training.create(agent, env, **TrainingOptions.of(config).settings(), data=data)
    seeds = [seed % 2**32 for seed in config["seeds"]]
    vmapped = config.get("vmapped", len(seeds) > 1)
    keys = keys_of(seeds, config["key_type"], vmapped=vmapped)
    return Members.of(training, keys, config.get("points"))


def load_policy(
    path: Path | str,
    member: int = 0,
    *,
    step: int | Literal["best"] | None = None,
    agent: Agent | None = None,
    env: Environment | None = None,
    data: PyTree = None,
) -> LoadedPolicy:
    """Loads the policy of a run: `action = load_policy("runs/x")(obs)`.

    Args:
      path: the run directory.
      member: index of the seed, or of the point and seed of a sweep.
      step, agent, env, data: as for `load_run`.

    Raises:
      ValueError: as for `load_run`; or `member` is out of range.
    """
    return load_run(path, step=step, agent=agent, env=env, data=data).policy(member)
