"""The agent contract: pure functions over arrays, and a plan for collecting experience.

An algorithm is one file with a subclass of `Agent`; the engine (`jaxrl.engine`) does the rest.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Self

from flax import struct

from jaxrl.errors import InvalidValue
from jaxrl.hyper import check_declared, hyper, inherit_declarations
from jaxrl.types import Array, Clock, EnvSpec, Key, Metrics, PyTree, Scalar, static
from jaxrl.validation import UNROLLED, check_whole

EvalMode = Literal["greedy", "sample"]
"""How evaluation acts: by the mean or most likely action, or by sampling as in training."""

Policy = Callable[[PyTree, PyTree, Key], tuple[PyTree, PyTree, PyTree]]
"""(carry, obs `[N, ...]`, key) -> (carry, action `[N, ...]`, extras `[N, ...]`)."""


class Update(NamedTuple):
    """What `Agent.update` and `Agent.end_iteration` return.

    Attributes:
      state: the agent's state after learning.
      metrics: scalars by name, or `Mean` for metrics that some updates do not have.
      priorities: `float32[B]`, the rows' priorities from now on if the plan is
        `Replay(prioritized=True)`; else None.
    """

    state: PyTree
    metrics: Metrics
    priorities: Array | None = None


@dataclasses.dataclass(frozen=True)
class OnPolicy:
    """Collect a rollout, update on minibatches of it, and discard it.

    Attributes:
      num_envs: copies of the environment, N.
      num_steps: steps of each copy per iteration, T.
      num_epochs: passes over the data per iteration.
      num_minibatches: minibatches (calls of `update`) per pass, M.
      layout: "flat" shuffles single steps into minibatches `[T * N / M, ...]`; "env" shuffles
        copies and keeps sequences whole, minibatches `[T, N / M, ...]`.
      reset_each_iteration: reset all copies at the start of each iteration.
      prepare_each_epoch: call `Agent.prepare` before each pass instead of once before all, to
        recompute advantages, for example.
      differentiable: call `Agent.follow` with the gradient of `Agent.objective` through the
        environment, before `prepare`.
    """

    num_envs: int
    num_steps: int
    num_epochs: int = 1
    num_minibatches: int = 1
    layout: Literal["flat", "env"] = "flat"
    reset_each_iteration: bool = False
    prepare_each_epoch: bool = False
    differentiable: bool = False

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
        rows, what = self.num_envs, "num_envs"
        if self.layout == "flat":
            rows, what = self.steps_per_iteration, "num_envs * num_steps"
        if rows % self.num_minibatches:
            raise InvalidValue(
                f"num_minibatches is {self.num_minibatches}, which does not divide {what} = {rows}"
            )

    def check_shards(self, number: int) -> None:
        """Raises ValueError unless `number` devices divide all that they share."""
        if self.differentiable:
            raise InvalidValue("a rollout that is differentiated stays on one device")
        _divided(self, number, "num_envs")
        try:
            dataclasses.replace(self, num_envs=self.num_envs // number).check()
        except InvalidValue as error:
            raise InvalidValue(f"{error} on each of {number} devices") from None


@dataclasses.dataclass(frozen=True)
class Replay:
    """Collect into a replay buffer and update on batches sampled from it (`jaxrl.replay`).

    Rows are transitions: they hold no recurrent carry and no earlier steps.

    Attributes:
      num_envs: copies of the environment, N.
      num_steps: steps of each copy per iteration, T.
      num_updates: calls of `update` per iteration.
      batch_size: transitions per call.
      capacity: transitions kept.
      warmup: transitions collected before the first update.
      n_step: steps that a transition spans, fewer at the end of an episode.
      prioritized: sample in proportion to priorities, which `update` returns, instead of uniformly.
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

    def check_shards(self, number: int) -> None:
        _divided(self, number, "num_envs", "batch_size")

    def check(self) -> None:
        _at_least_one(self, "num_envs", "num_steps", "num_updates", "batch_size", "capacity")
        check_whole("n_step", self.n_step, most=10 * UNROLLED)
        if self.capacity < self.n_step * self.num_envs:
            raise InvalidValue(
                f"capacity is {self.capacity}, too little for n_step = {self.n_step} steps of each "
                f"of num_envs = {self.num_envs} copies"
            )
        if self.capacity < self.steps_per_iteration:
            raise InvalidValue(
                f"capacity is {self.capacity}, less than what one iteration collects: "
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
      num_updates: calls of `update` per iteration.
      batch_size: transitions per call, sampled uniformly; None for the whole data set.
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

    def check_shards(self, number: int) -> None:
        raise InvalidValue("a data set stays on one device")

    def check(self) -> None:
        _at_least_one(self, "num_updates", *(["batch_size"] if self.batch_size is not None else []))


@dataclasses.dataclass(frozen=True)
class Population:
    """Play whole episodes with every candidate, then update on their returns.

    Copy n of the environment belongs to candidate `n // episodes_per_candidate`, also in `act` with
    `explore=True`. `update` gets the returns, `float32[population_size, episodes_per_candidate]`.

    Attributes:
      population_size: candidates per iteration.
      episodes_per_candidate: episodes per candidate.
      max_episode_steps: steps after which an episode is cut off; its return so far counts.
      candidates_at_once: candidates that play at the same time, to save memory; None for all.
      common_random_numbers: whether the n-th episodes of all candidates have the same random
        numbers: equal starts, and equal noise while they act alike.
    """

    population_size: int
    episodes_per_candidate: int
    max_episode_steps: int
    candidates_at_once: int | None = None
    common_random_numbers: bool = False

    @property
    def num_envs(self) -> int:
        return self.population_size * self.episodes_per_candidate

    @property
    def steps_per_iteration(self) -> int:
        """The step budget: the most steps that the episodes may take."""
        return self.num_envs * self.max_episode_steps

    updates_per_iteration = 1

    def check_shards(self, number: int) -> None:
        _divided(self, number, "population_size")
        if self.candidates_at_once is not None:
            _divided(self, number, "candidates_at_once")

    def check(self) -> None:
        _at_least_one(self, "population_size", "episodes_per_candidate", "max_episode_steps")
        check_whole("candidates_at_once", self.candidates_at_once, or_none=True)
        if self.population_size % (self.candidates_at_once or 1):
            raise InvalidValue(
                f"candidates_at_once is {self.candidates_at_once}, which does not divide "
                f"population_size = {self.population_size}"
            )


Plan = OnPolicy | Replay | Offline | Population


def _at_least_one(plan: Any, *names: str) -> None:
    for name in names:
        check_whole(name, getattr(plan, name))


def _divided(plan: Any, number: int, *names: str) -> None:
    for name in names:
        if (value := getattr(plan, name)) % number:
            raise InvalidValue(f"{name} is {value}, which {number} devices do not divide")


class Agent(struct.PyTreeNode):
    """A learning algorithm: float hyper-parameters are leaves, all else is static structure.

    Subclasses define their fields (`jaxrl.hyper.hyper`), `plan`, `init`, `act` and `update`, and
    the other methods as needed. The state is any pytree of arrays. Methods must be pure: schedules
    and "every k updates" read the clock.

    Attributes:
      discount: discount factor. The engine sums the rewards of n-step rows with it
        (`Replay.n_step`) and scales rewards by discounted returns (`normalize_rewards`).
      spec: the environment's spec, set by `bind`.
    """

    discount: Scalar = hyper(1.0, low=0.0, high=1.0, doc="Discount factor, gamma.", kw_only=True)
    spec: EnvSpec | None = static(default=None, kw_only=True)

    raw_observations: ClassVar[bool] = False
    """Whether observations come as `Observed(obs, raw)`: normalised, and as the environment gave
    them. For experts and rules in the environment's units."""

    info: ClassVar[tuple[str, ...]] = ()
    """Names of leaves of `Timestep.info` that `Transition.info` keeps: `a/b` of {"a": {"b": x}}."""

    flattened: ClassVar[tuple[str, ...]] = ()
    """Fields of the state that loops over updates carry as vectors on CPUs; `update` gets trees."""

    candidates: ClassVar[tuple[str, ...]] = ()
    """Fields of the state with a leading axis `[population_size]`, for population plans. Devices
    can share such a population, and it can play in parts: `act(explore=True)` then gets a part of
    these fields, and its observations. Without them, a population plays as a whole."""

    eval_modes: ClassVar[tuple[EvalMode, ...]] = ("greedy",)
    """Supported evaluation modes, the default first. Agents whose `act(..., explore=True)` is a
    stochastic policy for any number of environments, not just exploration, also have "sample"."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        inherit_declarations(cls)
        super().__init_subclass__(**kwargs)

    @property
    def plan(self) -> Plan:
        """How experience reaches `update`; static."""
        raise NotImplementedError

    def bind(self, spec: EnvSpec) -> Self:
        """Returns the agent with its environment's spec.

        The engine calls it once, before anything is compiled. Raises ValueError or TypeError,
        naming the field, if agent and environment do not fit together.
        """
        check_declared(self)
        self.check(spec)
        return self.replace(spec=spec)

    def check(self, spec: EnvSpec) -> None:
        """Raises ValueError or TypeError if fields do not fit together or with the environment.

        `bind` calls it after checking each field declared by `hyper` on its own.
        """

    def check_shards(self, number: int) -> None:
        """Raises ValueError unless `number` devices can share the environments of a member."""
        self.plan.check_shards(number)
        if isinstance(self.plan, Population) and not self.candidates:
            name = type(self).__name__
            raise InvalidValue(f"{name}.candidates names no field, so {name} stays on one device")

    @property
    def bound_spec(self) -> EnvSpec:
        """The environment's spec; raises ValueError before `bind`."""
        if self.spec is None:
            raise InvalidValue(f"{type(self).__name__} has no environment: call bind(spec) first")
        return self.spec

    def init(self, key: Key) -> PyTree:
        """The state before training: arrays only."""
        raise NotImplementedError

    def initial_carry(self, num_envs: int) -> PyTree:
        """The carry (recurrent state or noise) as an episode starts, leaves `[num_envs, ...]`."""
        return ()

    @property
    def carry_only_explores(self) -> bool:
        """Whether only `act(explore=True)` has a carry, such as noise; else it gets `()`."""
        return False

    def act(
        self, state: PyTree, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Chooses actions for any number of environments.

        Args:
          state: the agent's state.
          carry: leaves `[N, ...]`, already reset at episode starts.
          obs: leaves `[N, ...]`, normalised.
          key: one key for all environments.
          clock: training progress.
          explore: False for the policy to deploy (mean or greedy action).

        Returns:
          carry `[N, ...]`, action `[N, ...]` and extras, a dict of arrays `[N, ...]` that the
          transition keeps ({"log_prob": ...}; `()` for none).
        """
        raise NotImplementedError

    def prepare(self, state: PyTree, trajectory: Any, clock: Clock) -> Any:
        """Computes targets and advantages, before the passes over the data.

        Args:
          state: the agent's state.
          trajectory: a `Trajectory` `[T, N, ...]` (on-policy), `jaxrl.replay.Replayed` `[B, ...]`
            (replay), transitions `[B, ...]` (offline) or the returns (population).
          clock: training progress.

        Returns:
          The same, with `steps` replaced by what `update` needs of each step.
        """
        return trajectory

    def objective(self, state: PyTree, trajectory: Any, clock: Clock) -> Array:
        """What to maximise by its gradient through the environment, `float32[]`.

        For `OnPolicy(differentiable=True)`; the trajectory after its start depends on `state`.
        """
        raise NotImplementedError

    def follow(self, state: PyTree, gradient: PyTree, clock: Clock) -> Update:
        """A step along the gradient of `objective`, structured like `state`."""
        raise NotImplementedError

    def report(self, state: PyTree, batch: Any, clock: Clock) -> Metrics:
        """Metrics of a whole prepared on-policy batch, before the passes over it; {} by default."""
        return {}

    def update(self, state: PyTree, batch: Any, key: Key, clock: Clock) -> Update:
        """Learns from one minibatch of what `prepare` returned."""
        raise NotImplementedError

    def end_iteration(self, state: PyTree, batch: Any, key: Key, clock: Clock) -> Update:
        """Changes the state after an iteration's last update, such as adaptive coefficients.

        Args:
          state: the agent's state.
          batch: what `prepare` returned before the first pass, a `Trajectory` `[T, N, ...]`
            (on-policy) or the returns (population); None for replay and offline plans.
          key: random key.
          clock: training progress; `update` counts this iteration's updates.
        """
        return Update(state, {})
