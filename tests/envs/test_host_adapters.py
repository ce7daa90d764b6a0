"""Adapters of libraries whose environments step outside JAX."""

import functools
import itertools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers.gymnasium_environments import Counting, unmasked
from helpers.hosted import SEEN, Remembers

import jaxrl
import jaxrl_envs
from jaxrl.types import Box, Discrete, Masked, Mixed, MultiDiscrete
from jaxrl_envs import gymnasium_spaces
from jaxrl_envs.gymnasium import GymnasiumEnv

KEY = jax.random.key(1)


def resetting(mode, num_envs):
    return SyncVectorEnv([Counting] * num_envs, autoreset_mode=mode)


VECTORS = {
    "same step": {},
    "next step": {"make_vector": functools.partial(resetting, AutoresetMode.NEXT_STEP)},
    "disabled": {"make_vector": functools.partial(resetting, AutoresetMode.DISABLED)},
    "processes": {"vectorization": "async"},
}


@pytest.mark.parametrize("name", VECTORS)
def test_all_ways_to_reset_return_the_true_last_observation(name):
    env = GymnasiumEnv(Counting, "counting", **VECTORS[name])
    assert env.spec.observation.obs.dtype == np.float32
    vector = env.vector(2)
    obs, rows = vector.reset(np.array([1, 2])), []
    for _ in range(15):
        action = np.argmax(obs.action_mask, -1)
        step = vector.step(action)
        valid = step.valid is None or step.valid[1]
        if valid:
            rows.append([x[1] for x in (obs.obs, step.next_obs.obs, *step[2:5])])
            masks = step.next_obs.action_mask[1]
            np.testing.assert_array_equal(
                masks, np.arange(2) == len(rows) % 3 % 2 if len(rows) % 3 else [False, True]
            )
        obs = step.obs
    vector.close()
    before, after, reward, terminated, truncated = map(np.array, zip(*rows, strict=True))
    at = np.arange(len(rows))
    episode = before[0, 1] + at // 3
    np.testing.assert_array_equal(before, np.stack([at % 3, episode], -1))
    np.testing.assert_array_equal(after, np.stack([at % 3 + 1, episode], -1))
    np.testing.assert_array_equal(reward, 1)
    np.testing.assert_array_equal(terminated, (at % 3 == 2) & (episode % 2 == 0))
    np.testing.assert_array_equal(truncated, (at % 3 == 2) & (episode % 2 == 1))


def test_masks_of_copies_that_go_on_stay_when_another_is_reset():
    makers = [Counting, functools.partial(Counting, length=4)]

    def vector_of(num_envs):
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)

    vector = GymnasiumEnv(Counting, "counting", make_vector=vector_of).vector(2)
    obs = vector.reset(np.array([1, 2]))
    for _ in range(12):
        np.testing.assert_array_equal(np.argmax(obs.action_mask, -1), obs.obs[:, 0] % 2)
        assert (obs.action_mask.sum(-1) == 1).all()
        obs = vector.step(np.argmax(obs.action_mask, -1)).obs
    vector.close()


def test_a_gap_is_no_episode():
    makers = [Counting, functools.partial(Counting, length=4)]

    def vector_of(num_envs):
        return SyncVectorEnv(makers[:num_envs], autoreset_mode=AutoresetMode.NEXT_STEP)

    env = GymnasiumEnv(Counting, "counting", make_vector=vector_of)
    assert env.spec.truncates == "anywhere"
    agent = jaxrl.agents.PPO(num_envs=2, num_steps=7, num_minibatches=2, hidden_sizes=(8,))
    result = jaxrl.fit(agent, env, KEY, total_steps=140, num_evaluations=1, num_eval_episodes=1)
    lengths = result.evaluations[0].training["training_length_mean"]
    assert 3 <= lengths <= 4


@pytest.mark.parametrize("name", ["same step", "next step"])
def test_the_learner_never_sees_a_step_that_only_resets(name):
    SEEN.clear()
    env = GymnasiumEnv(Counting, "counting", **VECTORS[name])
    agent = Remembers(num_envs=2, num_steps=7, num_minibatches=2, hidden_sizes=(8,))
    jaxrl.fit(agent, env, KEY, total_steps=70, num_evaluations=1, num_eval_episodes=2)
    jax.effects_barrier()
    for trajectory in SEEN:
        steps = trajectory.steps
        before, after = steps.obs.obs, steps.next_obs.obs
        np.testing.assert_array_equal(after[..., 0], before[..., 0] + 1)
        np.testing.assert_array_equal(after[..., 1], before[..., 1])  # the same episode
        np.testing.assert_array_equal(trajectory.first, before[..., 0] == 0)
        over, odd = after[..., 0] == 3, after[..., 1] % 2 == 1
        np.testing.assert_array_equal(steps.terminated, over & ~odd)
        np.testing.assert_array_equal(steps.truncated[:-1], (over & odd)[:-1])
        np.testing.assert_array_equal(steps.action, before[..., 0] % 2)  # the available one
        follows = ~(steps.terminated | steps.truncated)[:-1]
        np.testing.assert_array_equal(before[1:][follows], after[:-1][follows])


