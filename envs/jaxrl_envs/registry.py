"""Ids of environments: `family/name`, or `module:function`. Listing them imports no library."""

import difflib
import importlib
import importlib.util
from typing import Any

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


def list_ids() -> list[str]:
    """All ids that `make` knows without further registration."""
    return [
        *(f"gymnax/{name}" for name in GYMNAX_IDS),
        *(f"brax/{name}" for name in BRAX_IDS),
    ]


def check_id(env_id: str) -> None:
    """Raises ValueError for an unknown id, with the nearest known ones.

    Of your own environment, `module:function`, only the form is looked at.
    """
    if ":" in env_id:
        module, _, attribute = env_id.partition(":")
        if not (
            all(part.isidentifier() for part in module.split(".")) and attribute.isidentifier()
        ):
            raise ValueError(f"{env_id!r} is no import path: write package.module:function")
        return
    if env_id in list_ids():
        if env_id.startswith("brax/") and importlib.util.find_spec("brax") is None:
            raise ValueError(f"{env_id} needs brax: pip install 'jaxrl[brax]'")
        return
    near = difflib.get_close_matches(env_id, list_ids(), n=3, cutoff=0.4)
    near = near or [i for i in list_ids() if env_id.lower() in i.lower()][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "`jaxrl list` shows them all"
    raise ValueError(f"there is no environment {env_id!r}: {hint}")


def make(env_id: str, **params: Any) -> Any:
    """Builds an environment.

    Args:
      env_id: "gymnax/CartPole-v1" or "brax/ant", say, or the import path of your own:
        "mypackage.module:make_env", where `make_env(**params)` returns the environment.
      **params: parameters of the environment to change, for example `length=0.7`, and for brax
        `backend="spring"`.

    Raises:
      ValueError: an unknown id (the nearest ones are named) or parameter, a family whose library is
        not installed, or an import path that leads nowhere.
      TypeError: your function returned something that is no environment.
      RuntimeError: the environment needs something that cannot be had, a download for instance.
    """
    check_id(env_id)
    if ":" in env_id:
        return _imported(env_id, params)
    family, _, name = env_id.partition("/")
    # Deferred: the library of a family is imported when it is used.
    if family == "brax":
        from jaxrl_envs import brax

        return brax.make(name, **params)

    from jaxrl_envs import gymnax

    try:
        return gymnax.GymnaxEnv.make(name, **params)
    except (OSError, EOFError) as error:  # EOFError: an earlier download was cut short
        if name not in gymnax.NEEDS_NETWORK:
            raise
        raise RuntimeError(f"{env_id} downloads its data, and that failed: {error}") from error


def _imported(env_id: str, params: dict[str, Any]) -> Any:
    """The environment that the function (or class) at an import path makes."""
    module_name, _, attribute = env_id.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise ValueError(
            f"there is no module {error.name!r} for {env_id!r}: run where it can be imported"
        ) from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=3, cutoff=0.4)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"{module_name} has no {attribute!r}{hint}")
    env = getattr(module, attribute)
    if isinstance(env, type) or not hasattr(env, "step"):
        if not callable(env):
            raise TypeError(f"{env_id} is of type {type(env).__name__}: name a function or a class")
        env = env(**params)
    elif params:
        raise ValueError(f"{env_id} is an environment already and takes no parameters")
    missing = [name for name in ("spec", "reset", "step") if not hasattr(env, name)]
    if missing:
        raise TypeError(
            f"{env_id} made a value of type {type(env).__name__}, which has no "
            f"{' and no '.join(missing)}: it is no environment"
        )
    return env
