"""The Jumanji adapter: dynamics, masks, termination and truncation."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.probes import cases

import jaxrl
import jaxrl_envs
from jaxrl.types import Box, Discrete, Masked, MultiDiscrete, sample_action, split_mask
from jaxrl_envs import registry
from jaxrl_envs.conformance import _available

family = pytest.importorskip("jaxrl_envs.jumanji", reason="needs jumanji")
wrappers = pytest.importorskip("jumanji.wrappers")

KEY = jax.random.key(0)
# Compiled without optimisation: half the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def test_ids_match_jumanji():
    assert list(registry.JUMANJI_IDS) == family.names()
    assert {f"jumanji/{name}" for name in family.names()} <= set(jaxrl_envs.list_ids())


def test_adapts_jumanji_objects():
    """Its time limit becomes a truncation; the object itself is unchanged."""
    native = family.registration.make("Snake-v1", time_limit=7)
    adapted = jaxrl_envs.adapt(native)
    assert adapted.spec == jaxrl_envs.make("jumanji/Snake-v1", time_limit=7).spec
    assert (adapted.spec.max_steps, native.time_limit) == (7, 7)
    assert jax.tree.structure(adapted) == jax.tree.structure(jaxrl_envs.make(native))
    with pytest.raises(ValueError, match="Snake is already built, so time_limit cannot be"):
        jaxrl_envs.adapt(native, time_limit=5)
    with pytest.raises(TypeError, match="AutoResetWrapper is a wrapper of jumanji: pass the env"):
        jaxrl_envs.adapt(wrappers.AutoResetWrapper(native))


def test_user_registered_ids_can_be_made(monkeypatch):
    """With the arguments given at registration."""
    known = dict(family.registration._REGISTRY)
    monkeypatch.setattr(family.registration, "_REGISTRY", known)
    entry_point = family.registration._REGISTRY["Snake-v1"].entry_point
    family.registration.register("Worm-v0", entry_point, kwargs={"time_limit": 9})
    assert jaxrl_envs.make("jumanji/Worm-v0").spec.max_steps == 9
    assert jaxrl_envs.make("jumanji/Worm-v0", time_limit=4).spec.max_steps == 4


@pytest.mark.parametrize("name", cases(["Tetris-v0", "Cleaner-v0"], "Tetris-v0"))
def test_environments_satisfy_the_contract(name):
    """Tetris masks combinations of choices, Cleaner the actions of each agent."""
    jaxrl_envs.check(jaxrl_envs.make(f"jumanji/{name}", time_limit=5), num_steps=12)


@pytest.mark.parametrize(
    ("name", "space", "mask_size", "limit"),
    [
        ("RubiksCube-v0", MultiDiscrete((6, 1, 3)), None, 200),
        ("SearchAndRescue-v0", Box(-1.0, 1.0, (2, 2)), None, 400),
        ("MultiCVRP-v0", MultiDiscrete((21, 21)), 42, None),
        ("Cleaner-v0", MultiDiscrete((4, 4, 4)), 12, 100),
        ("Sudoku-v0", Discrete(729), 729, None),
        ("Maze-v0", Discrete(4), 4, 100),
    ],
)
def test_spaces_masks_limits_and_types(name, space, mask_size, limit):
    """Traced only."""
    env = jaxrl_envs.make(f"jumanji/{name}")
    mask = split_mask(env.spec.observation)[1]
    assert (env.spec.action, env.spec.max_steps) == (space, limit)
    assert env.spec.truncates == "at_max_steps"
    assert (None if mask is None else mask.shape[0]) == mask_size
    state, obs = jax.eval_shape(env.reset, KEY)
    action = jax.eval_shape(lambda key: sample_action(space, key), KEY)
    stepped, timestep = jax.eval_shape(env.step, KEY, state, action)
    types = jax.tree.map(str, (state, obs))
    assert "weak_type" not in str(types)
    assert jax.tree.map(str, (stepped, timestep.obs)) == types
    assert jax.tree.map(lambda x: (x.shape, x.dtype), obs) == jax.tree.map(
        lambda x: (x.shape, x.dtype), env.spec.observation
    )


def native(action, theirs):
    """Jumanji's action for ours; with a mask over combinations, our index is unravelled."""
    mask = theirs.observation_spec.action_mask.shape
    if len(mask) > 1 and mask == tuple(theirs.action_spec.num_values):
        return np.asarray(np.unravel_index(int(action), mask), np.int32)
    return action


def flat(mask, joint):
    """Jumanji's mask in our layout: a row per choice; an all-false row becomes all-true."""
    lines = [np.ravel(mask)] if joint else np.atleast_2d(mask)
    return np.concatenate([line if line.any() else ~line for line in lines])


def same(ours, theirs):
    """All leaves are equal, including keys."""

    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    jax.tree.map(np.testing.assert_array_equal, *jax.tree.map(plain, (ours, theirs)))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["Snake-v1", "Tetris-v0", "Connector-v3"])
