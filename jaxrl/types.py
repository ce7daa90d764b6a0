"""Core types: specs, experience, the clock, random streams and metrics."""

import dataclasses
import enum
import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.errors import InvalidValue
from jaxrl.spaces import ActionSpace as ActionSpace
from jaxrl.spaces import Box as Box
from jaxrl.spaces import Discrete as Discrete
from jaxrl.spaces import Mixed as Mixed
from jaxrl.spaces import MultiDiscrete as MultiDiscrete
from jaxrl.spaces import check_space, mask_problems
from jaxrl.spaces import into_bounds as into_bounds
from jaxrl.spaces import sample_action as sample_action
from jaxrl.validation import whole_number

Array = jax.Array


Key = jax.Array
"""A typed key, `jax.random.key(seed)`, or an array of them."""


PyTree = Any


Scalar = Any
"""A float hyper-parameter: a Python float or a `float32[]` array, a leaf that vmap may batch."""


static = functools.partial(struct.field, pytree_node=False)
"""A dataclass field that is static: part of the program's structure, not an array leaf."""


# Specifications -----------------------------------------------------------------------------------

ResetPolicy = Literal["fresh", "pool"]
"""How auto-reset obtains start states, see `jaxrl.VectorEnv`."""


Truncates = Literal["anywhere", "at_max_steps"]
"""When episodes may be truncated, see `EnvSpec`."""


@dataclasses.dataclass(frozen=True, eq=False)
class EnvSpec:
    """Static description of an environment; hashable.

    Attributes:
      observation: a pytree of `jax.ShapeDtypeStruct`, one unbatched observation; arrays are reduced
        to shape and dtype. Wrap it in `Masked` if some actions may be unavailable.
      action: the action space.
      max_steps: the time limit in steps if it is fixed and known, else None.
      reset_policy: default for training; "pool" if resets are expensive.
      truncates: "at_max_steps" promises that episodes are only truncated after `max_steps` steps
        (never if that is None), so that replay needs little memory for final observations;
        "anywhere" makes it store one per step.

    Raises:
      ValueError, TypeError: an invalid field, or an action mask that does not match the action
        space.
    """

    observation: PyTree
    action: ActionSpace
    max_steps: int | None = None
    reset_policy: ResetPolicy = "fresh"
    truncates: Truncates = "anywhere"

    def __post_init__(self) -> None:
        check_space(self.action, "spec.action: ")
        object.__setattr__(self, "observation", _shapes(self.observation))
        if isinstance(self.observation, Masked):
            for problem in mask_problems(self.action, self.observation.action_mask):
                raise InvalidValue(problem)
        if self.max_steps is not None:
            limit = whole_number("max_steps", self.max_steps, most=2**31 - 1, also=", or None")
            object.__setattr__(self, "max_steps", limit)
        if self.reset_policy not in get_args(ResetPolicy):
            raise InvalidValue(f"reset_policy is {self.reset_policy!r}: use 'fresh' or 'pool'")
        if self.truncates not in get_args(Truncates):
            raise InvalidValue(f"truncates is {self.truncates!r}: use 'anywhere' or 'at_max_steps'")

    def _identity(self) -> tuple:
        leaves, treedef = jax.tree.flatten(self.observation)
        shapes = tuple((tuple(x.shape), str(x.dtype)) for x in leaves)
        rest = (self.action, self.max_steps, self.reset_policy, self.truncates)
        return shapes, treedef, *rest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnvSpec) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def dummy_observation(self, *batch: int) -> PyTree:
        """Zeros of the observation's shape and dtype with leading axes `batch`; masks all true."""

        def fill(x):
            make = jnp.ones if x.dtype == jnp.bool_ else jnp.zeros
            return make((*batch, *x.shape), x.dtype)

        return jax.tree.map(fill, self.observation)


class Masked(NamedTuple):
    """An observation with a mask of the available actions.

    Attributes:
      obs: the observation, any pytree.
      action_mask: `bool[num]` for Discrete, `bool[sum(nums)]` for MultiDiscrete, and a tuple of
        masks, one per space, for Mixed (None for a Box). True means that the action is available.
    """

    obs: PyTree
    action_mask: PyTree


def split_mask(obs: PyTree) -> tuple[PyTree, PyTree]:
    """Returns (observation, action mask or None)."""
    return (obs.obs, obs.action_mask) if isinstance(obs, Masked) else (obs, None)


