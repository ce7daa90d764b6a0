"""The vocabulary of the library: spaces, experience, the clock, key streams and metrics."""

import dataclasses
import enum
import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

Array = jax.Array
Key = jax.Array
"""A typed key, `jax.random.key(seed)`; under vmap an array of them."""
PyTree = Any
Scalar = Any
"""A float hyper-parameter: a Python float or a `Float[]` array, a leaf that vmap may batch."""

static = functools.partial(struct.field, pytree_node=False)
"""A dataclass field that is part of the program's structure, not one of its array leaves."""


# Spaces -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Discrete:
    """One of `num` actions: an `int32[]` in `[0, num)`."""

    num: int


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """Several independent choices: an `int32[len(nums)]`, the i-th in `[0, nums[i])`."""

    nums: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Box:
    """A `float32[*shape]` from `low` to `high`, floats or nested tuples of them of that shape."""

    low: Any
    high: Any
    shape: tuple[int, ...]

    @classmethod
    def of(cls, low: Any, high: Any, shape: tuple[int, ...]) -> "Box":
        """Builds a box from scalars or arrays, stored so that equal boxes hash alike."""

        def hashable(bound):
            bound = np.broadcast_to(np.asarray(bound, np.float32), shape)
            same = bound.size > 0 and (bound == bound.flat[0]).all()
            return float(bound.flat[0]) if same else _nested_tuple(bound.tolist())

        return cls(hashable(low), hashable(high), tuple(int(n) for n in shape))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest value of each entry, `float32[*shape]` both."""
        low, high = (
            np.broadcast_to(np.asarray(b, np.float32), self.shape) for b in (self.low, self.high)
        )
        return low, high

    def clip(self, action: Array) -> Array:
        """Returns `action[*shape]` moved into the bounds."""
        low, high = self.bounds()
        return jnp.clip(action, jnp.asarray(low), jnp.asarray(high))


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Several spaces at once: an action is a tuple with one entry a space."""

    spaces: tuple["ActionSpace", ...]


ActionSpace = Discrete | MultiDiscrete | Box | Mixed


def _nested_tuple(x: Any) -> Any:
    return tuple(_nested_tuple(item) for item in x) if isinstance(x, list) else x


def into_bounds(space: ActionSpace, action: PyTree) -> PyTree:
    """Clips the continuous parts of one unbatched `action` into the bounds of their boxes."""
    if isinstance(space, Box):
        return space.clip(action)
    if isinstance(space, Mixed):
        return tuple(into_bounds(s, a) for s, a in zip(space.spaces, action, strict=True))
    return action


def sample_action(space: ActionSpace, key: Key) -> PyTree:
    """Draws one unbatched action: uniformly, and from a normal distribution where a box is endless.

    Where only one bound of a box is finite, the normal is centred and folded there.
    """
    match space:
        case Discrete(num):
            return jax.random.randint(key, (), 0, num)
        case MultiDiscrete(nums):
            return jax.random.randint(key, (len(nums),), 0, jnp.asarray(nums))
        case Box():
            return _sample_box(space, key)
        case Mixed(spaces):
            keys = jax.random.split(key, len(spaces))
            return tuple(sample_action(s, k) for s, k in zip(spaces, keys, strict=True))
    raise TypeError(f"{space!r} is no action space: use Discrete, MultiDiscrete, Box or Mixed")


def _sample_box(box: Box, key: Key) -> Array:
    low, high = box.bounds()
    with np.errstate(over="ignore"):  # float32's whole range is wider than its largest number
        bounded = np.isfinite(high - low)
    if bounded.all():
        return jax.random.uniform(key, box.shape, minval=jnp.asarray(low), maxval=jnp.asarray(high))
    uniform_key, normal_key = jax.random.split(key)
    ends = jnp.asarray(np.where(bounded, low, 0.0)), jnp.asarray(np.where(bounded, high, 1.0))
    uniform = jax.random.uniform(uniform_key, box.shape, minval=ends[0], maxval=ends[1])
    normal = jax.random.normal(normal_key, box.shape)
    folded = jnp.select(
        [np.isfinite(low) & np.isinf(high), np.isinf(low) & np.isfinite(high)],
        [low + jnp.abs(normal), high - jnp.abs(normal)],
        normal,
    )
    return box.clip(jnp.where(bounded, uniform, folded))


