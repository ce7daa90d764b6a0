"""Online Q iteration: a step in the environment, a step of gradient, no memory and no target."""

import jax
import optax
from flax import struct

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.action_values import QAgent
from jaxrl.losses import mean
from jaxrl.networks.variables import trained
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Clock, Key, Metrics, PyTree, Trajectory, static


class OnlineQState(struct.PyTreeNode):
    """Attributes:
    params: of the network.
    optimizer: Adam's moments.
    """

    params: PyTree
    optimizer: optax.OptState


class OnlineQ(QAgent):
    """Q-learning on each step as it comes (Watkins, 1989), by a network; DQN's ancestor."""

    num_envs: int = static(default=8)
    """Copies of the environment."""
    num_steps: int = static(default=1)
    """Steps of each copy between updates."""

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(self.num_envs, self.num_steps)

    def init(self, key: Key) -> OnlineQState:
        params = self.init_params(key)
        return OnlineQState(params, self.optimizer(Clock.start()).init(trained(params)))

    def update(
        self, state: OnlineQState, batch: Trajectory, key: Key, clock: Clock
    ) -> tuple[OnlineQState, Metrics]:
        """A semi-gradient step towards r + discount max Q(s', .), all by the same network."""
        rows = Replayed.once(batch.steps)

        def loss(params):
            fixed = jax.lax.stop_gradient(params)
            rows_loss, error, carried = self.td_errors(params, fixed, fixed, rows, key)
            return mean(rows_loss), (carried, mean(error))

        params, optimizer, value, error = learn(
            self.optimizer(clock), loss, state.params, state.optimizer
        )
        return OnlineQState(params, optimizer), {"loss": value, "error": error}
