"""What is measured: PPO on CartPole in several shapes, the same for every library."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Workload:
    """PPO on CartPole-v1: tanh 64x64 actor and critic, 4 epochs, 4 minibatches, Adam.

    Attributes:
      num_envs, num_steps: of an iteration.
      num_iterations: of a run.
      num_seeds: trained side by side under one vmap.
    """

    num_envs: int
    num_steps: int
    num_iterations: int
    num_seeds: int = 1

    @property
    def env_steps(self) -> int:
        return self.num_envs * self.num_steps * self.num_iterations * self.num_seeds

    @property
    def steps_per_seed(self) -> int:
        return self.env_steps // self.num_seeds


WORKLOADS = {
    "P1": Workload(2048, 32, 20),
    "P2": Workload(64, 128, 160),
    "P3": Workload(4, 128, 976),
    "P4": Workload(4, 128, 200, num_seeds=16),
}
"""P5 is the compile time of P1."""
