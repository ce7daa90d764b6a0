"""The vocabulary of the library: specifications, experience, the clock, keys and metrics."""

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
"""A typed key, `jax.random.key(seed)`; under vmap an array of them."""


PyTree = Any


Scalar = Any
"""A float hyper-parameter: a Python float or a `Float[]` array, a leaf that vmap may batch."""


static = functools.partial(struct.field, pytree_node=False)
"""A dataclass field that is part of the program's structure, not one of its array leaves."""


# Specifications -----------------------------------------------------------------------------------

ResetPolicy = Literal["fresh", "pool"]
"""How auto-reset comes by its starts, see `jaxrl.environment.VectorEnv`."""


Truncates = Literal["anywhere", "at_max_steps"]
"""Which steps may be truncated, see `EnvSpec`."""


@dataclasses.dataclass(frozen=True, eq=False)
class EnvSpec:
    """What an agent may know of an environment before it meets it; hashable.

    Attributes:
      observation: a pytree of `jax.ShapeDtypeStruct`, one unbatched observation; of arrays given
        instead only shape and dtype are kept. Wrap it in `Masked` where some actions are
        unavailable.
      action: the action space.
      max_steps: the time limit in steps where it is fixed and known, else None.
      reset_policy: what training uses unless told otherwise; "pool" where resets are expensive.
      truncates: "at_max_steps" promises that no episode is truncated before it is `max_steps` steps
        long (never, where that is None). Replay then needs little room for final observations;
        with "anywhere" it has room for one a step.

    Raises:
      ValueError, TypeError: a field that no environment can have, or an action mask that does not
        fit the action space.
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
    """An observation together with the actions that are available in it.

    Attributes:
      obs: the observation proper, any pytree.
      action_mask: `Bool[num]` for Discrete, `Bool[sum(nums)]` for MultiDiscrete, and for Mixed a
        tuple with one mask a space (None for a box). True: the action may be taken.
    """

    obs: PyTree
    action_mask: PyTree


def split_mask(obs: PyTree) -> tuple[PyTree, PyTree]:
    """Returns (observation proper, action mask or None)."""
    return (obs.obs, obs.action_mask) if isinstance(obs, Masked) else (obs, None)


def _shapes(observation: PyTree) -> PyTree:
    """The shapes and dtypes of an observation; ValueError where a leaf has none."""

    def one(path: Any, x: Any) -> jax.ShapeDtypeStruct:
        name = f"spec.observation{jax.tree_util.keystr(path)}"
        if isinstance(x, Masked):
            raise InvalidValue(
                f"{name} is Masked: only the observation as a whole can be, "
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


class Transition(struct.PyTreeNode):
    """One step of experience; the leading axes are the holder's (`[T, N]` in a trajectory).

    Attributes:
      obs: what the agent saw, as the environment gave it.
      action: what it did.
      reward: `float32`.
      terminated: `bool`, the episode ended in a state of value zero.
      truncated: `bool`, the episode was cut (time limit); its last state keeps its value.
      next_obs: where the step really ended, BEFORE any reset.
      extras: what `act` returned besides the action (log-probabilities, say).
    """

    obs: PyTree
    action: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    next_obs: PyTree
    extras: PyTree = ()


class Trajectory(struct.PyTreeNode):
    """Consecutive steps of several environments.

    Attributes:
      steps: a `Transition` (or what `prepare` made of it), leaves `[T, N, ...]`; in a "flat"
        minibatch `[B, ...]`.
      first: `bool[T, N]`, the step is the first of its episode.
      carry: the recurrent state before step 0, leaves `[N, ...]`; `()` for feed-forward agents.
    """

    steps: PyTree
    first: Array
    carry: PyTree = ()


class Clock(struct.PyTreeNode):
    """Where training stands. Never batched by vmap, so that "every k" stays a branch.

    Attributes:
      iteration: `int32[]`, finished iterations.
      update: `int32[]`, calls of `update` that the plan had foreseen by now (in a replay plan also
        those left out while the memory warmed up).
      fraction: `float32[]`, the share of training done, in [0, 1].
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
    """The named streams of randomness; no two uses share a key."""

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


def stream(key: Key, name: Stream) -> Key:
    """The key of a named stream of `key`."""
    return jax.random.fold_in(key, int(name))


# Metrics ------------------------------------------------------------------------------------------


class Mean(struct.PyTreeNode):
    """A mean that can be continued: add two to pool their data. Without data its value is NaN."""

    total: Array
    count: Array

    @classmethod
    def of(cls, x: Any) -> "Mean":
        """`x` itself where it is a Mean already, else one observation of it."""
        if isinstance(x, Mean):
            return x
        total = jnp.asarray(x, jnp.float32)
        return cls(total, jnp.ones_like(total))

    @classmethod
    def where(cls, condition: Array, x: Array) -> "Mean":
        """One observation of `x` where `condition` is true, none elsewhere; entry by entry."""
        count = condition.astype(jnp.float32)
        return cls(jnp.where(condition, x, 0).astype(jnp.float32), count)

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    def pooled(self, axis: int | None = None) -> "Mean":
        """The entries' data taken together, along `axis` or all."""
        return Mean(jnp.sum(self.total, axis), jnp.sum(self.count, axis))

    @property
    def value(self) -> Array:
        return jnp.where(self.count > 0, self.total / jnp.maximum(self.count, 1e-38), jnp.nan)


Metrics = dict[str, Any]
"""What `update` reports: names to scalars, or to `Mean` where some updates have nothing to say."""


class EpisodeStats(struct.PyTreeNode):
    """Statistics of the episodes that ended; an unfinished episode never counts.

    Attributes:
      returns: mean undiscounted return.
      lengths: mean number of steps.
      info: means of the environment's own numbers, as they were in the last step; by name.
    """

    returns: Mean
    lengths: Mean
    info: dict[str, Mean] = struct.field(default_factory=dict)

    @classmethod
    def none(cls) -> "EpisodeStats":
        """Of no episode at all."""
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
        """Of the episodes whose entry in `ended` is true, entry by entry."""
        return cls(
            Mean.where(ended, episode_return),
            Mean.where(ended, episode_length),
            {name: Mean.where(ended, x) for name, x in (info or {}).items()},
        )

    @property
    def count(self) -> Array:
        """How many episodes ended."""
        return self.returns.count

    def __add__(self, other: "EpisodeStats") -> "EpisodeStats":
        info = {name: mean + other.info[name] for name, mean in self.info.items()}
        return EpisodeStats(self.returns + other.returns, self.lengths + other.lengths, info)

    def first(self) -> "EpisodeStats":
        """Of entries `[T, N]` the first episode of each copy alone."""
        before = jnp.cumsum(self.count, axis=0) - self.count
        return jax.tree.map(lambda x: jnp.where(before == 0, x, 0.0), self)

    def pooled(self) -> "EpisodeStats":
        """The entries' episodes taken together."""
        info = {name: mean.pooled() for name, mean in self.info.items()}
        return EpisodeStats(self.returns.pooled(), self.lengths.pooled(), info)
