"""`Training`: agent, environments and options, with the functions behind `train` and `fit`."""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec

from jaxrl.agent import Agent, EvalMode, Offline, OnPolicy, Policy, Population, Replay
from jaxrl.devices.shards import as_different, check_tracked, num_shards
from jaxrl.engine import hosted, learners, sizes
from jaxrl.engine.acting import policy_of
from jaxrl.engine.checks import (
    check_agent,
    check_contract,
    check_eval_env,
    check_eval_mode,
    check_info,
    check_start,
)
from jaxrl.engine.data import check_data
from jaxrl.engine.evaluate import Episodes, play_episodes
from jaxrl.engine.first_step import FirstStep
from jaxrl.engine.learners import Learned, TrainState
from jaxrl.engine.metrics import Divergence, IterationMetrics
from jaxrl.engine.options import TrainingOptions, called_with, options_class
from jaxrl.engine.rollout import rollout
from jaxrl.engine.sums import CompensatedSum
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.environment import Environment, Hosted, scalars, traceable
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.normalization import Normalized, Normalizer, normalized_leaves
from jaxrl.replay.buffer import BufferState, ReplayBuffer
from jaxrl.trees import strong
from jaxrl.types import Clock, Key, PyTree, Stream, static, stream
from jaxrl.xla import deadlock, layout
from jaxrl.xla.flatten import Flattened, flatten, unflatten
from jaxrl.xla.precision import in_float32, narrow
from jaxrl.xla.threefry import fast
from jaxrl.xla.transfers import transfers_allowed
from jaxrl_envs.objects import as_environment


@options_class
class TrainingArguments(TrainingOptions):
    """The arguments of `Training.create`."""

    agent: Agent = dataclasses.field(kw_only=False)
    env: Environment = dataclasses.field(kw_only=False)


