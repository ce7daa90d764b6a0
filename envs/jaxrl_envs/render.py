"""Rendering of episodes: gymnax as a GIF, brax as an HTML page."""

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
    """The file extension for this environment.

    Raises:
      ValueError: it cannot be rendered.
    """
    if isinstance(env, GymnaxEnv):
        return ENDINGS["gymnax"]
    if type(getattr(env, "env", None)).__name__ == "BraxEnv":
        return ENDINGS["brax"]
    raise InvalidValue(
        f"{type(env).__name__} cannot be rendered: only gymnax and brax environments can"
    )


def render(env: Any, states: PyTree, rewards: np.ndarray, path: Path) -> None:
    """Renders one episode.

    Args:
      env: an environment built by `jaxrl_envs.make`.
      states: environment states before each step, leaves `[T, ...]`.
      rewards: `float[T]`.
      path: the file to write, with the extension `ending(env)`.

    Raises:
      ValueError: the environment cannot be rendered, or its renderer is not installed.
    """
    ending(env)
    if isinstance(env, GymnaxEnv):
        _animate(env, states, rewards, path)
    else:
        _write_page(env.env, states, path)


def _animate(env: GymnaxEnv, states: PyTree, rewards: np.ndarray, path: Path) -> None:
    """Renders with gymnax's visualizer, which uses gymnasium for classic control."""
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # pygame without screen and sound
        os.environ.setdefault(name, "dummy")
    import matplotlib.pyplot as plt  # gymnax's visualizer imports it anyway

    backend = plt.get_backend()
    plt.switch_backend("Agg")
    try:
        from gymnax.visualize import Visualizer

        sequence = [jax.tree.map(lambda x, i=i: x[i], states) for i in range(len(rewards))]
        returns = np.cumsum(rewards) - rewards  # before each step
        Visualizer(env.env, env.params, sequence, returns).animate(str(path))
    except ImportError as error:
        raise InvalidValue(
            f"{error.name}, which renders this environment, is not installed: "
            "pip install 'jaxrl[render]'"
        ) from error
    except AttributeError as error:  # gymnax can render only some of its environments
        raise InvalidValue(f"gymnax cannot render {env.env.name}") from error
    finally:
        plt.switch_backend(backend)


def _write_page(env: Any, states: PyTree, path: Path) -> None:
    """Renders with brax's viewer, a page that loads three.js from the network when opened."""
    from brax.io import html

    physics = env._physics()
    poses = states[0].pipeline_state
    num = jax.tree.leaves(poses)[0].shape[0]
    sequence = [jax.tree.map(lambda x, i=i: x[i], poses) for i in range(num)]
    system = physics.sys.tree_replace({"opt.timestep": env.env.dt})
    page = html.render(system, sequence, height="100vh", colab=False)
    path.write_text(page, encoding="utf-8")
