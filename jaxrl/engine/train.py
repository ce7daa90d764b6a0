"""Training as one pure function: `train = scan(chunk + evaluate)`, `chunk = loop(iteration)`."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl import device, host
from jaxrl.agent import Agent, EvalMode, Offline, OnPolicy, Policy, Population, Replay
from jaxrl.contract import as_environment, check_agent
from jaxrl.engine import learners, sizes
from jaxrl.engine.data import check_data
from jaxrl.engine.evaluate import Episodes, play_episodes
from jaxrl.engine.learners import Divergence, IterationMetrics, Learned, TrainState, policy_of
from jaxrl.engine.rollout import rollout
from jaxrl.environment import (
    Environment,
    FirstStep,
    VectorEnv,
    acting_differences,
    differences,
    scalars,
)
from jaxrl.integers import whole_number
from jaxrl.keys import check_key, fast
from jaxrl.normalization import Normalized, Normalizer, normalized_leaves
from jaxrl.precision import in_float32, narrow
from jaxrl.raveled import Raveled, raveled, restored
from jaxrl.replay import Ring
from jaxrl.sums import CompensatedSum
from jaxrl.transfers import transfers_allowed
from jaxrl.types import Clock, EnvSpec, Key, PyTree, ResetPolicy, Stream, static, stream, strong


class TrainMetrics(struct.PyTreeNode):
    """What `train` reports, one entry an evaluation (leading axis `[E]`).

    Attributes:
      iterations: `int32[E]`, finished iterations (times `plan.steps_per_iteration`: steps).
      training: the iterations since the entry before.
      evaluation: the episodes played in the `eval_mode`, `[E, num_eval_episodes]`; None where
        none were asked for.
      divergence: whether a metric ceased to be finite since the entry before, and which.
    """

    iterations: jax.Array
    training: IterationMetrics
    evaluation: Episodes | None
    divergence: Divergence


class Training(struct.PyTreeNode):
    """Who learns, on what, for how long: everything but the key. Agent and environment are leaves.

    Build it with `Training.create`, which checks that the parts fit together. `init`, `chunk` and
    `evaluate` are pure; `train` composes them in one program, `fit` calls them from a host loop.
    """

    agent: Agent
    envs: VectorEnv
    eval_envs: VectorEnv
    data: PyTree
    agent_state: Learned | None
    num_iterations: int = static()
    normalize_observations: bool = static()
    normalize_rewards: bool = static()
    eval_mode: EvalMode = static(default="greedy")
    normalized: Normalized = static(default="numbers")

    @classmethod
    @transfers_allowed
    @in_float32
    def create(
        cls,
        agent: Agent,
        env: Environment,
        *,
        total_steps: int,
        num_eval_episodes: int = 64,
        normalize_observations: bool = False,
        normalize_rewards: bool = False,
        reset_policy: ResetPolicy | None = None,
        pool_size: int | None = None,
        batched_env: bool = False,
        eval_env: Environment | None = None,
        data: PyTree = None,
        agent_state: PyTree = None,
        eval_mode: EvalMode | None = None,
    ) -> Self:
        """Binds agent and environment; see `train` for the arguments and errors."""
        check_agent(agent)
        env = as_environment(env)
        eval_env = None if eval_env is None else as_environment(eval_env)
        env, eval_env, data = narrow((env, eval_env, data))
        spec = env.spec  # which wrappers check
        first_step = FirstStep.of(env, batched_env)
        host.protect_or_warn(type(env).__name__, first_step.jaxpr)
        _check_contract(type(env).__name__, first_step, spec)
        agent = strong(agent.bind(spec))
        plan = agent.plan
        plan.check()
        given: Any = total_steps
        if isinstance(given, str) or not 1 <= given < float("inf"):
            raise ValueError(f"total_steps is {total_steps!r}: it must be a number, at least 1")
        num_eval_episodes = whole_number("num_eval_episodes", num_eval_episodes)
        eval_mode = agent.eval_modes[0] if eval_mode is None else eval_mode
        _check_eval_mode(agent, eval_mode)
        if isinstance(plan, Offline) and data is None:
            raise ValueError(
                f"{type(agent).__name__} learns from a fixed data set: pass data=Transition(...) "
                "with leaves [num_transitions, ...]"
            )
        if isinstance(plan, Offline):
            check_data(spec, data)
            data = jax.tree.map(jnp.asarray, data)  # a traced index does not fit NumPy's arrays
        if not isinstance(plan, Offline) and data is not None:
            raise ValueError(f"{type(agent).__name__} collects its own experience: leave data out")
        if batched_env and eval_env is None:
            raise ValueError(
                "batched_env gives each training copy parameters of its own, so evaluation needs "
                "an environment too: pass eval_env"
            )
        for name, wanted in (
            ("normalize_rewards", normalize_rewards),
            ("normalize_observations", normalize_observations),
        ):
            if wanted not in (True, False):
                raise ValueError(f"{name} is {wanted!r}: it must be True or False")
            if wanted and not isinstance(plan, OnPolicy | Replay):
                raise ValueError(
                    f"{name} takes its statistics from collected experience, and the plan of "
                    f"{type(agent).__name__} ({type(plan).__name__}) has none: leave it off"
                )
        if normalize_observations and not normalized_leaves(spec):
            kinds = {str(x.dtype) for x in jax.tree.leaves(spec.observation)}
            raise ValueError(
                "normalize_observations finds no number in the observation, only "
                f"{' and '.join(sorted(kinds))}: leave it off"
            )
        if eval_env is not None:
            _check_eval_env(eval_env, spec)
        num_iterations = -(-total_steps // plan.steps_per_iteration)
        if num_iterations * plan.updates_per_iteration >= 2**31:  # the clock's int32
            raise ValueError(
                f"total_steps is {total_steps}, which takes {num_iterations} iterations times "
                f"{plan.updates_per_iteration} updates, and only 2**31 - 1 can be counted: take "
                "fewer steps, or let an iteration collect more steps or make fewer updates"
            )
        policy = reset_policy or env.spec.reset_policy
        envs = VectorEnv(
            strong(env),
            plan.num_envs,
            policy,
            pool_size,
            batched_env,
            device.steps_a_turn(first_step.jaxpr),
            info := tuple(scalars(first_step.timestep.info)),
        )
        eval_envs = VectorEnv(
            strong(env if eval_env is None else eval_env),
            num_eval_episodes,
            info=info if eval_env is None else None,
        )
        envs.check()
        training = cls(
            agent=agent,
            envs=envs,
            eval_envs=eval_envs,
            data=data,
            agent_state=None if agent_state is None else strong(Learned.of(agent_state)),
            num_iterations=num_iterations,
            normalize_observations=normalize_observations,
            normalize_rewards=normalize_rewards,
            eval_mode=eval_mode,
        )
        state = first_step.state
        sizes.check(training, state, state if eval_env is None else ())
        if agent_state is not None:
            _check_start(training)
        return training

    @property
    def total_steps(self) -> int:
        """The steps that will really be taken: whole iterations."""
        return self.steps_after(self.num_iterations)

    def steps_after(self, iterations: int) -> int:
        """Environment steps (updates, for an offline agent) in so many iterations."""
        return iterations * self.agent.plan.steps_per_iteration

    def in_eval_mode(self, eval_mode: EvalMode) -> Self:
        """The same with evaluations of another kind; ValueError where the agent has no such."""
        _check_eval_mode(self.agent, eval_mode)
        return self.replace(eval_mode=eval_mode)

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
            buffer = Ring.of(plan, spec).init(self._transition_like())
        start, stats = self.agent_state, self.new_statistics()
        if start is None:
            agent_state = host.one_by_one(_init_agent)(self.agent, stream(key, Stream.INIT))
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
            observations=self.normalize_observations,
            rewards=self.normalize_rewards,
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
        raise TypeError(f"{type(self.agent.plan).__name__} is no plan the engine knows")

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
            return state, metrics + Raveled.of(new).vector, divergence.watch(new, i)

        divergence = raveled(Divergence.none(none), ("metrics",))
        nothing = Raveled.of(none)
        loop = (state, CompensatedSum.zeros_like(nothing.vector), divergence)
        state, metrics, divergence = jax.lax.fori_loop(start, stop, one, loop)
        total = nothing.replace(vector=metrics.value).tree
        return state, total, restored(divergence, ("metrics",))

    def policy(self, state: TrainState, iteration: jax.Array | int | None = None) -> Policy:
        """What was learned after that iteration (None: the last), on raw observations: without
        exploration, or drawing its actions where `eval_mode` is "sample"."""
        if iteration is None:
            iteration = self.num_iterations
        clock, explore = self.clock(iteration), self.eval_mode == "sample"
        return policy_of(self.agent, state.agent, state.stats, clock, explore=explore)

    @in_float32
    def evaluate(self, state: TrainState, key: Key, iteration: jax.Array) -> Episodes:
        """Plays `num_eval_episodes` episodes in the `eval_mode`."""
        key = jax.random.fold_in(stream(fast(key), Stream.EVALUATE), iteration)
        carry = self.agent.initial_carry(self.eval_envs.num_envs)
        return play_episodes(self.policy(state, iteration), self.eval_envs, carry, key)


@transfers_allowed
@in_float32
def train(
    agent: Agent,
    env: Environment,
    key: Key,
    *,
    total_steps: int,
    num_evaluations: int = 10,
    num_eval_episodes: int = 64,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
    reset_policy: ResetPolicy | None = None,
    pool_size: int | None = None,
    batched_env: bool = False,
    eval_env: Environment | None = None,
    data: PyTree = None,
    agent_state: PyTree = None,
    eval_mode: EvalMode | None = None,
) -> tuple[TrainState, TrainMetrics]:
    """Trains an agent. Pure: jit it, vmap it over `key`, over `agent` (see `sweep`) or over `env`.

    Args:
      agent: the algorithm with its hyper-parameters.
      env: one copy of the environment; its leaves may be vmapped. An object of gymnax, brax,
        Jumanji, navix or Craftax is adapted, see `jaxrl_envs.adapt`.
      key: a typed key; different keys differ in parameters, starts, noise and shuffles.
      total_steps: environment steps (updates, for an offline agent), rounded up to whole
        iterations.
      num_evaluations: entries of the metrics, evenly spaced; 0 for one without any episode played.
      num_eval_episodes: episodes an evaluation, one in each of as many copies.
      normalize_observations: scale the numbers in observations by their running mean and deviation,
        integers and bytes as float32; booleans and action masks pass unchanged.
      normalize_rewards: scale rewards by the deviation of the running discounted return.
      reset_policy: "fresh" or "pool", see `VectorEnv`; None for what `env.spec` asks for.
      pool_size: starts in the pool.
      batched_env: `env`'s leaves have a leading axis `[num_envs]`, parameters for each copy.
      eval_env: where to evaluate; `env` unless given. Its observations and actions are those of
        `env`; its parameters, time limit and reset policy may be others.
      data: for offline agents, transitions with leaves `[D, ...]`.
      agent_state: what to start from instead of `agent.init`: the `TrainState` of an earlier run,
        or `load_run(path).start()`. The agent's state and the statistics of observations come
        along, those of rewards where both runs have them. Or the agent's state alone, where no
        observations are normalised.
      eval_mode: how evaluations act. "greedy" takes the mean or most likely action; "sample" draws
        actions as training does, which is what a mixed policy is worth: in rock-paper-scissors the
        most likely action loses always. None for what the agent says (`Agent.eval_modes`).

    Returns:
      The final state and the metrics, leading axis `[num_evaluations]` (or as many as there are
      iterations, where that is less).

    Raises:
      ValueError, TypeError: a field does not fit; before anything is compiled.
    """
    check_key(key)
    if num_evaluations < 0:
        raise ValueError(f"num_evaluations is {num_evaluations}: it must not be negative")
    training = Training.create(
        agent,
        env,
        total_steps=total_steps,
        num_eval_episodes=num_eval_episodes,
        normalize_observations=normalize_observations,
        normalize_rewards=normalize_rewards,
        reset_policy=reset_policy,
        pool_size=pool_size,
        batched_env=batched_env,
        eval_env=eval_env,
        data=data,
        agent_state=agent_state,
        eval_mode=eval_mode,
    )
    stops = chunk_stops(training.num_iterations, max(num_evaluations, 1))

    def one_chunk(state, limits):
        start, stop = limits
        state, metrics, divergence = training.chunk(state, key, start, stop)
        episodes = None if num_evaluations == 0 else training.evaluate(state, key, stop)
        return state, TrainMetrics(stop, metrics, episodes, divergence)

    limits = (jnp.asarray([0, *stops[:-1]], jnp.int32), jnp.asarray(stops, jnp.int32))
    return jax.lax.scan(one_chunk, training.init(key), limits)


def chunk_stops(num_iterations: int, num_chunks: int) -> list[int]:
    """The iterations after which to look: at most `num_chunks`, evenly spaced, up to the last."""
    num_chunks = min(num_chunks, num_iterations)
    return [num_iterations * (i + 1) // num_chunks for i in range(num_chunks)]


def _check_contract(name: str, first_step: FirstStep, spec: EnvSpec) -> None:
    if problems := list(first_step.problems(spec)):
        raise ValueError(
            f"{name} does not keep its contract (jaxrl_envs.check looks closer):"
            + "".join(f"\n{line}" for line in problems)
        )


def _check_eval_env(eval_env: Environment, spec: EnvSpec) -> None:
    """Raises ValueError unless an agent for `spec` can act in `eval_env`."""
    if problems := list(acting_differences("eval_env", eval_env.spec, spec)):
        raise ValueError(
            "eval_env does not fit env, one agent cannot act in both:"
            + "".join(f"\n{line}" for line in problems)
        )
    _check_contract(f"eval_env, {type(eval_env).__name__},", FirstStep.of(eval_env), eval_env.spec)


def _init_agent(agent: Agent, key: Key) -> PyTree:
    return agent.init(key)


def _check_eval_mode(agent: Agent, eval_mode: EvalMode) -> None:
    if eval_mode not in agent.eval_modes:
        raise ValueError(
            f"eval_mode is {eval_mode!r}: for {type(agent).__name__} use "
            f"{' or '.join(map(repr, agent.eval_modes))}"
        )


def _check_start(training: Training) -> None:
    """Raises ValueError unless training can start from its `agent_state`."""
    agent, start = training.agent, training.agent_state
    assert start is not None
    wanted = jax.eval_shape(training.new_statistics).obs
    found = () if start.stats is None else start.stats.obs
    if wanted and start.stats is None:
        raise ValueError(
            "agent_state is an agent's state alone, without the statistics by which it saw "
            "observations, and normalize_observations is on: pass the whole TrainState, or "
            "load_run(path).start()"
        )
    if wanted and not found:
        raise ValueError(
            "agent_state is of a run that saw observations as they are: leave "
            "normalize_observations off"
        )
    if found and not wanted:
        raise ValueError(
            "agent_state is of a run that normalised its observations: set normalize_observations"
        )
    like = jax.eval_shape(agent.init, jax.eval_shape(lambda: jax.random.key(0)))
    name = type(agent).__name__
    problems = [
        *differences("it", start.agent, f"the state of this {name}", like),
        *differences("its statistics", found, "those of these observations", wanted),
    ]
    if problems:
        raise ValueError("agent_state is of another agent:" + "".join(f"\n{x}" for x in problems))


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
