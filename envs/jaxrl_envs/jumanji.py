"""Adapter for Jumanji: raw steps, time limits as truncation, action masks.

- The observation is a dictionary of Jumanji's fields; its `action_mask` becomes that of `Masked`.
  If it allows no action (an agent that has finished, a game that is lost with the next move), all
  actions are allowed and Jumanji decides their effect.
- A mask over combinations of choices (Tetris: rotation and column) cannot be expressed by masks of
  independent choices. The action is then one `Discrete` number, an index into the flattened mask.
- One policy controls all agents of an environment, so their rewards are summed.
- Jumanji terminates at its `time_limit`; here that is a truncation. Two limits remain terminations
  because they are part of the task: FlatPack's, after one step per block, and MultiCVRP's, which
  charges the worst remaining route after two steps per customer.
- Random numbers come from the step's key, not from the key in Jumanji's state.
"""

import copy
import functools
import inspect
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.environment import Environment, Timestep
from jaxrl.errors import InvalidValue
from jaxrl.trees import strong
from jaxrl.types import (
    ActionSpace,
    Array,
    Box,
    Discrete,
    EnvSpec,
    Key,
    Masked,
    MultiDiscrete,
    PyTree,
    static,
)
from jaxrl.wrappers import TimeLimit
from jaxrl_envs.library import (
    check_kind,
    check_known,
    check_limit,
    check_none,
    is_part_of,
    library_code,
    like,
    making,
)
from jaxrl_envs.parameters import fitted

with library_code():
    from jumanji import registration
    from jumanji.env import Environment as JumanjiEnvironment
    from jumanji.environments.swarms.search_and_rescue.env import SearchAndRescue
    from jumanji.wrappers import Wrapper as JumanjiWrapper

NEEDS_NETWORK = frozenset({"Sokoban-v0"})
"""Ids that download data when made (not with a different `generator=`)."""
MAX_JOINT_ACTIONS = 10_000
NEVER = 2**31 - 1

MaskKind = Literal["none", "each", "joint"]


class JumanjiEnv(struct.PyTreeNode):
    """A Jumanji environment without its time limit, which `make` adds.

    Attributes:
      env: Jumanji's object, shared by equal arguments, so that equal environments have equal
        structure.
      spec: shapes and spaces.
      mask: whether there is a mask for each action, for combinations of actions, or none.
    """

    env: Any = static()
    spec: EnvSpec = static()
    mask: MaskKind = static()

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        with library_code():
            state, timestep = self.env.reset(key)
            return strong(state), strong(_observed(timestep.observation, self.mask))

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Timestep]:
        with library_code():
            # A copy, because some of Jumanji's steps modify the state that they are given.
            given = _with_key(jax.tree.map(lambda x: x, state), key)
            stepped, timestep = self.env.step(given, self.native_action(action))
            obs = _observed(timestep.observation, self.mask)
            over = timestep.last()
            terminated = over & jnp.all(timestep.discount == 0)
            if isinstance(self.env, SearchAndRescue):  # it keeps its limit, see `_endless`
                terminated = terminated & jnp.all(stepped.targets.found)
        return like(state, stepped), Timestep(
            obs=like(self.spec.observation, obs),
            reward=jnp.sum(timestep.reward).astype(jnp.float32),
            terminated=terminated,
            truncated=over & ~terminated,
            info=timestep.extras,
        )

    def native_action(self, action: PyTree) -> Array:
        """Converts an action to Jumanji's action space."""
        native = self.env.action_spec
        if self.mask == "joint":
            action = jnp.stack(jnp.unravel_index(action, _nums(native, None)))
        return jnp.asarray(action, native.dtype)


def _observed(observation: Any, kind: MaskKind) -> PyTree:
    """Jumanji's observation as a dictionary, with the mask `[..., actions]` flattened."""
    fields = dict(_fields(observation))
    if kind == "none":
        return fields
    mask = fields.pop("action_mask")
    mask = mask.reshape(-1) if kind == "joint" else mask
    mask = mask | ~jnp.any(mask, axis=-1, keepdims=True)
    return Masked(fields, mask.reshape(-1))


def _fields(x: Any) -> dict[str, Any]:
    """The fields of a named tuple or a dataclass."""
    return x._asdict() if hasattr(x, "_asdict") else vars(x)


def _with_key(state: Any, key: Key) -> Any:
    return state._replace(key=key) if hasattr(state, "_replace") else state.replace(key=key)


