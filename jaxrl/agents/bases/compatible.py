"""Compatible critics: Q(s, a) = A(s, a) + V(s), where A is linear in features of the policy.

With weights w, structured like the policy's parameters theta, A(s, a) = psi(s, a)^T w. Then the
gradient of the return needs no other critic, and w itself is the natural gradient.
"""

from abc import abstractmethod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.critic import SeparateAgent
from jaxrl.agents.bases.learning import Networks
from jaxrl.devices.shards import as_different
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean, value_loss
from jaxrl.optimizers import ascend, value_and_gradient
from jaxrl.schedules import Scheduled
from jaxrl.solvers import conjugate_gradient, gauss_newton_product
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Trajectory

ROWS_AT_ONCE = 256


class CompatibleCritic(struct.PyTreeNode):
    """Attributes:
    weights: w, structured like the policy's parameters.
    value: v, parameters of the state value.
    """

    weights: PyTree
    value: PyTree


class CompatibleState(struct.PyTreeNode):
    """Attributes:
    params: of the policy, and the `CompatibleCritic`.
    optimizer: state of the policy's optimiser.
    critic_optimizer: states of the optimisers of w and v, a `CompatibleCritic`.
    """

    params: Networks
    optimizer: optax.OptState
    critic_optimizer: CompatibleCritic


class Targets(struct.PyTreeNode):
    """A step as the critic needs it, `[B]`: `target` is r + discount V(s')."""

    obs: PyTree
    action: PyTree
    target: Array


