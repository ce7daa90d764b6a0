"""Recorded data sets: what is recorded, the files, what is refused, and the commands."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.commands import run_in_process
from helpers.environments import (
    BestActionByObservation,
    BestMixedAction,
    Counter,
    MaskedChoice,
    Picture,
)

import jaxrl
from jaxrl.distributions import Categorical
from jaxrl.errors import InvalidValue
from jaxrl.runs.dataset import AT_ONCE, load_dataset, read_manifest, record_episodes, save_dataset
from jaxrl.types import sample_action, split_mask

KEY = jax.random.key(0)


def at_random(env):
    def policy(carry, obs, key):
        if (mask := split_mask(obs)[1]) is not None:
            return carry, Categorical(jnp.zeros(mask.shape), mask).sample(key), ()
        num = jax.tree.leaves(obs)[0].shape[0]
        keys = jax.random.split(key, num)
        return carry, jax.vmap(lambda key: sample_action(env.spec.action, key))(keys), ()

    return policy


def recorded(env, num_episodes=5, **options):
    return record_episodes(at_random(env), env, KEY, num_episodes=num_episodes, **options)


@pytest.mark.parametrize("num_episodes", [1, 5, AT_ONCE + 3])
def test_whole_episodes_are_recorded_one_after_the_other(num_episodes):
    env = Counter(lifetime=3)
    data = recorded(env, num_episodes)
    np.testing.assert_array_equal(data.info["episode"], np.repeat(np.arange(num_episodes), 3))
    np.testing.assert_array_equal(data.obs[:, 1], np.tile([0.0, 1.0, 2.0], num_episodes))
    np.testing.assert_array_equal(data.next_obs[:, 1], data.obs[:, 1] + 1)
    np.testing.assert_array_equal(data.next_obs[:, 0], data.obs[:, 0])
    np.testing.assert_array_equal(data.terminated, np.tile([False, False, True], num_episodes))
    assert not data.truncated.any()
    assert len(set(data.obs[:, 0].tolist())) == num_episodes  # each has its own start


@pytest.mark.parametrize(
    ("env", "options", "length"),
    [(Counter(limit=70), {}, 70), (Counter(lifetime=100), {"max_steps": 66}, 66)],
    ids=["limit", "cut off"],
)
def test_an_episode_that_is_cut_off_is_truncated(env, options, length):
    data = recorded(env, 2, **options)
    assert len(data.reward) == 2 * length
    np.testing.assert_array_equal(np.flatnonzero(data.truncated), [length - 1, 2 * length - 1])
    assert not data.terminated.any()


@pytest.mark.parametrize("env", [Counter(lifetime=3), BestMixedAction(), Picture(), MaskedChoice()])
def test_what_is_saved_is_loaded(env, tmp_path):
    data = recorded(env)
    save_dataset(tmp_path / "set", data, env, source="a test")
    found = load_dataset(tmp_path / "set", env)
    assert jax.tree.structure(found) == jax.tree.structure(data)
    jax.tree.map(np.testing.assert_array_equal, found, data)
    manifest = read_manifest(tmp_path / "set")
    assert manifest["episodes"] == 5
    assert manifest["transitions"] == len(data.reward)
    wanted = [data.reward[data.info["episode"] == i].sum() for i in range(5)]
    np.testing.assert_allclose(manifest["returns"], wanted, rtol=1e-6)
    assert sum(manifest["lengths"]) == len(data.reward)


def test_episodes_without_numbers_end_at_their_ends(tmp_path):
    env = Counter(lifetime=3)
    data = recorded(env)
    save_dataset(tmp_path, data.replace(info={}), env)
    np.testing.assert_array_equal(load_dataset(tmp_path, env).info["episode"], data.info["episode"])


def saved(path, env=Counter(lifetime=3)):  # noqa: B008
    save_dataset(path, recorded(env), env)
    return env


def replace_array(path, name, change):
    """Changes an array and the checksum."""
    import hashlib
    import io

    with np.load(path / "dataset.npz") as file:
        arrays = {key: file[key] for key in file.files}
    arrays[name] = change(arrays[name])
    arrays = {key: x for key, x in arrays.items() if x is not None}
    out = io.BytesIO()
    np.savez(out, **arrays)
    (path / "dataset.npz").write_bytes(out.getvalue())
    manifest = json.loads((path / "dataset.json").read_text())
    manifest["sha256"] = hashlib.sha256(out.getvalue()).hexdigest()
    (path / "dataset.json").write_text(json.dumps(manifest))


def with_nan(x):
    x = x.copy()
    x[4] = np.nan
    return x


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "dataset.json").unlink(), "is not a data set: dataset.json: No such"),
        (lambda path: (path / "dataset.npz").unlink(), "is not a data set: dataset.npz: No such"),
        (lambda path: (path / "dataset.json").write_text("{"), "dataset.json is damaged"),
        (lambda path: (path / "dataset.json").write_text("[]"), "it describes no data set"),
        (lambda path: (path / "dataset.npz").write_bytes(b"PK"), "its checksum is not that of"),
        (lambda path: replace_array(path, "reward", with_nan), "reward is not finite in row 4"),
        (lambda path: replace_array(path, "obs", with_nan), "obs is not finite in row 4"),
        (lambda path: replace_array(path, "reward", lambda x: None), "has no reward, which this"),
        (lambda path: replace_array(path, "reward", lambda x: x[:3]), r"data.obs is float32\[15"),
        (
            lambda path: replace_array(path, "reward", lambda x: x.astype(object)),
            "dataset.npz is damaged: Object arrays cannot be loaded",
        ),
        (lambda path: replace_array(path, "action", lambda x: x + 3), "data.action ranges from"),
    ],
    ids=["no manifest", "no arrays", "not JSON", "a list", "other bytes", "NaN in rewards",
         "NaN in observations", "no rewards", "short", "pickle", "unknown actions"],
)  # fmt: skip
def test_damaged_data_is_refused_by_name(damage, message, tmp_path):
    env = saved(tmp_path)
    damage(tmp_path)
    with pytest.raises(InvalidValue, match=message):
        load_dataset(tmp_path, env)


def test_data_of_another_environment_is_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(InvalidValue, match=r"is of Counter: data does not fit the environment"):
        load_dataset(tmp_path, BestActionByObservation())
    with pytest.raises(InvalidValue, match=r"has no obs.image"):
        load_dataset(tmp_path, Picture())


def test_empty_data_is_refused(tmp_path):
    env = Counter()
    data = jax.tree.map(lambda x: x[:0], recorded(env, 1, max_steps=3))
    with pytest.raises(InvalidValue, match="data has no transitions"):
        save_dataset(tmp_path, data, env)
    agent = jaxrl.agents.BehaviourCloning()
    data = jax.tree.map(jnp.asarray, data)
    with pytest.raises(InvalidValue, match="data has no transitions"):
        jaxrl.train(agent, env, KEY, total_steps=10, data=data)


def test_the_commands_record_clone_resume_and_evaluate(tmp_path):
    """Also after the data set is gone, whatever needs it no more."""
    run, clone = tmp_path / "run", tmp_path / "clone"
    small = ("--no-preset", "--num-eval-episodes", "4", "--hidden-sizes", "8")
    status, *_ = run_in_process(
        "train", "cem", "gymnax/CartPole-v1", "--total-steps", "1", "--run-dir", run,
        "--population-size", "4", "--num-elites", "2", "--max-episode-steps", "20", *small,
    )  # fmt: skip
    assert status == 0
    status, out, _ = run_in_process("record", run, "--episodes", "6")
    assert status == 0
    assert out[-2].startswith("6 episodes, ")
    words = out[-1].partition("jaxrl ")[2].split()
    assert words[:4] == ["train", "behaviour_cloning", "gymnax/CartPole-v1", "--dataset"]
    status, *_ = run_in_process(
        *words, "--total-steps", "200", "--run-dir", clone, *small, "--num-evaluations", "1"
    )
    assert status == 0
    status, out, _ = run_in_process("resume", clone, "--total-steps", "400")
    assert status == 0
    env = jaxrl.load_run(clone).members.training.envs.env
    data = load_dataset(run / "dataset", env)
    save_dataset(run / "dataset", data.replace(reward=data.reward + 1.0), env)
    status, _, err = run_in_process("resume", clone, "--total-steps", "600")
    assert status == 2
    assert "the data, or the expert have changed since the checkpoint" in err[-1]
    for file in (run / "dataset").iterdir():
        file.unlink()
    assert run_in_process("evaluate", clone, "--episodes", "2")[0] == 0
    status, _, err = run_in_process("resume", clone, "--total-steps", "600")
    assert status == 2
    assert "is not a data set: dataset.json: No such file" in err[-1]


def test_the_command_trains_with_an_expert(tmp_path):
    run, pupil = tmp_path / "run", tmp_path / "pupil"
    small = ("--no-preset", "--num-eval-episodes", "4", "--hidden-sizes", "8")
    assert run_in_process(
        "train", "cem", "gymnax/CartPole-v1", "--total-steps", "1", "--run-dir", run,
        "--population-size", "4", "--num-elites", "2", "--max-episode-steps", "20", *small,
    )[0] == 0  # fmt: skip
    words = ("train", "dagger", "gymnax/CartPole-v1", "--total-steps", "512", *small)
    assert run_in_process(*words, "--expert", run, "--run-dir", pupil)[0] == 0
    assert run_in_process("resume", pupil, "--total-steps", "768")[0] == 0
    assert run_in_process("evaluate", pupil, "--episodes", "2")[0] == 0
    assert run_in_process("resume", run, "--total-steps", "1000")[0] == 0
    status, _, err = run_in_process("resume", pupil, "--total-steps", "1024")
    assert status == 2
    assert "the expert have changed since the checkpoint" in err[-1]
    status, _, err = run_in_process(*words)
    assert status == 2
    assert "expert is None" in err[-1]
    status, _, err = run_in_process("train", "cem", "gymnax/CartPole-v1", "--expert", run, *small)
    assert status == 2
    assert "cem has no teacher" in err[-1]
