"""Environments with gymnasium's interface."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Counting(gymnasium.Env):
    """Episodes of `length` steps; the observation is (steps, episodes), and the reward 1.

    Every second episode is truncated, the others terminate. The available action is the number of
    steps modulo 2, and another one is an error.
    """

    observation_space = spaces.Box(0, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2, start=5)

    def __init__(self, masked=True, length=3):
        self.masked, self.length, self.episode = masked, length, -1

    def _observed(self):
        mask = np.arange(2) == self.count % 2
        return np.array([self.count, self.episode], float), {"action_mask": mask.astype(np.int8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.episode = 0, self.episode + 1
        obs, info = self._observed()
        return obs, info if self.masked else {}

    def step(self, action):
        assert action in (5, 6), action
        if self.masked:
            assert action == 5 + self.count % 2
        self.count += 1
        over, odd = self.count == self.length, self.episode % 2 == 1
        obs, info = self._observed()
        return obs, 1.0, over and not odd, over, info if self.masked else {}


def unmasked():
    return Counting(masked=False)
