"""The rows of the score table: what is trained, on what, for how long, and what was published.

Plain values: nothing here imports jax, and what a row says can be written into its result.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """One algorithm on one environment.

    Attributes:
      id: its name on the command line.
      env: the environment's id.
      algorithm: as in `jaxrl train ALGORITHM`.
      hyper: the hyper-parameters, as the command line writes them ("linear:2.5e-4:0") or as
        numbers; the others are the agent's defaults.
      total_steps: of each seed.
      num_seeds: how many the verdict needs.
      published: the figure to reach.
      source: where it was published, and what it means.
      env_params: parameters of the environment that are not the default ones.
      normalize_observations, normalize_rewards: as in `jaxrl.train`.
      num_eval_episodes: that score the last state of each seed.
      seeds_at_once: trained under one vmap; an interrupted command loses at most these.
      needs_gpu: too long for a CPU.
    """

    id: str
    env: str
    algorithm: str
    hyper: dict[str, Any]
    total_steps: int
    num_seeds: int
    published: float
    source: str
    env_params: dict[str, Any] = dataclasses.field(default_factory=dict)
    normalize_observations: bool = False
    normalize_rewards: bool = False
    num_eval_episodes: int = 128
    seeds_at_once: int = 16
    needs_gpu: bool = False

    def configuration(self) -> dict[str, Any]:
        """What decides a seed's score; results of two configurations are never mixed."""
        return {
            "env": self.env,
            "env_params": self.env_params,
            "algorithm": self.algorithm,
            "hyper": self.hyper,
            "total_steps": self.total_steps,
            "normalize_observations": self.normalize_observations,
            "normalize_rewards": self.normalize_rewards,
            "num_eval_episodes": self.num_eval_episodes,
        }


_CARTPOLE_TRUST_REGION = {
    "num_envs": 2,
    "num_steps": 512,
    "discount": 0.99,
    "gae_lambda": 0.98,
    "kl_radius": 0.01,
    "damping": 1e-3,
    "cg_iterations": 15,
    "critic_epochs": 20,
    "critic_minibatches": 2,
    "critic_learning_rate": 1e-3,
    "activation": "tanh",
    "hidden_sizes": "64,64",
}

_CLEANRL_DQN = {
    "num_envs": 1,
    "num_steps": 10,
    "num_updates": 1,
    "batch_size": 128,
    "capacity": 10_000,
    "warmup": 10_000,
    "target_every": 50,
    "epsilon": "linear:1:0.05:0.5",
    "learning_rate": 2.5e-4,
    "huber_delta": None,
    "max_grad_norm": None,
    "hidden_sizes": "120,84",
}

_PENDULUM = {
    "num_envs": 1,
    "num_steps": 1,
    "num_updates": 1,
    "batch_size": 256,
    "capacity": 20_000,
    "discount": 0.98,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "tau": 0.005,
}

