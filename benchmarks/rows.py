"""The rows of the score table: algorithm, environment, settings and published score.

It does not import jax. Rows contain only plain values, which are stored with their results.
"""

import dataclasses
from typing import Any

from jaxrl.cli.presets import preset


@dataclasses.dataclass(frozen=True)
class Row:
    """An algorithm on an environment.

    Attributes:
      id: name on the command line.
      env: id of the environment.
      algorithm: as in `jaxrl train ALGORITHM`.
      hyper: hyper-parameters that differ from the agent's defaults, as numbers or in the syntax of
        the command line ("linear:2.5e-4:0").
      total_steps: environment steps per seed.
      num_seeds: number of seeds for the verdict.
      published: the score to reach; None if there is none.
      source: where it was published, and what it means.
      env_params: parameters of the environment that differ from the defaults.
      normalize_observations, normalize_rewards: as in `jaxrl.train`.
      num_eval_episodes: episodes to score the final state of each seed.
      seeds_at_once: seeds trained under one vmap; an interruption loses at most these.
      needs_gpu: whether it takes too long on a CPU.
    """

    id: str
    env: str
    algorithm: str
    hyper: dict[str, Any]
    total_steps: int
    num_seeds: int
    published: float | None
    source: str
    env_params: dict[str, Any] = dataclasses.field(default_factory=dict)
    normalize_observations: bool = False
    normalize_rewards: bool = False
    num_eval_episodes: int = 128
    seeds_at_once: int = 16
    needs_gpu: bool = False

    def configuration(self) -> dict[str, Any]:
        """Everything that affects a seed's score; results with different ones are never mixed."""
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


def _settings(algorithm: str, env: str) -> dict[str, Any]:
    """A preset as fields of a row; all other settings are hyper-parameters."""
    hyper = {k: None if x == "none" else x for k, x in preset(algorithm, env).items()}
    for name in ("num_evaluations", "num_eval_episodes"):  # the same for all rows
        hyper.pop(name, None)
    named = {"environment_parameters": "env_params"} | {
        name: name for name in ("total_steps", "normalize_observations", "normalize_rewards")
    }
    fields = {named[name]: hyper.pop(name) for name in list(hyper) if name in named}
    return {"hyper": hyper, **fields}


def _preset(*, algorithm: str, env: str, **others: Any) -> Row:
    """A row with the preset that `jaxrl train ALGORITHM ENV` uses."""
    return Row(algorithm=algorithm, env=env, **_settings(algorithm, env), **others)


_BLIND_CARTPOLE = {
    "num_envs": 8,
    "num_steps": 32,
    "num_epochs": 20,
    "num_minibatches": 1,
    "learning_rate": "linear:1e-3:0",
    "clip_epsilon": "linear:0.2:0",
    "clip_value": False,
    "value_coefficient": 1.0,
    "entropy_coefficient": 0.0,
    "discount": 0.98,
    "gae_lambda": 0.8,
}
_BLIND_CARTPOLE_TRPO = {
    "num_envs": 8,
    "num_steps": 256,
    "critic_epochs": 10,
    "critic_minibatches": 4,
    "critic_learning_rate": 1e-3,
    "damping": 0.1,
    "discount": 0.98,
    "gae_lambda": 0.95,
}
_BLIND_PENDULUM = {
    "num_envs": 32,
    "num_steps": 128,
    "num_epochs": 10,
    "num_minibatches": 32,
    "learning_rate": 1e-3,
    "entropy_coefficient": 0.0,
    "discount": 0.9,
    "gae_lambda": 0.95,
    "clip_value": False,
    "value_coefficient": 1.0,
}
_MEMORY_CHAIN = {
    "num_envs": 64,
    "num_steps": 32,
    "num_minibatches": 4,
    "learning_rate": 1e-3,
    "discount": 0.99,
}


