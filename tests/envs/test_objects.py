"""Environment objects of other libraries, and environments registered by users."""

import re
import subprocess
import sys

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from gymnax.wrappers import purerl
from helpers.environments import Counter

import jaxrl
import jaxrl_envs
from jaxrl.engine.training import Training
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.wrappers import ActionRepeat, TimeLimit
from jaxrl_envs import adapt, libraries, make, registry
from jaxrl_envs.objects import as_environment

KEY = jax.random.key(0)


@struct.dataclass
class Place:
    x: jax.Array
    time: int


@struct.dataclass
class Params:
    speed: float = 1.0
    max_steps_in_episode: int = 7


class Walk(environment.Environment):
    """A user-defined gymnax environment: moves at `speed` and terminates beyond 10."""

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        return jnp.zeros(1), Place(jnp.float32(0.0), 0)

    def step_env(self, key, state, action, params):
        state = Place(state.x + params.speed * action, state.time + 1)
        return state.x[None], state, state.x, state.x > 10, {}

    def action_space(self, params):
        return spaces.Discrete(2)


class Endless(Walk):
    """Has no time limit in its parameters."""

    @property
    def default_params(self):
        return struct.dataclass(type("NoLimit", (), {"__annotations__": {"speed": float}}))(1.0)


def walked(env, steps=3):
    """Observations of `steps` steps with action 1, and the last `terminated` and `truncated`."""
    state, obs = env.reset(KEY)
    seen = [float(obs[0])]
    for _ in range(steps):
        state, timestep = env.step(KEY, state, jnp.int32(1))
        seen.append(float(timestep.obs[0]))
    return seen, bool(timestep.terminated), bool(timestep.truncated)


@pytest.fixture
def registered():
    """Register `gymnax/Walk-v3` for one test."""
    gymnax.register("Walk-v3", Walk)
    yield
    gymnax.registered_envs.remove("Walk-v3")
    del gymnax.registration._registry["Walk-v3"]


def test_adapts_gymnax_objects_with_or_without_parameters():
    alone, pair = adapt(Walk()), adapt((Walk(), Params(speed=2.0, max_steps_in_episode=3)))
    assert walked(alone) == ([0, 1, 2, 3], False, False)
    assert walked(pair) == ([0, 2, 4, 6], False, True)  # truncated by its own limit
    assert walked(make(Walk(), speed=4.0)) == ([0, 4, 8, 12], True, False)
    assert (alone.spec.max_steps, pair.spec.max_steps) == (7, 3)
    # `at_max_steps` is known only of gymnax's own environments.
    assert (alone.spec.truncates, adapt(gymnax.make("CartPole-v1")).spec.truncates) == (
        "anywhere", "at_max_steps",
    )  # fmt: skip
    with pytest.raises(ValueError, match="Walk has no parameter 'sped'; it has: speed, max_steps"):
        adapt(Walk(), sped=1.0)


def test_fractional_time_limits_round_up():
    """gymnax truncates once time >= limit."""
    env = adapt(Walk(), max_steps_in_episode=2.5)
    assert env.spec.max_steps == 3
    assert [walked(env, steps)[2] for steps in (2, 3)] == [False, True]


def test_no_truncation_without_a_time_limit():
    env = adapt(Endless())
    assert env.spec.max_steps is None
    assert walked(env, 4) == ([0, 1, 2, 3, 4], False, False)


def test_adapting_twice_gives_equal_structure():
    """Otherwise each call of `train` would recompile."""
    pair = gymnax.make("CartPole-v1")
    assert jax.tree.structure(adapt(pair)) == jax.tree.structure(adapt(pair))


