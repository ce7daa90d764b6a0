"""The navix adapter: dynamics, termination and truncation, contents of the state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
import jaxrl_envs
from jaxrl.trees import num_bytes
from jaxrl.types import Discrete
from jaxrl_envs import registry

family = pytest.importorskip("jaxrl_envs.navix", reason="needs navix")

KEY = jax.random.key(0)
TURN, RIGHT, FORWARD = 0, 1, 2
# Compiled without optimisation: half the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def test_ids_match_navix():
    """navix 4 has more ids, which are valid although unlisted."""
    assert set(registry.NAVIX_IDS) <= set(family.names())
    for name in family.names():
        registry.check_id(f"navix/{name}")
    with pytest.raises(ValueError, match="did you mean navix/Navix-Empty-5x5-v0"):
        registry.check_id("navix/Navix-Empty-5x5")


def test_adapts_navix_objects():
    native = family.navix.registry()["Navix-Empty-5x5-v0"](max_steps=9)
    adapted = jaxrl_envs.adapt(native)
    assert adapted.spec == jaxrl_envs.make("navix/Navix-Empty-5x5-v0", max_steps=9).spec
    assert adapted.spec.max_steps == 9
    assert jax.tree.structure(adapted) == jax.tree.structure(jaxrl_envs.make(native))
    with pytest.raises(ValueError, match="is already built, so max_steps cannot be changed"):
        jaxrl_envs.adapt(native, max_steps=5)


def test_user_registered_ids_can_be_made(monkeypatch):
    registry_of_navix = family.navix.registry()
    monkeypatch.setitem(registry_of_navix, "Navix-Mine-v0", registry_of_navix["Navix-Empty-5x5-v0"])
    assert jaxrl_envs.make("navix/Navix-Mine-v0", max_steps=9).spec.max_steps == 9


def test_environment_satisfies_the_contract():
    env = jaxrl_envs.make("navix/Navix-DoorKey-Random-5x5-v0", max_steps=10)
    jaxrl_envs.check(env, num_steps=12)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["Navix-DoorKey-Random-6x6-v0", "Navix-Dynamic-Obstacles-6x6-v0"])
def test_steps_match_navix(name):
    """Observations (including the last), rewards and ends of a random episode match navix.

    The episode has at most 20 steps.
    """
    env = jaxrl_envs.make(f"navix/{name}", max_steps=20)
    theirs = family.navix.make(name, max_steps=20)
    step = quick(lambda *arguments: env.step(*arguments))
    with family.library_code():
        expected = quick(theirs.reset)(KEY)
        their_step = quick(theirs.step)
    state, obs = quick(env.reset)(KEY)
    np.testing.assert_array_equal(obs, expected.observation)
    for key in jax.random.split(KEY, 20):
        action = jax.random.randint(key, (), 0, 7)
        state, timestep = step(key, state, action)
        with family.library_code():
            given = expected.replace(state=expected.state.replace(key=key))
            expected = their_step(given, action)
        np.testing.assert_array_equal(timestep.obs, expected.observation)
        np.testing.assert_allclose(timestep.reward, expected.reward)
        assert bool(timestep.terminated) == bool(expected.is_termination())
        assert bool(timestep.truncated) == bool(expected.is_truncation())
        if expected.is_done():
            break
    assert expected.is_done()


def play(env, actions):
    """The steps of one episode, leaves `[T]`."""

    @quick
    def run(key):
        def one(state, action):
            return env.step(key, state, action)

        return jax.lax.scan(one, env.reset(key)[0], jnp.asarray(actions))[1]

    return jax.device_get(run(KEY))


def test_the_time_limit_truncates_and_the_goal_terminates():
    """The goal is two cells to the east and two to the south; the agent faces east."""
    way = [FORWARD, FORWARD, RIGHT, FORWARD, FORWARD]
    steps = play(jaxrl_envs.make("navix/Navix-Empty-5x5-v0", max_steps=5), way)
    assert steps.terminated.tolist() == [False] * 4 + [True]  # even at the time limit
    assert steps.reward.tolist() == [0.0] * 4 + [1.0]
    assert not steps.truncated.any()
    steps = play(jaxrl_envs.make("navix/Navix-Empty-5x5-v0", max_steps=3), [TURN] * 3)
    assert steps.truncated.tolist() == [False, False, True]
    assert not steps.terminated.any()


def test_default_time_limit_matches_minigrid():
    """Regardless of the default of this version of `navix.make`."""
    spec = jaxrl_envs.make("navix/Navix-Empty-6x6-v0").spec
    assert (spec.max_steps, spec.truncates) == (4 * 6 * 6, "at_max_steps")
    assert spec.action == Discrete(7)
    assert spec.observation.shape == (6, 6, 3)


def test_state_stores_an_image_only_for_pixel_observations():
    plain = jaxrl_envs.make("navix/Navix-Empty-5x5-v0")
    drawn = jaxrl_envs.make("navix/Navix-Empty-5x5-v0", observation_fn="rgb")
    assert not plain.drawn
    assert drawn.drawn
    small, large = (num_bytes(jax.eval_shape(env.reset, KEY)[0]) for env in (plain, drawn))
    picture = num_bytes(drawn.spec.observation)
    assert large >= small + picture
    obs = play(drawn, [TURN, TURN]).obs
    assert obs.dtype == np.uint8
    assert (obs[0] != obs[1]).any()


def test_observation_function_can_be_given_by_name():
    function = family.navix.observations.symbolic_first_person
    env = jaxrl_envs.make("navix/Navix-Empty-8x8-v0", observation_fn="symbolic_first_person")
    same = jaxrl_envs.make("navix/Navix-Empty-8x8-v0", observation_fn=function)
    assert env.spec.observation.shape == (7, 7, 3)
    assert jax.tree.structure(env) == jax.tree.structure(same)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lenght": 3}, r"has no parameter 'lenght'; it has: max_steps, .*"),
        ({"height": 7}, r"has no parameter 'height'; .*"),
        ({"max_steps": 0}, r"'s max_steps is 0: it must be a whole number, at least 1"),
        ({"observation_fn": "rgbb"}, r"cannot be made with observation_fn='rgbb': .*"),
    ],
)
def test_invalid_parameters_are_rejected(params, message):
    with pytest.raises(ValueError, match=f"^Navix-Empty-5x5-v0 ?{message}$"):
        jaxrl_envs.make("navix/Navix-Empty-5x5-v0", **params)


@pytest.mark.thorough
def test_ppo_trains():
    env = jaxrl_envs.make("navix/Navix-Dynamic-Obstacles-5x5-v0", max_steps=6)
    agent = jaxrl.agents.PPO(num_envs=4, num_steps=8, num_epochs=1, hidden_sizes=(8,))
    state, metrics = quick(
        lambda key: jaxrl.train(agent, env, key, total_steps=64, num_evaluations=0)
    )(KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.agent))
    assert metrics.training.episodes.count.sum() >= 8  # 16 steps per copy, truncated after 6