def _shapes(observation: PyTree) -> PyTree:
    """Shapes and dtypes of an observation; raises ValueError if a leaf has none."""

    def one(path: Any, x: Any) -> jax.ShapeDtypeStruct:
        name = f"spec.observation{jax.tree_util.keystr(path)}"
        if isinstance(x, Masked):
            raise InvalidValue(
                f"{name} is Masked: only the whole observation can be, "
                "Masked(observation, action_mask)"
            )
        if not isinstance(x, jax.ShapeDtypeStruct | np.ndarray | np.generic | jax.Array):
            raise InvalidValue(f"{name} is {x!r}: give jax.ShapeDtypeStruct(shape, dtype)")
        for n in x.shape:
            whole_number(f"{name} has the shape {x.shape}: an entry", n, 0)
        if isinstance(x, jax.ShapeDtypeStruct):
            return x
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    def shapes(tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(one, tree, is_leaf=lambda x: isinstance(x, Masked))

    if isinstance(observation, Masked):
        return Masked(*(shapes(part) for part in observation))
    return shapes(observation)


# Experience ---------------------------------------------------------------------------------------


class Observed(NamedTuple):
    """An observation for agents with `Agent.raw_observations`.

    Attributes:
      obs: normalised, where the run normalises observations.
      raw: as the environment returned it.
    """

    obs: PyTree
    raw: PyTree


class Transition(struct.PyTreeNode):
    """One step of experience, with any leading axes (`[T, N]` in a trajectory).

    Attributes:
      obs: the observation, as the environment returned it.
      action: the action taken.
      reward: `float32`.
      terminated: `bool`, the episode ended in a state of value zero.
      truncated: `bool`, the episode was cut off (time limit); its last state keeps its value.
      next_obs: the observation after the step, BEFORE any reset.
      extras: what `act` returned with the action, a dict by name: {"log_prob": ...}.
      info: the entries of `Timestep.info` that `Agent.info` names, by name; in data sets
        `episode`, the number of the episode, `int32`.
    """

    obs: PyTree
    action: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    next_obs: PyTree
    extras: PyTree = ()
    info: dict[str, Array] = struct.field(default_factory=dict)


class Trajectory(struct.PyTreeNode):
    """Consecutive steps of several environments.

    Attributes:
      steps: a `Transition` (or the result of `prepare`), leaves `[T, N, ...]`, or `[B, ...]` in a
        "flat" minibatch.
      first: `bool[T, N]`, whether the step is the first of its episode.
      carry: the recurrent state before step 0, leaves `[N, ...]`; `()` if there is none.
      env_index: `int32[T, N]`, the copy of the environment that each step comes from, to index
        per-copy state by; `()` if unknown.
    """

    steps: PyTree
    first: Array
    carry: PyTree = ()
    env_index: Any = ()


class Clock(struct.PyTreeNode):
    """Training progress. Never batched by vmap, so that "every k updates" stays a branch.

    Attributes:
      iteration: `int32[]`, finished iterations.
      update: `int32[]`, calls of `update` scheduled so far (in a replay plan, including those
        skipped during warmup).
      fraction: `float32[]`, fraction of training done, in [0, 1].
    """

    iteration: Array
    update: Array
    fraction: Array

    @classmethod
    def start(cls) -> "Clock":
        """The clock before the first iteration."""
        return cls(jnp.int32(0), jnp.int32(0), jnp.float32(0.0))


# Keys ---------------------------------------------------------------------------------------------


class Stream(enum.IntEnum):
    """Named random streams; no two uses share a key."""

    INIT = 0
    RESET = 1
    ITERATION = 2
    ROLLOUT = 3
    ACT = 4
    STEP = 5
    AUTO_RESET = 6
    POOL = 7
    SHUFFLE = 8
    SAMPLE = 9
    UPDATE = 10
    EVALUATE = 11
    EVALUATE_AFRESH = 12
    DROPOUT = 13
    END = 14


def stream(key: Key, name: Stream) -> Key:
    """Derives the key of a named stream from `key`."""
    return jax.random.fold_in(key, int(name))


# Metrics ------------------------------------------------------------------------------------------


class Mean(struct.PyTreeNode):
    """A mean as total and count: adding two pools their data. NaN without data."""

    total: Array
    count: Array

    @classmethod
    def of(cls, x: Any) -> "Mean":
        """A Mean with the single observation `x`; a Mean is returned unchanged."""
        if isinstance(x, Mean):
            return x
        total = jnp.asarray(x, jnp.float32)
        return cls(total, jnp.ones_like(total))

    @classmethod
    def where(cls, condition: Array, x: Array) -> "Mean":
        """Elementwise: one observation of `x` where `condition` is true, none elsewhere."""
        count = condition.astype(jnp.float32)
        return cls(jnp.where(condition, x, 0).astype(jnp.float32), count)

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    def pooled(self, axis: int | None = None) -> "Mean":
        """Pools the entries along `axis`, or all of them."""
        return Mean(jnp.sum(self.total, axis), jnp.sum(self.count, axis))

    @property
    def value(self) -> Array:
        return jnp.where(self.count > 0, self.total / jnp.maximum(self.count, 1e-38), jnp.nan)


Metrics = dict[str, Any]
"""Metrics by name: scalars, or `Mean` for metrics that some updates do not have."""


class EpisodeStats(struct.PyTreeNode):
    """Statistics of episodes that ended; unfinished episodes never count.

    Attributes:
      returns: mean undiscounted return.
      lengths: mean number of steps.
      info: means of the scalars of `Timestep.info` in the last step, by name.
    """

    returns: Mean
    lengths: Mean
    info: dict[str, Mean] = struct.field(default_factory=dict)

    @classmethod
    def none(cls) -> "EpisodeStats":
        """Statistics of no episodes."""
        zero = jnp.float32(0)
        return cls(Mean(zero, zero), Mean(zero, zero))

    @classmethod
    def of(
        cls,
        episode_return: Array,
        episode_length: Array,
        ended: Array,
        info: dict[str, Array] | None = None,
    ) -> "EpisodeStats":
        """Elementwise statistics of the episodes whose entry in `ended` is true."""
        return cls(
            Mean.where(ended, episode_return),
            Mean.where(ended, episode_length),
            {name: Mean.where(ended, x) for name, x in (info or {}).items()},
        )

    @property
    def count(self) -> Array:
        """Number of episodes that ended."""
        return self.returns.count

    def __add__(self, other: "EpisodeStats") -> "EpisodeStats":
        info = {name: mean + other.info[name] for name, mean in self.info.items()}
        return EpisodeStats(self.returns + other.returns, self.lengths + other.lengths, info)

    def first(self) -> "EpisodeStats":
        """Keeps only the first episode of each copy, of entries `[T, N]`."""
        before = jnp.cumsum(self.count, axis=0) - self.count
        return jax.tree.map(lambda x: jnp.where(before == 0, x, 0.0), self)

    def pooled(self) -> "EpisodeStats":
        """Pools the episodes of all entries."""
        info = {name: mean.pooled() for name, mean in self.info.items()}
        return EpisodeStats(self.returns.pooled(), self.lengths.pooled(), info)
