"""PQN (Gallici et al., "Simplifying deep temporal difference learning", 2024)."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.action_values import QAgent, of_actions
from jaxrl.agents.bases.learning import MinibatchAgent, TrainState
from jaxrl.errors import InvalidValue
from jaxrl.estimators import lambda_returns
from jaxrl.hyper import hyper
from jaxrl.losses import mean
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
    layer_norm: bool = True

    flattened = ("params",)

    def check(self, spec: EnvSpec) -> None:
        if self.head != "scalar":
            raise InvalidValue(
                f"head is {self.head!r}: PQN has only scalar returns. Use 'scalar', or DQN"
            )
        super().check(spec)

    def prepare(self, state: TrainState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Computes lambda-returns with max Q(s', .) as values: Peng's Q(lambda) (section 3.3)."""
        steps = trajectory.steps

        def best(obs: PyTree) -> Array:  # of [T, N, ...]
            flat = jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), obs)
            return jnp.max(self.q_values(state.params, flat), axis=-1).reshape(steps.reward.shape)

        target = lambda_returns(
            steps.reward,
            best(steps.next_obs),
            steps.terminated,
            steps.truncated,
            self.discount,
            self.q_lambda,
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
