"""The Craftax adapter: dynamics, termination and truncation. Its programs compile slowly."""

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
# Compiled without optimisation: half the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def env():
    return jaxrl_envs.make("craftax/Craftax-Classic-Symbolic-v1", max_timesteps=20)


def test_adapts_craftax_objects(env):
    """With or without parameters, and with auto-reset too: the raw step is the same."""
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
    """One step of ours and one of Craftax's from the same state.

    Both are in one program, which compiles in little more time than one of them.
    """

    @quick
    def both(env, key, state, action):
        with family.library_code():
            theirs = env.env.step_env(key, state, action, env.params)
        return env.step(key, state, action), theirs

    return both


@pytest.mark.thorough
def test_environment_satisfies_the_contract(env):
    jaxrl_envs.check(env, num_steps=21)


@pytest.mark.thorough
def test_full_craftax_has_consistent_types():
    """Traced only, including its parameters: compiling all of `check` takes minutes."""
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
    """Leaves are equal up to rounding, keys exactly."""

    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    ours, theirs = jax.tree.map(plain, (ours, theirs))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), ours, theirs)


@pytest.mark.thorough
def test_steps_match_craftax(env, step):
    """States, observations and rewards of 20 random steps; the last is at the time limit."""
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
        done_so_far = 100.0 * np.asarray(their_state.achievements)  # also before the episode ends
        names = [name for name in info if name.startswith("Achievements/")]
        np.testing.assert_array_equal([timestep.info[name] for name in names], done_so_far)
        assert set(timestep.info) == set(info) - {"discount"}


@pytest.mark.thorough
@pytest.mark.parametrize("limit", [1, 20])
def test_death_terminates_even_at_the_time_limit(env, step, limit):
    state, _ = quick(env.reset)(KEY)
    starved = state.replace(player_health=jnp.zeros_like(state.player_health))
    limited = env.with_params(max_timesteps=limit).replace(spec=env.spec)  # the same program
    (dead, timestep), _ = step(limited, KEY, starved, jnp.int32(0))
    assert timestep.terminated
    assert not timestep.truncated
    assert dead.timestep == 1  # not auto-reset


def test_parameters():
    env = jaxrl_envs.make("craftax/Craftax-Classic-Symbolic-v1", spawn_cow_chance=0.5)
    assert env.params.spawn_cow_chance == 0.5
    assert env.with_params(max_timesteps=7).spec.max_steps == 7
    for unknown in ("cows", "fractal_noise_angles"):
        with pytest.raises(ValueError, match=f"^Craftax-.* has no parameter '{unknown}'; it has: "):
            jaxrl_envs.make("craftax/Craftax-Classic-Symbolic-v1", **{unknown: 3})
    with pytest.raises(ValueError, match="max_timesteps is 'many': give a number"):
        env.with_params(max_timesteps="many")


def test_ids_exist_in_craftax():
    from craftax.craftax_env import make_craftax_env_from_name

    for name in registry.CRAFTAX_IDS:
        if "Pixels" not in name:  # pixels would render all textures first
            assert make_craftax_env_from_name(name, auto_reset=False).num_actions


@pytest.mark.thorough
def test_ppo_trains(env):
    agent = jaxrl.agents.PPO(num_envs=2, num_steps=16, num_epochs=1, hidden_sizes=(8,))
    state, metrics = quick(
        lambda key: jaxrl.train(agent, env, key, total_steps=64, num_evaluations=0)
    )(KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.agent))
    assert metrics.training.episodes.count.sum() >= 2  # 32 steps per copy, truncated after 20
