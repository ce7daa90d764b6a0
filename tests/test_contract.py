"""Objects that are not environments get helpful errors before anything is traced."""

import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import pytest
from flax import struct
from helpers.environments import Counter, timestep

import jaxrl
from jaxrl.engine.training import Training
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.environment import check_environment
from jaxrl.wrappers import ScaleReward, TimeLimit
from jaxrl_envs import ConformanceError, check
from jaxrl_envs.objects import as_environment

KEY = jax.random.key(0)


class Plain:
    """A complete environment that is not a pytree."""

    spec = Counter().spec

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(2)

    def step(self, key, state, action):
        return state + 1, timestep(jnp.zeros(2), 0.0, state > 3)


class Named(Counter):
    """Has a field that is neither a number nor static."""

    name: str = "mine"


class NoStep(struct.PyTreeNode):
    spec = Counter().spec

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(2)


class OfAnother(Counter):
    spec = types.SimpleNamespace(id="CartPole-v1")


class FiveValues(Counter):
    """Its step returns five values, like gymnax's."""

    def step(self, key, state, action):
        state, timestep = super().step(key, state, action)
        return timestep.obs, state, timestep.reward, timestep.terminated, {}


class NoPair(Counter):
    def reset(self, key):
        return super().reset(key)[1]


class TextInside(Counter):
    def step(self, key, state, action):
        state, timestep = super().step(key, state, action)
        return state, timestep.replace(info={"why": "fell"})


class TextInState(Counter):
    def reset(self, key):
        return {"x": super().reset(key)[0], "name": "mine"}, super().reset(key)[1]


HOW = "subclass flax.struct.PyTreeNode"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Plain(), f"Plain is not a pytree: .*{HOW}"),
        (TimeLimit(Plain(), max_steps=5), f"Plain is not a pytree: .*{HOW}"),
        (ScaleReward(ScaleReward(Named())), r"Named.name is a str"),
        (Named(), r"Named.name is a str, 'mine': .* static field: `= flax.struct.field\("),
        (Counter(bonus={"a": print}), r"Counter.bonus\['a'\] is a builtin_function.*static field"),
        (NoStep(), "NoStep is not an environment, it has no step: an environment is a pytree with"),
        (object(), "object is not an environment, it has no spec and no reset and no step"),
        (None, "NoneType is not an environment, it has no spec and no reset and no step"),
        (Counter, r"env is the class Counter: pass Counter\(\.\.\.\)"),
        ("gymnax/CartPole-v1", r"env is the text .*: pass jaxrl_envs.make\("),
        (OfAnother(), r"OfAnother.spec is a SimpleNamespace: .* a jaxrl.EnvSpec"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_non_environments_are_rejected(env, message):
    with pytest.raises(TypeError, match=message):
        as_environment(env)
    with pytest.raises(TypeError, match=message):
        Training.create(jaxrl.agents.PPO(), env, total_steps=100)
    with pytest.raises(ConformanceError, match=message):
        check(env)


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (jaxrl.agents.PPO, r"^agent is the class PPO: pass PPO\(\.\.\.\)$"),
        (Counter(), "^Counter is not an agent, it has no bind and no plan and no update: pass a"),
        ("ppo", "^str is not an agent, it has no bind"),
        (None, "^NoneType is not an agent, it has no bind"),
    ],
    ids=lambda x: "",
)
def test_non_agents_are_rejected(agent, message):
    with pytest.raises(TypeError, match=message):
        Training.create(agent, Counter(), total_steps=100)


@pytest.mark.parametrize(
    "entry",
    [
        lambda env, path: jaxrl.train(jaxrl.agents.PPO(), env, KEY, total_steps=100),
        lambda env, path: jaxrl.fit(
            jaxrl.agents.PPO(), env, KEY, total_steps=100, run_dir=path / "run"
        ),
        lambda env, path: jaxrl.evaluate(lambda *_: None, env, KEY, num_episodes=2),
        lambda env, path: VectorEnv(env, 2).reset(KEY),
        lambda env, path: VectorEnv(env, 2).check(),
        lambda env, path: jaxrl.train(
            jaxrl.agents.PPO(), Counter(), KEY, total_steps=100, eval_env=env
        ),
    ],
    ids=["train", "fit", "evaluate", "reset", "check", "eval_env"],
)
def test_every_entry_point_rejects_non_pytrees(entry, tmp_path):
    with pytest.raises(TypeError, match=f"Plain is not a pytree: .*{HOW}"):
        entry(Plain(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (FiveValues(), r"step returned \(.*, dict\), but must return \(state, jaxrl.Timestep\)"),
        (NoPair(), r"reset returned \(.*Tracer\), but must return \(state, observation\)"),
        (TextInside(), r"step returned 'fell' in timestep.info\['why'\]: only numbers and arrays"),
        (TextInState(), r"reset returned 'mine' in state\['name'\]: only numbers and arrays"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_return_values_are_checked(env, message):
    with pytest.raises(TypeError, match=message):
        Training.create(jaxrl.agents.PPO(), env, total_steps=100)
    with pytest.raises(ConformanceError, match=f"- {message}"):
        check(env)


def test_suggested_fixes_work():
    """Both ways to make the class a pytree, and both ways to write a static field."""

    class Mended(Plain, struct.PyTreeNode):
        name: str = struct.field(pytree_node=False, default="mine")

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Registered(Plain):
        scale: float = 1.0
        name: str = dataclasses.field(default="mine", metadata=dict(static=True))

    for env in (Mended(), Registered()):
        assert as_environment(env) is env
        assert VectorEnv(env, 3).reset(KEY).obs.shape == (3, 2)
    for example in ("flax.struct.field(pytree_node=False)", "metadata=dict(static=True)"):
        with pytest.raises(TypeError, match=re.escape(example)):
            check_environment(Plain())


def test_errors_name_the_wrapped_environment():
    for env in (TimeLimit(Plain()), VectorEnv(TimeLimit(Plain()), 2)):
        with pytest.raises(TypeError, match=f"env is a Plain, which is not a pytree: .*{HOW}"):
            env.check() if isinstance(env, VectorEnv) else check_environment(env)


def test_numeric_leaves_are_accepted():
    """Also under vmap and eval_shape, where they are abstract."""
    for bonus in (1, True, 1.0, jnp.ones(()), jnp.float32(1.0).item(), KEY):
        check_environment(Counter(bonus=bonus))
    jax.vmap(lambda b: check_environment(Counter(bonus=b)))(jnp.ones(3))
    jax.eval_shape(lambda b: check_environment(Counter(bonus=b)), jnp.ones(3))


def test_specification_errors_are_not_hidden():
    with pytest.raises(ValueError, match="max_steps is 0"):
        as_environment(TimeLimit(Counter(), max_steps=0))
