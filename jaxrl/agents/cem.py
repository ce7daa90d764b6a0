"""The cross-entropy method (Rubinstein, 1999), with the decreasing noise of Szita and Lorincz
("Learning Tetris using the noisy cross-entropy method", 2006).
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.population import PopulationAgent, drawn
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.schedules import Linear, Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar, Stream, stream


class CEMState(struct.PyTreeNode):
    """Attributes:
    params: means of the candidates' parameters, the policy to deploy.
    variance: their variances, structured like `params`.
    candidates: parameters, leaves `[population_size, ...]`.
    """

    params: PyTree
    variance: PyTree
    candidates: PyTree


class CEM(PopulationAgent):
    """Cross-entropy method: a Gaussian over parameters, fitted to the best of its samples."""

    num_elites: int = hyper(
        8,
        static=True,
        doc="Best candidates, to which the Gaussian of the next iteration is fitted.",
    )
    initial_std: Scalar = hyper(
        0.5, low=0.0, open_low=True, doc="Initial standard deviation of each parameter."
    )
    extra_variance: Scheduled = hyper(
        Linear(0.05, 0.0),
        low=0.0,
        doc="Variance added to that of the elites, which keeps the search from ending too early.",
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.num_elites > self.population_size:
            raise InvalidValue(
                f"num_elites is {self.num_elites}, more than population_size = "
                f"{self.population_size}"
            )

    def init(self, key: Key) -> CEMState:
        params = self.init_params(key)
        variance = jax.tree.map(lambda x: jnp.full_like(x, self.initial_std**2), params)
        return self.sample(params, variance, stream(key, Stream.SAMPLE))

    def sample(self, params: PyTree, variance: PyTree, key: Key) -> CEMState:
        """The state with a sample of the Gaussian."""
        std = jax.tree.map(jnp.sqrt, variance)
        return CEMState(params, variance, drawn(params, std, key, self.population_size))

    def update(self, state: CEMState, returns: Array, key: Key, clock: Clock) -> Update:
        """Mean and variance of the elites, `extra_variance` added to the latter."""
        gain, metrics = self.gains(returns)
        _, best = jax.lax.top_k(gain, self.num_elites)
        elites = jax.tree.map(lambda x: x[best], state.candidates)
        params = jax.tree.map(lambda x: mean(x, axis=0), elites)
        spread = jax.tree.map(lambda x, m: mean(jnp.square(x - m[None]), axis=0), elites, params)
        variance = jax.tree.map(lambda x: x + at(self.extra_variance, clock), spread)
        metrics["elite_return"] = mean(gain[best])
        return Update(self.sample(params, variance, stream(key, Stream.SAMPLE)), metrics)