class CompatibleAgent(SeparateAgent):
    """A policy step along a compatible critic; subclasses add `advantage` and `gain`."""

    num_steps: int = 1
    learning_rate: Scheduled = hyper(1e-3, low=0.0, doc="Learning rate of the policy.")
    weights_learning_rate: Scheduled = hyper(
        1e-2, low=0.0, doc="Learning rate of w, the critic's weights of compatible features."
    )
    critic_learning_rate: Scheduled = hyper(1e-2, low=0.0, doc="Learning rate of the state value.")
    critic_fit: Literal["td", "regression"] = hyper(
        "td",
        static=True,
        doc="Fit of the critic: a step along the TD error (Q-learning) after the policy's step, or "
        "a linear regression on each batch before it (one Gauss-Newton step if V is a network).",
    )
    cg_iterations: int = hyper(
        50, static=True, doc="Most steps of conjugate gradient in the regression."
    )
    natural_gradient: bool = hyper(
        False, static=True, doc="Take the policy's step along w, the natural gradient."
    )

    default_optimizer = "sgd"

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.core != "none":
            raise InvalidValue(
                f"core is {self.core!r}: the features of {type(self).__name__}'s critic depend on "
                "one state and action. Leave core='none', or use PPO"
            )

    def critic_params(self, state: CompatibleState) -> PyTree:
        return state.params.critic.value

    def init(self, key: Key) -> CompatibleState:
        params = self.init_params(key)
        weights = jax.tree.map(jnp.zeros_like, params.actor)
        optimizer, of_weights, of_value = (
            self.optimizer_at(rate, Clock.start()).init(x)
            for rate, x in (
                (self.learning_rate, params.actor),
                (self.weights_learning_rate, weights),
                (self.critic_learning_rate, params.critic),
            )
        )
        params = Networks(params.actor, CompatibleCritic(weights, params.critic))
        return CompatibleState(params, optimizer, CompatibleCritic(of_weights, of_value))

    def prepare(self, state: CompatibleState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """The targets r + discount V(s'), with V(s') = 0 after termination.

        V(s') is Q(s', mu(s')), or the mean of Q(s', .) over a stochastic policy: A has mean 0.
        """
        steps = trajectory.steps
        _, next_values = self.values(self.critic_params(state), trajectory)
        target = steps.reward + self.discount * next_values
        return trajectory.replace(steps=Targets(steps.obs, steps.action, target))

    def update(self, state: CompatibleState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """A step of the policy, with w before a TD step of the critic or after its regression."""
        actor, old = state.params.actor, state.params.critic
        error, direction = self.critic_direction(actor, old, batch)
        regression, fitted = self.critic_fit == "regression", state.critic_optimizer
        if regression:
            critic = self.regression(actor, old, direction, batch)
        else:
            transform = self.optimizer_at(self.weights_learning_rate, clock)
            weights, of_weights = ascend(transform, direction.weights, old.weights, fitted.weights)
            transform = self.optimizer_at(self.critic_learning_rate, clock)
            value, of_value = ascend(transform, direction.value, old.value, fitted.value)
            critic = CompatibleCritic(weights, value)
            fitted = CompatibleCritic(of_weights, of_value)
        weights = critic.weights if regression else old.weights
        transform = self.optimizer_at(self.learning_rate, clock)
        uphill = self.policy_direction(actor, weights, batch)
        actor, optimizer = ascend(transform, uphill, actor, state.optimizer)
        state = CompatibleState(Networks(actor, critic), optimizer, fitted)
        return Update(state, {"value_loss": error, "gradient_norm": optax.tree.norm(uphill)})

    # The policy -----------------------------------------------------------------------------------

    def policy(self, actor: PyTree, batch: Trajectory) -> Any:
        """The policy's distribution at each step of the batch."""
        apply: Any = self.network.apply
        return apply(actor, batch.steps.obs, (), None, method="policy")[0]

    @abstractmethod
    def advantage(self, actor: PyTree, weights: PyTree, batch: Trajectory) -> Array:
        """A(s, a) = psi(s, a)^T w, `[B]`; psi belongs to the policy with parameters `actor`."""

    @abstractmethod
    def gain(self, actor: PyTree, weights: PyTree, batch: Trajectory) -> Array:
        """A function of `actor`, `float32[]`, whose gradient is the policy gradient with A.

        No gradient flows through A.
        """

    def policy_direction(self, actor: PyTree, weights: PyTree, batch: Trajectory) -> PyTree:
        """The gradient of the policy's parameters, to be ascended; or the natural one, w."""
        if self.natural_gradient:
            return weights
        return value_and_gradient(lambda x: (self.gain(x, weights, batch), ()), actor)[1]

    # The critic -----------------------------------------------------------------------------------

    def predict(self, actor: PyTree, critic: CompatibleCritic, batch: Trajectory) -> Array:
        """Q(s, a) = A(s, a) + V(s), `[B]`."""
        apply: Any = self.network.apply
        values, _ = apply(critic.value, batch.steps.obs, (), None, method="value")
        return self.advantage(actor, critic.weights, batch) + values

    def critic_direction(
        self, actor: PyTree, critic: CompatibleCritic, batch: Trajectory
    ) -> tuple[Array, CompatibleCritic]:
        """The loss, half the mean of delta^2, and the mean of delta grad Q, to be ascended."""

        def negative_loss(critic):
            return -value_loss(self.predict(actor, critic, batch), batch.steps.target), ()

        (negative, _), direction = value_and_gradient(negative_loss, critic)
        return -negative, direction

    def regression(
        self,
        actor: PyTree,
        critic: CompatibleCritic,
        direction: CompatibleCritic,
        batch: Trajectory,
    ) -> CompatibleCritic:
        """Least squares of the targets on the features of w and v, by conjugate gradient.

        The features of w are as small as the exploration is, or as large as its inverse, so that
        those of w and of v are scaled to the same size.
        """
        sizes = self.feature_sizes(actor, critic, batch)

        def divided(x: PyTree, size: Array) -> PyTree:
            return jax.tree.map(lambda y: jnp.where(size > 0, y / size, 0.0), x)

        def scaled(x: CompatibleCritic) -> CompatibleCritic:
            return CompatibleCritic(
                divided(x.weights, sizes.weights), divided(x.value, sizes.value)
            )

        with jax.default_matmul_precision("highest"):
            product = gauss_newton_product(
                lambda x: self.predict(actor, x, batch), critic, lambda x: x, batch.first.ndim
            )
            change = conjugate_gradient(
                lambda x: scaled(product(scaled(x))),
                scaled(direction),
                self.cg_iterations,
                tolerance=1e-6,
            ).x
        return jax.tree.map(jnp.add, critic, scaled(change))

    def feature_sizes(
        self, actor: PyTree, critic: CompatibleCritic, batch: Trajectory
    ) -> CompatibleCritic:
        """The root mean squares of the features of w and of v over the batch, `float32[]` each."""
        num, critic = batch.first.ndim, as_different(critic)  # so that rows of shards stay apart
        rows = Trajectory(batch.steps, batch.first)
        rows = jax.tree.map(lambda x: x.reshape(batch.first.size, *x.shape[num:]), rows)

        def square(x: PyTree) -> Array:
            return jnp.square(optax.tree.norm(x)) / optax.tree.size(x)

        def of_row(row: Trajectory) -> CompatibleCritic:
            one = jax.tree.map(lambda x: x[None], row)
            found = jax.grad(lambda x: self.predict(actor, x, one)[0])(critic)
            return CompatibleCritic(square(found.weights), square(found.value))

        # In parts: a gradient for each row may not fit into memory.
        squares = jax.lax.map(of_row, rows, batch_size=ROWS_AT_ONCE)
        return jax.tree.map(lambda x: jnp.sqrt(mean(x)), squares)
