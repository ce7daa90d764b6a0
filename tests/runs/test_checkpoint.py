"""Checkpoints of older schemas are read with current names."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import Counter

from jaxrl.agent import Replay
from jaxrl.agents import A2C, TRPO
from jaxrl.agents.bases.learning import Networks
from jaxrl.replay import ReplayBuffer
from jaxrl.runs import checkpoint_files
from jaxrl.runs.checkpoint import leaves_in
from jaxrl.runs.checkpoint_files import Checkpoints
from jaxrl.types import Discrete, EnvSpec, Transition

PLAN = Replay(num_envs=2, num_steps=2, num_updates=1, batch_size=2, capacity=40)
SPEC = EnvSpec(
    jax.ShapeDtypeStruct((3,), jnp.float32), Discrete(2), max_steps=20, truncates="at_max_steps"
)
STEP = Transition(
    jnp.zeros(3), jnp.int32(0), jnp.float32(0), jnp.bool_(False), jnp.bool_(False), jnp.zeros(3)
)


def test_the_replay_memory_of_schema_2(tmp_path, monkeypatch):
    """Its fields were `finals`, `final` and `num_finals`."""
    state = ReplayBuffer.of(PLAN, SPEC).init(STEP)
    state = jax.tree.map(lambda x: jnp.arange(x.size).reshape(x.shape).astype(x.dtype), state)
    then = {
        "steps": state.steps,
        "finals": state.final_obs,
        "final": state.final_index,
        "num_finals": state.num_truncated,
    }
    monkeypatch.setattr(checkpoint_files, "SCHEMA_VERSION", 2)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(4, {"progress": {"buffer": then, "final": jnp.ones(2)}}, {})
    monkeypatch.undo()
    like = {"buffer": state, "final": jnp.ones(2)}  # which is no field of the memory
    found = Checkpoints(tmp_path).load(4, "progress", jax.eval_shape(lambda: like))
    jax.tree.map(np.testing.assert_array_equal, found, like)
    names = leaves_in(Checkpoints(tmp_path).record(4), "progress")
    assert {"buffer.final_obs", "buffer.final_index", "buffer.num_truncated", "final"} < set(names)


@pytest.mark.parametrize("agent", [TRPO(), A2C()])
def test_a_policy_and_a_critic_that_were_one_tree_are_found(tmp_path, agent):
    """Of agents that keep them apart by now; that of the others is one tree still."""
    state = jax.jit(agent.bind(Counter().spec).init)(jax.random.key(0))
    then = state
    if isinstance(state.params, Networks):
        actor, critic = state.params.actor["params"], state.params.critic["params"]
        then = state.replace(params={"params": actor | critic})
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(4, {"learned": {"agent": then}}, {})
    like = {"agent": state}
    found = Checkpoints(tmp_path).load(4, "learned", jax.eval_shape(lambda: like))
    jax.tree.map(np.testing.assert_array_equal, found, like)
