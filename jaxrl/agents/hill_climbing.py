"""Hill climbing over policies, with noise that adapts by Rechenberg's rule (Evolutionsstrategie,
1973; Beyer and Schwefel, "Evolution strategies", 2002, section 4.2).
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.population import PopulationAgent, drawn
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar, Stream, stream
from jaxrl.validation import holds_anywhere


class HillClimbingState(struct.PyTreeNode):
    """Attributes:
    params: the best candidate of the last iteration.
    candidates: that policy, then its neighbours; leaves `[population_size, ...]`.
    noise_std: standard deviation of the neighbours' parameters, `float32[]`.
    """

    params: PyTree
    candidates: PyTree
    noise_std: Array


class HillClimbing(PopulationAgent):
    """Hill climbing: the best of a policy and its random neighbours, with adaptive noise.

    The policy plays again in each iteration, so that one lucky episode does not keep it forever.
    """

    population_size: int = 16
    episodes_per_candidate: int = 4
    common_random_numbers: bool = True
    noise_std: Scalar = hyper(
        0.1, low=0.0, open_low=True, doc="Initial standard deviation of the neighbours' parameters."
    )
    noise_factor: Scalar = hyper(
        1.5,
        low=1.0,
        doc="Factor by which the noise grows if many neighbours are at least as good as the "
        "policy, and shrinks if few are; 1 for constant noise.",
    )
    success_share: Scalar = hyper(
        0.2,
        low=0.0,
        high=1.0,
        doc="The noise grows if more than this share of the neighbours is at least as good.",
    )
    min_noise_std: Scalar = hyper(1e-3, low=0.0, doc="Least standard deviation.")
    max_noise_std: Scalar = hyper(2.0, low=0.0, open_low=True, doc="Greatest standard deviation.")

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.population_size < 2:
            raise InvalidValue(
                "population_size is 1, but a policy and a neighbour are compared: give at least 2"
            )
        low, high = self.min_noise_std, self.max_noise_std
        if holds_anywhere(lambda low, high: low > high, low, high):
            raise InvalidValue(f"min_noise_std is {low}, which is above max_noise_std = {high}")
        noise = self.noise_std
        if holds_anywhere(lambda low, x, high: (x < low) | (x > high), low, noise, high):
            raise InvalidValue(
                f"noise_std is {noise}: it must be between min_noise_std = {low} and "
                f"max_noise_std = {high}"
            )

    def init(self, key: Key) -> HillClimbingState:
        noise_std = jnp.float32(self.noise_std)
        return self.around(self.init_params(key), noise_std, stream(key, Stream.SAMPLE))

    def around(self, params: PyTree, noise_std: Array, key: Key) -> HillClimbingState:
        """The state at a policy: new neighbours of it."""
        neighbours = drawn(params, noise_std, key, self.population_size)
        candidates = jax.tree.map(lambda x, one: x.at[0].set(one), neighbours, params)
        return HillClimbingState(params, candidates, noise_std)

    def update(self, state: HillClimbingState, returns: Array, key: Key, clock: Clock) -> Update:
        """A step to the best candidate, if it is better than the policy."""
        gain, metrics = self.gains(returns)
        best = jnp.argmax(gain)
        improved = gain[best] > gain[0]
        params = jax.tree.map(lambda x: x[best], state.candidates)
        number = jnp.sum(gain[1:] >= gain[0])
        excess = number - self.success_share * (self.population_size - 1)
        direction = jnp.where(jnp.abs(excess) < 1e-3, 0.0, jnp.sign(excess))
        noise_std = state.noise_std * self.noise_factor**direction
        noise_std = jnp.clip(noise_std, self.min_noise_std, self.max_noise_std)
        metrics |= {"improved": improved, "num_good": number, "noise_std": noise_std}
        return Update(self.around(params, noise_std, stream(key, Stream.SAMPLE)), metrics)
