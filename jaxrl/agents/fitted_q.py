"""Fitted Q iteration (Ernst, Geurts and Wehenkel, 2005; Riedmiller, "Neural fitted Q", 2005)."""

import jax

from jaxrl.agent import Offline, Update
from jaxrl.agents.bases.action_values import QAgent
from jaxrl.agents.bases.learning import TargetState
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Clock, Key, Transition


class FittedQ(QAgent):
    """Fitted Q iteration: repeated regression on r + discount max Q(s', .) for a fixed data set."""

    num_updates: int = hyper(
        100, static=True, doc="Gradient steps per iteration, which fits one set of targets."
    )
    batch_size: int | None = hyper(
        None, static=True, doc="Transitions per gradient step; none for the whole data set."
    )

    has_target = True
    instead = "use IQL, TD3BC or BehaviourCloning"

    @property
    def plan(self) -> Offline:
        return Offline(self.num_updates, self.batch_size)

    def update(self, state: TargetState, batch: Transition, key: Key, clock: Clock) -> Update:
        """One gradient step; the first of an iteration also updates the target network."""
        opens = clock.update % self.num_updates == 0
        target = jax.lax.cond(opens, lambda: state.params, lambda: state.target)
        rows = Replayed.once(batch)

        def loss(params):
            rows_loss, error, carried = self.td_errors(params, target, rows, key)
            return mean(rows_loss), (carried, mean(error))

        params, optimizer, value, error = learn(
            self.transform(clock), loss, state.params, state.optimizer
        )
        return Update(TargetState(params, target, optimizer), {"loss": value, "error": error})
