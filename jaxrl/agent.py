"""The contract of an agent: pure functions over arrays, and the plan of its experience.

An algorithm is one file that subclasses `Agent`; the engine (`jaxrl.engine`) does the rest.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

from flax import struct

from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.hyper import check_declared, inherit_declarations
from jaxrl.types import Clock, EnvSpec, Key, Metrics, PyTree, static
from jaxrl.validation import UNROLLED, check_whole, declares

EvalMode = Literal["greedy", "sample"]
"""How evaluation acts: by the mean or most likely action, or by actions drawn as in training."""


Policy = Callable[[PyTree, PyTree, Key], tuple[PyTree, PyTree, PyTree]]
"""(carry, obs `[N, ...]`, key) -> (carry, action `[N, ...]`, extras `[N, ...]`)."""


# Plans: how experience reaches `update` -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OnPolicy:
    """Collect, prepare, pass over the data in minibatches, throw it away.

    Attributes:
      num_envs: copies of the environment, N.
      num_steps: steps of each copy in an iteration, T.
      num_epochs: passes over the data.
      num_minibatches: calls of `update` a pass.
      layout: "flat" shuffles single steps, minibatches are `[T * N / M, ...]`; "env" shuffles
        copies and keeps their sequences whole, minibatches are `[T, N / M, ...]`.
      reset_each_iteration: start all episodes anew in each iteration.
    """

    num_envs: int
    num_steps: int
    num_epochs: int = 1
    num_minibatches: int = 1
    layout: Literal["flat", "env"] = "flat"
    reset_each_iteration: bool = False

    @property
    def steps_per_iteration(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def updates_per_iteration(self) -> int:
        return self.num_epochs * self.num_minibatches

    def check(self) -> None:
        _at_least_one(self, "num_envs", "num_steps", "num_epochs", "num_minibatches")
        if self.layout not in ("flat", "env"):
            raise InvalidValue(f"layout is {self.layout!r}: use 'flat' or 'env'")
        rows, what = (
            (self.steps_per_iteration, "num_envs * num_steps")
            if self.layout == "flat"
            else (self.num_envs, "num_envs")
        )
        if rows % self.num_minibatches:
            raise InvalidValue(
                f"num_minibatches is {self.num_minibatches}, which does not divide {what} = {rows}"
            )


@dataclasses.dataclass(frozen=True)
class Replay:
    """Collect into a ring of steps, update on batches drawn from it (`jaxrl.replay`).

    A row is a transition: it holds no recurrent carry, and nothing of the steps before it.

    Attributes:
      num_envs: copies of the environment, N.
      num_steps: steps of each copy in an iteration, T.
      num_updates: calls of `update` an iteration.
      batch_size: transitions a call.
      capacity: transitions kept.
      warmup: transitions collected before the first update.
      n_step: steps that a transition spans, or up to the end of its episode.
      prioritized: draw in proportion to priorities, which `update` returns; else uniformly.
    """

    num_envs: int
    num_steps: int
    num_updates: int
    batch_size: int
    capacity: int
    warmup: int = 0
    n_step: int = 1
    prioritized: bool = False

    @property
    def steps_per_iteration(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def updates_per_iteration(self) -> int:
        return self.num_updates

    def check(self) -> None:
        _at_least_one(
            self, "num_envs", "num_steps", "num_updates", "batch_size", "capacity", "n_step"
        )
        check_whole("n_step", self.n_step, most=10 * UNROLLED)
        if self.capacity < self.n_step * self.num_envs:
            raise InvalidValue(
                f"capacity is {self.capacity}, too little for n_step = {self.n_step} steps of each "
                f"of num_envs = {self.num_envs} copies"
            )
        if self.capacity < self.steps_per_iteration:
            raise InvalidValue(
                f"capacity is {self.capacity}, less than one iteration collects: "
                f"num_envs * num_steps = {self.steps_per_iteration}"
            )
        if self.batch_size > self.capacity:
            raise InvalidValue(
                f"batch_size is {self.batch_size}, more than capacity: {self.capacity}"
            )
        check_whole("warmup", self.warmup, 0)
        if self.warmup > self.capacity:
            raise InvalidValue(
                f"warmup is {self.warmup}, more than capacity ({self.capacity}): "
                "no update would ever run"
            )


@dataclasses.dataclass(frozen=True)
class Offline:
    """Update on a fixed data set; a training step is one update.

    Attributes:
      num_updates: calls of `update` an iteration.
      batch_size: transitions a call, drawn uniformly; None for the whole set.
    """

    num_updates: int = 1
    batch_size: int | None = None

    num_envs = 1

    @property
    def steps_per_iteration(self) -> int:
        return self.num_updates

    @property
    def updates_per_iteration(self) -> int:
        return self.num_updates

    def check(self) -> None:
        _at_least_one(self, "num_updates", *(["batch_size"] if self.batch_size is not None else []))


@dataclasses.dataclass(frozen=True)
class Population:
    """Play whole episodes with every candidate, then update on their returns.

    Copy n of the environment belongs to candidate `n // episodes_per_candidate`, also in `act` with
    `explore=True`. `update` gets the returns, `float32[population_size, episodes_per_candidate]`.

    Attributes:
      population_size: candidates an iteration.
      episodes_per_candidate: episodes each of them plays.
      max_episode_steps: steps after which an episode is cut; what it gathered by then counts.
    """

    population_size: int
    episodes_per_candidate: int
    max_episode_steps: int

    @property
    def num_envs(self) -> int:
        return self.population_size * self.episodes_per_candidate

    @property
    def steps_per_iteration(self) -> int:
        """The budget: the steps that the episodes may take."""
        return self.num_envs * self.max_episode_steps

    updates_per_iteration = 1

    def check(self) -> None:
        _at_least_one(self, "population_size", "episodes_per_candidate", "max_episode_steps")


Plan = OnPolicy | Replay | Offline | Population


def _at_least_one(plan: Any, *names: str) -> None:
    for name in names:
        check_whole(name, getattr(plan, name))


# The agent ----------------------------------------------------------------------------------------


class Agent(struct.PyTreeNode):
    """A learning algorithm: float hyper-parameters are leaves, all else is static structure.

    Subclasses add their fields (`jaxrl.hyper.hyper`), `plan`, `init`, `act`, `update` and, where
    it applies, the rest.
    The state is any pytree of arrays. No method may print, mutate or keep a count of its own:
    schedules and "every k" read the clock.

    The engine reads a field `discount`, 1 where there is none: it sums the rewards of a row of
    several steps by it (`Replay.n_step`), and scales rewards by the returns that it makes
    (`normalize_rewards`).
    """

    spec: EnvSpec | None = static(default=None, kw_only=True)

    flattened: ClassVar[tuple[str, ...]] = ()
    """Fields of the state that on a CPU reach `update` as one vector each, a
    `jaxrl.xla.flatten.Flattened`: faster there where many updates follow one another.
    `optimizers.descend` takes either."""

    eval_modes: ClassVar[tuple[EvalMode, ...]] = ("greedy",)
    """What evaluation can play, the default first. An agent whose `act(..., explore=True)` is a
    stochastic policy of any number of environments, and no mere exploration, has "sample", too."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        inherit_declarations(cls)
        super().__init_subclass__(**kwargs)

    @property
    def plan(self) -> Plan:
        """How experience reaches `update`; static."""
        raise NotImplementedError

    def bind(self, spec: EnvSpec) -> Self:
        """Returns the agent that knows its environment; raises ValueError or TypeError, naming the
        field, where the two do not fit. The engine calls it once, before anything is compiled."""
        check_declared(self)
        self.check(spec)
        return self.replace(spec=spec)

    def check(self, spec: EnvSpec) -> None:
        """Raises ValueError or TypeError where fields do not fit one another or the environment.

        `bind` calls it after it has checked each field that is declared by `hyper` on its own.
        """

    @property
    def bound_spec(self) -> EnvSpec:
        """The environment's spec; ValueError before `bind`."""
        if self.spec is None:
            raise InvalidValue(
                f"{type(self).__name__} has no environment yet: call bind(spec) first"
            )
        return self.spec

    def init(self, key: Key) -> PyTree:
        """The state before training: arrays only."""
        raise NotImplementedError

    def initial_carry(self, num_envs: int) -> PyTree:
        """The recurrent state in which an episode begins, leaves `[num_envs, ...]`."""
        return ()

    def act(
        self, state: PyTree, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Chooses actions for any number of environments.

        Args:
          state: what `init` and `update` returned.
          carry: leaves `[N, ...]`, already reset where an episode begins.
          obs: leaves `[N, ...]`, normalised.
          key: for all of them.
          clock: where training stands.
          explore: False for the policy one would ship (mean or greedy action).

        Returns:
          carry `[N, ...]`, action `[N, ...]` and extras `[N, ...]` (kept in the transition).
        """
        raise NotImplementedError

    def prepare(self, state: PyTree, trajectory: Any, clock: Clock) -> Any:
        """Targets and advantages, once before the passes over the data.

        Args:
          trajectory: a `Trajectory` `[T, N, ...]` (on-policy), `jaxrl.replay.Replayed` `[B, ...]`
            (replay), transitions `[B, ...]` (offline) or the returns (population).

        Returns:
          The same, with `steps` replaced by whatever `update` wants to see of each step.
        """
        return trajectory

    def report(self, state: PyTree, batch: Any, clock: Clock) -> Metrics:
        """Metrics of a whole prepared on-policy batch, before the passes over it; default: none."""
        return {}

    def update(self, state: PyTree, batch: Any, key: Key, clock: Clock) -> Any:
        """Learns from one minibatch: (state, metrics).

        Where the plan is prioritised: (state, metrics, priorities `float32[B]`).
        """
        raise NotImplementedError


def check_agent(agent: Any) -> None:
    """Raises TypeError unless this is an agent, and not its class or an environment."""
    if isinstance(agent, type):
        raise InvalidType(f"agent is the class {agent.__name__}: build one, {agent.__name__}(...)")
    if missing := [part for part in ("bind", "plan", "update") if not declares(agent, part)]:
        raise InvalidType(
            f"{type(agent).__name__} is no agent, it has no {' and no '.join(missing)}: pass a "
            "jaxrl.Agent first, jaxrl.agents.PPO() for example, and the environment after it"
        )
