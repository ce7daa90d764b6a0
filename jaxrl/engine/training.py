"""What is trained, on what, for how long; its pure functions are composed by `train` and `fit`."""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Agent, EvalMode, Offline, OnPolicy, Policy, Population, Replay, check_agent
from jaxrl.engine import learners, sizes
from jaxrl.engine.checks import check_contract, check_eval_env, check_eval_mode, check_start
from jaxrl.engine.data import check_data
from jaxrl.engine.evaluate import Episodes, play_episodes
from jaxrl.engine.first_step import FirstStep
from jaxrl.engine.learners import Divergence, IterationMetrics, Learned, TrainState, policy_of
from jaxrl.engine.options import TrainingOptions, called_with, options_class
from jaxrl.engine.rollout import rollout
from jaxrl.engine.sums import CompensatedSum
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.environment import Environment, scalars
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.normalization import Normalized, Normalizer, normalized_leaves
from jaxrl.replay.buffer import ReplayBuffer
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
    """Who learns, on what, for how long: everything but the key. Agent and environment are leaves.

    `options` are those it was made with, settled: whole iterations, and no choice left open.

    Build it with `Training.create`, which checks that the parts fit together. `init`, `chunk` and
    `evaluate` are pure; `train` composes them in one program, `fit` calls them from a host loop.
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
        """The training that these arguments ask for."""
        agent, env, eval_env, data = given.agent, given.env, given.eval_env, given.data
        total_steps, agent_state = given.total_steps, given.agent_state
        check_agent(agent)
        env = as_environment(env)
        eval_env = None if eval_env is None else as_environment(eval_env)
        env, eval_env, data = narrow((env, eval_env, data))
        spec = env.spec  # which wrappers check
        first_step = FirstStep.of(env, given.batched_env)
        deadlock.protect_or_warn(type(env).__name__, first_step.jaxpr)
        check_contract(type(env).__name__, first_step, spec)
        agent = strong(agent.bind(spec))
        plan = agent.plan
        plan.check()
        eval_mode = given.eval_mode or agent.eval_modes[0]
        check_eval_mode(agent, eval_mode)
        if isinstance(plan, Offline) and data is None:
            raise InvalidValue(
                f"{type(agent).__name__} learns from a fixed data set: pass data=Transition(...) "
                "with leaves [num_transitions, ...]"
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
                "batched_env gives each training copy parameters of its own, so evaluation needs "
                "an environment too: pass eval_env"
            )
        for name in ("normalize_rewards", "normalize_observations"):
            if getattr(given, name) and not isinstance(plan, OnPolicy | Replay):
                raise InvalidValue(
                    f"{name} takes its statistics from collected experience, and the plan of "
                    f"{type(agent).__name__} ({type(plan).__name__}) has none: leave it off"
                )
        if given.normalize_observations and not normalized_leaves(spec):
            kinds = {str(x.dtype) for x in jax.tree.leaves(spec.observation)}
            raise InvalidValue(
                "normalize_observations finds no number in the observation, only "
                f"{' and '.join(sorted(kinds))}: leave it off"
            )
        if eval_env is not None:
            check_eval_env(eval_env, spec)
        num_iterations = int(-(-total_steps // plan.steps_per_iteration))
        if num_iterations * plan.updates_per_iteration >= 2**31:  # the clock's int32
            raise InvalidValue(
                f"total_steps is {total_steps}, which takes {num_iterations} iterations times "
                f"{plan.updates_per_iteration} updates, and only 2**31 - 1 can be counted: take "
                "fewer steps, or let an iteration collect more steps or make fewer updates"
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
        """The steps that will really be taken: whole iterations."""
        return self.steps_after(self.num_iterations)

    def steps_after(self, iterations: int) -> int:
        """Environment steps (updates, for an offline agent) in so many iterations."""
        return iterations * self.agent.plan.steps_per_iteration

    def in_eval_mode(self, eval_mode: EvalMode | None) -> Self:
        """The same with evaluations of another kind, or as it is for None; ValueError where the
        agent has no such."""
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

    @in_float32
    def init(self, key: Key) -> TrainState:
        """The state before the first iteration."""
        key = fast(key)
        plan, spec = self.agent.plan, self.agent.bound_spec
        collects = isinstance(plan, OnPolicy | Replay)
        buffer: Any = ()
        if isinstance(plan, Replay):
            buffer = ReplayBuffer.of(plan, spec).init(self._transition_like())
        start, stats = self.agent_state, self.new_statistics()
        if start is None:
            agent_state = deadlock.one_by_one(_init_agent)(self.agent, stream(key, Stream.INIT))
        else:
            agent_state = start.agent
            stats = stats if start.stats is None else stats.continued(start.stats)
        state = TrainState(
            agent=agent_state,
            envs=self.envs.reset(key) if collects else (),
            carry=self.agent.initial_carry(plan.num_envs) if collects else (),
            stats=stats,
            buffer=buffer,
        )
        return _tie_to_key(strong(state), key)

    def new_statistics(self) -> Normalizer:
        """Of no data yet."""
        return Normalizer.create(
            self.agent.bound_spec,
            self.agent.plan.num_envs,
            observations=self.options.normalize_observations,
            rewards=self.options.normalize_rewards,
            normalized=self.normalized,
        )

    def _transition_like(self) -> Any:
        """One transition of zeros, with the shapes and dtypes that a rollout stores."""

        def one(key):
            policy = policy_of(
                self.agent,
                self.agent.init(key),
                Normalizer((), (), ()),
                Clock.start(),
                explore=True,
            )
            n = self.agent.plan.num_envs
            carry = self.agent.initial_carry(n)
            _, _, trajectory, _ = rollout(
                policy, self.envs, self.envs.reset(key), carry, carry, key, 1
            )
            return jax.tree.map(lambda x: x[0, 0], trajectory.steps)

        shapes = jax.eval_shape(one, jax.random.key(0))
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    @in_float32
    def iteration(
        self, state: TrainState, key: Key, iteration: jax.Array
    ) -> tuple[TrainState, IterationMetrics]:
        """One iteration of the agent's plan; `key` is the run's."""
        key = jax.random.fold_in(stream(fast(key), Stream.ITERATION), iteration)
        clock = self.clock(iteration)
        match self.agent.plan:
            case OnPolicy() as plan:
                return learners.on_policy(self.agent, plan, self.envs, state, key, clock)
            case Replay() as plan:
                return learners.replay(self.agent, plan, self.envs, state, key, clock)
            case Offline() as plan:
                return learners.offline(self.agent, plan, self.data, state, key, clock)
            case Population() as plan:
                return learners.population(self.agent, plan, self.envs, state, key, clock)
        raise InvalidType(f"{type(self.agent.plan).__name__} is no plan the engine knows")

    @in_float32
    def chunk(
        self, state: TrainState, key: Key, start: jax.Array, stop: jax.Array
    ) -> tuple[TrainState, IterationMetrics, Divergence]:
        """Iterations `start` to `stop` (`int32[]`, not batched); one program for any length.

        Returns the state, the iterations' metrics added up, and where they ceased to be finite.
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
        """What was learned after that iteration (None: the last), on raw observations: without
        exploration, or drawing its actions where `eval_mode` is "sample"."""
        if iteration is None:
            iteration = self.num_iterations
        clock, explore = self.clock(iteration), self.options.eval_mode == "sample"
        return policy_of(self.agent, state.agent, state.stats, clock, explore=explore)

    @in_float32
    def evaluate(self, state: TrainState, key: Key, iteration: jax.Array) -> Episodes:
        """Plays `num_eval_episodes` episodes in the `eval_mode`."""
        key = jax.random.fold_in(stream(fast(key), Stream.EVALUATE), iteration)
        carry = self.agent.initial_carry(self.eval_envs.num_envs)
        return play_episodes(self.policy(state, iteration), self.eval_envs, carry, key)


def _init_agent(agent: Agent, key: Key) -> PyTree:
    return agent.init(key)


def _tie_to_key(state: TrainState, key: Key) -> TrainState:
    """Returns the same state, but with every leaf depending on the key.

    Under vmap over keys a constant leaf would stay unbatched inside one program and become batched
    where it crosses the border of another: `train` and a host loop would then run different
    arithmetic. The branch is never taken (as far as a compiler can tell, it may be), except for
    the one key in 2**32 whose first word is all ones, for which it returns the state as well.
    """
    word = jax.random.key_data(key).reshape(-1)[0]

    def tie(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return jnp.where(word == jnp.uint32(0xFFFFFFFF), x + jnp.zeros_like(x), x)

    return jax.tree.map(tie, state)