def test_a_gap_between_iterations_is_a_truncation():
    """Copies that step on while another one resets lose steps; nothing bootstraps across them."""
    SEEN.clear()

    def of_two_lengths(num_envs):
        makers = [functools.partial(Counting, length=3 + i % 2) for i in range(num_envs)]
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)

    env = GymnasiumEnv(Counting, "counting", make_vector=of_two_lengths)
    agent = Remembers(num_envs=2, num_steps=7, num_minibatches=2, hidden_sizes=(8,))
    jaxrl.fit(agent, env, KEY, total_steps=70, num_evaluations=1, num_eval_episodes=2)
    jax.effects_barrier()
    num_gaps = 0
    for now, then in itertools.pairwise(SEEN):
        last = jax.tree.map(lambda x: x[-1], now.steps)
        adjacent = (last.next_obs.obs == then.steps.obs.obs[0]).all(-1)
        ends_here = last.next_obs.obs[..., 0] == np.arange(2) + 3
        assert (adjacent | last.terminated | last.truncated).all()
        num_gaps += (~adjacent & ~ends_here).sum()
    assert num_gaps > 0


SPACES = {
    "bytes": (spaces.Box(0, 255, (2, 3), np.uint8), np.uint8, (2, 3)),
    "doubles": (spaces.Box(-1, 1, (2,), np.float64), np.float32, (2,)),
    "long": (spaces.Box(0, 9, (2,), np.int64), np.int32, (2,)),
    "bits": (spaces.MultiBinary((2, 2)), np.int32, (2, 2)),
    "discrete": (spaces.Discrete(4, start=-1), np.float32, (4,)),
    "many": (spaces.MultiDiscrete([2, 3]), np.float32, (5,)),
}


@pytest.mark.parametrize("name", SPACES)
def test_observations_have_their_shapes_and_values(name):
    space, dtype, shape = SPACES[name]
    found, read = gymnasium_spaces.observation(space, "x")
    samples = np.stack([space.sample() for _ in range(5)])
    assert (found.dtype, found.shape) == (dtype, shape)
    values = read(samples)
    assert (values.dtype, values.shape) == (dtype, (5, *shape))
    if name == "discrete":
        samples = np.eye(4)[samples + 1]
    if name == "many":
        samples = np.concatenate([np.eye(2)[samples[:, 0]], np.eye(3)[samples[:, 1]]], -1)
    np.testing.assert_allclose(values, samples, rtol=1e-6)


def test_structured_observations_keep_their_structure():
    space = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Tuple((spaces.Box(0, 1, (3,)),))})
    shapes, read = gymnasium_spaces.observation(space, "x")
    values = read({"a": np.array([1, 0]), "b": (np.ones((2, 3)),)})
    assert jax.tree.structure(values) == jax.tree.structure(shapes)
    np.testing.assert_array_equal(values["a"], [[0, 1], [1, 0]])


ACTIONS = {
    "discrete": (spaces.Discrete(3, start=2), Discrete(3), np.array([0, 2]), [2, 4]),
    "many": (
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        MultiDiscrete((2, 3)),
        np.array([[1, 2]]),
        [[2, 2]],
    ),
    "bits": (spaces.MultiBinary(2), MultiDiscrete((2, 2)), np.array([[1, 0]]), [[1, 0]]),
    "box": (
        spaces.Box(-2, 2, (1,), np.float64),
        Box.of(-2, 2, (1,)),
        np.float32([[0.5]]),
        [[0.5]],
    ),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_are_those_of_the_space(name):
    space, wanted, given, expected = ACTIONS[name]
    found, write = gymnasium_spaces.action(space, "x")
    assert found == wanted
    values = write(jnp.asarray(given))
    assert values.dtype == space.dtype
    np.testing.assert_array_equal(values, expected)
    assert all(space.contains(x) for x in values)


def test_actions_of_several_parts():
    parts = {"turn": spaces.Discrete(2), "push": spaces.Box(0, 1, (1,))}
    for space in (spaces.Dict(parts), spaces.Tuple(tuple(parts.values()))):
        found, write = gymnasium_spaces.action(space, "x")
        assert isinstance(found, Mixed)
        assert len(found.spaces) == 2
        batch = (np.array([1, 0]), np.float32([[0.5], [1]]))
        given = batch if isinstance(space, spaces.Tuple) else batch[::-1]  # sorted by name
        values = write(given)
        ours = values if isinstance(values, tuple) else (values["turn"], values["push"])
        for x, y in zip(ours, batch, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2))])
