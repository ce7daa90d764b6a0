"""Finite Markov decision processes with one-hot observations."""

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
    """A finite MDP with S states and A actions, built with `of`.

    Action a in state s pays `reward[s, a]` plus normal noise and leads to s' ~ transition[s, a],
    where the episode terminates with probability `termination[s']`. The time limit truncates and is
    not observed: the problem is continuing, cut into episodes. Exact solutions are in `values` and
    `gradients`.

    Attributes:
      transition: `float32[S, A, S]`, rows that sum to 1.
      reward: `float32[S, A]`, expected rewards.
      start: `float32[S]`, distribution of start states.
      termination: `float32[S]`, probability that a step into a state ends the episode.
      reward_std: `float32[]`, standard deviation of the reward noise.
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
        """Builds an MDP from arrays.

        Args:
          transition: probabilities, `[S, A, S]`.
          reward: expected rewards, `[S, A]`.
          start: probabilities, `[S]`.
          termination: probabilities, `[S]` or one for all states.
          reward_std: standard deviation of the reward noise.
          max_steps: the time limit in steps; None for none.

        Raises:
          ValueError: inconsistent shapes or invalid probabilities.
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
                raise InvalidValue(
                    f"{name} does not hold probabilities: each row must be non-negative and sum to "
                    "1"
                )
        termination = np.broadcast_to(np.asarray(termination, np.float64), num_states)
        if (termination < 0).any() or (termination > 1).any():
            raise InvalidValue("termination does not hold probabilities: they must be from 0 to 1")
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
    """Draws an index, `int32[]`, never one of probability 0."""
    return jax.random.choice(key, probabilities.shape[0], p=probabilities).astype(jnp.int32)
