"""Training as one pure function: `train = scan(chunk + evaluate)`, `chunk = loop(iteration)`."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.engine.evaluate import Episodes
from jaxrl.engine.learners import TrainState
from jaxrl.engine.metrics import Divergence, IterationMetrics
from jaxrl.engine.options import EvaluationOptions, called_with, options_class
from jaxrl.engine.training import Training, TrainingArguments
from jaxrl.types import Key
from jaxrl.xla.precision import in_float32
from jaxrl.xla.threefry import check_key
from jaxrl.xla.transfers import transfers_allowed


class TrainMetrics(struct.PyTreeNode):
    """Metrics of `train`, one entry per evaluation (leading axis `[E]`).

    Attributes:
      iterations: `int32[E]`, finished iterations; multiply by `plan.steps_per_iteration` for steps.
      training: metrics of the iterations since the previous entry.
      evaluation: evaluation episodes, `[E, num_eval_episodes]`; None without evaluations.
      divergence: the first non-finite metrics since the previous entry.
    """

    iterations: jax.Array
    training: IterationMetrics
    evaluation: Episodes | None
    divergence: Divergence


@options_class
class TrainArguments(EvaluationOptions, TrainingArguments):
    """The arguments of `train`."""

    key: Key = dataclasses.field(kw_only=False)


@called_with(TrainArguments)
@transfers_allowed
@in_float32
def train(given: TrainArguments) -> tuple[TrainState, TrainMetrics]:
    """Trains an agent; a pure function that can be jitted, and vmapped over `key`, agent or `env`.

    Called as `train(agent, env, key, total_steps=..., **options)`. Options are `num_evaluations`
    and the fields of `jaxrl.engine.options.TrainingOptions`.

    Args:
      agent: the algorithm with its hyper-parameters; see `sweep` to vmap over them.
      env: one copy of the environment; its leaves may be vmapped. An object of gymnax, brax,
        Jumanji, navix or Craftax is adapted, see `jaxrl_envs.adapt`.
      key: a typed key; different keys give different parameters, start states, noise and shuffles.
      num_evaluations: number of entries in the metrics, evenly spaced; 0 for a single entry without
        evaluation.

    Returns:
      The final state, and the metrics with leading axis `[num_evaluations]`, or fewer if there are
      fewer iterations.

    Raises:
      ValueError, TypeError: an argument is invalid; raised before anything is compiled.
    """
    check_key(given.key)
    training = Training.of(given)
    num_evaluations, key = given.num_evaluations, given.key
    stops = chunk_stops(training.num_iterations, max(num_evaluations, 1))

    def one_chunk(state, limits):
        start, stop = limits
        state, metrics, divergence = training.chunk(state, key, start, stop)
        episodes = None if num_evaluations == 0 else training.evaluate(state, key, stop)
        return state, TrainMetrics(stop, metrics, episodes, divergence)

    limits = (jnp.asarray([0, *stops[:-1]], jnp.int32), jnp.asarray(stops, jnp.int32))
    return jax.lax.scan(one_chunk, training.init(key), limits)


def chunk_stops(num_iterations: int, num_chunks: int) -> list[int]:
    """The last iterations of at most `num_chunks` evenly sized chunks."""
    num_chunks = min(num_chunks, num_iterations)
    return [num_iterations * (i + 1) // num_chunks for i in range(num_chunks)]