class Training(struct.PyTreeNode):
    """A training setup: agent, environments, data and options; everything except the key.

    Build it with `Training.create`, which checks that the parts fit together. `init`, `chunk` and
    `evaluate` are pure; `train` composes them in one program, `fit` calls them from a host loop.

    Attributes:
      agent: the agent, bound to the environment.
      envs: the copies of the environment for training.
      eval_envs: the copies for evaluation.
      data: transitions `[D, ...]` for offline agents, else None.
      agent_state: what to start from; None for `agent.init`.
      options: the options, with defaults resolved and `total_steps` rounded to whole iterations.
      num_iterations: number of iterations.
      normalized: which leaves of observations are normalised.
    """

    agent: Agent
    envs: VectorEnv
    eval_envs: VectorEnv
    data: PyTree
    agent_state: Learned | None
    options: TrainingOptions = static()
    num_iterations: int = static()
    normalized: Normalized = static(default="numbers")

    @staticmethod
    @called_with(TrainingArguments)
    def create(given: TrainingArguments) -> "Training":
        """Binds agent and environment; see `train` for the arguments and errors.

        Called as `Training.create(agent, env, total_steps=..., **options)`.
        """
        return Training.of(given)

    @classmethod
    @transfers_allowed
    @in_float32
    def of(cls, given: TrainingArguments) -> Self:
        """Like `create`, from an arguments object."""
        agent, env, eval_env, data = given.agent, given.env, given.eval_env, given.data
        total_steps, agent_state = given.total_steps, given.agent_state
        check_agent(agent)
        env = as_environment(env)
        if isinstance(env, Hosted) and eval_env is None:
            eval_env = Hosted(env.host.evaluation())
        eval_env = None if eval_env is None else as_environment(eval_env)
        env, eval_env, data = narrow((env, eval_env, data))
        spec = env.spec  # wrappers raise here if they do not fit
        first_step = FirstStep.of(env, given.batched_env)
        deadlock.protect_or_warn(type(env).__name__, first_step.jaxpr)
        check_contract(type(env).__name__, first_step, spec)
        agent = strong(agent.bind(spec))
        check_info(agent, first_step.timestep.info)
        plan = agent.plan
        plan.check()
        if isinstance(env, Hosted):
            hosted.check(env.host.name, agent, given.batched_env)
        if isinstance(plan, Population) and plan.candidates_at_once and not agent.candidates:
            name = type(agent).__name__
            raise InvalidValue(
                f"candidates_at_once is {plan.candidates_at_once}, but {name}.candidates names no "
                "field to divide: leave it at None"
            )
        eval_mode = given.eval_mode or agent.eval_modes[0]
        check_eval_mode(agent, eval_mode)
        if isinstance(plan, Offline) and data is None:
            raise InvalidValue(
                f"{type(agent).__name__} learns from a fixed data set: pass data=Transition(...) "
                "with leaves [num_transitions, ...], or --dataset DIR to the command"
            )
        if isinstance(plan, Offline):
            check_data(spec, data)
            data = jax.tree.map(jnp.asarray, data)  # a traced index does not fit NumPy's arrays
        if not isinstance(plan, Offline) and data is not None:
            raise InvalidValue(
                f"{type(agent).__name__} collects its own experience: leave data out"
            )
        if given.batched_env and eval_env is None:
            raise InvalidValue(
                "batched_env gives each training copy its own parameters, so evaluation needs a "
                "separate environment: pass eval_env"
            )
        if given.normalize_rewards and not isinstance(plan, OnPolicy | Replay):
            raise InvalidValue(
                "normalize_rewards needs collected experience, which the plan of "
                f"{type(agent).__name__} ({type(plan).__name__}) does not have: leave it off"
            )
        if given.normalize_observations and not normalized_leaves(spec):
            dtypes = {str(x.dtype) for x in jax.tree.leaves(spec.observation)}
            raise InvalidValue(
                "normalize_observations needs numbers in the observation, which has only "
                f"{' and '.join(sorted(dtypes))}: leave it off"
            )
        if eval_env is not None:
            check_eval_env(eval_env, spec)
        num_iterations = int(-(-total_steps // plan.steps_per_iteration))
        if num_iterations * plan.updates_per_iteration >= 2**31:  # the clock's int32
            raise InvalidValue(
                f"total_steps is {total_steps}, which takes {num_iterations} iterations of "
                f"{plan.updates_per_iteration} updates, but at most 2**31 - 1 updates can be "
                "counted: reduce total_steps, or collect more steps or make fewer updates per "
                "iteration"
            )
        reset_policy = given.reset_policy or env.spec.reset_policy
        envs = VectorEnv(
            strong(env),
            plan.num_envs,
            reset_policy,
            given.pool_size,
            given.batched_env,
            layout.scan_unroll(first_step.jaxpr),
            info := tuple(scalars(first_step.timestep.info)),
            agent.info,
        )
        eval_envs = VectorEnv(
            strong(env if eval_env is None else eval_env),
            given.num_eval_episodes,
            info=info if eval_env is None else None,
        )
        envs.check()
        settled = dataclasses.replace(
            TrainingOptions.of(given.settings()),
            total_steps=num_iterations * plan.steps_per_iteration,
            eval_mode=eval_mode,
            reset_policy=reset_policy,
        )
        training = cls(
            agent=agent,
            envs=envs,
            eval_envs=eval_envs,
            data=data,
            agent_state=None if agent_state is None else strong(Learned.of(agent_state)),
            options=settled,
            num_iterations=num_iterations,
        )
        state = first_step.state
        sizes.check(training, state, state if eval_env is None else ())
        if agent_state is not None:
            wanted = jax.eval_shape(training.new_statistics).obs
            check_start(training.agent, Learned.of(agent_state), wanted)
        return training

    @property
    def total_steps(self) -> int:
        """The number of environment steps, in whole iterations."""
        return self.steps_after(self.num_iterations)

    def steps_after(self, iterations: int) -> int:
        """Environment steps (updates, for an offline agent) in this many iterations."""
        return iterations * self.agent.plan.steps_per_iteration

    def in_eval_mode(self, eval_mode: EvalMode | None) -> Self:
        """The same setup with another evaluation mode; unchanged for None.

        Raises:
          ValueError: the agent does not support the mode.
        """
        if eval_mode is None:
            return self
        check_eval_mode(self.agent, eval_mode)
        return self.replace(options=dataclasses.replace(self.options, eval_mode=eval_mode))

    @in_float32
    def clock(self, iteration: jax.Array | int) -> Clock:
        """The clock at the beginning of an iteration."""
        iteration = jnp.asarray(iteration, jnp.int32)
        return Clock(
            iteration=iteration,
            update=iteration * self.agent.plan.updates_per_iteration,
            fraction=iteration.astype(jnp.float32) / float(self.num_iterations),
        )

    def key_of(self, name: Stream, key: Key, iteration: jax.Array) -> Key:
        """The key of an iteration or an evaluation, from the key of the run."""
        return jax.random.fold_in(stream(fast(key), name), iteration)

    @in_float32
    def init(self, key: Key) -> TrainState:
        """The state before the first iteration."""
        key = fast(key)
        plan, spec = self.agent.plan, self.agent.bound_spec
        if num_shards() > 1:
            check_tracked()
            self.agent.check_shards(num_shards())
        collects = isinstance(plan, OnPolicy | Replay)
        envs = self.envs.shard()
        buffer: Any = ()
        if isinstance(plan, Replay):
            buffer = ReplayBuffer.of(plan, spec, num_shards()).init(self._transition_like())
        start, stats = self.agent_state, self.new_statistics()
        if isinstance(plan, Offline):  # whose statistics do not change
            stats = stats.of_data(self.data.obs)
        if start is None:
            agent_state = deadlock.one_by_one(_init_agent)(self.agent, stream(key, Stream.INIT))
        else:
            agent_state = start.agent
            stats = stats if start.stats is None else stats.continued(start.stats)
        state = TrainState(
            agent=agent_state,
            envs=envs.reset(key) if collects else (),
            carry=as_different(self.agent.initial_carry(envs.num_envs)) if collects else (),
            stats=stats,
            buffer=buffer,
        )
        return _tie_to_key(strong(state), key)

    def new_statistics(self) -> Normalizer:
        """Statistics before any data."""
        return Normalizer.create(
            self.agent.bound_spec,
            self.envs.shard().num_envs,
            observations=self.options.normalize_observations,
            rewards=self.options.normalize_rewards,
            normalized=self.normalized,
        )

    def specs(self, rest: Any, envs: Any) -> TrainState:
        """`envs` for the parts of the state with an axis of environments, `rest` for the others."""
        stats = Normalizer(rest, rest, envs, self.normalized)
        buffer: Any = rest
        if isinstance(self.agent.plan, Replay) and envs != rest:
            *members, copies = envs
            slots: Any = PartitionSpec(*members, None, copies)  # slots come before copies
            buffer = BufferState(slots, slots, slots, envs, envs, rest)
        return TrainState(agent=rest, envs=envs, carry=envs, stats=stats, buffer=buffer)

    def _transition_like(self) -> Any:
        """A transition of zeros with the shapes and dtypes that a rollout stores."""

        def one(key):
            agent, state = self.agent, self.agent.init(key)
            none = Normalizer((), (), ())
            policy = policy_of(agent, state, none, Clock.start(), explore=True)
            envs = self.envs.replace(env=traceable(self.envs.env))
            carry = agent.initial_carry(agent.plan.num_envs)
            _, _, trajectory, _ = rollout(policy, envs, envs.reset(key), carry, carry, key, 1)
            return jax.tree.map(lambda x: x[0, 0], trajectory.steps)

        shapes = jax.eval_shape(one, jax.random.key(0))
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    @in_float32
    def iteration(
        self, state: TrainState, key: Key, iteration: jax.Array
    ) -> tuple[TrainState, IterationMetrics]:
        """One iteration of the agent's plan; `key` is the key of the whole run."""
        key = self.key_of(Stream.ITERATION, key, iteration)
        clock, envs = self.clock(iteration), self.envs.shard()
        match self.agent.plan:
            case OnPolicy() as plan:
                return learners.on_policy(self.agent, plan, envs, state, key, clock)
            case Replay() as plan:
                return learners.replay(self.agent, plan, envs, state, key, clock)
            case Offline() as plan:
                return learners.offline(self.agent, plan, self.data, state, key, clock)
            case Population() as plan:
                return learners.population(self.agent, plan, envs, state, key, clock)
        raise InvalidType(
            f"the plan is a {type(self.agent.plan).__name__}: use OnPolicy, Replay, Offline or "
            "Population"
        )

    @in_float32
    def chunk(
        self, state: TrainState, key: Key, start: jax.Array, stop: jax.Array
    ) -> tuple[TrainState, IterationMetrics, Divergence]:
        """Runs iterations `start` to `stop` (`int32[]`, not batched) in one program for any length.

        Returns:
          The state, the sum of the metrics, and the first iteration with a non-finite metric.
        """
        metrics = jax.eval_shape(self.iteration, state, key, start)[1]
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

        def one(i, loop):
            state, metrics, divergence = loop
            state, new = self.iteration(state, key, i)
            return state, metrics + Flattened.of(new).vector, divergence.watch(new, i)

        divergence = flatten(Divergence.none(none), ("metrics",))
        nothing = Flattened.of(none)
        loop = (state, CompensatedSum.zeros_like(nothing.vector), divergence)
        state, metrics, divergence = jax.lax.fori_loop(start, stop, one, loop)
        total = nothing.replace(vector=metrics.value).tree
        return state, total, unflatten(divergence, ("metrics",))

    def policy(self, state: TrainState, iteration: jax.Array | int | None = None) -> Policy:
        """The trained policy on raw observations, acting in the `eval_mode`.

        Args:
          state: the training state.
          iteration: number of finished iterations; None for all.
        """
        if iteration is None:
            iteration = self.num_iterations
        clock, explore = self.clock(iteration), self.options.eval_mode == "sample"
        return policy_of(self.agent, state.agent, state.stats, clock, explore=explore)

    @in_float32
    def evaluate(self, state: TrainState, key: Key, iteration: jax.Array) -> Episodes:
        """Plays `num_eval_episodes` episodes with the trained policy."""
        key = self.key_of(Stream.EVALUATE, key, iteration)
        envs = self.eval_envs
        if envs.num_envs % num_shards() == 0:
            envs = envs.shard()
        policy: Any = self.policy(state, iteration)
        return play_episodes(policy, envs, policy.initial_carry(envs.num_envs), key)


def _init_agent(agent: Agent, key: Key) -> PyTree:
    return agent.init(key)


def _tie_to_key(state: TrainState, key: Key) -> TrainState:
    """Returns the same state, but makes every leaf depend on the key.

    Under vmap over keys, a constant leaf would stay unbatched within a program and become batched
    between programs, so `train` and a host loop would run different arithmetic. The condition is
    almost never true, which the compiler cannot know, and both branches return the same values.
    """
    word = jax.random.key_data(key).reshape(-1)[0]

    def tie(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return jnp.where(word == jnp.uint32(0xFFFFFFFF), x + jnp.zeros_like(x), x)

    return jax.tree.map(tie, state)
