"""Data sets of Minari (minari.farama.org), as transitions."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.errors import InvalidValue
from jaxrl.runs.run_config import MINARI
from jaxrl.types import Transition


def minari_episodes(path: Path | str) -> tuple[Transition, str]:
    """The transitions `[D, ...]` of a data set, as NumPy arrays, and its environment's name.

    Floats become float32 and integers int32; bytes stay. An episode that ends without a reason is
    truncated.

    Args:
      path: `minari:ID`.

    Raises:
      ValueError: the package or the data set is missing, or has no episodes.
    """
    name = str(path).removeprefix(MINARI)
    try:
        import minari
    except ImportError as error:
        raise InvalidValue(
            f"{path} needs the package minari: pip install 'jaxrl[minari]'"
        ) from error
    try:
        dataset = minari.load_dataset(name)
        episodes = [
            minari_transitions(number, episode)
            for number, episode in enumerate(dataset.iterate_episodes())
        ]
    except FileNotFoundError as error:
        raise InvalidValue(f"there is no data set {path}: minari download {name}") from error
    except ImportError as error:  # of the package that reads this kind of file
        raise InvalidValue(
            f"{path} needs another package: {error}: pip install 'minari[hdf5,arrow]'"
        ) from error
    except (OSError, KeyError, ValueError) as error:
        raise InvalidValue(f"{path} cannot be read: {error}") from error
    if not episodes:
        raise InvalidValue(f"{path} has no episodes")
    env_spec = getattr(dataset, "env_spec", None)
    whole = jax.tree.map(lambda *x: np.concatenate(x), *episodes)
    return whole, getattr(env_spec, "id", "an unknown environment")


def minari_transitions(number: int, episode: Any) -> Transition:
    """The transitions of one episode.

    Args:
      number: the number of the episode.
      episode: an `EpisodeData` of minari, with one observation more than actions.
    """
    obs = jax.tree.map(_narrow, episode.observations)
    terminated: Any = np.asarray(episode.terminations, bool)
    truncated: Any = np.asarray(episode.truncations, bool) & ~terminated
    reward: Any = np.asarray(episode.rewards, np.float32)
    index: Any = np.full(len(terminated), number, np.int32)
    truncated[-1] |= ~terminated[-1]
    return Transition(
        obs=jax.tree.map(lambda x: x[:-1], obs),
        action=jax.tree.map(_narrow, episode.actions),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        next_obs=jax.tree.map(lambda x: x[1:], obs),
        info={"episode": index},
    )


def _narrow(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise InvalidValue(f"observations and actions must be numbers, not {x.dtype}")
    return x.astype({"f": np.float32, "i": np.int32}.get(x.dtype.kind, x.dtype))
