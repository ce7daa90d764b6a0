"""`make` and `check`: ids, import paths, and violations of the contract."""

import importlib.util
import re
import sys
import tomllib

import jax
import jax.numpy as jnp
import pytest
from flax import struct
from helpers.environments import Counter, MaskedChoice, timestep
from helpers.paths import ROOT
from helpers.probes import cases

import jaxrl
import jaxrl_envs
from jaxrl.errors import InvalidType
from jaxrl.types import Discrete, EnvSpec, Masked
from jaxrl_envs import ConformanceError, check, registry
from jaxrl_envs.libraries import EXTRAS, extra_of

VECTOR = jax.ShapeDtypeStruct((1,), jnp.float32)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user-defined module."""
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "worlds.py").write_text(
        "from helpers.environments import Counter\n"
        "ready = Counter()\n"
        "number = 3\n"
        "def make_env(**params):\n    return Counter(**params)\n"
        "def make_nothing():\n    return 3\n"
    )
    (tmp_path / "my_lab" / "broken.py").write_text("import there_is_no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("my_lab")]:
        del sys.modules[name]


def test_import_path_makes_a_user_environment(mine):
    assert isinstance(jaxrl_envs.make("my_lab.worlds:make_env"), Counter)
    assert isinstance(jaxrl_envs.make("my_lab.worlds:Counter"), Counter)
    assert isinstance(jaxrl_envs.make("my_lab.worlds:ready"), Counter)


@pytest.mark.parametrize(
    ("env_id", "error", "message"),
    [
        ("my_lab.worlds:make_enw", ValueError, "has no 'make_enw': did you mean make_env"),
        ("my_lab.words:make_env", ValueError, "there is no module 'my_lab.words'"),
        ("your_lab:make_env", ValueError, "there is no module 'your_lab'"),
        ("my_lab.broken:make_env", ModuleNotFoundError, "there_is_no_such_module"),
        ("my_lab.worlds:make_nothing", TypeError, "has no spec and no reset and no step"),
        (
            "json:loads",
            InvalidType,
            "json:loads cannot be called with no parameters: missing a required argument: 's'",
        ),
        ("my_lab.worlds:number", TypeError, "is of type int: use a function or a class"),
        ("my_lab.worlds:", ValueError, "is not an import path"),
        ("my lab:make", ValueError, "is not an import path"),
    ],
)
def test_invalid_import_paths_are_rejected(mine, env_id, error, message):
    with pytest.raises(error, match=message):
        jaxrl_envs.make(env_id)


def test_environment_instances_take_no_parameters(mine):
    with pytest.raises(ValueError, match="takes no parameters"):
        jaxrl_envs.make("my_lab.worlds:ready", length=3)


@pytest.mark.parametrize("family", EXTRAS)
def test_missing_library_error_names_the_extra(monkeypatch, family):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    env_id = f"{family}/{registry.FAMILIES[family].ids[0]}"
    message = f"{env_id} needs {EXTRAS[family]}: pip install 'jaxrl[{extra_of(family)}]'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        jaxrl_envs.make(env_id)


def test_every_library_is_an_extra_and_in_dev():
    assert {name for name, its in registry.FAMILIES.items() if its.library} == {*EXTRAS}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for family, package in EXTRAS.items():
        (requirement,) = extras[extra_of(family)]
        assert re.match(rf"{package}(\[.*\])?>=", requirement)
        assert requirement in extras["dev"]


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("gymnax/CartPole-v2", "gymnax/CartPole-v1"),
        ("jumanji/Snake-v0", "jumanji/Snake-v1"),
        ("craftax/Craftax-v1", "craftax/Craftax-Pixels-v1"),
        ("navix/Navix-Empty-5x5-v1", "navix/Navix-Empty-5x5-v0"),
        ("tetris", "jumanji/Tetris-v0"),
    ],
)
def test_unknown_ids_suggest_the_closest(monkeypatch, env_id, near):
    """Even when the libraries are not installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"there is no environment '{env_id}'.*{near}"):
        registry.check_id(env_id)


def test_listed_ids_are_unique_and_cover_all_families():
    ids = jaxrl_envs.list_ids()
    assert len(ids) == len(set(ids))
    assert {env_id.partition("/")[0] for env_id in ids} == set(registry.FAMILIES)


# check --------------------------------------------------------------------------------------------


class Good(struct.PyTreeNode):
    """Three steps that show the step count. Most subclasses below break one rule each."""

    spec = EnvSpec(VECTOR, Discrete(2), max_steps=3)

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(1)

    def step(self, key, state, action):
        state = state + 1
        return state, timestep(state[None].astype(jnp.float32), 1.0, False, state >= 3)


class WrongShape(Good):
    def reset(self, key):
        return jnp.int32(0), jnp.zeros(2)


class WeakState(Good):
    def reset(self, key):
        return 0, jnp.zeros(1)

    def step(self, key, state, action):
        state = jnp.asarray(state) + 1
        return state, timestep(state[None].astype(jnp.float32), 1.0, False, state >= 3)


class FloatDone(Good):
    def step(self, key, state, action):
        state, result = super().step(key, state, action)
        return state, result.replace(terminated=result.terminated.astype(jnp.float32))