@pytest.mark.parametrize("entry", ["train", "eval_env", "wrapper", "check"])
def test_every_entry_point_adapts(entry):
    env = Walk()
    match entry:
        case "train":
            training = Training.create(jaxrl.agents.PPO(), env, total_steps=100)
            assert training.envs.spec == adapt(env).spec
        case "eval_env":
            training = Training.create(
                jaxrl.agents.PPO(), adapt(env, speed=3.0), total_steps=100, eval_env=env
            )
            assert training.eval_envs.env.params.speed == 1.0
        case "wrapper":
            wrapped = as_environment(TimeLimit(ActionRepeat(env, num_repeats=2), max_steps=2))
            assert walked(wrapped, 2) == ([0, 2, 4], False, True)
        case "check":
            jaxrl_envs.check(env, num_steps=10)


def test_unadapted_object_error_suggests_adapt():
    how = re.escape("adapt this gymnax object: jaxrl_envs.adapt(env)")
    for env in (gymnax.make("CartPole-v1")[0], TimeLimit(gymnax.make("CartPole-v1")[0])):
        with pytest.raises(TypeError, match=how):
            VectorEnv(env, 2).reset(KEY)


def test_evaluate_adapts():
    def ahead(carry, obs, key):
        return carry, jnp.ones(obs.shape[0], jnp.int32), ()

    episodes = jaxrl.evaluate(ahead, (Walk(), Params(speed=4.0)), KEY, num_episodes=2)
    np.testing.assert_array_equal(episodes.returns, [4 + 8 + 12] * 2)


def test_jaxrl_environments_are_returned_unchanged():
    env = Counter()
    assert adapt(env) is env
    assert make(env) is env
    with pytest.raises(
        ValueError, match=r"Counter is already an environment .*, but was given bonus"
    ):
        make(env, bonus=1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: 3, "int is not an environment, it has no spec and no reset and no step"),
        (lambda: Params(), "Params is not an environment"),
        (
            lambda: environment.EnvParams(),
            "EnvParams is from gymnax, but is not one of its environ",
        ),
        (lambda: purerl.LogWrapper(Walk()), "LogWrapper is a wrapper of gymnax: pass the environ"),
        (lambda: (Walk(), Params(), 3), "tuple is not an environment"),
    ],
)
def test_unadaptable_objects_are_rejected(given, message):
    with pytest.raises(TypeError, match=message):
        adapt(given())


# Ids ----------------------------------------------------------------------------------------------


def test_user_registered_ids_can_be_made(registered):
    assert walked(make("gymnax/Walk-v3", speed=2.0)) == ([0, 2, 4, 6], False, False)
    with pytest.raises(ValueError, match="'gymnax/Walk-v2': did you mean gymnax/Walk-v3"):
        registry.check_id("gymnax/Walk-v2")


def test_unregistered_ids_are_unknown():
    with pytest.raises(ValueError, match="there is no environment 'gymnax/Walk-v3'"):
        make("gymnax/Walk-v3")


def test_checking_an_id_imports_no_library():
    """A program that registered an id has already imported its library."""
    program = (
        "import sys\n"
        "from jaxrl_envs import registry\n"
        "try:\n    registry.check_id('brax/mine')\n"
        "except ValueError as error:\n    print(error)\n"
        "print(sorted({'gymnax', 'brax', 'jax'} & set(sys.modules)))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert re.match(r"there is no environment 'brax/mine': .*\n\[\]\n$", out)


def test_import_paths_may_name_library_objects(tmp_path, monkeypatch):
    (tmp_path / "my_walks.py").write_text(
        "import gymnax\nfrom test_objects import Walk, Params\n"
        "ready = Walk()\npair = Walk(), Params(speed=2.0)\n"
        "def build(speed=1.0):\n    return Walk(), Params(speed=speed)\n"
    )
    monkeypatch.setitem(sys.modules, "test_objects", sys.modules[__name__])
    monkeypatch.syspath_prepend(tmp_path)
    expected = {"Walk": 1, "ready": 1, "pair": 2, "build": 1}
    for name, speed in expected.items():
        assert make(f"my_walks:{name}").params.speed == speed
    assert make("my_walks:build", speed=4.0).params.speed == 4.0


def test_every_family_has_an_adapter():
    families = {*registry.FAMILIES} - {"jaxrl", "envpool", "ale"}  # which make their copies
    assert families == set(libraries.LIBRARIES)