_ROWS = (
    Row(
        id="S1",
        env="gymnax/CartPole-v1",
        algorithm="ppo",
        hyper={
            "num_envs": 4,
            "num_steps": 128,
            "num_epochs": 4,
            "num_minibatches": 4,
            "learning_rate": "linear:2.5e-4:0",
            "entropy_coefficient": 0.01,
            "discount": 0.99,
            "gae_lambda": 0.95,
            "clip_epsilon": 0.2,
            "value_coefficient": 0.5,
            "max_grad_norm": 0.5,
            "adam_epsilon": 1e-5,
            "activation": "tanh",
            "hidden_sizes": "64,64",
        },
        total_steps=500_000,
        num_seeds=16,
        published=490.0,
        source="CleanRL docs (490.0 ± 6.1)",
    ),
    Row(
        id="S2",
        env="gymnax/CartPole-v1",
        algorithm="trpo",
        hyper=_CARTPOLE_TRUST_REGION,
        total_steps=100_000,
        num_seeds=10,
        published=495.0,
        source="ours to reach; rl-zoo has 500 (1 run)",
        seeds_at_once=10,
    ),
    Row(
        id="S3",
        env="gymnax/CartPole-v1",
        algorithm="npg",
        hyper=_CARTPOLE_TRUST_REGION,
        total_steps=100_000,
        num_seeds=10,
        published=485.0,
        source="ours to reach",
        seeds_at_once=10,
    ),
    Row(
        id="S4-reinforce",
        env="gymnax/CartPole-v1",
        algorithm="reinforce",
        hyper={
            "num_envs": 4,
            "num_steps": 128,
            "discount": 0.99,
            "learning_rate": "linear:2e-3:0",
            "standardize": "advantages",
            "entropy_coefficient": 0.01,
            "critic_learning_rate": 2e-3,
            "critic_epochs": 10,
            "activation": "tanh",
            "hidden_sizes": "128,128",
        },
        total_steps=200_000,
        num_seeds=10,
        published=483.3,
        source="SLM-Lab",
        seeds_at_once=10,
    ),
    Row(
        id="S7-trpo",
        env="gymnax/MountainCar-v0",
        algorithm="trpo",
        hyper={
            "num_envs": 2,
            "num_steps": 1024,
            "discount": 0.99,
            "gae_lambda": 0.95,
            "kl_radius": 0.01,
            "damping": 0.1,
            "cg_iterations": 15,
            "critic_epochs": 20,
            "critic_minibatches": 16,
            "critic_learning_rate": 1e-3,
            "activation": "tanh",
            "hidden_sizes": "64,64",
        },
        total_steps=100_000,
        num_seeds=10,
        published=-107.3,
        source="rl-zoo (1 run)",
        normalize_observations=True,
        normalize_rewards=True,
        seeds_at_once=10,
    ),
    Row(
        id="S9-trpo",
        env="gymnax/Pendulum-v1",
        algorithm="trpo",
        hyper={
            "num_envs": 2,
            "num_steps": 1024,
            "discount": 0.9,
            "gae_lambda": 0.95,
            "kl_radius": 0.01,
            "damping": 0.1,
            "cg_iterations": 15,
            "critic_epochs": 15,
            "critic_minibatches": 16,
            "critic_learning_rate": 1e-3,
            "activation": "tanh",
            "hidden_sizes": "64,64",
        },
        total_steps=100_000,
        num_seeds=10,
        published=-174.6,
        source="rl-zoo (1 run, with state-dependent exploration)",
        num_eval_episodes=300,
        seeds_at_once=10,
    ),
    Row(
        id="S9-ppo",
        env="gymnax/Pendulum-v1",
        algorithm="ppo",
        hyper={
            "num_envs": 8,
            "num_steps": 256,
            "num_epochs": 10,
            "num_minibatches": 32,
            "learning_rate": "linear:1e-3:0",
            "entropy_coefficient": 0.0,
            "discount": 0.95,
            "gae_lambda": 0.95,
            "clip_epsilon": 0.2,
            "clip_value": False,
            "activation": "tanh",
            "hidden_sizes": "64,64",
        },
        total_steps=300_000,
        num_seeds=10,
        published=-174.9,
        source="SLM-Lab",
        normalize_rewards=True,
        num_eval_episodes=300,
    ),
    Row(
        id="S5-dqn",
        env="gymnax/CartPole-v1",
        algorithm="dqn",
        hyper=_CLEANRL_DQN,
        total_steps=500_000,
        num_seeds=10,
        published=488.7,
        source="CleanRL (488.7 ± 16.1; its JAX version 498.4 ± 2.3)",
        seeds_at_once=10,
    ),
    Row(
        id="S5-c51",
        env="gymnax/CartPole-v1",
        algorithm="dqn",
        hyper=_CLEANRL_DQN
        | {
            "head": "c51",
            "num_atoms": 101,
            "value_min": -100.0,
            "value_max": 100.0,
            "adam_epsilon": 0.01 / 128,
        },
        total_steps=500_000,
        num_seeds=10,
        published=491.1,
        source="CleanRL (491.1 ± 9.7)",
        seeds_at_once=10,
    ),
    Row(
        id="S6",
        env="gymnax/CartPole-v1",
        algorithm="dqn",
        hyper={
            "num_envs": 4,
            "num_steps": 1,
            "num_updates": 1,
            "batch_size": 64,
            "capacity": 20_000,
            "warmup": 1000,
            "double": "target",
            "prioritized": True,
            "target_every": 250,
            "epsilon": "linear:1:0.02:0.3",
            "learning_rate": "linear:1e-3:1e-5",
            "hidden_sizes": "64,64",
        },
        total_steps=200_000,
        num_seeds=10,
        published=451.5,
        source="SLM-Lab",
        seeds_at_once=10,
    ),
    Row(
        id="S7-dqn",
        env="gymnax/MountainCar-v0",
        algorithm="dqn",
        hyper={
            "num_envs": 1,
            "num_steps": 16,
            "num_updates": 8,
            "batch_size": 128,
            "capacity": 10_000,
            "warmup": 1000,
            "discount": 0.98,
            "learning_rate": 4e-3,
            "target_every": 300,
            "epsilon": "linear:1:0.07:0.2",
            "huber_delta": 1.0,
            "hidden_sizes": "256,256",
        },
        total_steps=120_000,
        num_seeds=10,
        published=-100.8,
        source="rl-zoo (1 run)",
        seeds_at_once=10,
    ),
    Row(
        id="S8-sac",
        env="gymnax/Pendulum-v1",
        algorithm="sac",
        hyper=_PENDULUM | {"warmup": 100, "discount": 0.99, "hidden_sizes": "256,256"},
        total_steps=20_000,
        num_seeds=10,
        published=-157.0,
        source="rl-zoo (1 run)",
        num_eval_episodes=300,
        seeds_at_once=5,
    ),
    Row(
        id="S8-td3",
        env="gymnax/Pendulum-v1",
        algorithm="td3",
        hyper=_PENDULUM | {"warmup": 1_000, "hidden_sizes": "400,300"},
        total_steps=20_000,
        num_seeds=10,
        published=-152.0,
        source="rl-zoo (1 run)",
        num_eval_episodes=300,
        seeds_at_once=5,
    ),
    Row(
        id="S8-ddpg",
        env="gymnax/Pendulum-v1",
        algorithm="ddpg",
        hyper=_PENDULUM | {"warmup": 1_000, "hidden_sizes": "400,300"},
        total_steps=20_000,
        num_seeds=10,
        published=-152.0,
        source="rl-zoo (1 run)",
        num_eval_episodes=300,
        seeds_at_once=5,
    ),
    Row(
        id="S10",
        env="gymnax/Breakout-MinAtar",
        algorithm="ppo",
        hyper={
            "num_envs": 64,
            "num_steps": 128,
            "num_epochs": 4,
            "num_minibatches": 8,
            "learning_rate": 5e-4,
            "entropy_coefficient": 0.01,
            "discount": 0.999,
            "gae_lambda": 0.95,
            "clip_epsilon": 0.2,
            "activation": "relu",
            "hidden_sizes": "256,256",
        },
        total_steps=10_000_000,
        num_seeds=3,
        published=22.9,
        source="gymnax-blines (1 seed)",
        seeds_at_once=1,
    ),
    Row(
        id="S11",
        env="brax/hopper",
        env_params={"backend": "positional"},
        algorithm="ppo",
        hyper={
            "num_envs": 2048,
            "num_steps": 10,
            "num_epochs": 4,
            "num_minibatches": 32,
            "learning_rate": 3e-4,
            "entropy_coefficient": 0.0,
            "discount": 0.99,
            "gae_lambda": 0.95,
            "clip_epsilon": 0.2,
            "activation": "tanh",
            "hidden_sizes": "256,256",
        },
        total_steps=50_000_000,
        num_seeds=3,
        published=1450.0,
        source="PureJaxRL (about 1450, 1 seed)",
        normalize_observations=True,
        normalize_rewards=True,
        seeds_at_once=1,
        needs_gpu=True,
    ),
    Row(
        id="S12-ppo",
        env="brax/inverted_pendulum",
        env_params={"backend": "generalized"},
        algorithm="ppo",
        hyper={
            "num_envs": 64,
            "num_steps": 64,
            "num_epochs": 8,
            "num_minibatches": 8,
            "learning_rate": 1e-3,
            "entropy_coefficient": 0.0,
            "discount": 0.99,
            "gae_lambda": 0.95,
            "clip_epsilon": 0.2,
            "activation": "tanh",
            "hidden_sizes": "64,64",
        },
        total_steps=1_000_000,
        num_seeds=4,
        published=950.0,
        source="ours to reach; 1000 is the maximum",
        normalize_observations=True,
        seeds_at_once=4,
    ),
    Row(
        id="S12-sac",
        env="brax/inverted_pendulum",
        env_params={"backend": "generalized"},
        algorithm="sac",
        hyper={
            "num_envs": 8,
            "num_steps": 1,
            "num_updates": 2,
            "batch_size": 256,
            "capacity": 100_000,
            "warmup": 2_000,
            "learning_rate": 1e-3,
            "critic_learning_rate": 1e-3,
            "hidden_sizes": "64,64",
        },
        total_steps=100_000,
        num_seeds=4,
        published=950.0,
        source="ours to reach; 1000 is the maximum",
        seeds_at_once=4,
    ),
)

ROWS = {row.id: row for row in _ROWS}
