"""Behaviour cloning: supervised learning of an expert's actions (Pomerleau, "ALVINN", 1989)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import Offline, Update
from jaxrl.agents.bases.cloning import CloningAgent
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.optimizers import learn
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, Key, Mean, PyTree, Scalar, Transition


class CloningState(struct.PyTreeNode):
    """Attributes:
    params: parameters of the policy that learns.
    best: the parameters to deploy, from the end of the iteration with the least held-out loss.
    best_loss: that loss, `float32[]`; infinite before the first.
    held_out_loss: sum of the losses of this iteration's held-out rows, `float32[]`.
    num_held_out: their number, `float32[]`.
    optimizer: state of the optimiser.
    """

    params: PyTree
    best: PyTree
    best_loss: Array
    held_out_loss: Array
    num_held_out: Array
    optimizer: optax.OptState


class BehaviourCloning(CloningAgent):
    """Behaviour cloning, which deploys the parameters with the least loss on held-out episodes.

    The held-out loss of an iteration is the mean over the held-out rows of its batches, each with
    the parameters of that update.
    """

    discount: Scalar = 1.0
    learning_rate: Scheduled = 1e-3
    num_updates: int = hyper(
        100, static=True, doc="Gradient steps between two checks of the held-out loss."
    )
    batch_size: int = hyper(
        256, static=True, doc="Transitions per gradient step, held-out ones included."
    )
    held_out: float = hyper(
        0.1,
        static=True,
        low=0.0,
        high=0.5,
        doc="Share of the episodes that are held out: they choose the parameters to deploy, and "
        "are not learned from; of fewer than five, 0.1 holds out none. 0 to learn from all and "
        "deploy the last parameters.",
    )

    @property
    def plan(self) -> Offline:
        return Offline(self.num_updates, self.batch_size)

    def init(self, key: Key) -> CloningState:
        start: Any = super().init(key)
        zero, infinite = jnp.float32(0.0), jnp.float32(jnp.inf)
        return CloningState(start.params, start.params, infinite, zero, zero, start.optimizer)

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        policy, _ = self.policy(state.best, obs, ())
        return carry, policy.sample(key) if explore else policy.mode(), ()

    def is_held_out(self, rows: Transition) -> Array:
        """Which rows are of held-out episodes, `bool[B]`, chosen by Fibonacci hashing."""
        if self.held_out == 0.0:
            return jnp.zeros(rows.reward.shape, bool)
        if "episode" not in rows.info:
            raise InvalidValue(
                "the data does not say to which episode its rows belong, by "
                f"Transition.info={{'episode': int32[D]}}, but held_out is {self.held_out}: give "
                "it, load the data with jaxrl.load_dataset, or use held_out=0"
            )
        hashed = (rows.info["episode"].astype(jnp.uint32) + 1) * jnp.uint32(2654435769)
        return (hashed >> 8).astype(jnp.float32) / 2.0**24 < self.held_out

    def update(self, state: CloningState, batch: Transition, key: Key, clock: Clock) -> Update:
        """One gradient step on the rows that are not held out."""
        aside = self.is_held_out(batch)

        def loss(params: PyTree) -> tuple[Array, tuple[PyTree, Array]]:
            losses = -self.policy(params, batch.obs, ())[0].log_prob(batch.action)
            return mean(losses, ~aside), (None, jax.lax.stop_gradient(losses))

        params, optimizer, value, losses = learn(
            self.transform(clock), loss, state.params, state.optimizer
        )
        number = jnp.sum(aside, dtype=jnp.float32)
        starts = clock.update == 0  # perhaps with what was learned from other data
        new = state.replace(
            params=params,
            optimizer=optimizer,
            best_loss=jnp.where(starts, jnp.inf, state.best_loss),
            held_out_loss=state.held_out_loss + number * mean(losses, aside),
            num_held_out=state.num_held_out + number,
        )
        return Update(new, {"loss": Mean.where(~jnp.all(aside), value)})

    def end_iteration(self, state: CloningState, batch: Any, key: Key, clock: Clock) -> Update:
        """Deploys the parameters if the held-out loss is the least so far or was never measured."""
        measured = state.num_held_out > 0
        found = state.held_out_loss / jnp.maximum(state.num_held_out, 1.0)
        better = jnp.where(measured, found < state.best_loss, jnp.isinf(state.best_loss))
        best = jax.tree.map(lambda x, y: jnp.where(better, x, y), state.params, state.best)
        zero = jnp.float32(0.0)
        new = state.replace(
            best=best,
            best_loss=jnp.where(measured & better, found, state.best_loss),
            held_out_loss=zero,
            num_held_out=zero,
        )
        return Update(new, {"held_out_loss": Mean.where(measured, found)})
