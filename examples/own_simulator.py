"""Your own simulator, which is not written in JAX: a tank whose level has to stay at a target.

    python examples/own_simulator.py
    python examples/own_simulator.py --total-steps 200_000 --actor-lag 1

All copies are stepped at once, as simulators in C++ do. A simulator with
the interface of gymnasium needs no class: `jaxrl train ppo mypackage.module:make_env`.
"""

import argparse

import jax
import numpy as np

import jaxrl
import jaxrl_envs
from jaxrl.runs.events import Evaluation


class Tank(jaxrl.HostEnvironment):
    """A valve fills a leaking tank; the reward is minus the distance to the target level."""

    name = "tank"
    spec = jaxrl.EnvSpec(
        jax.ShapeDtypeStruct((2,), np.float32), jaxrl.Box.of(0, 1, (1,)), max_steps=50
    )

    def vector(self, num_envs):
        return Tanks(num_envs)


class Tanks:
    """Many tanks, each of which starts a new episode when its time is up."""

    def __init__(self, num_envs):
        self.num_envs = num_envs

    def reset(self, seeds=None):
        if seeds is not None:
            self.random = [np.random.default_rng(seed) for seed in seeds]
        self.state, self.time = self._starts(), np.zeros(self.num_envs, int)
        return self.state

    def step(self, action):
        level, target = self.state.T
        level = level + 0.3 * action[:, 0] - 0.1 * np.sqrt(np.maximum(level, 0.0))
        after = np.stack([level, target], -1).astype(np.float32)
        self.time = self.time + 1
        over = self.time == Tank.spec.max_steps
        self.time = np.where(over, 0, self.time)
        self.state = np.where(over[:, None], self._starts(), after) if over.any() else after
        return jaxrl.HostStep(
            obs=self.state,  # to go on with
            next_obs=after,  # before any reset
            reward=-np.abs(level - target).astype(np.float32),
            terminated=np.zeros(self.num_envs, bool),
            truncated=over,
        )

    def close(self):
        pass

    def _starts(self):
        return np.array([random.uniform(0.0, 1.0, 2) for random in self.random], np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--total-steps", type=int, default=100_000, help="(default: 100000)")
    parser.add_argument("--actor-lag", type=int, default=0, help="1 plays while it learns")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    options = parser.parse_args()

    jaxrl_envs.check(Tank())  # plays random steps; raises an error with a line for each problem

    def show(event):
        if isinstance(event, Evaluation):
            print(f"step {event.steps:>7,}  return {event.return_mean:7.2f}")

    jaxrl.fit(
        jaxrl.agents.PPO(num_envs=16, num_steps=50, learning_rate=1e-3),
        Tank(),
        jax.random.key(options.seed),
        total_steps=options.total_steps,
        actor_lag=options.actor_lag,
        num_evaluations=5,
        callbacks=[show],
    )


if __name__ == "__main__":
    main()
