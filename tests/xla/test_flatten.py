"""Flattened parameters give the same numbers and updates as trees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.environments import Counter, Recall
from helpers.probes import cases

import jaxrl
from jaxrl.agents import PPO, PQN
from jaxrl.engine.train import train
from jaxrl.optimizers import adam, descend
from jaxrl.types import Clock
from jaxrl.xla import layout
from jaxrl.xla.flatten import Flattened

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
def test_the_tree_comes_back(tree):
    kept = Flattened.of(tree)
    assert kept.vector.ndim == 1
    assert len(jax.tree.leaves(kept)) == 1
    same(kept.tree, tree)


OPTIMIZERS = {
    "flat": adam(1e-2, Clock.start(), max_grad_norm=0.5),
    "tree": optax.adam(1e-2),
    "by-leaf": optax.adamw(1e-2, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_on_the_vector_is_that_on_the_tree(name):
    """Also where an optimiser treats leaves differently or has moments of their shapes."""
    transform = OPTIMIZERS[name]

    def loss(params):
        prediction = jnp.array([1.0, 2.0, 3.0]) @ params["kernel"] + params["bias"]
        return jnp.sum(jnp.square(prediction)) * params["scalar"], prediction

    tree, vector = FLOATS, Flattened.of(FLOATS)
    one = two = transform.init(FLOATS)
    for _ in range(3):
        tree, one, *found = descend(transform, loss, tree, one)
        vector, two, *others = descend(transform, loss, vector, two)
        same(vector.tree, tree)
        same(two, one)
        same(others, found)
    assert not np.array_equal(tree["bias"], FLOATS["bias"])


def test_half_precision_stays_half_precision():
    """Where the step size is a float32, updates are, too; the loop wants its dtypes back."""
    tree = {"w": jnp.ones(3, jnp.bfloat16)}
    transform = optax.adam(jnp.float32(0.1))
    for params in (tree, Flattened.of(tree)):
        new, *_ = descend(
            transform, lambda p: (jnp.sum(p["w"] ** 2), None), params, transform.init(tree)
        )
        assert jax.tree.leaves(new)[0].dtype == jnp.bfloat16


AGENTS = {
    "ppo": (PPO(num_envs=4, num_steps=8, hidden_sizes=(8,)), Counter()),
    "ppo-recurrent": (PPO(num_envs=4, num_steps=8, core="gru", shared_torso=True), Recall()),
    "ppo-target-kl": (PPO(num_envs=4, num_steps=8, hidden_sizes=(8,), target_kl=1e-4), Counter()),
    "pqn": (PQN(num_envs=4, num_steps=8, num_minibatches=4, hidden_sizes=(8,)), Counter()),
}


@pytest.mark.parametrize("is_cpu", [True, False])
def test_only_a_cpu_keeps_parameters_as_a_vector(is_cpu, monkeypatch):
    monkeypatch.setattr(layout, "is_cpu", lambda: is_cpu)
    seen = []

    class Watched(PPO):
        def update(self, state, batch, key, clock):
            seen.append(type(state.params))
            return super().update(state, batch, key, clock)

    agent = Watched(num_envs=4, num_steps=8, hidden_sizes=(8,))
    jax.eval_shape(lambda key: train(agent, Counter(), key, total_steps=32), KEY)
    assert set(seen) == {Flattened if is_cpu else dict}


@pytest.mark.parametrize("name", cases(AGENTS, "ppo"))
def test_an_agent_learns_the_same_either_way(name, monkeypatch):
    monkeypatch.setattr(layout, "is_cpu", lambda: True)  # an accelerator keeps the tree
    agent, env = AGENTS[name]
    seen = []

    class AsVector(type(agent)):
        def update(self, state, batch, key, clock):
            seen.append(type(state.params))
            return super().update(state, batch, key, clock)

    class AsTree(AsVector):
        flattened = ()

    def run(kind):
        values = {f.name: getattr(agent, f.name) for f in dataclasses.fields(agent)}
        seen.clear()
        state, _ = jax.jit(
            jax.vmap(lambda key: train(kind(**values), env, key, total_steps=96, num_evaluations=0))
        )(jax.random.split(KEY, 2))
        return state.agent, set(seen)

    vector, tree = run(AsVector), run(AsTree)
    assert (vector[1], tree[1]) == ({Flattened}, {dict})
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), vector[0], tree[0]
    )
    start = jax.vmap(agent.bind(env.spec).init)(jax.random.split(KEY, 2))
    assert jax.tree.structure(vector[0]) == jax.tree.structure(start)


def test_no_agent_names_a_field_that_its_state_lacks():
    found = 0
    for agent_name in jaxrl.agents.__all__:
        agent = getattr(jaxrl.agents, agent_name)
        for field in agent.flattened:
            found += 1
            state = jax.eval_shape(agent().bind(Counter().spec).init, KEY)
            assert hasattr(state, field), (agent_name, field)
    assert found >= 2
