"""Fitted Q iteration on a fixed data set (Ernst, Geurts and Wehenkel, 2005), tabular regression."""

import jax.numpy as jnp

from jaxrl.agent import Agent, Offline, Update
from jaxrl.types import Scalar, static


class FittedQ(Agent):
    """Observations are one-hot; the state is the table Q `[states, actions]`."""

    discount: Scalar = 0.9
    batch_size: int | None = static(default=None)

    @property
    def plan(self):
        return Offline(num_updates=1, batch_size=self.batch_size)

    def init(self, key):
        return jnp.zeros((self.spec.observation.shape[0], self.spec.action.num))

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.argmax(obs @ state, axis=-1), ()

    def update(self, state, batch, key, clock):
        next_value = jnp.max(batch.next_obs @ state, axis=-1)
        target = batch.reward + self.discount * jnp.where(batch.terminated, 0.0, next_value)
        chosen = batch.action[:, None] == jnp.arange(state.shape[1])[None]
        weight = batch.obs[:, :, None] * chosen[:, None, :]  # [B, states, actions]
        count = weight.sum(0)
        mean = (weight * target[:, None, None]).sum(0) / jnp.maximum(count, 1.0)
        new = jnp.where(count > 0, mean, state)
        return Update(new, {"change": jnp.abs(new - state).max()})
