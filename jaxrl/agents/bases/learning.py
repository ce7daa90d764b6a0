"""Base classes with fields that many agents share: discount, rollouts, replay, optimiser."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Agent, OnPolicy, Replay
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.networks.initialization import Initialization, initialize
from jaxrl.networks.variables import trained
from jaxrl.optimizers import Factory, OptimizerName, check_factory, optimizer
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar


class Networks(struct.PyTreeNode):
    """Attributes:
    actor: parameters of the policy.
    critic: parameters of the critic, or critics.
    """

    actor: PyTree
    critic: PyTree


class TrainState(struct.PyTreeNode):
    """Attributes:
    params: parameters of the networks.
    optimizer: state of the optimiser.
    """

    params: PyTree
    optimizer: optax.OptState


class TargetState(struct.PyTreeNode):
    """Attributes:
    params: parameters of the networks.
    target: parameters of the target networks.
    optimizer: state of the optimiser.
    """

    params: PyTree
    target: PyTree
    optimizer: optax.OptState


class LearningAgent(Agent):
    """An agent with a discount and a configurable optimiser."""

    default_optimizer: ClassVar[OptimizerName] = "adam"

    optimizer: OptimizerName | Factory | None = hyper(
        None,
        static=True,
        doc="Optimiser; none for the algorithm's own, usually Adam. In Python, also "
        "an optax factory such as `optax.adamw`, which is called with the learning rate.",
    )
    discount: Scalar = hyper(0.99, low=0.0, high=1.0, doc="Discount factor, gamma.")
    initialization: Initialization = hyper(
        "orthogonal",
        static=True,
        doc="Initial parameters: orthogonal kernels with a gain for each layer; or in dense layers "
        "and 2-D convolutions of n inputs, also your own, normal kernels with variance 1 / n "
        "(lecun), or uniform kernels and biases within 1 / sqrt(n) (pytorch).",
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        check_factory(self.optimizer)

    def new_params(self, module: Any, key: Key, *args: Any, **options: Any) -> PyTree:
        """`module.init`, with the kernels that `initialization` asks for."""
        return initialize(self.initialization, module, key, *args, **options)

    def optimizer_at(
        self, learning_rate: Scheduled, clock: Clock, **options: Any
    ) -> optax.GradientTransformation:
        """The optimiser with the current learning rate; `options` as in `optimizers.optimizer`."""
        choice = self.default_optimizer if self.optimizer is None else self.optimizer
        return optimizer(choice, learning_rate, clock, **options)


class SteppingAgent(LearningAgent):
    """An agent that steps copies of the environment between updates."""

    num_envs: int = hyper(8, static=True, doc="Number of copies of the environment.")
    num_steps: int = hyper(1, static=True, doc="Steps per copy and iteration.")


class RolloutAgent(SteppingAgent):
    """An on-policy agent, which uses each rollout once."""

    @property
    def layout(self) -> Literal["flat", "env"]:
        """Layout of minibatches: single steps (flat), or whole sequences (env)."""
        return "flat"

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(self.num_envs, self.num_steps, layout=self.layout)


class MinibatchAgent(RolloutAgent):
    """An on-policy agent with several epochs of minibatches per rollout."""

    num_epochs: int = hyper(4, static=True, doc="Epochs over each rollout.")
    num_minibatches: int = hyper(4, static=True, doc="Minibatches (gradient steps) per epoch.")

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(
            self.num_envs, self.num_steps, self.num_epochs, self.num_minibatches, self.layout
        )


class ReplayAgent(SteppingAgent):
    """An off-policy agent with a replay buffer."""

    num_updates: int = hyper(1, static=True, doc="Updates per iteration.")
    batch_size: int = hyper(128, static=True, doc="Transitions per update.")
    capacity: int = hyper(10_000, static=True, doc="Capacity of the replay buffer in transitions.")
    warmup: int = hyper(
        1_000, low=0, static=True, doc="Transitions collected before the first update."
    )
    n_step: int = hyper(1, static=True, doc="Steps of n-step returns.")

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
    """An agent with one loss, one optimiser and gradient clipping."""

    has_target: ClassVar[bool] = False
    """Whether the state has a target network, and is a `TargetState`."""

    learning_rate: Scheduled = hyper(2.5e-4, low=0.0, doc="Learning rate.")
    max_grad_norm: Scalar | None = hyper(
        10.0,
        low=0.0,
        open_low=True,
        doc="Global norm to which gradients are clipped; none for no clipping.",
    )

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """Arguments of `optimizers.optimizer` other than the learning rate."""
        return {"max_grad_norm": self.max_grad_norm}

    def transform(self, clock: Clock) -> optax.GradientTransformation:
        """The optimiser with the current learning rate and the agent's options."""
        return self.optimizer_at(self.learning_rate, clock, **self.optimizer_options)

    def init_params(self, key: Key) -> PyTree:
        """Initial parameters of the networks."""
        raise NotImplementedError

    def init(self, key: Key) -> Any:
        params = self.init_params(key)
        optimizer = self.transform(Clock.start()).init(trained(params))
        if self.has_target:
            return TargetState(params, params, optimizer)
        return TrainState(params, optimizer)


class AdamAgent(GradientAgent):
    """A gradient agent with Adam as the default optimiser."""

    adam_epsilon: Scalar = hyper(1e-8, low=0.0, open_low=True, doc="Adam's epsilon.")

    @property
    def optimizer_options(self) -> dict[str, Any]:
        return super().optimizer_options | {"adam_epsilon": self.adam_epsilon}


def check_widths(hidden_sizes: tuple[int, ...], name: str = "hidden_sizes") -> None:
    """Raises ValueError unless there is a hidden layer, and all have at least one unit."""
    if not hidden_sizes or min(hidden_sizes) < 1:
        raise InvalidValue(f"{name} is {hidden_sizes}: give widths of at least 1")


def check_norm(layer_norm: bool, widths: tuple[int, ...], name: str = "hidden_sizes") -> None:
    """Raises ValueError if layer normalisation would make a layer's only feature 0."""
    if layer_norm and min(widths) == 1:
        raise InvalidValue(
            f"layer_norm is True and {name} is {widths}: a single feature is always normalised to "
            "0. Give widths of at least 2, or layer_norm=False"
        )


def bellman_target(rows: Replayed, discount: Scalar, next_values: Array) -> Array:
    """r + discount^n V(s'), or r after termination.

    Args:
      rows: n-step transitions `[B]`.
      discount: discount per step, gamma.
      next_values: V(s'), `[B]`; or `[B, K]` or `[1, K]` for K values per row.

    Returns:
      `float32[B]` or `float32[B, K]`.
    """
    per_row = (-1, *(1,) * (next_values.ndim - 1))
    reward, terminated = rows.reward.reshape(per_row), rows.terminated.reshape(per_row)
    weight = discount ** rows.num_steps.astype(jnp.float32).reshape(per_row)
    return reward + weight * jnp.where(terminated, 0.0, next_values)


def every(period: int, clock: Clock, change: Callable[[PyTree], PyTree], state: PyTree) -> PyTree:
    """`change(state)` in every `period`-th update, otherwise the unchanged state."""
    if period == 1:
        return change(state)
    due = (clock.update + 1) % period == 0  # not batched, so it stays a branch under vmap
    return jax.lax.cond(due, change, lambda state: state, state)
