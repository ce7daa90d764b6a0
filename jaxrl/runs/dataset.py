"""Data sets of recorded episodes: a directory with dataset.json and dataset.npz, without pickle.

dataset.npz has one array for each leaf of a `Transition`, `[D, ...]`, episode after episode: `obs`,
`action`, `reward`, `terminated`, `truncated`, `next_obs` and `episode`, the number of the episode.
Leaves of a tree have names such as `obs.image`. dataset.json describes them: environment, spaces,
the return and length of each episode, what recorded them, versions, and a checksum.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import Policy
from jaxrl.engine.data import check_data
from jaxrl.engine.evaluate import PATIENCE
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.environment import Environment
from jaxrl.errors import InvalidValue
from jaxrl.runs.directory import plain, versions
from jaxrl.runs.disk import replace, user_path, writing
from jaxrl.runs.minari_data import minari_episodes
from jaxrl.runs.run_config import MINARI
from jaxrl.trees import named_leaves
from jaxrl.types import EnvSpec, Key, PyTree, Stream, Transition, sample_action, stream
from jaxrl.validation import check_whole
from jaxrl.xla.precision import in_float32
from jaxrl.xla.transfers import transfers_allowed
from jaxrl_envs.objects import as_environment

ARRAYS, MANIFEST = "dataset.npz", "dataset.json"
SCHEMA_VERSION = 1
AT_ONCE = 256
"""Episodes that are recorded at the same time."""
STRIDE = 64
"""Steps between two looks at whether all episodes have ended."""
PARTS = ("obs", "action", "reward", "terminated", "truncated", "next_obs")


class DamagedDataset(InvalidValue):
    """A file of a data set is damaged."""

    @classmethod
    def of(cls, file: Path, why: str) -> "DamagedDataset":
        """The error for a file, with the reason."""
        return cls(f"{file} is damaged: {why}: record it again")


@transfers_allowed
@in_float32
def record_episodes(
    policy: Policy,
    env: Environment,
    key: Key,
    *,
    num_episodes: int = 100,
    max_steps: int | None = None,
) -> Transition:
    """Plays whole episodes and returns their transitions.

    Args:
      policy: acts on raw observations, as for `evaluate`.
      env: one environment.
      key: for resets, actions and steps.
      num_episodes: number of episodes.
      max_steps: steps after which an episode is cut off, as truncated; None for the environment's
        limit, or 10,000 if it has none.

    Returns:
      Transitions `[D, ...]` as NumPy arrays, episode after episode, with the episode's number in
      `info["episode"]`, `int32[D]`.

    Raises:
      ValueError: `num_episodes` or `max_steps` is below 1.
    """
    check_whole("num_episodes", num_episodes)
    check_whole("max_steps", max_steps, or_none=True)
    env = as_environment(env)
    limit = max_steps or env.spec.max_steps or PATIENCE
    num = min(num_episodes, AT_ONCE)
    envs = VectorEnv(env, num, "pool", 1)  # what follows an episode is thrown away
    reset = jax.jit(envs.reset)
    start = getattr(policy, "initial_carry", lambda num: ())(num)

    @jax.jit
    def play(env_state: Any, carry: PyTree, key: Key) -> Any:
        found = rollout(policy, envs, env_state, carry, start, key, STRIDE)
        return found[0], found[1], found[2].steps.replace(extras=(), info={})

    groups: list[Transition] = []
    first = 0
    while first < num_episodes:
        group_key = jax.random.fold_in(key, first)
        steps: list[Any] = []
        state, carry = reset(group_key), start
        step_keys = stream(group_key, Stream.ROLLOUT)
        ended = np.zeros(num, bool)
        while not ended.all() and len(steps) * STRIDE < limit:
            state, carry, new = play(state, carry, jax.random.fold_in(step_keys, len(steps)))
            steps.append(jax.device_get(new))
            ended |= (steps[-1].terminated | steps[-1].truncated).any(axis=0)
        group = jax.tree.map(lambda *x: np.concatenate(x), *steps)
        wanted = min(num, num_episodes - first)
        groups.append(_first_episodes(group, wanted, limit, first))
        first += wanted
    return jax.tree.map(lambda *x: np.concatenate(x), *groups)


def _first_episodes(steps: Transition, number: int, limit: int, first: int) -> Transition:
    """The first episodes of `number` copies, one after the other, from steps `[T, N, ...]`."""
    steps = jax.tree.map(lambda x: x[:limit, :number], steps)
    done = steps.terminated | steps.truncated
    counts = np.cumsum(done, axis=0) - done == 0  # [T, N]
    last = counts & (np.cumsum(counts, axis=0) == counts.sum(axis=0)[None])
    steps = steps.replace(truncated=steps.truncated | (last & ~done))
    episode = np.broadcast_to(first + np.arange(number, dtype=np.int32), counts.shape)
    steps = steps.replace(info={"episode": episode})
    return jax.tree.map(lambda x: np.swapaxes(x, 0, 1)[counts.T], steps)


@transfers_allowed
@in_float32
def save_dataset(
    path: Path | str,
    data: PyTree,
    env: Environment,
    *,
    environment: str | None = None,
    environment_parameters: Mapping[str, Any] = {},
    source: str = "",
) -> None:
    """Writes transitions into the directory `path`.

    Args:
      path: a directory, created if missing; an existing data set is replaced.
      data: transitions `[D, ...]`, episode after episode; `info["episode"]` numbers the episodes,
        and without it each end of an episode begins the next. Other entries of `info`, and
        `extras`, are left out.
      env: their environment.
      environment: its id; None for its class.
      environment_parameters: parameters that differ from their defaults.
      source: what recorded them, in words.

    Raises:
      ValueError: the transitions do not fit the environment, or are not finite.
      WriteError: they cannot be written.
    """
    path = user_path(path)
    data = jax.tree.map(np.asarray, data)
    check_data(env.spec, data)
    episode = data.info.get("episode")
    if episode is None:
        done = data.terminated | data.truncated
        episode = np.cumsum(done) - done
    _, episode, lengths = np.unique(np.asarray(episode), return_inverse=True, return_counts=True)
    arrays: dict[str, Any] = {"episode": episode.astype(np.int32)}
    for part in PARTS:
        arrays |= {_key(part, k): x for k, x in named_leaves(getattr(data, part)).items()}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    content = file.getvalue()
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "environment": environment or type(env).__name__,
        "environment_parameters": dict(environment_parameters),
        "source": source,
        "transitions": len(episode),
        "episodes": len(lengths),
        "returns": np.bincount(episode, weights=data.reward),
        "lengths": lengths,
        "action_space": str(env.spec.action),
        "arrays": {name: f"{x.dtype}{list(x.shape)}" for name, x in arrays.items()},
        "versions": versions(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    replace(path / ARRAYS, content)
    replace(path / MANIFEST, json.dumps(plain(manifest), indent=2) + "\n")


@transfers_allowed
@in_float32
def load_dataset(path: Path | str, env: Environment) -> Transition:
    """Reads a data set as transitions `[D, ...]`, for `train(..., data=...)`.

    Args:
      path: the directory; or `minari:ID` for a data set of Minari, if that package is installed.
      env: the environment, whose spaces the data must fit.

    Raises:
      ValueError: there is no data set, it is damaged, does not fit the spaces of the environment,
        or holds numbers that are not finite.
    """
    foreign = str(path).startswith(MINARI)
    data, recorded_in = minari_episodes(path) if foreign else _read(user_path(path), env)
    try:
        check_data(env.spec, data)
    except ValueError as error:
        raise InvalidValue(f"{path} is of {recorded_in}: {error}") from error
    return data


def _read(path: Path, env: Environment) -> tuple[Transition, str]:
    """The transitions of a directory, and the name of their environment."""
    manifest = read_manifest(path)
    content = _content(path / ARRAYS)
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise DamagedDataset.of(path / ARRAYS, "its checksum is not that of dataset.json")
    try:
        with np.load(io.BytesIO(content)) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DamagedDataset.of(path / ARRAYS, str(error)) from error
    return _transitions(arrays, env.spec, path), manifest["environment"]


def read_manifest(path: Path | str) -> dict[str, Any]:
    """The content of dataset.json.

    Raises:
      ValueError: there is none, or it cannot be read.
    """
    file = user_path(path) / MANIFEST
    try:
        manifest = json.loads(_content(file))
    except ValueError as error:
        if isinstance(error, InvalidValue):
            raise
        raise DamagedDataset.of(file, str(error)) from error
    if not isinstance(manifest, dict) or not {"schema_version", "sha256"} <= manifest.keys():
        raise DamagedDataset.of(file, "it describes no data set")
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise InvalidValue(
            f"{file} has schema version {manifest['schema_version']}, and this version of jaxrl "
            f"reads up to {SCHEMA_VERSION}: update jaxrl"
        )
    return {"environment": "an unknown environment", **manifest}


def stand_in(spec: EnvSpec) -> Transition:
    """One transition of zeros, where only the shapes of data matter."""
    obs = spec.dummy_observation(1)
    action = sample_action(spec.action, jax.random.key(0))
    end = jnp.zeros(1, bool)
    one = Transition(
        obs=obs,
        action=jax.tree.map(lambda x: x[None], action),
        reward=jnp.zeros(1, jnp.float32),
        terminated=end,
        truncated=end,
        next_obs=obs,
    )
    return one.replace(info={"episode": jnp.zeros(1, jnp.int32)})


def _key(part: str, leaf: str) -> str:
    return f"{part}.{leaf}" if leaf else part


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidValue(
            f"{file.parent} is not a data set: {file.name}: {error.strerror}; record one with "
            "jaxrl record RUN"
        ) from error


def _transitions(arrays: Mapping[str, np.ndarray], spec: EnvSpec, path: Path) -> Transition:
    """Transitions structured like those of the spec."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.eval_shape(lambda key: sample_action(spec.action, key), key)
    likes: dict[str, Any] = dict.fromkeys(PARTS, 0.0)
    likes |= {"obs": spec.observation, "next_obs": spec.observation, "action": action}
    wanted = {part: [_key(part, leaf) for leaf in named_leaves(likes[part])] for part in PARTS}
    missing = [name for names in wanted.values() for name in names if name not in arrays]
    if missing or "episode" not in arrays:
        raise InvalidValue(
            f"{path} has no {', '.join(missing or ['episode'])}, which this environment needs: it "
            f"has {', '.join(arrays)}"
        )
    parts: Any = {
        part: jax.tree.unflatten(jax.tree.structure(likes[part]), [arrays[k] for k in names])
        for part, names in wanted.items()
    }
    info: Any = {"episode": arrays["episode"]}
    return Transition(**parts, info=info)