def _nums(native: Any, mask_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Number of values of each entry of an integer action."""
    if hasattr(native, "num_values"):
        return tuple(int(n) for n in np.ravel(native.num_values))
    if mask_shape is not None:  # MultiCVRP's bounds have one node too many, unlike its mask
        return mask_shape[-1:] * native.shape[0]
    low, high = (np.broadcast_to(bound, native.shape) for bound in (native.minimum, native.maximum))
    return tuple(int(n) for n in np.ravel(high - low + 1))


def _space(
    native: Any, mask_shape: tuple[int, ...] | None, name: str
) -> tuple[ActionSpace, MaskKind]:
    """Converts Jumanji's action space, and finds the kind of a mask of this shape.

    Raises:
      ValueError: more combinations than `MAX_JOINT_ACTIONS`, or an unsupported mask shape.
    """
    if not np.issubdtype(native.dtype, np.integer):
        return Box.of(native.minimum, native.maximum, tuple(native.shape)), "none"
    nums = _nums(native, mask_shape)
    space = MultiDiscrete(nums) if native.shape else Discrete(nums[0])
    if mask_shape is None:
        return space, "none"
    equal = len(set(nums)) == 1
    kinds: dict[MaskKind, bool] = {
        "each": mask_shape == (nums if not native.shape else (len(nums), nums[0])) and equal,
        "joint": mask_shape == nums and bool(native.shape) and math.prod(nums) <= MAX_JOINT_ACTIONS,
    }
    match [kind for kind, fits in kinds.items() if fits]:
        case ["each"]:
            return space, "each"
        case ["joint"]:
            return Discrete(math.prod(nums)), "joint"
    raise InvalidValue(
        f"Jumanji's {name} masks actions {nums} with an array {mask_shape}: jaxrl supports a mask "
        f"for each action, or one over at most {MAX_JOINT_ACTIONS:,} combinations"
    )


@functools.lru_cache(maxsize=64)  # the same copy for the same object, to avoid recompilation
def _endless(env: Any) -> Any:
    """A copy of `env` without its time limit, so that only terminations end its episodes.

    SearchAndRescue keeps its limit, because it scales the reward.
    """
    if not hasattr(env, "time_limit") or isinstance(env, SearchAndRescue):
        return env
    env = copy.copy(env)
    env.time_limit = NEVER
    return env


@functools.cache
def _jumanji_object(kind_of: Any, arguments: tuple[tuple[str, Any], ...]) -> Any:
    return kind_of(**dict(arguments))


@jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
def make(name: str, /, **params: Any) -> Environment:
    """Builds the Jumanji environment called `name`.

    Args:
      name: "Snake-v1", "Game2048-v1", ...
      **params: arguments of Jumanji's class, such as `time_limit` or `generator`.

    Raises:
      ValueError: an unknown or invalid argument, or an unsupported action mask.
    """
    registered = registration._REGISTRY[name]
    kind_of = registration.load(registered.entry_point)
    check_known(name, params, inspect.signature(kind_of).parameters)
    params = fitted(kind_of, params, name)
    if params.get("time_limit") is not None:
        check_limit(name, "time_limit", params["time_limit"])
    with library_code(), making(name, params):
        env = _jumanji_object(kind_of, tuple(sorted((registered.kwargs | params).items())))
        return _of(env, name)


@jax.ensure_compile_time_eval()  # so that cached objects hold no tracers
def adapt(env: Any, /, **params: Any) -> Environment:
    """Adapts a Jumanji object; `params` must be empty, since its parameters are already set."""
    check_kind(env, "jumanji", (JumanjiEnvironment,), (JumanjiWrapper,))
    check_none(env, params)
    return _of(env, type(env).__name__)


def _of(env: Any, name: str) -> Environment:
    """Wraps Jumanji's object, `name` in errors."""
    limit = getattr(env, "time_limit", None)
    env = _endless(env)
    with library_code():
        start = jax.eval_shape(env.reset, jax.random.key(0))[1].observation
        mask = _fields(start).get("action_mask")
        space, kind = _space(env.action_spec, None if mask is None else mask.shape, name)
        observation = jax.eval_shape(lambda x: strong(_observed(x, kind)), start)
    # In many environments a reset costs as much as several steps, in some up to ten.
    spec = EnvSpec(
        observation,
        space,
        max_steps=limit if isinstance(env, SearchAndRescue) else None,
        reset_policy="pool",
        truncates="at_max_steps" if is_part_of(("jumanji",), env) else "anywhere",
    )
    inner = JumanjiEnv(env, spec, kind)
    return inner if limit is None else TimeLimit(inner, max_steps=int(limit))


def names() -> list[str]:
    """Ids registered with Jumanji."""
    return sorted(registration.registered_environments())
