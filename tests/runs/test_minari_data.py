"""Data sets of Minari, which the tests write themselves by gymnasium's CartPole."""

import builtins
import warnings
from types import SimpleNamespace

import gymnasium
import jax
import minari
import numpy as np
import pytest
from helpers.commands import run_in_process
from minari.data_collector import EpisodeBuffer

import jaxrl_envs
from jaxrl.errors import InvalidValue
from jaxrl.runs.dataset import load_dataset
from jaxrl.runs.minari_data import minari_transitions

NAME = "cartpole/test-v0"


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """Three episodes: one ends, one is cut off by its limit, one has no reason to end."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    env = gymnasium.make("CartPole-v1", max_episode_steps=12)
    kept, buffers = [], []
    for seed, (actions, length) in enumerate([((1,), 99), ((0, 1), 99), ((0, 1), 5)]):
        obs, _ = env.reset(seed=seed)
        episode = []
        for t in range(length):
            action = actions[t % len(actions)]
            following, reward, terminated, truncated, _ = env.step(action)
            episode.append((obs, action, reward, terminated, truncated, following))
            obs = following
            if terminated or truncated:
                break
        kept += episode
        before, *rest, _ = zip(*episode, strict=True)
        buffers.append(EpisodeBuffer(seed, seed, None, [*before, obs], *map(list, rest)))
    with warnings.catch_warnings():  # an author, a link to the code, ...
        warnings.simplefilter("ignore", UserWarning)
        minari.create_dataset_from_buffers(NAME, buffers, env=env)
    return [np.array(x) for x in zip(*kept, strict=True)]


def test_transitions_are_those_that_gymnasium_returned(steps):
    obs, action, reward, terminated, truncated, following = steps
    data = load_dataset(f"minari:{NAME}", jaxrl_envs.make("gymnax/CartPole-v1"))
    np.testing.assert_array_equal(data.obs, obs)
    np.testing.assert_array_equal(data.next_obs, following)
    np.testing.assert_array_equal(data.action, action)
    np.testing.assert_array_equal(data.reward, reward)
    np.testing.assert_array_equal(data.terminated, terminated)
    truncated[-1] = True  # an episode that was left
    np.testing.assert_array_equal(data.truncated, truncated)
    assert terminated.sum() == 1
    assert truncated.sum() == 2
    ends = np.flatnonzero(terminated | truncated)
    np.testing.assert_array_equal(
        np.diff(data.info["episode"], prepend=0).nonzero()[0], ends[:-1] + 1
    )
    assert data.action.dtype == np.int32


def test_what_does_not_fit_is_refused_by_name(steps):
    with pytest.raises(InvalidValue, match="minari:cartpole/test-v0 is of CartPole-v1: data does"):
        load_dataset(f"minari:{NAME}", jaxrl_envs.make("gymnax/Pendulum-v1"))
    with pytest.raises(InvalidValue, match="no data set minari:cartpole/none-v0: minari download"):
        load_dataset("minari:cartpole/none-v0", jaxrl_envs.make("gymnax/CartPole-v1"))


def test_without_the_package_the_remedy_is_named(monkeypatch):
    load = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "minari":
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InvalidValue, match=r"pip install 'jaxrl\[minari\]'"):
        load_dataset(f"minari:{NAME}", jaxrl_envs.make("gymnax/CartPole-v1"))


def test_the_command_learns_from_it(steps, tmp_path):
    status, *_ = run_in_process(
        "train", "cql", "gymnax/CartPole-v1", "--dataset", f"minari:{NAME}", "--total-steps", "2",
        "--num-updates", "2", "--hidden-sizes", "4", "--num-eval-episodes", "2", "--no-preset",
        "--run-dir", tmp_path / "run",
    )  # fmt: skip
    assert status == 0
    assert run_in_process("resume", tmp_path / "run", "--total-steps", "4")[0] == 0


def episode(obs, **changes):
    """Two steps with these observations."""
    fields = {
        "observations": obs, "actions": np.array([0, 1]), "rewards": np.zeros(2),
        "terminations": np.array([False, True]), "truncations": np.array([False, True]),
    }  # fmt: skip
    return SimpleNamespace(**fields | changes)


def test_episodes_of_trees_images_and_double_precision():
    obs = {"image": np.arange(3, dtype=np.uint8), "pair": (np.arange(3.0), np.arange(3))}
    found = minari_transitions(4, episode(obs))
    assert jax.tree.map(lambda x: str(x.dtype), found.obs) == {
        "image": "uint8", "pair": ("float32", "int32"),
    }  # fmt: skip
    np.testing.assert_array_equal(found.obs["image"], [0, 1])
    np.testing.assert_array_equal(found.next_obs["pair"][0], [1.0, 2.0])
    assert found.terminated.tolist() == [False, True]
    assert found.truncated.tolist() == [False, False]  # it terminated, whatever else
    assert found.info["episode"].tolist() == [4, 4]


def test_words_are_refused():
    with pytest.raises(InvalidValue, match="must be numbers, not <U2"):
        minari_transitions(0, episode({"mission": ["go", "to", "door"]}))


def test_damaged_files_are_refused_by_name(steps, tmp_path):
    (file,) = (tmp_path / "sets").rglob("*.hdf5")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InvalidValue, match=f"minari:{NAME} cannot be read: "):
        load_dataset(f"minari:{NAME}", jaxrl_envs.make("gymnax/CartPole-v1"))
