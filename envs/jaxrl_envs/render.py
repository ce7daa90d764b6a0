"""Pictures of an episode: gymnax's as a moving picture, brax's as a page for a browser."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.errors import InvalidValue
from jaxrl.types import PyTree
from jaxrl_envs.gymnax import GymnaxEnv

ENDINGS = {"gymnax": ".gif", "brax": ".html"}


def ending(env: Any) -> str:
    """What a file for this environment ends in.

    Raises:
      ValueError: there are no pictures of it.
    """
    if isinstance(env, GymnaxEnv):
        return ENDINGS["gymnax"]
    if type(getattr(env, "env", None)).__name__ == "BraxEnv":
        return ENDINGS["brax"]
    raise InvalidValue(
        f"there are no pictures of {type(env).__name__}: only of gymnax's and brax's"
    )


def render(env: Any, states: PyTree, rewards: np.ndarray, path: Path) -> None:
    """Draws one episode.

    Args:
      env: as `jaxrl_envs.make` built it.
      states: of the environment before each step, leaves `[T, ...]`.
      rewards: `float[T]`.
      path: the file to write; it ends in `ending(env)`.

    Raises:
      ValueError: there are no pictures of this environment, or what draws them is not installed.
    """
    ending(env)
    if isinstance(env, GymnaxEnv):
        _animate(env, states, rewards, path)
    else:
        _write_page(env.env, states, path)


def _animate(env: GymnaxEnv, states: PyTree, rewards: np.ndarray, path: Path) -> None:
    """By gymnax's own visualizer, which draws classic control with gymnasium's."""
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # of pygame: neither screen nor sound
        os.environ.setdefault(name, "dummy")
    import matplotlib.pyplot as plt  # gymnax's visualizer asks for it, too

    backend = plt.get_backend()
    plt.switch_backend("Agg")
    try:
        from gymnax.visualize import Visualizer

        sequence = [jax.tree.map(lambda x, i=i: x[i], states) for i in range(len(rewards))]
        returns = np.cumsum(rewards) - rewards  # until then
        Visualizer(env.env, env.params, sequence, returns).animate(str(path))
    except ImportError as error:
        raise InvalidValue(
            f"{error.name} is not installed, which draws this environment: "
            "pip install 'jaxrl[render]'"
        ) from error
    except AttributeError as error:  # gymnax draws some of its environments only
        raise InvalidValue(f"gymnax has no pictures of {env.env.name}") from error
    finally:
        plt.switch_backend(backend)


def _write_page(env: Any, states: PyTree, path: Path) -> None:
    """By brax's own viewer, a page that loads three.js from the network when it is opened."""
    from brax.io import html

    physics = env._physics()
    poses = states[0].pipeline_state
    num = jax.tree.leaves(poses)[0].shape[0]
    sequence = [jax.tree.map(lambda x, i=i: x[i], poses) for i in range(num)]
    system = physics.sys.tree_replace({"opt.timestep": env.env.dt})
    page = html.render(system, sequence, height="100vh", colab=False)
    path.write_text(page, encoding="utf-8")
