"""Base class of agents with critics Q(s, a), for a box or for discrete actions."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl.agents.bases.learning import LearningAgent, bellman_target, check_norm, check_widths
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.critics import Critics, Outputs
from jaxrl.networks.layers import Activation
from jaxrl.networks.own_modules import OneBatchAxis, call_directly, check_module, learning_pass
from jaxrl.networks.q_networks import of_actions
from jaxrl.networks.torsos import default_torso
from jaxrl.networks.variables import trained
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Scheduled
from jaxrl.trees import num_values
from jaxrl.types import (
    Array,
    Box,
    Clock,
    Discrete,
    EnvSpec,
    Key,
    Metrics,
    PyTree,
    Scalar,
    Stream,
    Transition,
    stream,
)
from jaxrl.validation import UNROLLED


class QCriticsAgent(LearningAgent):
    """Critics, networks and scaling of actions; subclasses add the algorithm.

    Networks use actions in [-1, 1], which are scaled to the environment's bounds.
    """

    num_critics: int = hyper(
        2, high=UNROLLED, static=True, doc="Number of critics, whose minimum is the value."
    )
    critic_learning_rate: Scheduled = hyper(3e-4, low=0.0, doc="Learning rate of the critics.")
    tau: Scalar = hyper(
        0.005,
        low=0.0,
        high=1.0,
        open_low=True,
        doc="Weight of the new parameters in Polyak averaging of the target networks.",
    )
    hidden_sizes: tuple[int, ...] = hyper(
        (256, 256),
        static=True,
        doc="Widths of the hidden layers of the policy, and of the critics without widths of their "
        "own.",
    )
    critic_hidden_sizes: tuple[int, ...] | None = hyper(
        None, static=True, doc="Widths of the critics' hidden layers; none for hidden_sizes."
    )
    layer_norm: bool = hyper(
        False,
        static=True,
        doc="Layer normalisation in the critics' hidden layers, against diverging values.",
    )
    activation: Activation = hyper("relu", static=True, doc="Activation function.")
    torso: nn.Module | None = hyper(
        None,
        static=True,
        doc="Your own flax module from observations `[B, ...]` to features `[B, F]`; with a "
        "keyword `train`, it may contain BatchNorm and dropout. None to concatenate observations.",
    )

    instead: ClassVar[str] = "use DQN or SAC for Discrete, PPO or TRPO for others"
    """What to do about an action space that the agent does not support."""

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        self.check_space(spec)
        check_widths(self.hidden_sizes)
        widths = "hidden_sizes" if self.critic_hidden_sizes is None else "critic_hidden_sizes"
        check_widths(self.critic_widths, widths)
        check_norm(self.layer_norm, self.critic_widths, widths)
        check_module(self, "torso", spec, trains=True)

    def check_space(self, spec: EnvSpec) -> None:
        """Raises ValueError if the agent does not support the action space."""
        name, space = type(self).__name__, spec.action
        if not isinstance(space, Box):
            raise InvalidValue(
                f"{name} needs a Box of actions, but the action space is {space}: {self.instead}"
            )
        low, high = space.bounds()
        with np.errstate(over="ignore", invalid="ignore"):
            width = high - low  # may overflow float32
        if not (np.isfinite(width) & (width > 0)).all():
            raise InvalidValue(
                f"{name} scales its actions to the bounds of the box, but some bounds of {space} "
                "are not finite, or too far apart: give the environment finite bounds, or use PPO"
            )

    # Networks -------------------------------------------------------------------------------------

    def new_torso(self) -> nn.Module:
        """A new module from observations to features."""
        if self.torso is not None:
            return self.torso.clone(parent=None)
        return default_torso(self.bound_spec, (), self.activation)

    @property
    def _call(self) -> Callable[..., Any]:
        """How to call the torso, see `jaxrl.networks.own_modules`."""
        if self.torso is None:
            return call_directly
        return OneBatchAxis.of(self.torso, self.bound_spec, trains=True)

    @property
    def num_actions(self) -> int:
        """Number of actions of a discrete space; 0 for a box."""
        space = self.bound_spec.action
        return space.num if isinstance(space, Discrete) else 0

    @property
    def critic_widths(self) -> tuple[int, ...]:
        """Widths of the critics' hidden layers."""
        return self.hidden_sizes if self.critic_hidden_sizes is None else self.critic_hidden_sizes

    @property
    def critic(self) -> Critics:
        """The critics: Q(s, a) for a box, Q(s, .) for discrete actions."""
        return Critics(
            self.new_torso,
            self.critic_widths,
            self.activation,
            self.num_critics,
            self.num_actions or 1,
            self._call,
            self.layer_norm,
        )

    def init_critic(self, key: Key) -> tuple[PyTree, optax.OptState]:
        """Initial parameters of the critics and their optimiser's state."""
        action = None if self.num_actions else jnp.zeros((1, self.num_values))
        params = self.new_params(self.critic, key, self.bound_spec.dummy_observation(1), action)
        return params, self.optimizer_at(self.critic_learning_rate, Clock.start()).init(
            trained(params)
        )

    def outputs(self, num: int) -> Outputs:
        """A network with `num` outputs."""
        return Outputs(self.new_torso, self.hidden_sizes, self.activation, num, self._call)

    # Actions --------------------------------------------------------------------------------------

    @property
    def num_values(self) -> int:
        """Dimension of an action."""
        space: Any = self.bound_spec.action
        return num_values(space.shape)

    def unscale_action(self, action: Array) -> Array:
        """Scales `[N, num_values]` in [-1, 1] to actions of the environment, `[N, *shape]`."""
        space: Any = self.bound_spec.action
        low, high = (jnp.asarray(x)[None] for x in space.bounds())
        action = action.reshape(action.shape[0], *space.shape)
        return low + 0.5 * (action + 1.0) * (high - low)

    def scale_action(self, action: Array) -> Array:
        """The inverse of `unscale_action`."""
        space: Any = self.bound_spec.action
        low, high = (jnp.asarray(x)[None] for x in space.bounds())
        return (2.0 * (action - low) / (high - low) - 1.0).reshape(-1, self.num_values)

    def recorded(self, batch: Transition) -> Replayed:
        """One-step rows of recorded transitions, with actions as the environment took them.

        Recorded actions of a Gaussian policy may lie outside the box.
        """
        rows = Replayed.once(batch)
        if self.num_actions:
            return rows
        space: Any = self.bound_spec.action
        return rows.replace(action=jax.vmap(space.clip)(rows.action))

    # Values ---------------------------------------------------------------------------------------

    def q_values(self, params: PyTree, rows: Replayed) -> Array:
        """Q(s, a) of the rows by each critic, `float32[num_critics, B]`."""
        return self._of_taken(self.critic.apply(params, *self._critic_inputs(rows)), rows)

    def _critic_inputs(self, rows: Replayed) -> tuple[Any, ...]:
        return (rows.obs,) if self.num_actions else (rows.obs, self.scale_action(rows.action))

    def _of_taken(self, outputs: Any, rows: Replayed) -> Array:
        """The values of the rows' actions, `[num, B]`, among the critics' outputs."""
        if not self.num_actions:
            return outputs
        return of_actions(jnp.moveaxis(outputs, 0, -1), rows.action).T

    # Errors ---------------------------------------------------------------------------------------

    def weighted_mean(self, loss: Array, rows: Replayed, clock: Clock) -> Array:
        """The mean of a loss `[B]` over valid rows."""
        return mean(loss, rows.valid)

    def priorities(self, error: Array) -> Array | None:
        """The priorities of rows with these absolute errors; None, without prioritised replay."""
        return None

    def bellman_target(self, rows: Replayed, next_values: Array) -> Array:
        """r + discount^n V(s'), with V = 0 after termination; `float32[B]`, no gradient."""
        return jax.lax.stop_gradient(bellman_target(rows, self.discount, next_values))

    def learn_critic(
        self,
        params: PyTree,
        optimizer: optax.OptState,
        rows: Replayed,
        target: Array,
        key: Key,
        clock: Clock,
    ) -> tuple[PyTree, optax.OptState, Metrics, Array | None]:
        """One gradient step of all critics on the sum of their squared errors.

        A row's priority is that of the critic with the largest error.

        Args:
          params, optimizer: parameters of the critics, and the optimiser's state.
          rows: transitions `[B]`.
          target: target of every critic, `float32[B]`.
          key: for dropout.
          clock: training progress.

        Returns:
          The new parameters and optimiser's state, metrics, and priorities `float32[B]` if replay
          is prioritised.
        """
        inputs = self._critic_inputs(rows)

        def loss(params):
            outputs, carried = learning_pass(self.critic, params, *inputs, key=key)
            values = self._of_taken(outputs, rows)
            error = values - target[None]
            total = self.weighted_mean(jnp.sum(jnp.square(error), axis=0), rows, clock)
            return total, (carried, (mean(values), jnp.max(jnp.abs(error), axis=0)))

        transform = self.optimizer_at(self.critic_learning_rate, clock)
        params, optimizer, loss_now, found = learn(transform, loss, params, optimizer)
        value, error = found
        metrics = {"critic_loss": loss_now, "value": value}
        return params, optimizer, metrics, self.priorities(error)


def dropout_keys(key: Key) -> Key:
    """Dropout keys of the critics and of the policy, `key[2]`."""
    return jax.random.split(stream(key, Stream.DROPOUT))
