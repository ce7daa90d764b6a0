"""Training as one pure function: `train = scan(chunk + evaluate)`, `chunk = loop(iteration)`."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Agent, EvalMode
from jaxrl.engine.evaluate import Episodes
from jaxrl.engine.learners import Divergence, IterationMetrics, TrainState
from jaxrl.engine.training import Training
from jaxrl.environment import Environment
from jaxrl.errors import InvalidValue
from jaxrl.types import Key, PyTree, ResetPolicy
from jaxrl.xla.precision import in_float32
from jaxrl.xla.threefry import check_key
from jaxrl.xla.transfers import transfers_allowed


class TrainMetrics(struct.PyTreeNode):
    """What `train` reports, one entry an evaluation (leading axis `[E]`).

    Attributes:
      iterations: `int32[E]`, finished iterations (times `plan.steps_per_iteration`: steps).
      training: the iterations since the entry before.
      evaluation: the episodes played in the `eval_mode`, `[E, num_eval_episodes]`; None where
        none were asked for.
      divergence: whether a metric ceased to be finite since the entry before, and which.
    """

    iterations: jax.Array
    training: IterationMetrics
    evaluation: Episodes | None
    divergence: Divergence


@transfers_allowed
@in_float32
def train(
    agent: Agent,
    env: Environment,
    key: Key,
    *,
    total_steps: int,
    num_evaluations: int = 10,
    num_eval_episodes: int = 64,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
    reset_policy: ResetPolicy | None = None,
    pool_size: int | None = None,
    batched_env: bool = False,
    eval_env: Environment | None = None,
    data: PyTree = None,
    agent_state: PyTree = None,
    eval_mode: EvalMode | None = None,
) -> tuple[TrainState, TrainMetrics]:
    """Trains an agent. Pure: jit it, vmap it over `key`, over `agent` (see `sweep`) or over `env`.

    Args:
      agent: the algorithm with its hyper-parameters.
      env: one copy of the environment; its leaves may be vmapped. An object of gymnax, brax,
        Jumanji, navix or Craftax is adapted, see `jaxrl_envs.adapt`.
      key: a typed key; different keys differ in parameters, starts, noise and shuffles.
      total_steps: environment steps (updates, for an offline agent), rounded up to whole
        iterations.
      num_evaluations: entries of the metrics, evenly spaced; 0 for one without any episode played.
      num_eval_episodes: episodes an evaluation, one in each of as many copies.
      normalize_observations: scale the numbers in observations by their running mean and deviation,
        integers and bytes as float32; booleans and action masks pass unchanged.
      normalize_rewards: scale rewards by the deviation of the running discounted return.
      reset_policy: "fresh" or "pool", see `VectorEnv`; None for what `env.spec` asks for.
      pool_size: starts in the pool.
      batched_env: `env`'s leaves have a leading axis `[num_envs]`, parameters for each copy.
      eval_env: where to evaluate; `env` unless given. Its observations and actions are those of
        `env`; its parameters, time limit and reset policy may be others.
      data: for offline agents, transitions with leaves `[D, ...]`.
      agent_state: what to start from instead of `agent.init`: the `TrainState` of an earlier run,
        or `load_run(path).start()`. The agent's state and the statistics of observations come
        along, those of rewards where both runs have them. Or the agent's state alone, where no
        observations are normalised.
      eval_mode: how evaluations act. "greedy" takes the mean or most likely action; "sample" draws
        actions as training does, which is what a mixed policy is worth: in rock-paper-scissors the
        most likely action loses always. None for what the agent says (`Agent.eval_modes`).

    Returns:
      The final state and the metrics, leading axis `[num_evaluations]` (or as many as there are
      iterations, where that is less).

    Raises:
      ValueError, TypeError: a field does not fit; before anything is compiled.
    """
    check_key(key)
    if num_evaluations < 0:
        raise InvalidValue(f"num_evaluations is {num_evaluations}: it must not be negative")
    training = Training.create(
        agent,
        env,
        total_steps=total_steps,
        num_eval_episodes=num_eval_episodes,
        normalize_observations=normalize_observations,
        normalize_rewards=normalize_rewards,
        reset_policy=reset_policy,
        pool_size=pool_size,
        batched_env=batched_env,
        eval_env=eval_env,
        data=data,
        agent_state=agent_state,
        eval_mode=eval_mode,
    )
    stops = chunk_stops(training.num_iterations, max(num_evaluations, 1))

    def one_chunk(state, limits):
        start, stop = limits
        state, metrics, divergence = training.chunk(state, key, start, stop)
        episodes = None if num_evaluations == 0 else training.evaluate(state, key, stop)
        return state, TrainMetrics(stop, metrics, episodes, divergence)

    limits = (jnp.asarray([0, *stops[:-1]], jnp.int32), jnp.asarray(stops, jnp.int32))
    return jax.lax.scan(one_chunk, training.init(key), limits)


def chunk_stops(num_iterations: int, num_chunks: int) -> list[int]:
    """The iterations after which to look: at most `num_chunks`, evenly spaced, up to the last."""
    num_chunks = min(num_chunks, num_iterations)
    return [num_iterations * (i + 1) // num_chunks for i in range(num_chunks)]