def test_steps_match_jumanji(name):
    """A random episode of at most 15 steps, each compared from the same state.

    States, observations (including the last), masks, rewards and ends match.
    """
    env = jaxrl_envs.make(f"jumanji/{name}", time_limit=15)
    theirs = family.registration.make(name, time_limit=15)
    joint = env.env.mask == "joint"
    assert joint == (name == "Tetris-v0")

    @quick
    def starts(key):
        with family.library_code():
            return env.reset(key), theirs.reset(key)

    @quick  # one program for both compiles in little more time than for one
    def step(key, state, action, their_action):
        with family.library_code():
            expected = theirs.step(family._with_key(state[0], key), their_action)
        return env.step(key, state, action), expected

    choose = quick(lambda obs, key: _available(env.spec.action, obs.action_mask, key))

    def compare(state, obs, expected_state, expected):
        same(state[0], expected_state)
        fields = dict(family._fields(expected.observation))
        np.testing.assert_array_equal(obs.action_mask, flat(fields.pop("action_mask"), joint))
        same(obs.obs, fields)

    (state, obs), (expected_state, expected) = starts(KEY)
    compare(state, obs, expected_state, expected)
    for key in jax.random.split(KEY, 15):
        action = choose(obs, key)
        (state, timestep), (expected_state, expected) = step(
            key, state, action, native(action, theirs)
        )
        obs = timestep.obs
        compare(state, obs, expected_state, expected)
        np.testing.assert_allclose(timestep.reward, np.sum(expected.reward), rtol=1e-6)
        assert bool(timestep.terminated | timestep.truncated) == bool(expected.last())
        if expected.last():
            break
    assert expected.last()


class Seen(NamedTuple):
    board: jax.Array
    action_mask: jax.Array


def test_empty_masks_allow_every_action():
    """Per row of choices, or for the whole table of combinations."""
    mask = jnp.array([[True, False], [False, False]])
    seen = Seen(jnp.zeros(3), mask)
    assert family._observed(seen, "each").action_mask.tolist() == [True, False, True, True]
    assert family._observed(seen, "joint").action_mask.tolist() == [True, False, False, False]
    nothing = family._observed(seen._replace(action_mask=mask & False), "joint")
    assert isinstance(nothing, Masked)
    assert nothing.action_mask.tolist() == [True] * 4
    assert nothing.obs.keys() == {"board"}


def play(env, actions):
    """The steps of one episode, leaves `[T]`."""

    @quick
    def run(key):
        def one(state, action):
            return env.step(key, state, action)

        return jax.lax.scan(one, env.reset(key)[0], jnp.asarray(actions))[1]

    return jax.device_get(run(KEY))


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("SlidingTilePuzzle-v0", 0),
        pytest.param(  # handles its own time limit
            "SearchAndRescue-v0", np.zeros((2, 2), np.float32), marks=pytest.mark.thorough
        ),
    ],
)
def test_the_time_limit_truncates(name, action):
    steps = play(jaxrl_envs.make(f"jumanji/{name}", time_limit=3), [action] * 3)
    assert not steps.terminated.any()
    assert steps.truncated.tolist() == [False, False, True]


def test_death_terminates_even_at_the_time_limit():
    """A snake that always moves up hits the wall within twelve steps and stays there."""
    steps = play(jaxrl_envs.make("jumanji/Snake-v1"), [0] * 13)
    assert steps.terminated.any()
    assert not steps.truncated.any()
    time = int(np.argmax(steps.terminated)) + 1
    assert steps.obs.obs["step_count"].tolist() == [*range(1, 14)]  # not auto-reset
    for limit, ends in ((time, (True, False)), (time - 1, (False, True))):
        steps = play(jaxrl_envs.make("jumanji/Snake-v1", time_limit=limit), [0] * limit)
        assert (steps.terminated[-1], steps.truncated[-1]) == ends
        assert not (steps.terminated | steps.truncated)[:-1].any()


def test_invalid_parameters_are_rejected():
    from jumanji.environments.packing.flat_pack.generator import RandomFlatPackGenerator

    with pytest.raises(ValueError, match=r"^Snake-v1 has no parameter 'lenght'; it has: num_rows"):
        jaxrl_envs.make("jumanji/Snake-v1", lenght=3)
    with pytest.raises(
        ValueError, match=r"^Snake-v1's time_limit is 0: it must be a whole number, at"
    ):
        jaxrl_envs.make("jumanji/Snake-v1", time_limit=0)
    with pytest.raises(ValueError, match=r"^Snake-v1 cannot be made with num_rows='few': .*$"):
        jaxrl_envs.make("jumanji/Snake-v1", num_rows="few")
    with pytest.raises(ValueError, match="at most 10,000 combinations"):
        jaxrl_envs.make("jumanji/FlatPack-v0", generator=RandomFlatPackGenerator(6, 6))


def test_failed_download_is_reported(monkeypatch):
    class NotThere(FileNotFoundError, ValueError):
        """Has the base classes of huggingface_hub's error."""

    def refused(*args):
        raise NotThere("no network")

    monkeypatch.setattr(family, "_jumanji_object", refused)
    with pytest.raises(RuntimeError, match="Sokoban-v0 could not download its data: no"):
        jaxrl_envs.make("jumanji/Sokoban-v0", time_limit=50)


@pytest.mark.thorough
def test_ppo_trains():
    """With a mask over combinations."""
    env = jaxrl_envs.make("jumanji/Tetris-v0", time_limit=6)
    agent = jaxrl.agents.PPO(num_envs=4, num_steps=8, num_epochs=1, hidden_sizes=(8,))
    state, metrics = quick(
        lambda key: jaxrl.train(agent, env, key, total_steps=64, num_evaluations=0)
    )(KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.agent))
    assert metrics.training.episodes.count.sum() >= 8  # 16 steps per copy, truncated after 6
