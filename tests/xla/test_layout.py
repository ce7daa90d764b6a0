"""Program layouts for CPUs and accelerators train identically."""

import jax
import numpy as np
import pytest
from helpers.environments import Counter, Recall
from helpers.probes import cases

import jaxrl
import jaxrl_envs
from jaxrl.agents import DQN, PPO, TRPO
from jaxrl.agents.bases import critic
from jaxrl.engine.first_step import FirstStep
from jaxrl.xla import layout
from jaxrl.xla.flatten import flatten

KEY = jax.random.key(0)
AGENTS = {
    # Unrolled by four: 10 steps leave a partial iteration; 1 and 3 are less than one.
    "ppo": (PPO(num_envs=4, num_steps=10, hidden_sizes=(8,)), Counter()),
    "ppo-recurrent": (PPO(num_envs=4, num_steps=3, core="gru", hidden_sizes=(8,)), Recall()),
    "trpo": (TRPO(num_envs=4, num_steps=8, hidden_sizes=(8,)), Counter()),
    "dqn": (
        DQN(num_envs=4, num_steps=1, capacity=64, batch_size=8, warmup=8, hidden_sizes=(8,)),
        Counter(),
    ),
}


@pytest.fixture
def accelerator(monkeypatch):
    """Use the accelerator layout, which a CPU can run too."""
    monkeypatch.setattr(layout, "is_cpu", lambda: False)


def test_is_cpu_follows_the_jax_device():
    assert layout.is_cpu() == (jax.devices()[0].platform == "cpu")


@pytest.mark.parametrize("is_cpu", [True, False])
def test_critic_parameters_are_flattened_only_on_cpu(is_cpu, monkeypatch):
    monkeypatch.setattr(layout, "is_cpu", lambda: is_cpu)
    seen = []

    def spy(state, fields):
        seen.append(fields)
        return flatten(state, fields)

    monkeypatch.setattr(critic, "flatten", spy)
    agent, env = AGENTS["trpo"]
    jax.eval_shape(lambda key: jaxrl.train(agent, env, key, total_steps=32), KEY)
    assert set(seen) == {("critic",) if is_cpu else ()}


@pytest.mark.parametrize("name", cases(AGENTS, "ppo"))
def test_accelerator_and_cpu_layouts_learn_the_same(name, monkeypatch):
    agent, env = AGENTS[name]
    outcomes = {}
    for is_cpu in (True, False):
        monkeypatch.setattr(layout, "is_cpu", lambda is_cpu=is_cpu: is_cpu)
        program = jax.vmap(lambda key: jaxrl.train(agent, env, key, total_steps=120))
        outcomes[is_cpu] = jax.jit(program)(jax.random.split(KEY, 2))
    assert jax.tree.structure(outcomes[True]) == jax.tree.structure(outcomes[False])
    leaves = [jax.tree.leaves(outcomes[is_cpu]) for is_cpu in (True, False)]
    for x, y in zip(*leaves, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("num_operations", "steps"), [(1, 4), (layout.SMALL_STEP, 4), (layout.SMALL_STEP + 1, 1)]
)
def test_small_environment_steps_are_unrolled_by_four(accelerator, num_operations, steps):
    def step(x):
        for _ in range(num_operations):
            x = x + 1
        return x

    assert layout.scan_unroll(jax.make_jaxpr(step)(0.0)) == steps


def test_rollout_is_unrolled_only_on_accelerators(monkeypatch):
    agent = PPO(num_envs=2, num_steps=8, hidden_sizes=(4,))
    env = jaxrl_envs.make("gymnax/CartPole-v1")
    for is_cpu, seen in ((False, True), (True, False)):
        monkeypatch.setattr(layout, "is_cpu", lambda is_cpu=is_cpu: is_cpu)
        jaxpr = jax.make_jaxpr(lambda k: jaxrl.train(agent, env, k, total_steps=16))(KEY)
        assert (f"unroll={layout.SCAN_UNROLL}" in str(jaxpr)) == seen


def test_gymnax_steps_are_unrolled_and_brax_steps_are_not(accelerator):
    pytest.importorskip("brax")
    turns = [
        layout.scan_unroll(FirstStep.of(jaxrl_envs.make(name)).jaxpr)
        for name in ("gymnax/CartPole-v1", "gymnax/Breakout-MinAtar", "brax/inverted_pendulum")
    ]
    assert turns == [4, 4, 1]
