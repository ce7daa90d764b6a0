"""Policies of runs: loading, exporting and evaluating."""

import base64
import functools
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zlib

import flax.linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from helpers.agents.recurrent import RecurrentPolicyGradient
from helpers.commands import run_in_process
from helpers.environments import (
    BestContinuousAction,
    BestMixedAction,
    Counter,
    MaskedChoice,
    Picture,
    Recall,
)
from helpers.paths import DATA
from helpers.probes import cases

import jaxrl
import jaxrl_envs
from jaxrl import wrappers
from jaxrl.agents import DDPG, DQN, PPO, SAC, FittedQActorCritic
from jaxrl.engine.training import Training
from jaxrl.networks.torsos import CNN
from jaxrl.runs import loaded_policy
from jaxrl.runs.export import export_policy
from jaxrl.runs.fit import fit
from jaxrl.runs.load import load_policy, load_run
from jaxrl.runs.loaded_policy import LoadedPolicy
from jaxrl_envs import render

KEY = jax.random.key(0)
RUNS = DATA
CARTPOLE, PENDULUM = RUNS / "run_schema_1", RUNS / "run_schema_2"
"""Small policies, two seeds each, that normalise what they see."""


# Acting -------------------------------------------------------------------------------------------


def test_a_loaded_policy_takes_one_observation_or_a_batch():
    policy = load_policy(CARTPOLE, 1)
    obs = np.random.default_rng(0).normal(size=(5, 4))  # float64, as gymnasium may give
    actions = policy(obs)
    assert (actions.shape, actions.dtype) == ((5,), jnp.int32)
    assert [int(policy(row)) for row in obs] == actions.tolist()
    assert policy.spec.action == jaxrl.Discrete(2)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (
            [0.0, 0.0, 0.0, 0.0],
            r"^this list is not an observation .*: convert the list to an array; one ",
        ),
        (
            (np.zeros(4), {}),
            r"^this tuple is .*: pass only obs of \(obs, info\)",
        ),
        (
            {"obs": np.zeros(4)},
            "^this dict is not an observation of the environment; one is float32",
        ),
        (
            np.zeros(3),
            r"^an observation has the shape \[3\]; one is float32\[4\], a batch has one more",
        ),
        (np.zeros((2, 3, 4)), r"^an observation has the shape \[2, 3, 4\]; "),
        (0.5, r"^an observation has the shape \[\]; "),
    ],
)
def test_what_is_no_observation_is_named(obs, message):
    with pytest.raises(ValueError, match=message):
        load_policy(CARTPOLE)(obs)


def test_parts_of_an_observation_have_one_batch_size():
    like = {"a": jax.ShapeDtypeStruct((2,), jnp.float32), "b": jax.ShapeDtypeStruct((), jnp.int8)}
    assert loaded_policy.batch_size({"a": np.zeros(2), "b": 3}, like) is None
    assert loaded_policy.batch_size({"a": np.zeros((5, 2)), "b": np.zeros(5)}, like) == 5
    with pytest.raises(ValueError, match=r"^parts of .*; one is a float32\[2\], b int8\[\]"):
        loaded_policy.batch_size({"a": np.zeros((5, 2)), "b": 3}, like)


def test_what_fit_learned_is_what_is_loaded(tmp_path):
    """Runs started from Python need their agent and environment again."""
    agent, env = PPO(num_envs=2, num_steps=8, hidden_sizes=(4,)), Counter()
    result = fit(agent, env, KEY, total_steps=32, num_eval_episodes=2, run_dir=tmp_path / "run",
                 tensorboard=False, normalize_observations=True)  # fmt: skip
    policy = load_policy(tmp_path / "run", agent=agent, env=env)
    obs = 5.0 * jax.random.normal(KEY, (200, 2))
    _, expected, _ = result.training.policy(result.state)((), obs, KEY)
    np.testing.assert_array_equal(policy(obs), expected)
    with pytest.raises(ValueError, match="was started from Python, with PPO on Counter"):
        load_policy(tmp_path / "run")
    with pytest.raises(ValueError, match="pass both agent and env, or neither"):
        load_policy(tmp_path / "run", agent=agent)
    with pytest.raises(ValueError, match="has no member 1: give a number from 0 to 0"):
        load_policy(tmp_path / "run", 1, agent=agent, env=env)
    with pytest.raises(ValueError, match=r"has agent.* as float32\[4, 3\], expected"):
        load_policy(tmp_path / "run", agent=agent.replace(hidden_sizes=(5,)), env=env)


