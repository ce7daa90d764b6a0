"""Parameters stay flattened between updates: same results, invisible to agents."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.environments import Counter, Recall
from helpers.probes import cases

import jaxrl
from jaxrl.agents import PPO, PQN, PPOPenalty
from jaxrl.agents.bases.learning import TrainState
from jaxrl.engine import learners
from jaxrl.engine.train import train
from jaxrl.optimizers import descend
from jaxrl.xla import layout
from jaxrl.xla.flatten import Flattened, flatten, unflatten

KEY = jax.random.key(0)
TREE = {
    "kernel": jnp.arange(6.0).reshape(3, 2),
    "bias": jnp.array([0.1, -0.2]),
    "scalar": jnp.float32(3.0),
    "half": jnp.array([1.5, 2.5], jnp.bfloat16),
    "none": jnp.zeros((0, 4)),
}
FLOATS = {name: TREE[name] for name in ("kernel", "bias", "scalar")}


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), one) == jax.tree.map(
        lambda x: (x.shape, x.dtype), two
    )


@pytest.mark.parametrize("tree", [TREE, FLOATS, {}, jnp.ones((2, 2))])
def test_flattened_trees_round_trip(tree):
    kept = Flattened.of(tree)
    assert kept.vector.ndim == 1
    assert len(jax.tree.leaves(kept)) == 1
    same(kept.tree, tree)


def test_half_precision_stays_half_precision():
    """A float32 step size makes float32 updates; the loop needs the original dtypes."""
    tree = {"w": jnp.ones(3, jnp.bfloat16)}
    transform = optax.adam(jnp.float32(0.1))
    new, *_ = descend(transform, lambda p: (jnp.sum(p["w"] ** 2), None), tree, transform.init(tree))
    assert new["w"].dtype == jnp.bfloat16


def test_trees_with_integers_are_not_flattened():
    """An integer count would lose digits as a float."""
    state = TrainState({"w": jnp.ones(2), "count": jnp.int32(2**24 + 1)}, {"m": jnp.ones(2)})
    carried = flatten(state, ("params", "optimizer"))
    assert (type(carried.params), type(carried.optimizer)) == (dict, Flattened)
    same(unflatten(carried, ("params", "optimizer")), state)


AGENTS = {
    "ppo": (PPO(num_envs=4, num_steps=8, hidden_sizes=(8,)), Counter()),
    "ppo-recurrent": (PPO(num_envs=4, num_steps=8, core="gru", shared_torso=True), Recall()),
    "ppo-target-kl": (PPO(num_envs=4, num_steps=8, hidden_sizes=(8,), target_kl=1e-4), Counter()),
    "ppo-penalty": (PPOPenalty(num_envs=4, num_steps=8, hidden_sizes=(8,)), Counter()),
    "pqn": (PQN(num_envs=4, num_steps=8, num_minibatches=4, hidden_sizes=(8,)), Counter()),
}


@pytest.fixture
def carried(monkeypatch):
    """Records the fields that the update loop carries as vectors."""
    seen = []

    def spy(state, fields):
        seen.append(fields)
        return flatten(state, fields)

    monkeypatch.setattr(learners, "flatten", spy)
    return seen


@pytest.mark.parametrize("is_cpu", [True, False])
def test_parameters_are_flattened_only_on_cpu(is_cpu, carried, monkeypatch):
    """Agents see a tree on every device."""
    monkeypatch.setattr(layout, "is_cpu", lambda: is_cpu)
    seen = []

    class Watched(PPO):
        def update(self, state, batch, key, clock):
            seen.append(type(state.params))
            return super().update(state, batch, key, clock)

    agent = Watched(num_envs=4, num_steps=8, hidden_sizes=(8,))
    jax.eval_shape(lambda key: train(agent, Counter(), key, total_steps=32), KEY)
    assert set(carried) == {("params",) if is_cpu else ()}
    assert set(seen) == {dict}


@pytest.mark.parametrize("name", cases(AGENTS, "ppo"))
def test_flattening_does_not_change_learning(name, carried, monkeypatch):
    monkeypatch.setattr(layout, "is_cpu", lambda: True)  # an accelerator keeps the tree
    agent, env = AGENTS[name]

    class AsTree(type(agent)):
        flattened = ()

    def run(kind):
        values = {f.name: getattr(agent, f.name) for f in dataclasses.fields(agent)}
        carried.clear()
        state, _ = jax.jit(
            jax.vmap(lambda key: train(kind(**values), env, key, total_steps=96, num_evaluations=0))
        )(jax.random.split(KEY, 2))
        return state.agent, set(carried)

    vector, tree = run(type(agent)), run(AsTree)
    assert (vector[1], tree[1]) == ({agent.flattened}, {()})
    assert "params" in agent.flattened
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), vector[0], tree[0]
    )
    start = jax.vmap(agent.bind(env.spec).init)(jax.random.split(KEY, 2))
    assert jax.tree.structure(vector[0]) == jax.tree.structure(start)


def test_flattened_fields_exist_in_agent_states():
    found = 0
    for agent_name in jaxrl.agents.__all__:
        agent = getattr(jaxrl.agents, agent_name)
        for field in agent.flattened:
            found += 1
            state = jax.eval_shape(agent().bind(Counter().spec).init, KEY)
            assert hasattr(state, field), (agent_name, field)
    assert found >= 2
