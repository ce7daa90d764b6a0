"""Fields that many agents have, declared once: discount, rollouts, replay, gradient steps."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Agent, OnPolicy, Replay
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.networks.variables import trained
from jaxrl.optimizers import Factory, OptimizerName, check_factory, optimizer
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar


class TrainState(struct.PyTreeNode):
    """Attributes:
    params: of the networks.
    optimizer: the optimiser's moments.
    """

    params: PyTree
    optimizer: optax.OptState


class TargetState(struct.PyTreeNode):
    """Attributes:
    params: of the networks.
    target: the parameters that targets are made with, of the same structure.
    optimizer: the optimiser's moments.
    """

    params: PyTree
    target: PyTree
    optimizer: optax.OptState


class LearningAgent(Agent):
    """Learns from discounted rewards, by an optimiser to choose."""

    default_optimizer: ClassVar[OptimizerName] = "adam"

    optimizer: OptimizerName | Factory | None = hyper(
        None,
        static=True,
        doc="Optimiser; none: the algorithm's own, Adam (RMSprop for A2C). From Python also an "
        "optax factory, `optax.adamw` for example, which is called with the learning rate.",
    )
    discount: Scalar = hyper(0.99, low=0.0, high=1.0, doc="Discount factor, gamma.")

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        check_factory(self.optimizer)

    def optimizer_at(
        self, learning_rate: Scheduled, clock: Clock, **options: Any
    ) -> optax.GradientTransformation:
        """The optimiser with the learning rate of now; `options` as for `optimizers.optimizer`."""
        choice = self.default_optimizer if self.optimizer is None else self.optimizer
        return optimizer(choice, learning_rate, clock, **options)


class SteppingAgent(LearningAgent):
    """Steps several copies of the environment between updates."""

    num_envs: int = hyper(8, static=True, doc="Copies of the environment.")
    num_steps: int = hyper(1, static=True, doc="Steps of each copy between updates.")


class RolloutAgent(SteppingAgent):
    """Learns from the steps that were just taken, and throws them away."""

    @property
    def layout(self) -> Literal["flat", "env"]:
        """Of minibatches: single steps, or whole sequences of copies."""
        return "flat"

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(self.num_envs, self.num_steps, layout=self.layout)


class MinibatchAgent(RolloutAgent):
    """Passes over each rollout several times, in minibatches."""

    num_epochs: int = hyper(4, static=True, doc="Passes over the collected steps.")
    num_minibatches: int = hyper(
        4, static=True, doc="Parts into which each pass is divided, one gradient step each."
    )

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(
            self.num_envs, self.num_steps, self.num_epochs, self.num_minibatches, self.layout
        )


class ReplayAgent(SteppingAgent):
    """Learns from transitions drawn from a replay buffer."""

    num_updates: int = hyper(1, static=True, doc="Updates after them.")
    batch_size: int = hyper(128, static=True, doc="Transitions of an update.")
    capacity: int = hyper(10_000, static=True, doc="Transitions kept.")
    warmup: int = hyper(
        1_000, low=0, static=True, doc="Transitions collected before the first update."
    )
    n_step: int = hyper(1, static=True, doc="Rewards summed before a value is looked up.")

    @property
    def plan(self) -> Replay:
        return Replay(
            num_envs=self.num_envs,
            num_steps=self.num_steps,
            num_updates=self.num_updates,
            batch_size=self.batch_size,
            capacity=self.capacity,
            warmup=self.warmup,
            n_step=self.n_step,
        )


class GradientAgent(LearningAgent):
    """Descends one loss, on gradients of a limited norm."""

    has_target: ClassVar[bool] = False
    """Whether the state has a target network, and is a `TargetState`."""

    learning_rate: Scheduled = hyper(2.5e-4, low=0.0, doc="The optimiser's step size.")
    max_grad_norm: Scalar | None = hyper(
        10.0,
        low=0.0,
        open_low=True,
        doc="Global norm above which gradients are scaled down; none: never.",
    )

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """What `optimizers.optimizer` takes besides the learning rate."""
        return {"max_grad_norm": self.max_grad_norm}

    def transform(self, clock: Clock) -> optax.GradientTransformation:
        """The optimiser now."""
        return self.optimizer_at(self.learning_rate, clock, **self.optimizer_options)

    def init_params(self, key: Key) -> PyTree:
        """Fresh parameters of the networks."""
        raise NotImplementedError

    def init(self, key: Key) -> Any:
        params = self.init_params(key)
        optimizer = self.transform(Clock.start()).init(trained(params))
        if self.has_target:
            return TargetState(params, params, optimizer)
        return TrainState(params, optimizer)


class AdamAgent(GradientAgent):
    """The same by Adam, unless another optimiser is chosen."""

    adam_epsilon: Scalar = hyper(1e-8, low=0.0, open_low=True, doc="Adam's epsilon.")

    @property
    def optimizer_options(self) -> dict[str, Any]:
        return super().optimizer_options | {"adam_epsilon": self.adam_epsilon}


def check_widths(hidden_sizes: tuple[int, ...]) -> None:
    """Raises ValueError unless there are hidden layers, of one unit at least."""
    if not hidden_sizes or min(hidden_sizes) < 1:
        raise InvalidValue(f"hidden_sizes is {hidden_sizes}: give widths of at least 1")


def bellman_target(rows: Replayed, discount: Scalar, next_values: Array) -> Array:
    """r + discount^n V(s'), and r after a termination; `float32` of the shape of `next_values`.

    Args:
      rows: transitions `[B]`, each of n steps.
      discount: gamma, of one step.
      next_values: V(s'), `[B]`; or `[B, K]` or `[1, K]` for K values each.
    """
    per_row = (-1, *(1,) * (next_values.ndim - 1))
    reward, terminated = rows.reward.reshape(per_row), rows.terminated.reshape(per_row)
    weight = discount ** rows.num_steps.astype(jnp.float32).reshape(per_row)
    return reward + weight * jnp.where(terminated, 0.0, next_values)


def every(period: int, clock: Clock, change: Callable[[PyTree], PyTree], state: PyTree) -> PyTree:
    """`change(state)` in each `period`-th update, else the state as it is."""
    if period == 1:
        return change(state)
    due = (clock.update + 1) % period == 0  # the clock's, so that vmap makes no select of it
    return jax.lax.cond(due, change, lambda state: state, state)