@pytest.mark.thorough
def test_a_run_that_normalised_floats_alone_is_still_read(tmp_path, monkeypatch):
    """Older versions did not normalise integers; loaded policies act as they were trained."""
    agent, env = PPO(num_envs=2, num_steps=4, num_epochs=1, hidden_sizes=(4,)), Picture()
    of = Training.of
    monkeypatch.setattr(Training, "of", lambda given: of(given).replace(normalized="floats"))
    options = dict(num_eval_episodes=2, tensorboard=False, normalize_observations=True)
    result = fit(agent, env, KEY, total_steps=16, run_dir=tmp_path / "run", **options)
    monkeypatch.undo()
    policy = load_policy(tmp_path / "run", agent=agent, env=env)
    assert len(policy.stats.obs) == 1  # of the noise, and not of the image
    obs = jax.vmap(env.reset)(jax.random.split(KEY, 50))[1]
    _, expected, _ = result.training.policy(result.state)((), obs, KEY)
    np.testing.assert_array_equal(policy(obs), expected)
    with pytest.raises(
        ValueError, match="normalised 1 parts of the observation, but this jaxrl normalises 2"
    ):
        fit(agent, env, KEY, total_steps=32, run_dir=tmp_path / "run", resume=True, **options)


def untrained(agent, env, **options):
    """A policy with random parameters and non-trivial observation statistics."""
    training = Training.create(agent, env, total_steps=10_000, **options)
    state = jax.jit(training.init)(KEY)
    stats = state.stats
    if options:
        keys = iter(jax.random.split(KEY, 100))
        stats = jax.tree.map(lambda x: x + jax.random.uniform(next(keys), x.shape, x.dtype), stats)
    # heads are initialised near zero: larger parameters choose more than one action
    larger = jax.tree.map(
        lambda x: 30 * x if jnp.issubdtype(x.dtype, jnp.floating) else x, state.agent
    )
    return LoadedPolicy(training, larger, stats, 1)


@pytest.mark.thorough
def test_a_recurrent_policy_remembers_until_it_is_reset():
    policy = untrained(PPO(num_envs=2, num_steps=8, num_minibatches=1, core="gru"), Recall())
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3, 2)), jnp.float32)
    obs = obs[..., : policy.spec.observation.shape[0]]
    first = [policy(x) for x in obs]
    policy.reset()
    again = [policy(x) for x in obs]
    np.testing.assert_array_equal(first, again)
    policy.reset()
    alone = []
    for x in obs:
        policy.reset()
        alone.append(policy(x))
    carry, by_hand = policy.training.agent.initial_carry(3), []
    for x in obs:
        action, carry = policy.act(x, carry)
        by_hand.append(action)
    np.testing.assert_array_equal(first, by_hand)
    carries = policy.act(obs[0], policy.training.agent.initial_carry(3))[1]
    assert jax.tree.leaves(carries)[0].any()


def test_a_recurrent_policy_takes_one_batch_size_until_it_is_reset():
    policy = untrained(RecurrentPolicyGradient(num_envs=2, num_steps=4, size=3), Recall())
    obs = np.zeros((3, 2), np.float32)
    policy(obs)
    with pytest.raises(ValueError, match=r"^the batch has 2 observations, but the carry .* has 3"):
        policy(obs[:2])
    with pytest.raises(
        ValueError, match=r"^the batch has 1 observations, .*: call reset\(\) before"
    ):
        policy(obs[0])
    policy.reset()
    assert policy(obs[:2]).shape == (2,)


@pytest.mark.parametrize(
    "agent",
    [
        DDPG(noise="ou", hidden_sizes=(4,), num_envs=2, batch_size=4, capacity=64, warmup=8),
        FittedQActorCritic(fitted_actions="uniform", hidden_sizes=(4,), num_envs=4, num_steps=4),
    ],
)
def test_a_greedy_policy_has_no_state_of_exploration(agent):
    env = BestContinuousAction()
    assert jax.tree.leaves(agent.bind(env.spec).initial_carry(2))
    policy = untrained(agent, env)
    assert not policy.recurrent
    assert policy(np.zeros((3, 1), np.float32)).shape == (3, 1)
    assert policy(np.zeros((2, 1), np.float32)).shape == (2, 1)
    assert policy.evaluate(jax.random.key(0), num_episodes=2).returns.shape == (2,)
    assert len(policy.episode(jax.random.key(0))[1]) == 1


