"""The Craftax adapter: dynamics and ends of episodes. Its programs compile slowly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
import jaxrl_envs
from jaxrl.trees import strong
from jaxrl.types import Discrete
from jaxrl_envs import registry

family = pytest.importorskip("jaxrl_envs.craftax", reason="needs craftax")

KEY = jax.random.key(0)
# Compiled without optimisation, which takes half the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def env():
    return jaxrl_envs.make("craftax/Craftax-Classic-Symbolic-v1", max_timesteps=20)


def test_an_object_of_craftax_is_adapted(env):
    """Also one that resets by itself, whose raw step is the same; alone or with parameters."""
    native = family.make_craftax_env_from_name("Craftax-Classic-Symbolic-v1", auto_reset=True)
    params = native.default_params.replace(max_timesteps=20)
    for adapted in (
        jaxrl_envs.adapt((native, params)),
        jaxrl_envs.adapt(native, max_timesteps=20),
    ):
        assert adapted.spec == env.spec
    with pytest.raises(ValueError, match="has no parameter 'time_limit'"):
        jaxrl_envs.adapt(native, time_limit=20)


@pytest.fixture(scope="module")
def step():
    """A step of ours, and one from the same state through Craftax's own object. Both are in one
    program, which XLA compiles in little more than the time of one."""

    @quick
    def both(env, key, state, action):
        with family.library_code():
            theirs = env.env.step_env(key, state, action, env.params)
        return env.step(key, state, action), theirs

    return both


@pytest.mark.thorough
def test_the_environment_keeps_the_contract(env):
    jaxrl_envs.check(env, num_steps=21)


@pytest.mark.thorough
def test_the_larger_game_keeps_its_types():
    """Traced only, also its parameters: it takes minutes to compile for all of `check`."""
    env = jaxrl_envs.make("craftax/Craftax-Symbolic-v1")
    assert env.spec.action == Discrete(43)
    assert (env.spec.max_steps, env.spec.reset_policy) == (100_000, "pool")
    assert env.spec.truncates == "at_max_steps"

    def one(env, key):
        state, obs = env.reset(key)
        stepped, timestep = env.step(key, state, jnp.int32(0))
        return (state, obs), (stepped, timestep.obs)

    started, stepped = jax.tree.map(str, jax.eval_shape(one, env, KEY))
    assert started == stepped
    assert "weak_type" not in str(started)
    assert started[1] == str(env.spec.observation)


def same(ours, theirs):
    """All leaves are equal to rounding, keys exactly."""

    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    ours, theirs = jax.tree.map(plain, (ours, theirs))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), ours, theirs)


@pytest.mark.thorough
def test_steps_are_those_of_craftax(env, step):
    """20 random steps: states, observations, rewards; the last of them meets the time limit."""
    theirs = env.env

    @quick
    def starts(env, key):
        with family.library_code():
            return env.reset(key), theirs.reset_env(key, env.params)

    same(env.params, strong(theirs.default_params.replace(max_timesteps=20)))
    (state, obs), (expected, their_state) = starts(env, KEY)
    same((state, obs), (their_state, expected))
    for time, key in enumerate(jax.random.split(KEY, 20), 1):
        action = jax.random.randint(key, (), 0, 17)
        (state, timestep), theirs_now = step(env, key, state, action)
        expected, their_state, reward, done, info = theirs_now
        same((state, timestep.obs, timestep.reward), (their_state, expected, reward))
        assert bool(done) == bool(timestep.truncated) == (time == 20)
        assert not timestep.terminated
        done_so_far = 100.0 * np.asarray(their_state.achievements)  # also while it goes on
        names = [name for name in info if name.startswith("Achievements/")]
        np.testing.assert_array_equal([timestep.info[name] for name in names], done_so_far)
        assert set(timestep.info) == set(info) - {"discount"}


@pytest.mark.thorough
@pytest.mark.parametrize("limit", [1, 20])
def test_a_death_terminates_also_at_the_time_limit(env, step, limit):
    state, _ = quick(env.reset)(KEY)
    starved = state.replace(player_health=jnp.zeros_like(state.player_health))
    limited = env.with_params(max_timesteps=limit).replace(spec=env.spec)  # the same program
    (dead, timestep), _ = step(limited, KEY, starved, jnp.int32(0))
    assert timestep.terminated
    assert not timestep.truncated
    assert dead.timestep == 1  # no new world is hidden in there


def test_parameters():
    env = jaxrl_envs.make("craftax/Craftax-Classic-Symbolic-v1", spawn_cow_chance=0.5)
    assert env.params.spawn_cow_chance == 0.5
    assert env.with_params(max_timesteps=7).spec.max_steps == 7
    for unknown in ("cows", "fractal_noise_angles"):
        with pytest.raises(ValueError, match=f"^Craftax-.* has no parameter '{unknown}'; it has: "):
            jaxrl_envs.make("craftax/Craftax-Classic-Symbolic-v1", **{unknown: 3})
    with pytest.raises(ValueError, match="max_timesteps is 'many': give a number"):
        env.with_params(max_timesteps="many")


def test_every_id_is_known_to_craftax():
    from craftax.craftax_env import make_craftax_env_from_name

    for name in registry.CRAFTAX_IDS:
        if "Pixels" not in name:  # which would draw all textures first
            assert make_craftax_env_from_name(name, auto_reset=False).num_actions


@pytest.mark.thorough
def test_ppo_trains(env):
    agent = jaxrl.agents.PPO(num_envs=2, num_steps=16, num_epochs=1, hidden_sizes=(8,))
    state, metrics = quick(
        lambda key: jaxrl.train(agent, env, key, total_steps=64, num_evaluations=0)
    )(KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.agent))
    assert metrics.training.episodes.count.sum() >= 2  # 32 steps a copy, cut after 20
