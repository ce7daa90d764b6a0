"""PQN (Gallici et al., "Simplifying deep temporal difference learning", 2024)."""

from typing import Self

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.action_values import QAgent, of_actions
from jaxrl.errors import InvalidValue
from jaxrl.estimators import lambda_returns
from jaxrl.hyper import check_range
from jaxrl.losses import huber, mean, value_loss
from jaxrl.networks.variables import trained
from jaxrl.optimizers import learn
from jaxrl.types import (
    Array,
    Clock,
    EnvSpec,
    Key,
    Metrics,
    PyTree,
    Scalar,
    Stream,
    Trajectory,
    static,
    stream,
)


class PQNState(struct.PyTreeNode):
    """Attributes:
    params: of the network.
    optimizer: Adam's moments.
    """

    params: PyTree
    optimizer: optax.OptState


class Step(struct.PyTreeNode):
    """What an update sees of a step, `[B]`.

    Attributes:
      obs: normalised observations.
      action: what was done.
      target: the lambda-return.
    """

    obs: PyTree
    action: Array
    target: Array


class PQN(QAgent):
    """Q(lambda) on fresh rollouts of many copies, with layer norm: no memory and no target."""

    num_envs: int = static(default=32)
    """Copies of the environment."""
    num_steps: int = static(default=64)
    """Steps of each copy between updates."""
    num_epochs: int = static(default=2)
    """Passes over the collected steps."""
    num_minibatches: int = static(default=16)
    """Parts into which each pass is divided, one gradient step each."""
    q_lambda: Scalar = 0.95
    """Lambda of the returns, in [0, 1]."""
    layer_norm: bool = static(default=True)
    """Normalise the features of every layer but your own torso's: keeps values from diverging."""

    flattened = ("params",)

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(self.num_envs, self.num_steps, self.num_epochs, self.num_minibatches)

    def bind(self, spec: EnvSpec) -> Self:
        check_range(self, "q_lambda", 0.0, 1.0)
        if self.head != "scalar":
            raise InvalidValue(
                f"head is {self.head!r}: PQN's returns are numbers. Use 'scalar', or DQN"
            )
        return super().bind(spec)

    def init(self, key: Key) -> PQNState:
        params = self.init_params(key)
        return PQNState(params, self.optimizer(Clock.start()).init(trained(params)))

    def prepare(self, state: PQNState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Peng's Q(lambda): lambda-returns with max Q(s', .) for the value (section 3.3)."""
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

    def update(
        self, state: PQNState, batch: Trajectory, key: Key, clock: Clock
    ) -> tuple[PQNState, Metrics]:
        step: Step = batch.steps

        def loss(params):
            outputs, _, carried = self.learning_outputs(
                params, step.obs, key if self.noisy else None, stream(key, Stream.DROPOUT)
            )
            values = of_actions(outputs, step.action)[:, 0]
            if self.huber_delta is None:
                return value_loss(values, step.target), (carried, mean(values))
            error = huber(values - step.target, self.huber_delta)
            return mean(error), (carried, mean(values))

        params, optimizer, value, mean_value = learn(
            self.optimizer(clock), loss, state.params, state.optimizer
        )
        return PQNState(params, optimizer), {"loss": value, "value": mean_value}
