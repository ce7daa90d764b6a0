"""Maximum-entropy policies over a box or discrete actions, and their soft values."""

from typing import Any

import jax.numpy as jnp

from jaxrl.agents.bases.continuous import ContinuousAgent
from jaxrl.distributions import Categorical, TanhGaussian
from jaxrl.networks.critics import Outputs
from jaxrl.types import Array, Clock, Discrete, EnvSpec, Key, PyTree, split_mask

LOG_STD_RANGE = (-20.0, 2.0)


class SoftAgent(ContinuousAgent):
    """A stochastic policy with critics; subclasses add the algorithm."""

    eval_modes = ("greedy", "sample")

    def check_space(self, spec: EnvSpec) -> None:
        if not isinstance(spec.action, Discrete):
            super().check_space(spec)

    @property
    def actor(self) -> Outputs:
        return self.outputs(self.num_actions or 2 * self.num_values)

    def policy(self, params: PyTree, obs: PyTree) -> Any:
        """The distribution over actions, `[N]`; for a box in [-1, 1]."""
        return self.distribution(self.actor.apply(params, obs), obs)

    def distribution(self, outputs: Any, obs: PyTree) -> Any:
        """The policy's distribution from the outputs of the network."""
        if self.num_actions:
            return Categorical(outputs, split_mask(obs)[1])
        location, log_std = jnp.split(outputs, 2, axis=-1)
        return TanhGaussian(location, jnp.clip(log_std, *LOG_STD_RANGE))

    def choose(self, state: Any, obs: PyTree) -> Array:
        return self._taken(self.policy(state.actor, obs).mode())

    def explore(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock
    ) -> tuple[PyTree, Array]:
        return carry, self._taken(self.policy(state.actor, obs).sample(key))

    def _taken(self, action: Array) -> Array:
        """The environment's action for one of the policy."""
        return action if self.num_actions else self.unscale_action(action)

    def soft_value(
        self, policy: Any, critic: PyTree, obs: PyTree, key: Key, temperature: Array
    ) -> tuple[Array, Array]:
        """V(s) = E[min Q(s, a) - alpha log pi(a | s)] and the entropy, both `float32[B]`.

        Estimated from one sample for a box (eq. 3), exact for discrete actions.
        """
        apply = self.critic.apply
        if self.num_actions:
            q: Any = apply(critic, obs)
            probabilities = policy.probabilities()
            entropy = policy.entropy()
            expected = jnp.sum(probabilities * jnp.min(q, axis=0), axis=-1)
            return expected + temperature * entropy, entropy
        action, log_prob = policy.sample_and_log_prob(key)
        q = apply(critic, obs, action)
        return jnp.min(q, axis=0) - temperature * log_prob, -log_prob