def test_other_spaces_are_refused_by_name(space):
    with pytest.raises(TypeError, match=r"my-env has the observation space .* does not support"):
        gymnasium_spaces.observation(space, "my-env")
    with pytest.raises(TypeError, match=r"my-env has the action space .* does not support"):
        gymnasium_spaces.action(space, "my-env")


# Ids and objects ----------------------------------------------------------------------------------


def host(env):
    return jaxrl_envs.adapt(env).host


def test_objects_of_gymnasium_are_adapted():
    env = host(gymnasium.make("CartPole-v1", max_episode_steps=7))
    assert env.name == "gymnasium/CartPole-v1"
    assert env.spec.max_steps == 7
    assert env.spec.truncates == "at_max_steps"


def test_an_own_factory_has_an_import_path():
    env = jaxrl_envs.make("helpers.gymnasium_environments:unmasked")
    assert env.host.name == "helpers.gymnasium_environments:unmasked"
    assert env.spec.truncates == "anywhere"
    assert not isinstance(env.spec.observation, Masked)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: host(unmasked()), TypeError, "does not say how to make copies"),
        (lambda: host(resetting("SameStep", 2)), TypeError, "is a vector of environments"),
        (lambda: GymnasiumEnv(dict, "x"), TypeError, "x made a dict"),
        (lambda: GymnasiumEnv(Counting, "x", "threads"), ValueError, "use 'sync' or 'async'"),
        (lambda: jaxrl_envs.make("gymnasium/CartPol-v1"), ValueError, "gymnasium/CartPole-v1"),
        (lambda: jaxrl_envs.make("gymnasium/CartPole-v1", x=1), ValueError, "x=1"),
        (lambda: jaxrl_envs.make("ale/pong", protocol="x"), ValueError, "classic or sticky"),
        (lambda: jaxrl_envs.make("envpool/Pong-v5", seed=1), TypeError, "seed .*set by jaxrl"),
    ],
)
def test_what_cannot_be_adapted_says_why(make, error, message):
    with pytest.raises(error, match=message):
        make()


IDS = {
    "gymnasium": ("gymnasium/CartPole-v1", {"max_episode_steps": 20}),
    "own vector": ("gymnasium/CartPole-v1", {"vectorization": "own"}),
    "envpool": ("envpool/CartPole-v1", {"max_episode_steps": 20}),
    "envpool atari": ("envpool/Pong-v5", {"max_episode_steps": 20}),
    "ale": ("ale/breakout", {"max_num_frames_per_episode": 80}),
}


@pytest.mark.parametrize("name", IDS)
def test_steps_fit_the_spec_and_seeds_decide_them(name):
    env_id, params = IDS[name]
    env = jaxrl_envs.make(env_id, **params).host

    def play(seeds):
        vector, found = env.vector(3), []
        obs = vector.reset(np.array(seeds))
        for t in range(50):
            action = np.arange(t, t + 3) // 2 % 2
            step = vector.step(action.astype(np.int32))
            for x, like in zip(
                jax.tree.leaves((step.obs, step.next_obs)),
                2 * jax.tree.leaves(env.spec.observation),
                strict=True,
            ):
                assert (x.dtype, x.shape[1:]) == (like.dtype, like.shape)
            valid = np.ones(3, bool) if step.valid is None else step.valid
            goes_on = valid & ~(step.terminated | step.truncated)
            np.testing.assert_array_equal(step.obs[goes_on], step.next_obs[goes_on])
            found.append(jax.tree.map(np.copy, (obs, step[1:5])))
            obs = step.obs
        vector.close()
        return found

    once, again, other = play([5, 6, 7]), play([5, 6, 7]), play([8, 9, 10])
    for x, y in zip(jax.tree.leaves(once), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x, y)
    different = [(x != y).any() for x, y in zip(*map(jax.tree.leaves, (once, other)), strict=True)]
    assert any(different)
    ends = np.array([x[1][2] | x[1][3] for x in once])
    assert ends.any()
