"""Small training programs that cover every plan and every hot path."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec

from helpers.agents.cross_entropy import CrossEntropy
from helpers.environments import BestContinuousAction, Chain, Picture, Recall
from jaxrl.agents import A2C, PPO, PQN, REINFORCE, SAC, TD3, TRPO, FittedQ, Rainbow
from jaxrl.devices.placement import SHARED
from jaxrl.devices.shards import ENVS
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.types import Transition

KEY = jax.random.key(0)
NUM_EVAL_EPISODES = 4


class Program(NamedTuple):
    """One iteration of training, with initialisation and one evaluation.

    Attributes:
      agent, env: what trains, and where.
      options: options of `train`; a function is called for its value.
      num_seeds: seeds under one vmap; None for a single key.
      num_devices: devices that share the environments; more than one is traced, never compiled.
    """

    agent: Any
    env: Any
    options: Mapping[str, Any] = MappingProxyType({})
    num_seeds: int | None = None
    num_devices: int = 1

    def trace(self) -> jax.stages.Traced:
        """The traced program of a key."""
        options = {name: x() if callable(x) else x for name, x in self.options.items()}
        options |= {"total_steps": 1, "num_eval_episodes": NUM_EVAL_EPISODES}
        if self.num_devices > 1:
            return self._on_devices(options)

        def run(key):
            return train(self.agent, self.env, key, num_evaluations=1, **options)

        if self.num_seeds is None:
            return jax.jit(run).trace(KEY)
        return jax.jit(jax.vmap(run)).trace(jax.random.split(KEY, self.num_seeds))

    def _on_devices(self, options: dict) -> jax.stages.Traced:
        training = Training.create(self.agent, self.env, **options)

        def run(training, key):
            state = training.init(key)
            zero, number = jnp.int32(0), jnp.int32(training.num_iterations)
            state, metrics, _ = training.chunk(state, key, zero, number)
            return state, metrics, training.evaluate(state, key, number)

        of_envs = PartitionSpec(ENVS)
        spread = jax.shard_map(
            run,
            mesh=AbstractMesh((self.num_devices,), (ENVS,)),
            in_specs=(SHARED, SHARED),
            out_specs=(training.specs(SHARED, of_envs), SHARED, of_envs),
        )
        return jax.jit(spread).trace(training, KEY)


def _data() -> Transition:
    """64 transitions of the chain, of which only the shapes matter."""
    obs, never = jnp.zeros((64, 5)), jnp.zeros(64, bool)
    return Transition(obs, jnp.zeros(64, jnp.int32), jnp.zeros(64), never, never, obs)


_ON_POLICY = {"num_envs": 8, "num_steps": 16, "hidden_sizes": (16, 16)}
_EPISODES = _ON_POLICY | {"num_steps": 20, "whole_episodes": True}
_REPLAY = {
    "num_envs": 2,
    "num_steps": 4,
    "num_updates": 2,
    "batch_size": 32,
    "capacity": 256,
    "warmup": 8,
    "hidden_sizes": (16, 16),
}
_NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}
PROGRAMS = {
    "ppo": Program(PPO(**_ON_POLICY), Chain()),
    "ppo, recurrent": Program(PPO(**_ON_POLICY, core="gru"), Recall()),
    "ppo, normalised, 3 seeds": Program(PPO(**_ON_POLICY), Chain(), _NORMALIZED, num_seeds=3),
    "ppo, 2 devices": Program(PPO(**_ON_POLICY), Chain(), _NORMALIZED, num_devices=2),
    "trpo": Program(TRPO(**_ON_POLICY), Chain()),
    "reinforce": Program(REINFORCE(**_EPISODES), Chain()),
    "rainbow": Program(Rainbow(**_REPLAY), Chain()),
    "sac": Program(SAC(**_REPLAY), BestContinuousAction()),
    "fitted q": Program(
        FittedQ(num_updates=2, batch_size=32, hidden_sizes=(16, 16)), Chain(), {"data": _data}
    ),
    "cross-entropy": Program(CrossEntropy(), Recall()),
}
MORE_PROGRAMS = {
    "a2c from a pool": Program(A2C(**_ON_POLICY), Chain(), {"reset_policy": "pool"}),
    "pqn": Program(PQN(**_ON_POLICY), Chain()),
    "td3": Program(TD3(**_REPLAY), BestContinuousAction()),
    "ppo of images": Program(PPO(**_ON_POLICY), Picture()),
}
