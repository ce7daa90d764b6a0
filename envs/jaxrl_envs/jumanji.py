"""Jumanji's environments under our contract: raw steps, time limits as truncation, action masks.

- The observation is a dictionary of Jumanji's fields; its `action_mask` becomes that of `Masked`.
  Where it allows nothing (an agent that has finished, a game that is lost with the next move), all
  actions are allowed and Jumanji decides what they do.
- A mask over combinations of choices (Tetris: rotation and column) has no equal among masks of
  independent choices. There the action is one `Discrete` number, the index in the flattened mask.
- One policy moves all agents of an environment, so their rewards are added.
- Jumanji calls the end of its `time_limit` a termination; here it is a truncation. Two ends remain
  terminations, for they belong to the task: FlatPack's, after as many steps as there are blocks,
  and MultiCVRP's, which charges the worst remaining way after twice as many steps as customers.
- A step draws from its own key, not from the one that Jumanji keeps in the state.
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
"""Ids whose environment downloads data when it is made (not with `generator=` of another kind)."""
MAX_JOINT_ACTIONS = 10_000
NEVER = 2**31 - 1

MaskKind = Literal["none", "each", "joint"]


class JumanjiEnv(struct.PyTreeNode):
    """One Jumanji environment, without its time limit; `make` adds that.

    Attributes:
      env: Jumanji's object; one for equal arguments, so that equal environments have equal
        structure.
      spec: shapes and spaces.
      mask: whether actions have a mask each, one of their combinations, or none.
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
            # Built anew, for some of Jumanji's steps write into the state that they are given.
            given = _with_key(jax.tree.map(lambda x: x, state), key)
            stepped, timestep = self.env.step(given, self.native_action(action))
            obs = _observed(timestep.observation, self.mask)
            over = timestep.last()
            terminated = over & jnp.all(timestep.discount == 0)
            if isinstance(self.env, SearchAndRescue):  # which kept its limit, see `_endless`
                terminated = terminated & jnp.all(stepped.targets.found)
        return like(state, stepped), Timestep(
            obs=like(self.spec.observation, obs),
            reward=jnp.sum(timestep.reward).astype(jnp.float32),
            terminated=terminated,
            truncated=over & ~terminated,
            info=timestep.extras,
        )

    def native_action(self, action: PyTree) -> Array:
        """Jumanji's action for one of ours."""
        native = self.env.action_spec
        if self.mask == "joint":
            action = jnp.stack(jnp.unravel_index(action, _nums(native, None)))
        return jnp.asarray(action, native.dtype)


def _observed(observation: Any, kind: MaskKind) -> PyTree:
    """Jumanji's observation as a dictionary, with its mask `[..., actions]` flattened."""
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
    """How many values each entry of a whole-numbered action has."""
    if hasattr(native, "num_values"):
        return tuple(int(n) for n in np.ravel(native.num_values))
    if mask_shape is not None:  # MultiCVRP's bounds name one node too many, its mask does not
        return mask_shape[-1:] * native.shape[0]
    low, high = (np.broadcast_to(bound, native.shape) for bound in (native.minimum, native.maximum))
    return tuple(int(n) for n in np.ravel(high - low + 1))


def _space(
    native: Any, mask_shape: tuple[int, ...] | None, name: str
) -> tuple[ActionSpace, MaskKind]:
    """Our action space for Jumanji's, and the kind of mask that one of this shape is.

    Raises:
      ValueError: more combinations than `MAX_JOINT_ACTIONS`, or a mask of another shape.
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
        f"{name} of Jumanji masks its actions {nums} with an array {mask_shape}: jaxrl takes a "
        f"mask for each, or one over at most {MAX_JOINT_ACTIONS:,} combinations"
    )


@functools.lru_cache(maxsize=64)  # equal for the same object, or its programs would be others
def _endless(env: Any) -> Any:
    """A copy of `env` without its time limit, so that only terminations end its episodes.

    SearchAndRescue keeps its limit, for its reward is scaled by it.
    """
    if not hasattr(env, "time_limit") or isinstance(env, SearchAndRescue):
        return env
    env = copy.copy(env)
    env.time_limit = NEVER
    return env


@functools.cache
def _jumanji_object(kind_of: Any, arguments: tuple[tuple[str, Any], ...]) -> Any:
    return kind_of(**dict(arguments))


@jax.ensure_compile_time_eval()  # inside a traced program, too, what is kept holds no tracer
def make(name: str, **params: Any) -> Environment:
    """Builds the Jumanji environment called `name`.

    Args:
      name: "Snake-v1", "Game2048-v1", ...
      **params: arguments of Jumanji's class, such as `time_limit` or `generator`.

    Raises:
      ValueError: an argument that the class does not have or cannot use, or an action mask that
        jaxrl does not take.
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


@jax.ensure_compile_time_eval()  # inside a traced program, too, what is kept holds no tracer
def adapt(env: Any, **params: Any) -> Environment:
    """Adapts an object of Jumanji; it was built with its parameters, and takes no more."""
    check_kind(env, "jumanji", (JumanjiEnvironment,), (JumanjiWrapper,))
    check_none(env, params)
    return _of(env, type(env).__name__)


def _of(env: Any, name: str) -> Environment:
    """Jumanji's object, called `name` in errors, under our contract."""
    limit = getattr(env, "time_limit", None)
    env = _endless(env)
    with library_code():
        start = jax.eval_shape(env.reset, jax.random.key(0))[1].observation
        mask = _fields(start).get("action_mask")
        space, kind = _space(env.action_spec, None if mask is None else mask.shape, name)
        observation = jax.eval_shape(lambda x: strong(_observed(x, kind)), start)
    # Of many environments a start costs as much as several steps, of some as many as ten.
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
    """The ids that Jumanji registers."""
    return sorted(registration.registered_environments())