# Exporting ----------------------------------------------------------------------------------------

PPO_2 = dict(num_envs=2, num_steps=8, hidden_sizes=(16,))


class BatchNormed(nn.Module):
    """Batch statistics must be frozen in acting, or a row's action would depend on other rows."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(16)(x)))
        return nn.Dropout(0.5, deterministic=not train)(x)


POLICIES = {
    "discrete": lambda: untrained(PPO(**PPO_2), Counter()),
    "box, normalised": lambda: untrained(
        PPO(**PPO_2), jaxrl_envs.make("gymnax/Pendulum-v1"), normalize_observations=True
    ),
    "masked": lambda: untrained(PPO(**PPO_2), MaskedChoice()),
    "mixed": lambda: untrained(PPO(**PPO_2), BestMixedAction()),
    "image": lambda: untrained(PPO(**PPO_2), Picture()),
    "cnn": lambda: untrained(
        PPO(**PPO_2, torso=CNN(((4, 3, 1), (4, 2, 2)), 16)),
        jaxrl_envs.make("gymnax/Breakout-MinAtar"),
    ),
    "recurrent": lambda: untrained(PPO(**PPO_2, num_minibatches=1, core="lstm"), Recall()),
    "dqn": lambda: untrained(DQN(hidden_sizes=(16,), noisy=True, head="quantile"), Counter()),
    "batch norm": lambda: untrained(DQN(hidden_sizes=(16,), torso=BatchNormed()), Counter()),
    "sac": lambda: untrained(SAC(hidden_sizes=(16,)), jaxrl_envs.make("gymnax/Pendulum-v1")),
    "joint bins": lambda: untrained(
        DQN(hidden_sizes=(16,)),
        wrappers.DiscretizeActions(
            jaxrl_envs.make("gymnax/Pendulum-v1"), num_bins=5, layout="joint"
        ),
    ),
}


def some_observations(policy, num=1000):
    """Observations of the right shapes, with a range wide enough for different actions."""
    keys = iter(jax.random.split(jax.random.key(1), 10))

    def one(like):
        shape, key = (num, *like.shape), next(keys)
        if like.dtype == jnp.bool_:
            return jax.random.bernoulli(key, 0.7, shape).at[:, 0].set(True)
        if jnp.issubdtype(like.dtype, jnp.integer):
            return jax.random.randint(key, shape, 0, 200).astype(like.dtype)
        return 2.0 * jax.random.normal(key, shape, like.dtype)

    return jax.tree.map(one, policy.spec.observation)


def by_name(tree):
    if jax.tree_util.all_leaves([tree]):
        return tree
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}


ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jaxrl", "jaxrl_envs", "flax", "optax", "gymnax"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Blocker())
import jax, json, numpy as np
folder = sys.argv[1]
program = jax.export.deserialize(bytearray(open(folder + "/policy.jax", "rb").read()))
stored = dict(np.load(folder + "/in.npz"))
arguments = []
for name in ("obs", "carry"):
    if name in stored:
        arguments.append(stored[name])
    elif any(k.startswith(name + ".") for k in stored):
        inside = {k: x for k, x in stored.items() if k.startswith(name + ".")}
        arguments.append({k[len(name) + 1:]: x for k, x in inside.items()})
out = jax.tree.leaves(program.call(*arguments))
np.savez(folder + "/out.npz", *out)
"""


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "export"


def write_inputs(folder, **arguments):
    stored = {}
    for name, tree in arguments.items():
        if isinstance(tree, dict):
            stored |= {f"{name}.{k}": x for k, x in tree.items()}
        else:
            stored[name] = tree
    np.savez(folder / "in.npz", **stored)


