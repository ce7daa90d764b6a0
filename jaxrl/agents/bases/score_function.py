"""Base class of score-function gradients: a policy step, then the critic's fit if there is one."""

from abc import abstractmethod
from typing import Any

import optax
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.critic import CriticAgent, finite
from jaxrl.agents.bases.learning import GradientAgent, Networks
from jaxrl.hyper import hyper
from jaxrl.optimizers import ascend
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, Key, PyTree, Scalar, Stream, Trajectory, stream


class ScoreFunctionState(struct.PyTreeNode):
    """Attributes:
    params: of the policy and of the critic.
    optimizer: the policy's.
    critic_optimizer: the critic's, `()` if none is fitted.
    """

    params: Networks
    optimizer: optax.OptState
    critic_optimizer: Any


class ScoreFunctionAgent(CriticAgent, GradientAgent):
    """Ascends a gradient estimate once per batch; subclasses add `prepare` and `gradient`."""

    learning_rate: Scheduled = hyper(2e-3, low=0.0, doc="Learning rate of the policy.")
    max_grad_norm: Scalar | None = None
    entropy_coefficient: Scheduled = hyper(0.0, low=0.0, doc="Weight of the entropy bonus.")

    @property
    def fits_critic(self) -> bool:
        """Whether a critic is learned; static."""
        return True

    def init(self, key: Key) -> ScoreFunctionState:
        params = self.init_params(key)
        optimizer = self.transform(Clock.start()).init(params.actor)
        fitted: Any = self.init_critic(params.critic) if self.fits_critic else ()
        return ScoreFunctionState(params, optimizer, fitted)

    def update(
        self, state: ScoreFunctionState, batch: Trajectory, key: Key, clock: Clock
    ) -> Update:
        """One step of the policy, then the critic's epochs."""
        actor, critic = state.params.actor, state.params.critic
        batch = self.evaluate(state.params, batch, stream(key, Stream.SAMPLE))
        gradient, metrics = self.gradient(actor, batch, clock)
        actor, optimizer = ascend(self.transform(clock), gradient, actor, state.optimizer)
        fitted = state.critic_optimizer
        if self.fits_critic:
            samples = self.critic_samples(batch)
            critic, fitted, error = self.fit_critic(critic, fitted, samples, key, clock)
            metrics = metrics | {"value_loss": error}
        return Update(ScoreFunctionState(Networks(actor, critic), optimizer, fitted), metrics)

    def transform(self, clock: Clock) -> optax.GradientTransformation:
        """The policy's optimiser, which skips gradients that are not finite."""
        return finite(super().transform(clock))

    @abstractmethod
    def gradient(
        self, actor: PyTree, batch: Trajectory, clock: Clock
    ) -> tuple[PyTree, dict[str, Array]]:
        """The gradient of the policy's parameters, to be ascended, and metrics."""

    def evaluate(self, params: Networks, batch: Trajectory, key: Key) -> Trajectory:
        """The batch with what depends on the critic, if `prepare` has not computed it."""
        return batch

    def critic_samples(self, batch: Trajectory) -> Trajectory:
        """The batch as `fit_critic` needs it."""
        return batch
