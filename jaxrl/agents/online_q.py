"""Online Q-learning, without replay and target network (Watkins, 1989)."""

import jax

from jaxrl.agent import Update
from jaxrl.agents.bases.action_values import QAgent
from jaxrl.agents.bases.learning import RolloutAgent, TrainState
from jaxrl.losses import mean
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Clock, Key, Trajectory


class OnlineQ(RolloutAgent, QAgent):
    """Online Q-learning: one gradient step per environment step, no replay, no target network."""

    def update(self, state: TrainState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """A semi-gradient step towards r + discount max Q(s', .) of the same network."""
        rows = Replayed.once(batch.steps)

        def loss(params):
            fixed = jax.lax.stop_gradient(params)
            rows_loss, error, carried = self.td_errors(params, fixed, rows, key)
            return mean(rows_loss), (carried, mean(error))

        params, optimizer, value, error = learn(
            self.transform(clock), loss, state.params, state.optimizer
        )
        return Update(TrainState(params, optimizer), {"loss": value, "error": error})