@pytest.mark.optimized
@pytest.mark.parametrize("name", cases(POLICIES, "box, normalised", "batch norm"))
def test_an_exported_policy_acts_as_the_original(kept, name):
    """Bit-identical on 1,000 observations; recurrent policies over three steps."""
    policy = POLICIES[name]()
    export_policy(policy, kept)
    program = jax.export.deserialize(bytearray((kept / "policy.jax").read_bytes()))
    obs = some_observations(policy)
    assert len(np.unique(np.asarray(jax.tree.leaves(policy.act(obs, carry_of(policy)))[0]))) > 1
    if not policy.recurrent:
        expected = jax.jit(policy.act)(obs)[0]
        for ours, theirs in zip(
            jax.tree.leaves(program.call(by_name(obs))), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
        one = jax.tree.map(lambda x: x[:1], obs)
        assert jax.tree.leaves(program.call(by_name(one)))[0].shape[0] == 1
        return
    described = json.loads((kept / "policy.json").read_text())
    carry = carry_of(policy)
    their_carry = jax.tree.map(jnp.zeros_like, by_name(carry))
    assert set(described["carry"]) == set(their_carry)
    for step in range(3):
        shifted = jax.tree.map(functools.partial(jnp.roll, shift=step, axis=0), obs)
        action, carry = jax.jit(policy.act)(shifted, carry)
        their_action, their_carry = program.call(by_name(shifted), their_carry)
        np.testing.assert_array_equal(action, their_action)


def carry_of(policy, num=1000):
    return policy.training.agent.initial_carry(num)


@pytest.mark.parametrize("name", cases(["masked", "recurrent"], "recurrent"))
def test_an_exported_policy_needs_no_jaxrl(kept, name):
    policy = POLICIES[name]()
    export_policy(policy, kept)
    obs = some_observations(policy)
    carry = {"carry": by_name(carry_of(policy))} if policy.recurrent else {}
    write_inputs(kept, obs=by_name(obs), **carry)
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(kept)], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    theirs = np.load(kept / "out.npz")["arr_0"]
    np.testing.assert_array_equal(theirs, policy.act(obs, carry_of(policy))[0])


@pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="the extra onnx; in CI on Python 3.12"
)
@pytest.mark.parametrize(
    "name", ["discrete", "box, normalised", "masked", "image", "cnn", "dqn", "sac"]
)
def test_a_policy_in_onnx_acts_as_the_original(kept, name):
    import onnxruntime

    policy = POLICIES[name]()
    export_policy(policy, kept, onnx=True)
    session = onnxruntime.InferenceSession(kept / "policy.onnx")
    obs = by_name(some_observations(policy))
    named = {f"obs.{k}": x for k, x in obs.items()} if isinstance(obs, dict) else {"obs": obs}
    assert {x.name for x in session.get_inputs()} == set(named)
    (action,) = session.run(None, {k: np.asarray(x) for k, x in named.items()})
    expected = np.asarray(policy.act(some_observations(policy))[0])
    if np.issubdtype(expected.dtype, np.integer):
        np.testing.assert_array_equal(action, expected)
    else:  # other kernels sum in another order
        np.testing.assert_allclose(action, expected, atol=2e-5)


def test_the_command_exports(tmp_path):
    path = tmp_path / "run"
    shutil.copytree(CARTPOLE, path)
    status, out, err = run_in_process("export", path, "--member", 1)
    assert (status, err) == (0, [])
    assert [line.split()[0] for line in out[1:]] == [
        str(path / "export" / name) for name in ("policy.jax", "policy.json")
    ]
    described = json.loads((path / "export" / "policy.json").read_text())
    assert described["observation"] == "float32[n, 4]"
    assert described["how_to_call"].endswith("action = program.call(obs)")
    status, _, err = run_in_process("export", path, "--member", 2)
    assert (status, len(err)) == (2, 1)
    assert "has no member 2" in err[0]
    (tmp_path / "file").touch()
    status, _, err = run_in_process("export", path, "--out", tmp_path / "file" / "x")
    assert (status, len(err)) == (2, 1)


# Real clients -------------------------------------------------------------------------------------


def play_in_gymnasium(act, env_id, num):
    """Plays one whole episode in each of `num` environments in parallel."""
    envs = gymnasium.make_vec(env_id, num_envs=num, vectorization_mode="sync")
    obs, _ = envs.reset(seed=0)
    returns, running = np.zeros(num), np.ones(num, bool)
    while running.any():
        obs, reward, terminated, truncated, _ = envs.step(act(obs))
        returns += reward * running
        running &= ~(terminated | truncated)
    envs.close()
    return returns