class Both(Good):
    def step(self, key, state, action):
        state, result = super().step(key, state, action)
        return state, result.replace(terminated=result.truncated)


class Endless(Good):
    def step(self, key, state, action):
        state, result = super().step(key, state, action)
        return state, result.replace(truncated=jnp.bool_(False))


class CutEarly(Good):
    spec = EnvSpec(VECTOR, Discrete(2), max_steps=5, truncates="at_max_steps")


class CutWithoutLimit(Good):
    spec = EnvSpec(VECTOR, Discrete(2), truncates="at_max_steps")


class CutEarlyAndSaysSo(Good):
    spec = EnvSpec(VECTOR, Discrete(2), max_steps=5)


class NoSpaceAtAll(Good):
    @property
    def spec(self):
        return EnvSpec(VECTOR, Discrete(0))


class MaskOfOne(Good):
    @property
    def spec(self):
        return EnvSpec(Masked(VECTOR, jax.ShapeDtypeStruct((1,), jnp.bool_)), Discrete(4))


class FloatMask(Good):
    spec = EnvSpec(Masked(VECTOR, jax.ShapeDtypeStruct((2,), jnp.bool_)), Discrete(2), max_steps=3)

    def reset(self, key):
        return jnp.int32(0), Masked(jnp.zeros(1), jnp.ones(2))

    def step(self, key, state, action):
        state, result = super().step(key, state, action)
        return state, result.replace(obs=Masked(result.obs, jnp.ones(2)))


class NotFinite(Good):
    def step(self, key, state, action):
        state, result = super().step(key, state, action)
        return state, result.replace(reward=jnp.log(2.0 - state.astype(jnp.float32)))


class PythonBranch(Good):
    def step(self, key, state, action):
        return super().step(key, state + 1 if action > 0 else state, action)


class NoChoice(Good):
    spec = EnvSpec(Masked(VECTOR, jax.ShapeDtypeStruct((2,), jnp.bool_)), Discrete(2), max_steps=3)

    def reset(self, key):
        return jnp.int32(0), Masked(jnp.zeros(1), jnp.zeros(2, bool))

    def step(self, key, state, action):
        state, result = super().step(key, state, action)
        return state, result.replace(obs=Masked(result.obs, jnp.zeros(2, bool)))


class Remembers(Good):
    """Counts calls outside its state."""

    calls = [0]  # noqa: RUF012

    def step(self, key, state, action):
        self.calls[0] += 1
        state, result = super().step(key, state, action)
        return state, result.replace(reward=jnp.float32(self.calls[0]))


class WritesIntoItsState(Good):
    def reset(self, key):
        return {"time": jnp.int32(0)}, jnp.zeros(1)

    def step(self, key, state, action):
        state["time"] = state["time"] + 1
        time = state["time"]
        return state, timestep(time[None].astype(jnp.float32), 1.0, False, time >= 3)


def test_good_environments_pass():
    check(Good())
    check(MaskedChoice())
    check(CutEarlyAndSaysSo())


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (WrongShape, r"observation of reset is float32\[2\], spec.observation float32\[1\]"),
        (WeakState, "weakly typed|dtype"),
        (FloatDone, r"terminated is float32\[\], but must be bool\[\]"),
        (Both, "terminated and truncated"),
        (Endless, "continued after spec.max_steps = 3 steps"),
        (CutEarly, "truncated after 3 steps, though .* = 'at_max_steps' and spec.max_steps = 5"),
        (CutWithoutLimit, "truncated after 3 steps, though .* and spec.max_steps = None"),
        (NoSpaceAtAll, "Discrete.num is 0: it must be a whole number"),
        (MaskOfOne, r"action_mask is bool\[1\], but Discrete\(num=4\) needs bool\[4\]"),
        (FloatMask, r"observation of reset.action_mask is float32\[2\], spec.* bool\[2\]"),
        (NotFinite, "a reward was not finite"),
        (PythonBranch, "cannot be traced"),
        (NoChoice, "left no action to take"),
        (Remembers, "two traces of step differ"),
        (WritesIntoItsState, "modifies the state"),
    ],
)
def test_contract_violations_are_reported(env, message):
    with pytest.raises(ConformanceError, match=message):
        check(env())


@pytest.mark.parametrize(
    "env_id", cases(["gymnax/CartPole-v1", "gymnax/Breakout-MinAtar"], "gymnax/CartPole-v1")
)
def test_gymnax_environments_pass(env_id):
    check(jaxrl_envs.make(env_id), num_steps=20)


def test_environments_that_pass_can_be_trained():
    state, _ = jaxrl.train(
        jaxrl.agents.PPO(num_steps=8, hidden_sizes=(4,)), Good(), jax.random.key(0), total_steps=32
    )
    assert jnp.isfinite(jax.tree.leaves(state.agent.params)[0]).all()


@pytest.mark.parametrize("env_id", ["gymnax/CartPole-v1", "jaxrl/corridor"])
@pytest.mark.parametrize("name", ["env_id", "name", "self", "cls", "default"])
def test_a_parameter_may_be_called_like_an_argument(env_id, name):
    """It is unknown, as any other: not a second value of that argument."""
    with pytest.raises(ValueError, match=f"has no parameter '{name}'"):
        jaxrl_envs.make(env_id, **{name: 1})
