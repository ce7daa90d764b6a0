"""PQN (Gallici et al., "Simplifying deep temporal difference learning", 2024)."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.action_values import QAgent
from jaxrl.agents.bases.learning import MinibatchAgent, TrainState
from jaxrl.errors import InvalidValue
from jaxrl.estimators import lambda_returns, retrace
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.q_networks import of_actions
from jaxrl.optimizers import learn
from jaxrl.types import (
    Array,
    Clock,
    EnvSpec,
    Key,
    PyTree,
    Scalar,
    Stream,
    Trajectory,
    stream,
)


class Step(struct.PyTreeNode):
    """A step as `update` needs it, `[B]`.

    Attributes:
      obs: normalised observations.
      action: the actions taken.
      target: lambda-returns.
    """

    obs: PyTree
    action: Array
    target: Array


class PQN(MinibatchAgent, QAgent):
    """Parallelised Q-network: Q(lambda) with layer normalisation, no replay, no target network."""

    num_envs: int = 32
    num_steps: int = 64
    num_epochs: int = 2
    num_minibatches: int = 16
    q_lambda: Scalar = hyper(0.95, low=0.0, high=1.0, doc="Lambda of the lambda-returns.")
    traces: Literal["peng", "retrace"] = hyper(
        "peng",
        static=True,
        doc="Traces of the lambda-returns. peng: along the actions taken; retrace: cut at "
        "non-greedy actions (Watkins' Q(lambda)), so that exploration adds no bias.",
    )
    layer_norm: bool = True

    flattened = ("params",)

    def check(self, spec: EnvSpec) -> None:
        if self.head != "scalar":
            raise InvalidValue(
                f"head is {self.head!r}: PQN has only scalar returns. Use 'scalar', or DQN"
            )
        super().check(spec)

    def prepare(self, state: TrainState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Computes lambda-returns with max Q(s', .) as values (section 3.3)."""
        steps = trajectory.steps

        def values_of(obs: PyTree) -> Array:  # [T, N, A]
            flat = jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), obs)
            return self.q_values(state.params, flat).reshape(*steps.reward.shape, -1)

        following = jnp.max(values_of(steps.next_obs), axis=-1)
        ends = steps.terminated, steps.truncated
        if self.traces == "peng":
            target = lambda_returns(steps.reward, following, *ends, self.discount, self.q_lambda)
        else:  # pi / mu of a greedy action is at least 1, of another one 0
            q = values_of(steps.obs)
            taken = of_actions(q.reshape(-1, q.shape[-1], 1), steps.action.reshape(-1))
            taken = taken.reshape(steps.reward.shape)
            log_ratio = jnp.where(taken < jnp.max(q, axis=-1), -jnp.inf, 0.0)
            target = retrace(
                steps.reward, taken, following, *ends, log_ratio, self.discount, self.q_lambda
            )
        return trajectory.replace(steps=Step(steps.obs, steps.action, target))

    def update(self, state: TrainState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        step: Step = batch.steps

        def loss(params):
            outputs, _, carried = self.learning_outputs(
                params, step.obs, key if self.noisy else None, stream(key, Stream.DROPOUT)
            )
            values = of_actions(outputs, step.action)[:, 0]
            return mean(self.scalar_loss(values - step.target)), (carried, mean(values))

        params, optimizer, value, mean_value = learn(
            self.transform(clock), loss, state.params, state.optimizer
        )
        return Update(TrainState(params, optimizer), {"loss": value, "value": mean_value})
