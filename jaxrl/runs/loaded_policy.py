"""The policy of a trained agent: a function of raw observations."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import EvalMode, Policy
from jaxrl.engine import sizes
from jaxrl.engine.acting import policy_of, start_carry
from jaxrl.engine.evaluate import PATIENCE, Episodes, play_episodes
from jaxrl.engine.host_episodes import play_with
from jaxrl.engine.rollout import rollout
from jaxrl.engine.training import Training
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.environment import Hosted
from jaxrl.errors import InvalidValue
from jaxrl.normalization import Normalizer
from jaxrl.runs.dataset import record_episodes
from jaxrl.trees import shapes_text
from jaxrl.types import EnvSpec, Key, PyTree, Transition, into_bounds
from jaxrl.xla.precision import in_float32
from jaxrl.xla.transfers import transfers_allowed


def batch_size(obs: PyTree, like: PyTree) -> int | None:
    """The size of a batch of observations `[N, ...]`; None for a single observation.

    Args:
      obs: an observation or a batch.
      like: shapes of one observation.

    Raises:
      ValueError: it is neither; the message says why.
    """
    asked = f"one is {shapes_text(like)}, a batch has one more leading axis"
    structure: Any = jax.tree.structure(like)
    if structure != jax.tree.structure(obs):
        hint = ""
        if isinstance(obs, list):
            hint = ": convert the list to an array"
        elif isinstance(obs, tuple) and obs and structure == jax.tree.structure(obs[0]):
            hint = ": pass only obs of (obs, info)"
        raise InvalidValue(
            f"this {type(obs).__name__} is not an observation of the environment{hint}; {asked}"
        )
    sizes_found = set()
    for x, one in zip(jax.tree.leaves(obs), jax.tree.leaves(like), strict=True):
        shape, ndim = np.shape(x), len(one.shape)
        leading = shape[: len(shape) - ndim]
        if shape[len(leading) :] != one.shape or len(shape) < ndim or len(leading) > 1:
            raise InvalidValue(f"an observation has the shape {list(shape)}; {asked}")
        sizes_found.add(leading)
    if len(sizes_found) > 1:
        raise InvalidValue(f"parts of the observation are batches of different sizes; {asked}")
    return next(iter(sizes_found.pop()), None) if sizes_found else None


class LoadedPolicy:
    """A trained policy that maps raw observations to greedy or mean actions.

    `policy(obs)` takes an observation of the environment, or a batch `[N, ...]`, and returns an
    action or a batch of actions. It normalises observations itself, and raises ValueError for
    invalid ones. A recurrent policy keeps its carry, for one batch size, until `reset()`.

    `policy.act` is the same as a pure function, for jit and vmap. `evaluate`, `episode` and
    `record` can also sample actions.
    """

    def __init__(self, training: Training, state: PyTree, stats: Normalizer, iteration: int):
        self.training = training
        self.state = state
        self.stats = stats
        self.iteration = iteration
        self._act = jax.jit(self.act)
        self.reset()

    @property
    def spec(self) -> EnvSpec:
        """The spec of the training environment."""
        return self.training.envs.spec

    @property
    def recurrent(self) -> bool:
        """Whether the policy has a carry."""
        return bool(jax.tree.leaves(self.initial_carry(1)))

    def initial_carry(self, num_envs: int) -> PyTree:
        """The carry at the start of an episode, leaves `[num_envs, ...]`; `()` if there is none."""
        return start_carry(self.training.agent, num_envs, explore=False)

    @in_float32
    def act(self, obs: PyTree, carry: PyTree = ()) -> tuple[PyTree, PyTree]:
        """Maps observations `[N, ...]` to actions `[N, ...]` within bounds, and the next carry."""
        clock = self.training.clock(self.iteration)
        policy = policy_of(self.training.agent, self.state, self.stats, clock, explore=False)
        carry, action, _ = policy(carry, obs, jax.random.key(0))
        return jax.vmap(functools.partial(into_bounds, self.spec.action))(action), carry

    def reset(self) -> None:
        """Resets the carry at the start of an episode."""
        self._carry: PyTree = None

    @transfers_allowed
    @in_float32
    def __call__(self, obs: PyTree) -> PyTree:
        size = batch_size(obs, self.spec.observation)
        alone = size is None
        obs = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), obs, self.spec.observation)
        if alone:
            obs = jax.tree.map(lambda x: x[None], obs)
        if self._carry is None:
            self._carry = self.initial_carry(size or 1)
        for leaf in jax.tree.leaves(self._carry):
            if leaf.shape[0] != (size or 1):
                raise InvalidValue(
                    f"the batch has {size or 1} observations, but the carry of this recurrent "
                    f"policy has {leaf.shape[0]}: call reset() before changing the batch size"
                )
        action, self._carry = self._act(obs, self._carry)
        return jax.tree.map(lambda x: x[0], action) if alone else action

    def _policy(self, eval_mode: EvalMode | None) -> Policy:
        """`act` as a `Policy`, or a policy that samples actions."""
        training = self.training.in_eval_mode(eval_mode)

        def greedy(carry: PyTree, obs: PyTree, key: Key) -> tuple[PyTree, PyTree, PyTree]:
            action, carry = self.act(obs, carry)
            return carry, action, ()

        if training.options.eval_mode == "greedy":
            greedy.initial_carry = self.initial_carry  # type: ignore[attr-defined]
            return greedy
        clock = training.clock(self.iteration)
        return policy_of(training.agent, self.state, self.stats, clock, explore=True)

    @transfers_allowed
    @in_float32
    def evaluate(
        self, key: Key, *, num_episodes: int = 100, eval_mode: EvalMode | None = None
    ) -> Episodes:
        """Plays whole episodes, each in its own copy of the environment.

        Args:
          key: for resets, steps and sampled actions.
          num_episodes: number of episodes.
          eval_mode: "greedy", as `__call__` acts, or "sample" to sample from the policy; None for
            the run's own mode.

        Raises:
          ValueError: the agent does not support the mode, `num_episodes` is less than 1, or that
            many copies do not fit into memory.
        """
        env, policy = self.training.eval_envs.env, self._policy(eval_mode)
        sizes.check_episodes(env, num_episodes)
        if isinstance(env, Hosted):
            return play_with(policy, env.host, key, num_episodes)
        envs = VectorEnv(env, num_episodes)
        carry = policy.initial_carry(num_episodes)  # type: ignore[attr-defined]
        return jax.jit(lambda key: play_episodes(policy, envs, carry, key))(key)

    def record(
        self,
        key: Key,
        *,
        num_episodes: int = 100,
        eval_mode: EvalMode | None = None,
        max_steps: int | None = None,
    ) -> Transition:
        """Plays whole episodes and returns their transitions, as `record_episodes`.

        Args:
          key, num_episodes, eval_mode: as for `evaluate`.
          max_steps: as for `record_episodes`.
        """
        env, policy = self.training.eval_envs.env, self._policy(eval_mode)
        return record_episodes(policy, env, key, num_episodes=num_episodes, max_steps=max_steps)

    @transfers_allowed
    @in_float32
    def episode(self, key: Key, *, eval_mode: EvalMode | None = None) -> tuple[PyTree, np.ndarray]:
        """Plays one episode, of at most 10,000 steps if the environment has no time limit.

        Args:
          key, eval_mode: as for `evaluate`.

        Returns:
          The environment's state before each step, leaves `[T, ...]`, and the rewards `[T]`.
        """
        envs = VectorEnv(self.training.eval_envs.env, 1)
        limit = envs.spec.max_steps or PATIENCE
        policy = self._policy(eval_mode)
        start = policy.initial_carry(1)  # type: ignore[attr-defined]

        def play(key: Key) -> Any:
            def one(loop: Any, key: Key) -> Any:
                env_state, carry = loop
                after, carry, trajectory, _ = rollout(policy, envs, env_state, carry, start, key, 1)
                steps = jax.tree.map(lambda x: x[0, 0], trajectory.steps)
                end = steps.terminated | steps.truncated
                state = jax.tree.map(lambda x: x[0], env_state.state)
                return (after, carry), (state, steps.reward, end)

            start_key, step_key = jax.random.split(key)
            loop = (envs.reset(start_key), start)
            return jax.lax.scan(one, loop, jax.random.split(step_key, limit))[1]

        states, rewards, ends = jax.device_get(jax.jit(play)(key))
        num = int(np.argmax(ends)) + 1 if ends.any() else limit
        return jax.tree.map(lambda x: x[:num], states), rewards[:num]