@pytest.mark.parametrize(
    ("path", "ours", "theirs"),
    [
        (CARTPOLE, "gymnax/CartPole-v1", "CartPole-v1"),
        (PENDULUM, "gymnax/Pendulum-v1", "Pendulum-v1"),
    ],
)
def test_exported_policies_play_as_well_in_gymnasium(kept, path, ours, theirs):
    """200 episodes each, with mediocre policies, so that returns vary."""
    policy = load_run(path).policy(0)
    export_policy(policy, kept)
    program = jax.export.deserialize(bytearray((kept / "policy.jax").read_bytes()))
    call = jax.jit(program.call)
    there = play_in_gymnasium(lambda obs: np.asarray(call(obs)), theirs, 200)
    here = np.asarray(policy.evaluate(KEY, num_episodes=200).returns, np.float64)
    error = np.sqrt(there.var(ddof=1) / 200 + here.var(ddof=1) / 200)
    assert there.std() > 0.05 * abs(there.mean())
    assert abs(there.mean() - here.mean()) < 2 * error


# Pictures -----------------------------------------------------------------------------------------


def test_an_episode_is_recorded_state_by_state():
    policy = load_run(PENDULUM).policy(0)
    states, rewards = policy.episode(KEY)
    assert rewards.shape == (200,)
    assert states.theta.shape == (200,)
    alone = policy.training.eval_envs.env
    action = policy(np.stack([np.cos(states.theta), np.sin(states.theta), states.theta_dot], 1)[7])
    state = jax.tree.map(lambda x: x[7], states)
    after, timestep = alone.step(KEY, state, action)
    np.testing.assert_allclose(timestep.reward, rewards[7], rtol=1e-4)
    np.testing.assert_allclose(after.theta, states.theta[8], rtol=1e-4)
    states, rewards = load_run(CARTPOLE).policy(0).episode(KEY)
    assert len(rewards) == rewards.sum() == len(states.x)
    assert len(rewards) < 500  # it fell, with its last step


@pytest.mark.parametrize(
    "name", cases(["gymnax/CartPole-v1", "gymnax/Breakout-MinAtar"], "gymnax/CartPole-v1")
)
def test_an_episode_of_gymnax_is_a_moving_picture(tmp_path, name):
    policy = untrained(PPO(**PPO_2), jaxrl_envs.make(name))
    states, rewards = policy.episode(KEY)
    states = jax.tree.map(lambda x: x[:6], states)
    render.render(jaxrl_envs.make(name), states, rewards[:6], tmp_path / "episode.gif")
    with PIL.Image.open(tmp_path / "episode.gif") as picture:
        assert picture.n_frames == 6
        first = np.asarray(picture.convert("L"))
        picture.seek(5)
        last = np.asarray(picture.convert("L"))
    assert first.std() > 5
    assert (first != last).any()


@pytest.mark.thorough
def test_an_episode_of_brax_is_a_page(tmp_path):
    env = jaxrl_envs.make("brax/inverted_pendulum", backend="spring", max_steps=5)
    states, rewards = untrained(PPO(**PPO_2), env).episode(KEY)
    render.render(env, states, rewards, tmp_path / "episode.html")
    page = (tmp_path / "episode.html").read_text()
    assert "<!DOCTYPE html>" in page
    assert "height: 100vh;" in page  # a number without a unit would be no height
    packed = re.search(r'var system = "([^"]+)"', page).group(1)
    system = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert len(system["states"]["x"]) == len(rewards) == 5


@pytest.mark.thorough
def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(ValueError, match="Counter cannot be rendered"):
        render.render(Counter(), (), np.zeros(1), tmp_path / "x.gif")
    path = tmp_path / "run"
    status, _, err = run_in_process(
        "train", "ppo", "jaxrl/corridor", "--total-steps", 64, "--num-envs", 2, "--num-steps", 8,
        "--num-evaluations", 1, "--num-eval-episodes", 2, "--run-dir", path,
    )  # fmt: skip
    assert (status, err) == (0, [])
    status, _, err = run_in_process("evaluate", path, "--render")
    assert status == 2
    assert "cannot be rendered" in err[0]
