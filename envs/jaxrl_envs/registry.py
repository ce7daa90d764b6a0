"""Ids of environments: `family/name`, or `module:function`. Listing them imports no library."""

import difflib
import importlib
import importlib.util
import operator
import sys
from typing import Any, NamedTuple

from jaxrl.errors import InvalidType, InvalidValue, Unable
from jaxrl_envs.libraries import library_of
from jaxrl_envs.objects import adapt

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
"""gymnax's ids, written down so that `jaxrl list` need not import it; a test compares them."""

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
"""brax's ids; a test compares them."""


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
"""Jumanji's ids; a test compares them."""

CRAFTAX_IDS = (
    "Craftax-Symbolic-v1",
    "Craftax-Pixels-v1",
    "Craftax-Classic-Symbolic-v1",
    "Craftax-Classic-Pixels-v1",
)
"""Craftax's ids: it keeps no list."""

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
"""The ids that navix 0.7 and navix 4 have both; a test compares them. The rest of navix 4's are
found where it is installed."""

EXACT_IDS = ("garnet", "corridor", "lqr", "rock-paper-scissors", "bandit")
"""Environments whose values and gradients are known: `jaxrl_envs.exact`."""


class Family(NamedTuple):
    """Where the environments of one family come from.

    Attributes:
      ids: the names that are known without the library.
      maker: the module of the adapter, and in it the function from a name to the environment.
      library: the module without which they cannot be had, and the extra that installs it; empty
        where it comes with jaxrl.
      has_more: whether the library may know more names; the adapter's `names()` tells.
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
}


def list_ids() -> list[str]:
    """All ids that `make` knows without further registration."""
    return [f"{family}/{name}" for family, its in FAMILIES.items() for name in its.ids]


def check_id(env_id: str) -> None:
    """Raises ValueError for an unknown id, with the nearest known ones.

    Of your own environment, `module:function`, only the form is looked at.
    """
    if ":" in env_id:
        module, _, attribute = env_id.partition(":")
        if not (
            all(part.isidentifier() for part in module.split(".")) and attribute.isidentifier()
        ):
            raise InvalidValue(f"{env_id!r} is no import path: write package.module:function")
        return
    family, _, name = env_id.partition("/")
    its = FAMILIES.get(family, Family((), ""))
    # What a program has registered itself: only in a library that it has imported.
    registers = family in sys.modules and family in FAMILIES
    installed = not its.library or importlib.util.find_spec(its.library) is not None
    if name in its.ids:
        if not installed:
            raise InvalidValue(f"{env_id} needs {its.library}: pip install 'jaxrl[{its.library}]'")
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


def make(env_id: Any, **params: Any) -> Any:
    """Builds an environment.

    Args:
      env_id: "gymnax/CartPole-v1" or "jumanji/Snake-v1", say, or the import path of your own:
        "mypackage.module:make_env", where `make_env(**params)` returns the environment. What your
        program has registered with gymnax, brax, Jumanji or navix has an id, too:
        "gymnax/MyEnv-v0". Or the environment of such a library as an object, see `adapt`.
      **params: parameters of the environment to change, for example `length=0.7`, and for brax
        `backend="spring"`.

    Raises:
      ValueError: an unknown id (the nearest ones are named) or parameter, a family whose library is
        not installed, or an import path that leads nowhere.
      TypeError: an object, or what your function returned, is no environment.
      RuntimeError: the environment needs something that cannot be had, a download for instance.
    """
    if not isinstance(env_id, str):
        return adapt(env_id, **params)
    check_id(env_id)
    from jaxrl.xla.precision import in_float32  # deferred: a list of ids needs no library
    from jaxrl.xla.transfers import transfers_allowed

    return transfers_allowed(in_float32(_made))(env_id, params)


def _made(env_id: str, params: dict[str, Any]) -> Any:
    if ":" in env_id:
        return _imported(env_id, params)
    family, _, name = env_id.partition("/")
    module, _, function = FAMILIES[family].maker.partition(":")
    # Deferred: the library of a family is imported when it is used.
    adapter = importlib.import_module(module)
    try:
        return operator.attrgetter(function)(adapter)(name, **params)
    except (OSError, EOFError) as error:  # EOFError: an earlier download was cut short
        if name not in getattr(adapter, "NEEDS_NETWORK", ()):
            raise
        raise Unable(f"{env_id} downloads its data, and that failed: {error}") from error


def _imported(env_id: str, params: dict[str, Any]) -> Any:
    """The environment that the function (or class) at an import path makes."""
    from jaxrl.xla import deadlock  # deferred: a list of ids needs no library
    from jaxrl_envs.parameters import fitted

    module_name, _, attribute = env_id.partition(":")
    # Whether it calls LAPACK is seen too late: when it is traced, jax has started.
    deadlock.protect()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise InvalidValue(
            f"there is no module {error.name!r} for {env_id!r}: run where it can be imported"
        ) from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=3, cutoff=0.4)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        raise InvalidValue(f"{module_name} has no {attribute!r}{hint}")
    env = getattr(module, attribute)
    is_pair = type(env) is tuple and library_of(env) is not None  # of gymnax and its parameters
    if isinstance(env, type) or not (is_pair or hasattr(env, "step")):
        if not callable(env):
            raise InvalidType(
                f"{env_id} is of type {type(env).__name__}: name a function or a class"
            )
        env = env(**fitted(env, params, env_id))
    elif params:
        raise InvalidValue(f"{env_id} is an environment already and takes no parameters")
    try:
        return adapt(env)
    except TypeError as error:
        raise InvalidType(f"{env_id} made no environment: {error}") from error
