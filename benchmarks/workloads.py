"""What is measured, the same for every library: the rows P1 to P6."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Workload:
    """One algorithm on CartPole-v1, with a tanh 64x64 actor and critic.

    PPO takes 4 epochs in 4 minibatches, with Adam. TRPO takes 15 steps of conjugate gradient on all
    rows, then 20 epochs of the critic in `critic_minibatches`.

    Attributes:
      algorithm: "ppo" or "trpo".
      num_envs, num_steps: of an iteration.
      num_iterations: of a run.
      num_seeds: trained side by side under one vmap.
      critic_minibatches: of TRPO.
      sb3_sizes: num_envs and num_steps of sb3-contrib, where they are its own.
      programs: who can do it.
    """

    algorithm: str
    num_envs: int
    num_steps: int
    num_iterations: int
    num_seeds: int = 1
    critic_minibatches: int = 8
    sb3_sizes: tuple[int, int] | None = None
    programs: tuple[str, ...] = ("jaxrl", "rejax", "purejaxrl")

    @property
    def env_steps(self) -> int:
        return self.num_envs * self.num_steps * self.num_iterations * self.num_seeds

    @property
    def steps_per_seed(self) -> int:
        return self.env_steps // self.num_seeds


WORKLOADS = {
    "P1": Workload("ppo", 2048, 32, 20),
    "P2": Workload("ppo", 64, 128, 160),
    "P3": Workload("ppo", 4, 128, 976),
    "P4": Workload("ppo", 4, 128, 200, num_seeds=16),
    "P6": Workload("trpo", 64, 128, 8, sb3_sizes=(2, 512), programs=("jaxrl", "sb3")),
    "P6-same": Workload("trpo", 64, 128, 8, critic_minibatches=64, programs=("jaxrl", "sb3")),
}
"""P5 is the compile time of P1. P6 gives sb3-contrib the 2 x 512 steps for which it is tuned, with
the same counts of everything; P6-same gives it 64 x 128, and both take minibatches of 128 rows."""
