"""A finite Markov decision process with one-hot observations."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from jaxrl.environment import Timestep
from jaxrl.errors import InvalidValue
from jaxrl.types import Array, Discrete, EnvSpec, Key, static
from jaxrl.validation import check_whole


class TabularMDP(struct.PyTreeNode):
    """S states, A actions. Build it with `of`; its exact values are in `values` and `gradients`.

    In state s action a pays `reward[s, a]`, plus normal noise, and leads to s' ~ transition[s, a],
    where the episode terminates with probability `termination[s']`. The time limit truncates, and
    is not observed: the problem is the endless one, cut into episodes.

    Attributes:
      transition: `float32[S, A, S]`, rows that sum to 1.
      reward: `float32[S, A]`, expected rewards.
      start: `float32[S]`, where episodes begin.
      termination: `float32[S]`, the probability that a step into a state ends the episode.
      reward_std: `float32[]`, of the rewards' noise.
      spec: shapes, spaces and the time limit.
    """

    transition: Any
    reward: Any
    start: Any
    termination: Any
    reward_std: Any
    spec: EnvSpec = static()

    @classmethod
    def of(
        cls,
        transition: ArrayLike,
        reward: ArrayLike,
        start: ArrayLike,
        termination: ArrayLike = 0.0,
        reward_std: float = 0.0,
        max_steps: int | None = None,
    ) -> Self:
        """Builds one from `transition[S, A, S]`, `reward[S, A]` and `start[S]`.

        Args:
          transition: probabilities.
          reward: expected rewards.
          start: probabilities.
          termination: probabilities, `[S]` or one for all states.
          reward_std: standard deviation of the rewards' noise.
          max_steps: the time limit in steps; None for none.

        Raises:
          ValueError: shapes that do not fit together, or what should be probabilities is not.
        """
        transition, reward, start = (np.asarray(x, np.float64) for x in (transition, reward, start))
        num_states, num_actions = reward.shape
        if transition.shape != (num_states, num_actions, num_states):
            raise InvalidValue(
                f"transition is {list(transition.shape)}: with reward [{num_states}, {num_actions}]"
                f" it must be [{num_states}, {num_actions}, {num_states}]"
            )
        if start.shape != (num_states,):
            raise InvalidValue(f"start is {list(start.shape)}: it must be [{num_states}]")
        for name, rows in (("transition", transition), ("start", start)):
            if (rows < 0).any() or not np.allclose(rows.sum(-1), 1.0):
                raise InvalidValue(f"{name} holds no probabilities: each row must sum to 1")
        termination = np.broadcast_to(np.asarray(termination, np.float64), num_states)
        if (termination < 0).any() or (termination > 1).any():
            raise InvalidValue("termination holds no probabilities: give numbers from 0 to 1")
        check_whole("max_steps", max_steps, or_none=True)
        observation = jax.ShapeDtypeStruct((num_states,), jnp.float32)
        spec = EnvSpec(observation, Discrete(num_actions), max_steps, truncates="at_max_steps")
        mdp = cls(transition, reward, start, termination, reward_std, spec)
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), mdp)

    def reset(self, key: Key) -> tuple[tuple[Array, Array], Array]:
        position = _draw(key, self.start)
        return (position, jnp.int32(0)), self._observe(position)

    def step(
        self, key: Key, state: tuple[Array, Array], action: Array
    ) -> tuple[tuple[Array, Array], Timestep]:
        position, time = state
        move_key, end_key, noise_key = jax.random.split(key, 3)
        noise = self.reward_std * jax.random.normal(noise_key, dtype=jnp.float32)
        reward = self.reward[position, action] + noise
        position, time = _draw(move_key, self.transition[position, action]), time + 1
        terminated = jax.random.uniform(end_key) < self.termination[position]
        limit = self.spec.max_steps
        cut = jnp.bool_(False) if limit is None else time >= limit
        timestep = Timestep(self._observe(position), reward, terminated, cut & ~terminated)
        return (position, time), timestep

    def _observe(self, position: Array) -> Array:
        return jax.nn.one_hot(position, *self.spec.observation.shape, dtype=jnp.float32)


def _draw(key: Key, probabilities: Array) -> Array:
    """An index, `int32[]`, never one of probability 0."""
    return jax.random.choice(key, probabilities.shape[0], p=probabilities).astype(jnp.int32)
