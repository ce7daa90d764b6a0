"""DQN (Mnih et al., "Human-level control through deep reinforcement learning", 2015), its kin."""

from typing import Any, Literal, Self, get_args

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Replay
from jaxrl.agents.bases.action_values import QAgent, weighted_mean
from jaxrl.errors import InvalidValue
from jaxrl.hyper import check_range
from jaxrl.losses import mean
from jaxrl.networks.variables import polyak_update, trained
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Linear, Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar, static
from jaxrl.validation import check_whole

Double = Literal["none", "target", "two_networks"]


class DQNState(struct.PyTreeNode):
    """Attributes:
    params: of the network; a pair of them for two networks.
    target: the parameters that targets are made with, of the same structure.
    optimizer: Adam's moments.
    """

    params: PyTree
    target: PyTree
    optimizer: optax.OptState


class DQN(QAgent):
    """Q-learning from replayed transitions; double, dueling, distributional, ... by choice."""

    num_envs: int = static(default=8)
    """Copies of the environment."""
    num_steps: int = static(default=1)
    """Steps of each copy between updates."""
    num_updates: int = static(default=1)
    """Gradient steps after them."""
    batch_size: int = static(default=128)
    """Transitions of a gradient step."""
    capacity: int = static(default=10_000)
    """Transitions kept."""
    warmup: int = static(default=1_000)
    """Transitions collected before the first update."""
    n_step: int = static(default=1)
    """Rewards summed before a value is looked up."""
    target_every: int = static(default=100)
    """Updates from one move of the target network to the next."""
    tau: Scalar = 1.0
    """How far the target network then moves: 1 copies, less is Polyak's average."""
    double: Double = static(default="none")
    """Choose the next action by the target network, by the online one, or by another of two."""
    prioritized: bool = static(default=False)
    """Replay transitions in proportion to their error."""
    priority_exponent: Scalar = 0.6
    """How much the error matters, alpha, in [0, 1]."""
    importance_exponent: Scheduled = Linear(0.4, 1.0)
    """How much of the bias that brings is weighted away, beta."""

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
            prioritized=self.prioritized,
        )

    def bind(self, spec: EnvSpec) -> Self:
        if self.double not in get_args(Double):
            raise InvalidValue(
                f"double is {self.double!r}: use one of {', '.join(get_args(Double))}"
            )
        check_whole("target_every", self.target_every)
        check_range(self, "tau", 0.0, 1.0, open_low=True)
        check_range(self, "priority_exponent", 0.0, 1.0)
        check_range(self, "importance_exponent", 0.0, 1.0)
        return super().bind(spec)

    def init(self, key: Key) -> DQNState:
        params: Any
        if self.double == "two_networks":
            params = tuple(map(self.init_params, jax.random.split(key)))
        else:
            params = self.init_params(key)
        return DQNState(params, params, self.optimizer(Clock.start()).init(trained(params)))

    def q_values(self, params: PyTree, obs: PyTree, key: Key | None = None) -> Array:
        if isinstance(params, tuple):  # two networks act by their mean
            first, second = (super(DQN, self).q_values(p, obs, key) for p in params)
            return 0.5 * (first + second)
        return super().q_values(params, obs, key)

    def update(self, state: DQNState, rows: Replayed, key: Key, clock: Clock) -> Any:
        """One gradient step, and where it is due a move of the target network."""

        def loss(params):
            rows_loss, error, carried = self._td_errors(params, state.target, rows, key)
            loss = weighted_mean(rows_loss, rows, at(self.importance_exponent, clock))
            return loss, (carried, error)

        params, optimizer, value, error = learn(
            self.optimizer(clock), loss, state.params, state.optimizer
        )
        target = moved(state.target, params, self.tau, self.target_every, clock)
        metrics = {"loss": value, "error": mean(error, rows.valid)}
        if not self.prioritized:
            return DQNState(params, target, optimizer), metrics
        priorities = (error + 1e-6) ** self.priority_exponent
        return DQNState(params, target, optimizer), metrics, priorities

    def _td_errors(
        self, params: PyTree, target: PyTree, rows: Replayed, key: Key
    ) -> tuple[Array, Array, PyTree]:
        """Losses and errors of the rows, by the chosen way to name the next action; and what
        collections this changes, of either network where there are two."""
        if self.double != "two_networks":
            fixed = jax.lax.stop_gradient(params)
            selector = fixed if self.double == "target" else target
            return self.td_errors(params, selector, target, rows, key)
        # van Hasselt, "Double Q-learning", 2010: each row teaches one network, which the other's
        # value of its own best action corrects.
        coin_key, *keys = jax.random.split(key, 3)
        first = jax.random.bernoulli(coin_key, 0.5, rows.reward.shape)
        found = [
            self.td_errors(p, jax.lax.stop_gradient(p), target[1 - i], rows, keys[i])
            for i, p in enumerate(params)
        ]
        losses, errors, carried = zip(*found, strict=True)
        return (
            jnp.where(first, losses[0], losses[1]),
            jnp.where(first, errors[0], errors[1]),
            carried,
        )


def moved(target: PyTree, params: PyTree, tau: Scalar, every: int, clock: Clock) -> PyTree:
    """The target after this update: every so many it goes the share `tau` of the way to params."""

    def towards(target: PyTree) -> PyTree:
        return polyak_update(params, target, tau)

    if every == 1:
        return towards(target)
    due = (clock.update + 1) % every == 0  # the clock's, so that vmap makes no select of it
    return jax.lax.cond(due, towards, lambda target: target, target)
