"""Environment ids: `family/name`, or `module:function`. Listing them imports no library."""

import difflib
import functools
import importlib
import importlib.util
import inspect
import operator
import sys
from typing import Any, NamedTuple

from jaxrl.errors import InvalidType, InvalidValue, Unable, is_missing
from jaxrl_envs.libraries import EXTRAS, extra_of, library_of
from jaxrl_envs.objects import adapt, as_environment

GYMNAX_IDS = (
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "MemoryChain-bsuite",
    "UmbrellaChain-bsuite",
    "DiscountingChain-bsuite",
    "MNISTBandit-bsuite",
    "SimpleBandit-bsuite",
    "FourRooms-misc",
    "MetaMaze-misc",
    "PointRobot-misc",
    "BernoulliBandit-misc",
    "GaussianBandit-misc",
    "Reacher-misc",
    "Swimmer-misc",
    "Pong-misc",
    "FrozenLake-misc",
)
"""gymnax's ids, so that `jaxrl list` does not need to import it; a test keeps them in sync."""

BRAX_IDS = (
    "ant",
    "fast",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_pendulum",
    "inverted_double_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)
"""brax's ids; a test keeps them in sync."""


JUMANJI_IDS = (
    "BinPack-v2",
    "CVRP-v1",
    "Cleaner-v0",
    "Connector-v3",
    "FlatPack-v0",
    "Game2048-v1",
    "GraphColoring-v1",
    "JobShop-v0",
    "Knapsack-v1",
    "LevelBasedForaging-v0",
    "MMST-v0",
    "Maze-v0",
    "Minesweeper-v0",
    "MultiCVRP-v0",
    "PacMan-v1",
    "RobotWarehouse-v0",
    "RubiksCube-partly-scrambled-v0",
    "RubiksCube-v0",
    "SearchAndRescue-v0",
    "SlidingTilePuzzle-v0",
    "Snake-v1",
    "Sokoban-v0",
    "Sudoku-v0",
    "Sudoku-very-easy-v0",
    "TSP-v1",
    "Tetris-v0",
)
"""Jumanji's ids; a test keeps them in sync."""

CRAFTAX_IDS = (
    "Craftax-Symbolic-v1",
    "Craftax-Pixels-v1",
    "Craftax-Classic-Symbolic-v1",
    "Craftax-Classic-Pixels-v1",
)
"""Craftax's ids; it has no list of its own."""

NAVIX_IDS = (
    "Navix-Empty-5x5-v0",
    "Navix-Empty-6x6-v0",
    "Navix-Empty-8x8-v0",
    "Navix-Empty-16x16-v0",
    "Navix-Empty-Random-5x5-v0",
    "Navix-Empty-Random-6x6-v0",
    "Navix-Empty-Random-8x8-v0",
    "Navix-Empty-Random-16x16-v0",
    "Navix-DoorKey-5x5-v0",
    "Navix-DoorKey-6x6-v0",
    "Navix-DoorKey-8x8-v0",
    "Navix-DoorKey-16x16-v0",
    "Navix-DoorKey-Random-5x5-v0",
    "Navix-DoorKey-Random-6x6-v0",
    "Navix-DoorKey-Random-8x8-v0",
    "Navix-DoorKey-Random-16x16-v0",
    "Navix-FourRooms-v0",
    "Navix-KeyCorridorS3R1-v0",
    "Navix-KeyCorridorS3R2-v0",
    "Navix-KeyCorridorS3R3-v0",
    "Navix-KeyCorridorS4R3-v0",
    "Navix-KeyCorridorS5R3-v0",
    "Navix-KeyCorridorS6R3-v0",
    "Navix-LavaGapS5-v0",
    "Navix-LavaGapS6-v0",
    "Navix-LavaGapS7-v0",
    "Navix-SimpleCrossingS9N1-v0",
    "Navix-SimpleCrossingS9N2-v0",
    "Navix-SimpleCrossingS9N3-v0",
    "Navix-SimpleCrossingS11N5-v0",
    "Navix-Dynamic-Obstacles-5x5-v0",
    "Navix-Dynamic-Obstacles-5x5-Random-v0",
    "Navix-Dynamic-Obstacles-6x6-v0",
    "Navix-Dynamic-Obstacles-6x6-Random-v0",
    "Navix-Dynamic-Obstacles-8x8-v0",
    "Navix-Dynamic-Obstacles-16x16-v0",
    "Navix-DistShift1-v0",
    "Navix-DistShift2-v0",
    "Navix-GoToDoor-5x5-v0",
    "Navix-GoToDoor-6x6-v0",
    "Navix-GoToDoor-8x8-v0",
)
"""The ids that navix 0.7 and navix 4 share; a test keeps them in sync. The others of navix 4 are
found if it is installed."""

GYMNASIUM_IDS = (
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "LunarLander-v3",
    "LunarLanderContinuous-v3",
    "BipedalWalker-v3",
    "FrozenLake-v1",
    "Taxi-v4",
    "CliffWalking-v1",
    "Blackjack-v1",
)
"""Some ids of gymnasium; the others are found if it is installed. They step outside jax."""

ENVPOOL_IDS = (
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "Pong-v5",
    "Breakout-v5",
    "HalfCheetah-v4",
)
"""Some of EnvPool's ids; the others are found if it is installed. They step outside jax."""

ALE_IDS = ("pong", "breakout", "space_invaders", "ms_pacman", "qbert", "seaquest")
"""Some of ale-py's games; the others are found if it is installed. They step outside jax."""

EXACT_IDS = (
    "garnet",
    "corridor",
    "drift",
    "lqr",
    "rock-paper-scissors",
    "bandit",
    "continuous-bandit",
    "arm",
)
"""Environments with known values and gradients: `jaxrl_envs.exact`."""


class Family(NamedTuple):
    """A family of environments.

    Attributes:
      ids: names known without importing the library.
      maker: `module:function` of the adapter, from a name to an environment.
      library: module that it requires; empty if jaxrl installs it.
      has_more: whether the library may have more names, listed by the adapter's `names()`.
    """

    ids: tuple[str, ...]
    maker: str
    library: str = ""
    has_more: bool = False


FAMILIES = {
    "jaxrl": Family(EXACT_IDS, "jaxrl_envs.exact.catalogue:make"),
    "gymnax": Family(GYMNAX_IDS, "jaxrl_envs.gymnax:GymnaxEnv.make"),
    "brax": Family(BRAX_IDS, "jaxrl_envs.brax:make", "brax"),
    "jumanji": Family(JUMANJI_IDS, "jaxrl_envs.jumanji:make", "jumanji", has_more=True),
    "craftax": Family(CRAFTAX_IDS, "jaxrl_envs.craftax:CraftaxEnv.make", "craftax"),
    "navix": Family(NAVIX_IDS, "jaxrl_envs.navix:make", "navix", has_more=True),
    "gymnasium": Family(GYMNASIUM_IDS, "jaxrl_envs.gymnasium:make", "gymnasium", has_more=True),
    "envpool": Family(ENVPOOL_IDS, "jaxrl_envs.envpool:make", "envpool", has_more=True),
    "ale": Family(ALE_IDS, "jaxrl_envs.ale:make", "ale_py", has_more=True),
}


def list_ids() -> list[str]:
    """All ids that `make` knows, apart from those registered by user code."""
    return [f"{family}/{name}" for family, its in FAMILIES.items() for name in its.ids]


def check_id(env_id: str) -> None:
    """Raises ValueError for an unknown id and names the closest known ones.

    For an import path, `module:function`, only the syntax is checked.
    """
    if ":" in env_id:
        module, _, attribute = env_id.partition(":")
        if not (
            all(part.isidentifier() for part in module.split(".")) and attribute.isidentifier()
        ):
            raise InvalidValue(f"{env_id!r} is not an import path: use package.module:function")
        return
    family, _, name = env_id.partition("/")
    its = FAMILIES.get(family, Family((), ""))
    # Programs can register environments, but only in libraries that they have imported.
    registers = family in sys.modules and family in FAMILIES
    installed = not its.library or importlib.util.find_spec(its.library) is not None
    if name in its.ids:
        if not installed:
            remedy = f"pip install 'jaxrl[{extra_of(family)}]'"
            raise InvalidValue(f"{env_id} needs {EXTRAS[family]}: {remedy}")
        return
    known = list_ids()
    if (its.has_more and installed) or registers:
        adapter = importlib.import_module(its.maker.partition(":")[0])
        names: list[str] = adapter.names() if hasattr(adapter, "names") else []
        if name in names:
            return
        known += [f"{family}/{other}" for other in names if other not in its.ids]
    near = difflib.get_close_matches(env_id, known, n=3, cutoff=0.4)
    near = near or [i for i in known if env_id.lower() in i.lower()][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "`jaxrl list` shows them all"
    raise InvalidValue(f"there is no environment {env_id!r}: {hint}")


def steps_are_small(env_id: str) -> bool:
    """Whether a step and an observation are known to be small, as in classic control."""
    family, _, name = env_id.partition("/")
    return family in ("gymnax", "jaxrl") and not name.endswith("-MinAtar")


def make(env_id: Any, /, **params: Any) -> Any:
    """Builds an environment.

    Args:
      env_id: an id such as "gymnax/CartPole-v1" or "jumanji/Snake-v1"; an import path,
        "mypackage.module:make_env", where `make_env(**params)` returns the environment; or an
        environment object of a supported library, see `adapt`. Environments that your program
        registers with gymnax, brax, Jumanji or navix also have ids, such as "gymnax/MyEnv-v0".
      **params: environment parameters to change, for example `length=0.7`, or `backend="spring"`
        for brax.

    Raises:
      ValueError: an unknown id (the closest ones are named) or parameter, a library that is not
        installed, or an invalid import path.
      TypeError: the object, or the result of your function, is not an environment.
      RuntimeError: the environment needs something unavailable, such as a download.
    """
    if not isinstance(env_id, str):
        return adapt(env_id, **params)
    check_id(env_id)
    from jaxrl.xla.precision import in_float32  # lazy: listing ids does not need jax
    from jaxrl.xla.transfers import transfers_allowed

    return transfers_allowed(in_float32(_made))(env_id, params)


def _made(env_id: str, params: dict[str, Any]) -> Any:
    if ":" in env_id:
        return _imported(env_id, params)
    family, _, name = env_id.partition("/")
    module, _, function = FAMILIES[family].maker.partition(":")
    # Lazy: the library of a family is imported when it is used.
    adapter = importlib.import_module(module)
    try:
        return as_environment(operator.attrgetter(function)(adapter)(name, **params))
    except (OSError, EOFError) as error:  # EOFError: an earlier download was cut short
        if name not in getattr(adapter, "NEEDS_NETWORK", ()):
            raise
        raise Unable(f"{env_id} could not download its data: {error}") from error


def _check_call(function: Any, given: dict[str, Any], env_id: str) -> None:
    """Raises TypeError where the function needs more than it is given."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some builtins have none
        return
    try:
        signature.bind(**given)
    except TypeError as error:
        raise InvalidType(
            f"{env_id} cannot be called with {', '.join(given) or 'no parameters'}: {error}"
        ) from None


def _imported(env_id: str, params: dict[str, Any]) -> Any:
    """Builds the environment from the function (or class) at an import path."""
    from jaxrl.xla import deadlock  # lazy: listing ids does not need jax
    from jaxrl_envs.parameters import fitted

    module_name, _, attribute = env_id.partition(":")
    # It may call LAPACK, which is only known once it is traced, after jax has started.
    deadlock.protect()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not is_missing(module_name, error):
            raise
        raise InvalidValue(
            f"there is no module {error.name!r} for {env_id!r}: run where it can be imported"
        ) from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=3, cutoff=0.4)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        raise InvalidValue(f"{module_name} has no {attribute!r}{hint}")
    env = getattr(module, attribute)
    is_pair = type(env) is tuple and library_of(env) is not None  # gymnax's (env, params)
    if isinstance(env, type) or not (is_pair or hasattr(env, "step")):
        if not callable(env):
            raise InvalidType(
                f"{env_id} is of type {type(env).__name__}: use a function or a class"
            )
        given = fitted(env, params, env_id)
        _check_call(env, given, env_id)
        make_env = functools.partial(env, **given)
        env = make_env()
        if library_of(env) == "gymnasium":
            from jaxrl_envs.gymnasium import GymnasiumEnv  # lazy: gymnasium is optional

            return as_environment(GymnasiumEnv(make_env, env_id))
    elif params:
        raise InvalidValue(f"{env_id} is already an environment and takes no parameters")
    try:
        return adapt(env)
    except TypeError as error:
        raise InvalidType(f"{env_id} did not return an environment: {error}") from error
