"""What a run has learned, read from its directory: to act, evaluate, start from, export."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import Agent, EvalMode, Policy
from jaxrl.engine import sizes
from jaxrl.engine.evaluate import PATIENCE, Episodes, play_episodes
from jaxrl.engine.learners import Learned, policy_of
from jaxrl.engine.options import TrainingOptions
from jaxrl.engine.rollout import rollout
from jaxrl.engine.training import Training
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.environment import Environment
from jaxrl.errors import InvalidValue
from jaxrl.normalization import Normalizer, normalized_leaves
from jaxrl.runs.checkpoint import learned, statistics_in
from jaxrl.runs.checkpoint_files import Checkpoints, DamagedCheckpoint
from jaxrl.runs.directory import RunDirectory, read_config
from jaxrl.runs.disk import user_path
from jaxrl.runs.members import Members, keys_of
from jaxrl.runs.run_config import RunConfig
from jaxrl.runs.text import resume_command
from jaxrl.trees import named_leaves
from jaxrl.types import EnvSpec, Key, PyTree, into_bounds
from jaxrl.xla.precision import in_float32
from jaxrl.xla.transfers import transfers_allowed


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that was read.

    Attributes:
      members: who trained.
      learned: the agents' states and their statistics, leaves `[M, ...]` where there are several.
      iteration: after how many iterations.
      steps: environment steps of each member until then.
      path: the run directory.
    """

    members: Members
    learned: PyTree
    iteration: int
    steps: int
    path: Path

    def agent_state(self, member: int = 0) -> PyTree:
        """The state of one member's agent, without its statistics."""
        return self.start(member).agent

    def start(self, member: int = 0) -> Learned:
        """What one member has learned, with its statistics: `train(..., agent_state=...)`.

        Raises:
          ValueError: there is no such member.
        """
        _, state = self._alone(member)
        return Learned(state["agent"], state["stats"])

    def policy(self, member: int = 0) -> "LoadedPolicy":
        """What one member has learned, without exploration.

        Raises:
          ValueError: there is no such member.
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
    """Reads a checkpoint of the run in `path`.

    Args:
      path: the run directory.
      step: which checkpoint, by the environment steps of each seed before it was taken, or "best":
        at the best evaluation, which `keep_best` keeps; None for the newest that is whole.
      agent, env: what was trained and where, of a run that was started from Python.
      data: what an offline agent learned from; its shapes matter, and nothing else.

    Raises:
      ValueError: there is no run, no such checkpoint, or one of another agent.
    """
    path = user_path(path)
    if (agent is None) != (env is None):
        raise InvalidValue("give agent and env both, or neither")
    if agent is None or env is None:
        members = RunConfig.of_run(path).build()
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
        raise InvalidValue(f"the checkpoint {step} of {path} is damaged")
    raise InvalidValue(
        f"{path} has no whole checkpoint yet: start or continue it by {resume_command(path)}"
    )


def build(run_config: RunConfig) -> Members:
    """The members of a run that begins, with what they start from.

    Raises:
      ValueError, TypeError: something does not fit.
    """
    start = None if run_config.warm_start is None else load_run(run_config.warm_start).start()
    return run_config.build(start)


def _chosen(path: Path, step: int | str | None) -> list[tuple[Checkpoints, int]]:
    """The checkpoints that are asked for, in the order in which to try them.

    Raises:
      ValueError: one is asked for that is not there.
    """
    directory = RunDirectory(path)
    newest, best = Checkpoints(directory.checkpoints), Checkpoints(directory.best)
    if step is None:
        return [(newest, at) for at in newest.steps()]
    if step == "best":
        if not best.steps():
            raise InvalidValue(f"{path} has kept no best checkpoint: train with --keep-best")
        return [(best, at) for at in best.steps()]
    chosen = [(of, at) for of in (newest, best) for at in of.steps() if at == step]
    if not chosen:
        there = [str(at) for at in newest.steps()] + [f"best ({at})" for at in best.steps()]
        raise InvalidValue(
            f"{path} has no checkpoint of step {step}: it has {', '.join(there) or 'none'}"
        )
    return chosen


def _with_statistics_of(record: Mapping[str, Any], members: Members) -> Members:
    """The members, who normalise floats alone where those did who wrote the checkpoint."""
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
) -> "LoadedPolicy":
    """The policy that a run has learned: `action = load_policy("runs/x")(obs)`.

    Args:
      path: the run directory.
      member: which seed, from 0, or which point and seed of a sweep.
      step, agent, env, data: as for `load_run`; `step="best"` say.

    Raises:
      ValueError: as `load_run`; or there is no such member.
    """
    return load_run(path, step=step, agent=agent, env=env, data=data).policy(member)


def batch_size(obs: PyTree, like: PyTree) -> int | None:
    """How many observations there are in a batch `[N, ...]`; None for one alone.

    Args:
      obs: what was given.
      like: shapes of one observation.

    Raises:
      ValueError: it is neither, with the reason.
    """
    wanted = ", ".join(
        f"{name} {x.dtype}{list(x.shape)}".strip() for name, x in named_leaves(like).items()
    )
    asked = f"one is {wanted}, a batch has one more leading axis"
    structure: Any = jax.tree.structure(like)
    if structure != jax.tree.structure(obs):
        hint = ""
        if isinstance(obs, list):
            hint = ": make an array of the list"
        elif isinstance(obs, tuple) and obs and structure == jax.tree.structure(obs[0]):
            hint = ": pass the observation alone, obs of (obs, info)"
        raise InvalidValue(
            f"this {type(obs).__name__} is no observation of the environment{hint}; {asked}"
        )
    sizes_found = set()
    for x, one in zip(jax.tree.leaves(obs), jax.tree.leaves(like), strict=True):
        shape, ndim = np.shape(x), len(one.shape)
        leading = shape[: len(shape) - ndim]
        if shape[len(leading) :] != one.shape or len(shape) < ndim or len(leading) > 1:
            raise InvalidValue(f"an observation has the shape {list(shape)}; {asked}")
        sizes_found.add(leading)
    if len(sizes_found) > 1:
        raise InvalidValue(f"parts of the observation are batches of different sizes; {asked}")
    return next(iter(sizes_found.pop()), None) if sizes_found else None


class LoadedPolicy:
    """Acts on raw observations, greedily or by the mean; normalisation is inside.

    So it does whatever the run's `eval_mode`; `evaluate` and `episode` can draw actions, too.

    `policy(obs)` takes one observation of the environment, or a batch `[N, ...]`, and returns an
    action, or `[N, ...]` of them. A recurrent policy remembers what it saw since `reset()`, and
    takes one batch size until then. What does not fit raises ValueError. `policy.act` is the same
    as a pure function, to jit and vmap.
    """

    def __init__(self, training: Training, state: PyTree, stats: Normalizer, iteration: int):
        self.training = training
        self.state = state
        self.stats = stats
        self.iteration = iteration
        self._act = jax.jit(self.act)
        self.reset()

    @property
    def spec(self) -> EnvSpec:
        """Of the environment that it was trained in."""
        return self.training.envs.spec

    @property
    def recurrent(self) -> bool:
        """Whether it remembers."""
        return bool(jax.tree.leaves(self.training.agent.initial_carry(1)))

    @in_float32
    def act(self, obs: PyTree, carry: PyTree = ()) -> tuple[PyTree, PyTree]:
        """For observations `[N, ...]` actions `[N, ...]` within bounds, and the next carry."""
        clock = self.training.clock(self.iteration)
        policy = policy_of(self.training.agent, self.state, self.stats, clock, explore=False)
        carry, action, _ = policy(carry, obs, jax.random.key(0))
        return jax.vmap(functools.partial(into_bounds, self.spec.action))(action), carry

    def reset(self) -> None:
        """Forgets: an episode begins."""
        self._carry: PyTree = None

    @transfers_allowed
    @in_float32
    def __call__(self, obs: PyTree) -> PyTree:
        size = batch_size(obs, self.spec.observation)
        alone = size is None
        obs = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), obs, self.spec.observation)
        if alone:
            obs = jax.tree.map(lambda x: x[None], obs)
        if self._carry is None:
            self._carry = self.training.agent.initial_carry(size or 1)
        for leaf in jax.tree.leaves(self._carry):
            if leaf.shape[0] != (size or 1):
                raise InvalidValue(
                    f"{size or 1} observations, and this policy remembers what {leaf.shape[0]} "
                    "environments showed it: call reset() before another batch"
                )
        action, self._carry = self._act(obs, self._carry)
        return jax.tree.map(lambda x: x[0], action) if alone else action

    def _policy(self, eval_mode: EvalMode | None) -> Policy:
        """`act` as a `Policy`, or one that draws its actions."""
        training = self.training.in_eval_mode(eval_mode)

        def greedy(carry: PyTree, obs: PyTree, key: Key) -> tuple[PyTree, PyTree, PyTree]:
            action, carry = self.act(obs, carry)
            return carry, action, ()

        if training.options.eval_mode == "greedy":
            return greedy
        clock = training.clock(self.iteration)
        return policy_of(training.agent, self.state, self.stats, clock, explore=True)

    @transfers_allowed
    @in_float32
    def evaluate(
        self, key: Key, *, num_episodes: int = 100, eval_mode: EvalMode | None = None
    ) -> Episodes:
        """Plays whole episodes, each in a copy of the environment of its own.

        Args:
          key: for starts, steps and drawn actions.
          num_episodes: how many.
          eval_mode: "greedy" as `__call__` acts, or "sample" for actions drawn from the policy;
            None for what the run was evaluated by.

        Raises:
          ValueError: the agent cannot be evaluated in that mode, `num_episodes` is less than 1, or
            so many copies do not fit into memory.
        """
        sizes.check_episodes(self.training.eval_envs.env, num_episodes)
        envs, policy = VectorEnv(self.training.eval_envs.env, num_episodes), self._policy(eval_mode)
        carry = self.training.agent.initial_carry(num_episodes)
        return jax.jit(lambda key: play_episodes(policy, envs, carry, key))(key)

    @transfers_allowed
    @in_float32
    def episode(self, key: Key, *, eval_mode: EvalMode | None = None) -> tuple[PyTree, np.ndarray]:
        """One episode: the environment's state before each step, leaves `[T, ...]`, rewards `[T]`.

        `eval_mode` is as for `evaluate`. Without an end it is cut at the environment's limit, or
        after 10,000 steps.
        """
        envs = VectorEnv(self.training.eval_envs.env, 1)
        limit = envs.spec.max_steps or PATIENCE
        start_carry, policy = self.training.agent.initial_carry(1), self._policy(eval_mode)

        def play(key: Key) -> Any:
            def one(loop: Any, key: Key) -> Any:
                env_state, carry = loop
                after, carry, trajectory, _ = rollout(
                    policy, envs, env_state, carry, start_carry, key, 1
                )
                steps = jax.tree.map(lambda x: x[0, 0], trajectory.steps)
                end = steps.terminated | steps.truncated
                state = jax.tree.map(lambda x: x[0], env_state.state)
                return (after, carry), (state, steps.reward, end)

            start_key, step_key = jax.random.split(key)
            loop = (envs.reset(start_key), start_carry)
            return jax.lax.scan(one, loop, jax.random.split(step_key, limit))[1]

        states, rewards, ends = jax.device_get(jax.jit(play)(key))
        num = int(np.argmax(ends)) + 1 if ends.any() else limit
        return jax.tree.map(lambda x: x[:num], states), rewards[:num]
