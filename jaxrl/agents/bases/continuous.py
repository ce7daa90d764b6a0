"""What off-policy agents share that learn Q(s, a) of continuous actions."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import Agent, Replay
from jaxrl.distributions import Categorical
from jaxrl.errors import InvalidValue
from jaxrl.hyper import check_range
from jaxrl.losses import mean
from jaxrl.networks.critics import Critics, Outputs
from jaxrl.networks.layers import Activation, activation
from jaxrl.networks.own_modules import OneBatchAxis, call_directly, check_module
from jaxrl.networks.torsos import default_torso
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Scheduled
from jaxrl.trees import num_values
from jaxrl.types import (
    Array,
    Box,
    Clock,
    EnvSpec,
    Key,
    PyTree,
    Scalar,
    sample_action,
    split_mask,
    static,
)


class ContinuousAgent(Agent):
    """Replay, networks and the scale of actions; subclasses add the mathematics.

    Networks see and give actions in [-1, 1]; the environment's bounds are theirs, stretched.
    """

    discount: Scalar = 0.99
    """Discount factor, gamma, in [0, 1]."""
    num_envs: int = static(default=1)
    """Copies of the environment."""
    num_steps: int = static(default=1)
    """Steps of each copy between updates."""
    num_updates: int = static(default=1)
    """Updates after them."""
    batch_size: int = static(default=256)
    """Transitions of an update."""
    capacity: int = static(default=100_000)
    """Transitions kept."""
    warmup: int = static(default=1_000)
    """Transitions collected at random before the first update."""
    n_step: int = static(default=1)
    """Rewards summed before a value is looked up."""
    critic_learning_rate: Scheduled = 3e-4
    """Adam's step size for the critics."""
    tau: Scalar = 0.005
    """How far the target networks move with an update: Polyak's average."""
    hidden_sizes: tuple[int, ...] = static(default=(256, 256))
    """Widths of the hidden layers of each network."""
    activation: Activation = static(default="relu")
    """Activation between the layers."""
    torso: nn.Module | None = static(default=None)
    """Your own flax module from observations `[B, ...]` to features `[B, F]`; with a keyword
    `train` it may hold BatchNorm and dropout. None: observations are laid side by side."""

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

    def bind(self, spec: EnvSpec) -> Self:
        self.check_space(spec)
        check_range(self, "discount", 0.0, 1.0)
        check_range(self, "critic_learning_rate")
        check_range(self, "tau", 0.0, 1.0, open_low=True)
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise InvalidValue(f"hidden_sizes is {self.hidden_sizes}: give widths of at least 1")
        activation(self.activation)
        check_module(self, "torso", spec, trains=True)
        return super().bind(spec)

    def check_space(self, spec: EnvSpec) -> None:
        """Raises ValueError for an action space that the agent cannot act in."""
        name, space = type(self).__name__, spec.action
        if not isinstance(space, Box):
            raise InvalidValue(
                f"{name} acts in a box of real numbers, and the action space is {space}: use DQN "
                "or SAC for a few actions, PPO or TRPO for others"
            )
        low, high = space.bounds()
        with np.errstate(over="ignore", invalid="ignore"):
            width = high - low  # float32's whole range is wider than its largest number
        if not (np.isfinite(width) & (width > 0)).all():
            raise InvalidValue(
                f"{name} stretches its actions to the bounds of the box, and some of {space} are "
                "not finite, or too far apart: give the environment finite bounds, or use PPO"
            )

    # Networks -------------------------------------------------------------------------------------

    def new_torso(self) -> nn.Module:
        """From observations to features."""
        if self.torso is not None:
            return self.torso.clone(parent=None)
        return default_torso(self.bound_spec, (), self.activation)

    @property
    def _call(self) -> Callable[..., Any]:
        """How the torso is called."""
        if self.torso is None:
            return call_directly
        return OneBatchAxis.of(self.torso, self.bound_spec, trains=True)

    def critics(self, num: int, num_outputs: int = 1) -> Critics:
        """So many networks of action values."""
        return Critics(
            self.new_torso, self.hidden_sizes, self.activation, num, num_outputs, self._call
        )

    def outputs(self, num: int) -> Outputs:
        """A network with so many outputs."""
        return Outputs(self.new_torso, self.hidden_sizes, self.activation, num, self._call)

    # Actions --------------------------------------------------------------------------------------

    @property
    def num_values(self) -> int:
        """Numbers in an action."""
        space: Any = self.bound_spec.action
        return num_values(space.shape)

    def unscale_action(self, action: Array) -> Array:
        """From `[N, num_values]` in [-1, 1] to the environment's `[N, *shape]`."""
        space: Any = self.bound_spec.action
        low, high = (jnp.asarray(x)[None] for x in space.bounds())
        action = action.reshape(action.shape[0], *space.shape)
        return low + 0.5 * (action + 1.0) * (high - low)

    def scale_action(self, action: Array) -> Array:
        """The inverse of `unscale_action`."""
        space: Any = self.bound_spec.action
        low, high = (jnp.asarray(x)[None] for x in space.bounds())
        return (2.0 * (action - low) / (high - low) - 1.0).reshape(-1, self.num_values)

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """As `choose` says; while the memory warms up, uniformly at random."""
        if not explore:
            return carry, self.choose(state, obs, None, clock), ()
        random_key, key = jax.random.split(key)
        chosen = self.choose(state, obs, key, clock)
        at_random = self.random_actions(obs, random_key)
        warm_iterations = -(-self.warmup // self.plan.steps_per_iteration)
        return carry, jnp.where(clock.iteration < warm_iterations, at_random, chosen), ()

    def random_actions(self, obs: PyTree, key: Key) -> Array:
        """Actions drawn uniformly from those that are available, `[N, *shape]`."""
        mask, space = split_mask(obs)[1], self.bound_spec.action
        if mask is not None:
            return Categorical(jnp.zeros(mask.shape), mask).sample(key)
        num = jax.tree.leaves(obs)[0].shape[0]
        return jax.vmap(lambda k: sample_action(space, k))(jax.random.split(key, num))

    @abstractmethod
    def choose(self, state: Any, obs: PyTree, key: Key | None, clock: Clock) -> Array:
        """Actions `[N, *shape]`; those one would ship where there is no key to explore with."""

    # Errors ---------------------------------------------------------------------------------------

    def bellman_target(self, rows: Replayed, next_values: Array) -> Array:
        """r + discount^n V(s'), 0 after a termination; `float32[B]`, no gradient."""
        weight = self.discount ** rows.num_steps.astype(jnp.float32)
        following = jnp.where(rows.terminated, 0.0, next_values)
        return jax.lax.stop_gradient(rows.reward + weight * following)


def regression(values: Array, target: Array, rows: Replayed) -> Array:
    """The squared errors of `values[num, B]`, added up over the critics."""
    error = values - target[None]
    counts = jnp.broadcast_to(rows.valid[None], error.shape)
    return values.shape[0] * mean(jnp.square(error), counts)
