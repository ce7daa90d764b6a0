"""Ids of environments: `family/name`. Listing them imports no family's library."""

import difflib
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


def list_ids() -> list[str]:
    """All ids that `make` knows without further registration."""
    return [f"gymnax/{name}" for name in GYMNAX_IDS]


def check_id(env_id: str) -> None:
    """Raises ValueError for an unknown id, with the nearest known ones."""
    if env_id in list_ids():
        return
    near = difflib.get_close_matches(env_id, list_ids(), n=3, cutoff=0.4)
    near = near or [i for i in list_ids() if env_id.lower() in i.lower()][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "`jaxrl list` shows them all"
    raise ValueError(f"there is no environment {env_id!r}: {hint}")


def make(env_id: str, **params: Any) -> Any:
    """Builds an environment.

    Args:
      env_id: for example "gymnax/CartPole-v1".
      **params: parameters of the environment to change, for example `length=0.7`.

    Raises:
      ValueError: an unknown id (the nearest ones are named) or parameter.
      RuntimeError: the environment needs something that cannot be had, a download for instance.
    """
    check_id(env_id)
    name = env_id.removeprefix("gymnax/")
    from jaxrl_envs import gymnax  # deferred: the library of a family is imported when it is used

    try:
        return gymnax.GymnaxEnv.make(name, **params)
    except (OSError, EOFError) as error:  # EOFError: an earlier download was cut short
        if name not in gymnax.NEEDS_NETWORK:
            raise
        raise RuntimeError(f"{env_id} downloads its data, and that failed: {error}") from error
