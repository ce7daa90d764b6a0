"""A critic with its own optimiser, and its fit in several epochs after the policy's step."""

from typing import Any

import jax
import optax
from flax import struct

from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.agents.bases.learning import Networks
from jaxrl.agents.bases.networks import NetworkAgent
from jaxrl.devices.shards import num_shards
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean, value_loss
from jaxrl.minibatches import minibatch, minibatch_indices
from jaxrl.optimizers import descend
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Trajectory
from jaxrl.xla import layout
from jaxrl.xla.flatten import flatten, unflatten


class Fit(struct.PyTreeNode):
    """Attributes:
    critic: parameters of the critic.
    optimizer: its optimiser's state.
    """

    critic: PyTree
    optimizer: Any


class SeparateAgent(NetworkAgent):
    """A policy and a critic with separate parameters and optimisers.

    The state's `params` are `Networks`: the policy's parameters and the critic's.
    """

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.shared_torso:
            raise InvalidValue(
                f"shared_torso is True: {type(self).__name__} fits the critic with a separate "
                "optimiser, which would also change the policy through a shared torso. Leave it "
                "False, or use PPO"
            )

    def init_params(self, key: Key) -> Networks:
        inputs, methods = self.dummy_inputs(), ("policy", "value")
        return Networks(*(self.new_params(self.network, key, *inputs, method=m) for m in methods))

    def actor_params(self, state: Any) -> PyTree:
        return state.params.actor

    def critic_params(self, state: Any) -> PyTree:
        return state.params.critic


class CriticAgent(SeparateAgent):
    """Fits the critic separately from the policy, in several epochs over the rollout."""

    critic_learning_rate: Scheduled = hyper(
        1e-3, low=0.0, doc="Learning rate of the critic (the learned baseline)."
    )
    critic_epochs: int = hyper(10, static=True, doc="Epochs of the critic over each rollout.")
    critic_minibatches: int = hyper(
        1, static=True, doc="Minibatches (gradient steps) per epoch of the critic."
    )

    @property
    def _rows(self) -> tuple[int, str]:
        """Number of rows that minibatches divide (steps, or sequences of copies), and its name.

        Where devices share the environments, those of one device.
        """
        plan = self.plan
        if plan.layout == "flat":
            return plan.steps_per_iteration // num_shards(), "num_envs * num_steps"
        return plan.num_envs // num_shards(), "num_envs"

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        rows, what = self._rows
        self._check_minibatches(rows, f"{what} = {rows}")

    def check_shards(self, number: int) -> None:
        super().check_shards(number)
        rows = self._rows[0] // number
        self._check_minibatches(rows, f"the {rows} rows of each of {number} devices")

    def _check_minibatches(self, rows: int, what: str) -> None:
        if rows % self.critic_minibatches:
            raise InvalidValue(
                f"critic_minibatches is {self.critic_minibatches}, which does not divide {what}"
            )

    def init_critic(self, critic: PyTree) -> optax.OptState:
        """The initial state of the critic's optimiser."""
        return finite(self.optimizer_at(self.critic_learning_rate, Clock.start())).init(critic)

    def predict(self, critic: PyTree, batch: Trajectory) -> Array:
        """The critic's values of a batch of `Sample`s, which are fitted to the targets."""
        apply: Any = self.network.apply
        return apply(critic, batch.steps.obs, batch.carry, batch.first, method="value")[0]

    def fit_critic(
        self, critic: PyTree, optimizer: Any, batch: Trajectory, key: Key, clock: Clock
    ) -> tuple[PyTree, Any, Array]:
        """Fits the critic to the value targets of a batch of `Sample`s in `critic_epochs` epochs.

        Args:
          critic: parameters of the critic.
          optimizer: its optimiser's state.
          batch: single steps `[B, ...]`, or sequences `[T, N, ...]`, which stay whole.
          key: for shuffling.
          clock: training progress.

        Returns:
          The critic's parameters, its optimiser's state, and its mean loss in the last pass.
        """
        transform = finite(self.optimizer_at(self.critic_learning_rate, clock))
        axis = batch.first.ndim - 1
        rows = batch.first.shape[axis]

        fields = ("critic",) if layout.is_cpu() else ()

        def one(carried, index):
            fit = unflatten(carried, fields)
            part = minibatch(batch, index, axis)
            sample: Sample = part.steps

            def loss(critic):
                return value_loss(self.predict(critic, part), sample.target, sample.valid), None

            critic, optimizer, error, _ = descend(transform, loss, fit.critic, fit.optimizer)
            return flatten(Fit(critic, optimizer), fields), error

        index = minibatch_indices(key, rows, self.critic_epochs, self.critic_minibatches)
        start = flatten(Fit(critic, optimizer), fields)
        carried, errors = jax.lax.scan(one, start, index)
        fit = unflatten(carried, fields)
        return fit.critic, fit.optimizer, mean(errors[-self.critic_minibatches :])


def finite(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimiser, but non-finite gradients are always skipped."""
    return optax.apply_if_finite(transform, max_consecutive_errors=2**31 - 1)
