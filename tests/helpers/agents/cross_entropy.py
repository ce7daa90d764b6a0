"""Cross-entropy search over the weights of a linear policy (Rubinstein, 1999)."""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Agent, Population, Update
from jaxrl.types import Scalar, static


class State(struct.PyTreeNode):
    mean: jax.Array  # [size]
    std: jax.Array  # [size]
    candidates: jax.Array  # [population, size]


class CrossEntropy(Agent):
    extra_std: Scalar = 0.1
    population_size: int = static(default=32)
    num_elites: int = static(default=6)
    episodes_per_candidate: int = static(default=2)

    candidates = ("candidates",)

    @property
    def plan(self):
        return Population(self.population_size, self.episodes_per_candidate, self.spec.max_steps)

    @property
    def shape(self):
        return self.spec.observation.shape[0] + 1, self.spec.action.num

    def _drawn(self, mean, std, key):
        noise = jax.random.normal(key, (self.population_size, mean.size))
        return State(mean, std, mean[None] + std[None] * noise)

    def init(self, key):
        size = self.shape[0] * self.shape[1]
        return self._drawn(jnp.zeros(size), jnp.ones(size), key)

    def act(self, state, carry, obs, key, clock, *, explore):
        obs = jnp.concatenate([obs, jnp.ones((obs.shape[0], 1))], axis=1)
        if explore:
            weights = jnp.repeat(state.candidates, self.episodes_per_candidate, axis=0)
            scores = jnp.einsum("ni,nia->na", obs, weights.reshape(-1, *self.shape))
        else:
            scores = obs @ state.mean.reshape(self.shape)
        return carry, jnp.argmax(scores, axis=-1), ()

    def update(self, state, batch, key, clock):
        fitness = batch.mean(axis=1)
        elites = state.candidates[jnp.argsort(-fitness)[: self.num_elites]]
        noise = self.extra_std * (1.0 - clock.fraction)
        state = self._drawn(elites.mean(0), elites.std(0) + noise, key)
        return Update(state, {"best": fitness.max(), "mean": fitness.mean()})
