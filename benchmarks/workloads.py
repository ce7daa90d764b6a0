"""The workloads of the speed comparison, equal for all libraries: P1 to P10, and G1 for a GPU."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Workload:
    """One algorithm on CartPole-v1 or Pendulum-v1, with 64x64 networks by default.

    On-policy networks are tanh, the others relu. PPO takes 4 epochs in 4 minibatches, with Adam.
    TRPO takes 15 steps of conjugate gradient on all rows, then 20 epochs of the critic in
    `critic_minibatches`. SAC learns its temperature, TD3 delays its policy by 2, DQN is a double
    one.

    Attributes:
      algorithm: "ppo", "trpo", "sac", "td3" or "dqn".
      num_envs, num_steps: environments, and steps per iteration.
      num_iterations: iterations per run.
      num_seeds: seeds trained under one vmap.
      critic_minibatches: minibatches per epoch of TRPO's critic.
      env: gymnax's name of the environment.
      num_updates, batch_size, capacity, warmup: options of off-policy algorithms.
      width: width of the two hidden layers, for the PPO of jaxrl and rejax.
      sb3_sizes: num_envs and num_steps for sb3-contrib, if they differ.
      programs: libraries that support it.
    """

    algorithm: str
    num_envs: int
    num_steps: int
    num_iterations: int
    num_seeds: int = 1
    critic_minibatches: int = 8
    env: str = "CartPole-v1"
    num_updates: int = 0
    batch_size: int = 0
    capacity: int = 0
    warmup: int = 1000
    width: int = 64
    sb3_sizes: tuple[int, int] | None = None
    programs: tuple[str, ...] = ("jaxrl", "jaxrl-devices", "rejax", "purejaxrl")

    @property
    def env_steps(self) -> int:
        return self.num_envs * self.num_steps * self.num_iterations * self.num_seeds

    @property
    def steps_per_seed(self) -> int:
        return self.env_steps // self.num_seeds


SAC_PENDULUM = Workload(
    "sac",
    1,
    1,
    10_000,
    env="Pendulum-v1",
    num_updates=1,
    batch_size=256,
    capacity=10_000,
    programs=("jaxrl", "jaxrl-one-thread", "rejax"),
)
DQN_CARTPOLE = Workload(
    "dqn",
    10,
    1,
    2_000,
    num_updates=10,
    batch_size=128,
    capacity=50_000,
    programs=("jaxrl", "jaxrl-one-thread", "rejax"),
)
WORKLOADS = {
    "P1": Workload("ppo", 2048, 32, 20),
    "P2": Workload("ppo", 64, 128, 160),
    "P3": Workload(
        "ppo", 4, 128, 976, programs=("jaxrl", "jaxrl-one-thread", "rejax", "purejaxrl")
    ),
    "P4": Workload("ppo", 4, 128, 200, num_seeds=16),
    "P6": Workload("trpo", 64, 128, 8, sb3_sizes=(2, 512), programs=("jaxrl", "sb3")),
    "P7": SAC_PENDULUM,
    "P8": dataclasses.replace(SAC_PENDULUM, algorithm="td3"),
    "P9": DQN_CARTPOLE,
    "P10": dataclasses.replace(DQN_CARTPOLE, capacity=1_000_000),
    "P6-same": Workload("trpo", 64, 128, 8, critic_minibatches=64, programs=("jaxrl", "sb3")),
    "G1": Workload("ppo", 4, 128, 50, num_seeds=2048),
}
"""P5 is the compile time of P1. In P6, sb3-contrib uses 2 x 512 steps, for which it is tuned, with
the same total counts; in P6-same it uses 64 x 128. Both use minibatches of 128 rows. P10 is P9 with
a buffer of a million steps. G1 is P4 with 2,048 agents and a quarter of the iterations; it takes
too long on a CPU, so it runs only if named explicitly."""