def _with_and_without_memory(
    *, hyper: dict[str, Any], algorithm: str = "ppo", **others: Any
) -> tuple[Row, Row]:
    """A row with an LSTM, and its control without memory, which is expected to fail."""
    row = Row(
        algorithm=algorithm,
        hyper=hyper | {"core": "lstm", "core_size": 64},
        num_seeds=10,
        seeds_at_once=10,
        **others,
    )
    control = dataclasses.replace(
        row,
        id=f"{row.id}-blind",
        hyper=hyper,
        published=None,
        source="control without memory, expected to fail",
    )
    return row, control


_CARTPOLE_DQN = _settings("dqn", "gymnax/CartPole-v1")["hyper"]

_ROWS = (
    _preset(
        id="S1",
        env="gymnax/CartPole-v1",
        algorithm="ppo",
        num_seeds=16,
        published=490.0,
        source="CleanRL docs (490.0 ± 6.1)",
    ),
    _preset(
        id="S2",
        env="gymnax/CartPole-v1",
        algorithm="trpo",
        num_seeds=30,
        published=495.0,
        source="ours to reach; rl-zoo has 500 (1 run)",
        seeds_at_once=10,
    ),
    _preset(
        id="S3",
        env="gymnax/CartPole-v1",
        algorithm="npg",
        num_seeds=30,
        published=485.0,
        source="ours to reach",
        seeds_at_once=10,
    ),
    _preset(
        id="S4-reinforce",
        env="gymnax/CartPole-v1",
        algorithm="reinforce",
        num_seeds=10,
        published=483.3,
        source="SLM-Lab",
        seeds_at_once=10,
    ),
    _preset(
        id="S4-rpg",
        env="gymnax/CartPole-v1",
        algorithm="rpg",
        num_seeds=10,
        published=475.0,
        source="ours to reach: the limit at which CartPole-v1 counts as solved",
        seeds_at_once=10,
    ),
    _preset(
        id="S4-fitted-q",
        env="gymnax/CartPole-v1",
        algorithm="fitted_q_actor_critic",
        num_seeds=10,
        published=475.0,
        source="ours to reach: the limit at which CartPole-v1 counts as solved",
        seeds_at_once=10,
    ),
    _preset(
        id="S18-online",
        env="gymnax/CartPole-v1",
        algorithm="online_actor_critic",
        num_seeds=10,
        published=475.0,
        source="ours to reach: the limit at which CartPole-v1 counts as solved",
        seeds_at_once=10,
    ),
    _preset(
        id="S18-a3c",
        env="gymnax/CartPole-v1",
        algorithm="a3c",
        num_seeds=10,
        published=475.0,
        source="ours to reach: the limit at which CartPole-v1 counts as solved",
        seeds_at_once=10,
    ),
    _preset(
        id="S18-ppo-penalty",
        env="gymnax/CartPole-v1",
        algorithm="ppo_penalty",
        num_seeds=10,
        published=475.0,
        source="ours to reach: the limit at which CartPole-v1 counts as solved",
        seeds_at_once=10,
    ),
    _preset(
        id="S18-nac",
        env="gymnax/CartPole-v1",
        algorithm="natural_actor_critic",
        num_seeds=10,
        published=475.0,
        source="ours to reach: the limit at which CartPole-v1 counts as solved",
        seeds_at_once=10,
    ),
    _preset(
        id="S18-fd",
        env="gymnax/CartPole-v1",
        algorithm="finite_difference",
        num_seeds=10,
        published=475.0,
        source="ours to reach: the limit at which CartPole-v1 counts as solved",
        seeds_at_once=10,
    ),
    *(
        _preset(
            id=f"S21-{name}",
            env="gymnax/CartPole-v1",
            algorithm=algorithm,
            num_seeds=10,
            published=475.0,
            source="ours to reach: the limit at which CartPole-v1 counts as solved",
            seeds_at_once=10,
        )
        for name, algorithm in (
            ("hill", "hill_climbing"),
            ("cem", "cem"),
            ("openes", "evolution"),
        )
    ),
    Row(
        id="S21-cma",
        env="gymnax/CartPole-v1",
        algorithm="evolution",
        hyper={"strategy": "CMA_ES", "std": 0.3, "hidden_sizes": (8,)},
        total_steps=1_000_000,
        num_seeds=10,
        published=475.0,
        source="ours to reach: the limit at which CartPole-v1 counts as solved",
        seeds_at_once=10,
    ),
    _preset(
        id="S4-a2c",
        env="gymnax/CartPole-v1",
        algorithm="a2c",
        num_seeds=10,
        published=496.7,
        source="SLM-Lab",
        seeds_at_once=10,
    ),
    _preset(
        id="S7-trpo",
        env="gymnax/MountainCar-v0",
        algorithm="trpo",
        num_seeds=10,
        published=-107.3,
        source="rl-zoo (1 run)",
        seeds_at_once=10,
    ),
    _preset(
        id="S9-trpo",
        env="gymnax/Pendulum-v1",
        algorithm="trpo",
        num_seeds=10,
        published=-174.6,
        source="rl-zoo (1 run, with state-dependent exploration)",
        num_eval_episodes=300,
        seeds_at_once=10,
    ),
    _preset(
        id="S9-ppo",
        env="gymnax/Pendulum-v1",
        algorithm="ppo",
        num_seeds=10,
        published=-174.9,
        source="SLM-Lab",
        num_eval_episodes=300,
    ),
    _preset(
        id="gymnasium-ppo",
        env="gymnasium/CartPole-v1",
        algorithm="ppo",
        num_seeds=10,
        published=490.0,
        source="CleanRL docs (490.0 ± 6.1); steps outside JAX, settings of S1",
        seeds_at_once=10,
    ),
    _preset(
        id="gymnasium-ppo-pendulum",
        env="gymnasium/Pendulum-v1",
        algorithm="ppo",
        num_seeds=10,
        published=-174.9,
        source="SLM-Lab; steps outside JAX, settings of S9-ppo",
        num_eval_episodes=300,
        seeds_at_once=10,
    ),
    _preset(
        id="gymnasium-dqn",
        env="gymnasium/CartPole-v1",
        algorithm="dqn",
        num_seeds=10,
        published=488.7,
        source="CleanRL (488.7 ± 16.1); steps outside JAX, settings of S5-dqn",
        seeds_at_once=10,
    ),
    _preset(
        id="S5-dqn",
        env="gymnax/CartPole-v1",
        algorithm="dqn",
        num_seeds=30,
        published=488.7,
        source="CleanRL (488.7 ± 16.1; its JAX version 498.4 ± 2.3)",
        seeds_at_once=10,
    ),
    Row(
        id="S5-c51",
        env="gymnax/CartPole-v1",
        algorithm="dqn",
        hyper=_CARTPOLE_DQN
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
        num_seeds=30,
        published=451.5,
        source="SLM-Lab",
        seeds_at_once=10,
    ),
    _preset(
        id="S7-dqn",
        env="gymnax/MountainCar-v0",
        algorithm="dqn",
        num_seeds=10,
        published=-100.8,
        source="rl-zoo (1 run)",
        seeds_at_once=10,
    ),
    _preset(
        id="S8-sac",
        env="gymnax/Pendulum-v1",
        algorithm="sac",
        num_seeds=10,
        published=-157.0,
        source="rl-zoo (1 run)",
        num_eval_episodes=300,
        seeds_at_once=5,
    ),
    _preset(
        id="S8-td3",
        env="gymnax/Pendulum-v1",
        algorithm="td3",
        num_seeds=10,
        published=-152.0,
        source="rl-zoo (1 run)",
        num_eval_episodes=300,
        seeds_at_once=5,
    ),
    _preset(
        id="S8-ddpg",
        env="gymnax/Pendulum-v1",
        algorithm="ddpg",
        num_seeds=10,
        published=-152.0,
        source="rl-zoo (1 run)",
        num_eval_episodes=300,
        seeds_at_once=5,
    ),
    *_with_and_without_memory(
        id="S15-cartpole",
        env="benchmarks.blind:cartpole",
        hyper=_BLIND_CARTPOLE,
        total_steps=99_840,
        published=500.0,
        source="rl-zoo (1 run, 256 units)",
    ),
    *(
        row
        for algorithm, hyper, total_steps in (
            ("a2c", _settings("a2c", "gymnax/CartPole-v1")["hyper"], 400_000),
            ("trpo", _BLIND_CARTPOLE_TRPO, 151_552),
        )
        for row in _with_and_without_memory(
            id=f"S15-cartpole-{algorithm}",
            env="benchmarks.blind:cartpole",
            algorithm=algorithm,
            hyper=hyper,
            total_steps=total_steps,
            published=475.0,
            source="ours to reach: the limit at which CartPole-v1 counts as solved",
        )
    ),
    *_with_and_without_memory(
        id="S15-pendulum",
        env="benchmarks.blind:pendulum",
        hyper=_BLIND_PENDULUM,
        total_steps=98_304,
        published=-217.9,
        source="rl-zoo (1 run, 256 units, 4 environments, gSDE)",
        num_eval_episodes=300,
    ),
    *_with_and_without_memory(
        id="S15-chain",
        env="gymnax/MemoryChain-bsuite",
        env_params={"memory_length": 20},
        hyper=_MEMORY_CHAIN,
        total_steps=262_144,
        published=1.0,
        source="the best possible",
    ),
    _preset(
        id="S23-sac",
        env="gymnax/MountainCarContinuous-v0",
        algorithm="sac",
        num_seeds=10,
        published=94.7,
        source="rl-zoo (1 run, with state-dependent exploration)",
        seeds_at_once=10,
    ),
    _preset(
        id="S23-trpo",
        env="gymnax/MountainCarContinuous-v0",
        algorithm="trpo",
        num_seeds=10,
        published=92.5,
        source="rl-zoo (1 run, with state-dependent exploration)",
        seeds_at_once=10,
    ),
    _preset(
        id="S23-ppo",
        env="gymnax/MountainCarContinuous-v0",
        algorithm="ppo",
        num_seeds=10,
        published=88.3,
        source="rl-zoo (1 run, with state-dependent exploration)",
        seeds_at_once=10,
    ),
    _preset(
        id="S23-td3",
        env="gymnax/MountainCarContinuous-v0",
        algorithm="td3",
        num_seeds=10,
        published=93.5,
        source="rl-zoo (1 run, 400 and 300 units)",
        seeds_at_once=10,
    ),
    _preset(
        id="S23-ddpg",
        env="gymnax/MountainCarContinuous-v0",
        algorithm="ddpg",
        num_seeds=10,
        published=93.5,
        source="rl-zoo (1 run, 400 and 300 units)",
        seeds_at_once=10,
    ),
    _preset(
        id="S10",
        env="gymnax/Breakout-MinAtar",
        algorithm="ppo",
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
    _preset(
        id="S12-ppo",
        env="brax/inverted_pendulum",
        algorithm="ppo",
        num_seeds=4,
        published=950.0,
        source="ours to reach; 1000 is the maximum",
        seeds_at_once=4,
    ),
    _preset(
        id="S12-sac",
        env="brax/inverted_pendulum",
        algorithm="sac",
        num_seeds=4,
        published=950.0,
        source="ours to reach; 1000 is the maximum",
        seeds_at_once=4,
    ),
    *(
        _preset(
            id=f"hopper-{name}",
            env="brax/hopper",
            algorithm=algorithm,
            num_seeds=3,
            published=None,
            source="none: compared with each other",
            seeds_at_once=1,
        )
        for name, algorithm in (
            ("ppo", "ppo"),
            ("sac", "sac"),
            ("td3", "td3"),
            ("cma", "evolution"),
        )
    ),
)

ROWS = {row.id: row for row in _ROWS}
