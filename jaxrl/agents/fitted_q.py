"""Fitted Q iteration (Ernst, Geurts and Wehenkel, 2005; Riedmiller, "Neural fitted Q", 2005)."""

from typing import Self

import jax
import optax
from flax import struct

from jaxrl.agent import Offline
from jaxrl.agents.bases.action_values import QAgent
from jaxrl.losses import mean
from jaxrl.networks.variables import trained
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Clock, EnvSpec, Key, Metrics, PyTree, Transition, static
from jaxrl.validation import check_whole


class FittedQState(struct.PyTreeNode):
    """Attributes:
    params: of the network.
    target: the network of the iteration before, whose values are fitted.
    optimizer: Adam's moments.
    """

    params: PyTree
    target: PyTree
    optimizer: optax.OptState


class FittedQ(QAgent):
    """Fit r + discount max Q(s', .) on a fixed data set, take that for Q, and fit again."""

    num_updates: int = static(default=100)
    """Gradient steps of each fit; one of Q's iterations."""
    batch_size: int | None = static(default=None)
    """Transitions of a gradient step; none: the whole data set."""

    @property
    def plan(self) -> Offline:
        return Offline(self.num_updates, self.batch_size)

    def bind(self, spec: EnvSpec) -> Self:
        check_whole("num_updates", self.num_updates)
        return super().bind(spec)

    def init(self, key: Key) -> FittedQState:
        params = self.init_params(key)
        return FittedQState(params, params, self.optimizer(Clock.start()).init(trained(params)))

    def update(
        self, state: FittedQState, batch: Transition, key: Key, clock: Clock
    ) -> tuple[FittedQState, Metrics]:
        """A gradient step of the fit; the first of an iteration begins with what was fitted."""
        opens = clock.update % self.num_updates == 0
        target = jax.lax.cond(opens, lambda: state.params, lambda: state.target)
        rows = Replayed.once(batch)

        def loss(params):
            rows_loss, error, carried = self.td_errors(params, target, target, rows, key)
            return mean(rows_loss), (carried, mean(error))

        params, optimizer, value, error = learn(
            self.optimizer(clock), loss, state.params, state.optimizer
        )
        return FittedQState(params, target, optimizer), {"loss": value, "error": error}