ResetPolicy = Literal["fresh", "pool"]
"""How auto-reset comes by its starts, see `jaxrl.environment.VectorEnv`."""

Truncates = Literal["anywhere", "at_max_steps"]
"""Which steps may be truncated, see `EnvSpec`."""


@dataclasses.dataclass(frozen=True, eq=False)
class EnvSpec:
    """What an agent may know of an environment before it meets it; hashable.

    Attributes:
      observation: a pytree of `jax.ShapeDtypeStruct`, one unbatched observation. Wrap it in
        `Masked` where some actions are unavailable.
      action: the action space.
      max_steps: the time limit in steps where it is fixed and known, else None.
      reset_policy: what training uses unless told otherwise; "pool" where a reset is dear.
      truncates: "at_max_steps" promises that no episode is truncated before it is `max_steps` steps
        long (never, where that is None). Replay then needs little room for final observations;
        with "anywhere" it has room for one a step.
    """

    observation: PyTree
    action: ActionSpace
    max_steps: int | None = None
    reset_policy: ResetPolicy = "fresh"
    truncates: Truncates = "anywhere"

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
    """

    returns: Mean
    lengths: Mean

    @classmethod
    def none(cls) -> "EpisodeStats":
        """Of no episode at all."""
        zero = jnp.float32(0)
        return cls(Mean(zero, zero), Mean(zero, zero))

    @classmethod
    def of(cls, episode_return: Array, episode_length: Array, ended: Array) -> "EpisodeStats":
        """Of the episodes whose entry in `ended` is true, entry by entry."""
        return cls(Mean.where(ended, episode_return), Mean.where(ended, episode_length))

    @property
    def count(self) -> Array:
        """How many episodes ended."""
        return self.returns.count

    def __add__(self, other: "EpisodeStats") -> "EpisodeStats":
        return EpisodeStats(self.returns + other.returns, self.lengths + other.lengths)

    def pooled(self) -> "EpisodeStats":
        """The entries' episodes taken together."""
        return EpisodeStats(self.returns.pooled(), self.lengths.pooled())


# Small tools --------------------------------------------------------------------------------------


def tree_where(condition: Array, x: PyTree, y: PyTree) -> PyTree:
    """`x` where `condition[N]` else `y`, for leaves `[N, ...]`."""

    def select(a, b):
        a, b = jnp.asarray(a), jnp.asarray(b)
        shape = condition.shape + (1,) * (max(a.ndim, b.ndim) - condition.ndim)
        return jnp.where(condition.reshape(shape), a, b)

    return jax.tree.map(select, x, y)


@jax.custom_batching.custom_vmap
def in_any_lane(flag: Array) -> Array:
    """`bool[]`: under `vmap`, whether the flag is true in any lane, so that a branch stays one."""
    return flag


@in_any_lane.def_vmap
def _(axis_size: int, in_batched: list[bool], flag: Array) -> tuple[Array, bool]:
    return in_any_lane(jnp.any(flag)), False


def strong(tree: PyTree) -> PyTree:
    """Turns every leaf into an array of a strong type, so that carries keep their dtypes."""

    def one(x):
        x = jnp.asarray(x)
        return x if jnp.issubdtype(x.dtype, jax.dtypes.extended) else x.astype(x.dtype)

    return jax.tree.map(one, tree)


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves by name, `params.Dense_0.kernel` say; that of a tree that is one leaf is empty."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}


def num_values(shape: tuple[int, ...]) -> int:
    """The number of entries of an array of this shape."""
    return math.prod(shape)


def num_bytes(tree: PyTree) -> int:
    """The size of these arrays, or of arrays of these shapes; a key counts as 16 bytes."""

    def one(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return x.size * (16 if is_key else x.dtype.itemsize)

    return sum(one(x) for x in jax.tree.leaves(tree))
