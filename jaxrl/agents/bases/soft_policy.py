"""Maximum-entropy policies over a box or discrete actions, and their soft values."""

from typing import Any, Literal

import jax.numpy as jnp

from jaxrl.agents.bases.continuous import ContinuousAgent
from jaxrl.agents.bases.kept_noise import KeptNoise, check_kept
from jaxrl.distributions import Categorical, FeatureGaussian, TanhGaussian
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.networks.critics import ExploringOutputs, Outputs
from jaxrl.types import Array, Clock, Discrete, EnvSpec, Key, PyTree, split_mask

LOG_STD_RANGE = (-20.0, 2.0)


class SoftAgent(ContinuousAgent):
    """A stochastic policy with critics; subclasses add the algorithm."""

    std_from: Literal["output", "features"] = hyper(
        "output",
        static=True,
        doc="Standard deviation of actions before tanh. output: of the network; features: "
        "generalised state-dependent exploration (gSDE), noise linear in the network's features, "
        "weights drawn once per episode.",
    )
    initial_log_std: float | None = hyper(
        None,
        low=-20.0,
        high=2.0,
        static=True,
        doc="Initial log standard deviation of gSDE's weights; none for -3.",
    )
    noise_every: int | None = hyper(
        None,
        static=True,
        doc="Steps after which gSDE draws its weights again; none for once per episode.",
    )

    eval_modes = ("greedy", "sample")

    def check_space(self, spec: EnvSpec) -> None:
        if not isinstance(spec.action, Discrete):
            super().check_space(spec)
        elif self.std_from == "features":
            raise InvalidValue(
                f"std_from is 'features', but the action space is {spec.action}: only actions in a "
                "box have noise. Use 'output'"
            )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        check_kept(self.std_from, self.noise_every)
        if self.initial_log_std is not None and self.std_from != "features":
            raise InvalidValue(
                f"initial_log_std is {self.initial_log_std}, but std_from is {self.std_from!r}: "
                "it applies only to 'features'"
            )

    @property
    def actor(self) -> Outputs | ExploringOutputs:
        if self.std_from == "features":
            parts = self.new_torso, self.hidden_sizes, self.activation, self.num_values
            log_std = -3.0 if self.initial_log_std is None else self.initial_log_std
            return ExploringOutputs(*parts, self._call, log_std)
        return self.outputs(self.num_actions or 2 * self.num_values)

    @property
    def carry_only_explores(self) -> bool:
        return self.std_from == "features"

    def initial_carry(self, num_envs: int) -> PyTree:
        """The noise, which is drawn as an episode starts, if it is kept; else `()`."""
        if not self.carry_only_explores:
            return ()
        return KeptNoise.start(num_envs, (self.hidden_sizes[-1], self.num_values))

    def policy(self, params: PyTree, obs: PyTree) -> Any:
        """The distribution over actions, `[N]`; for a box in [-1, 1]."""
        return self.distribution(self.actor.apply(params, obs), obs)

    def distribution(self, outputs: Any, obs: PyTree) -> Any:
        """The policy's distribution from the outputs of the network."""
        if self.num_actions:
            return Categorical(outputs, split_mask(obs)[1])
        if isinstance(outputs, FeatureGaussian):
            return TanhGaussian(outputs.mean, outputs.log_std)
        location, log_std = jnp.split(outputs, 2, axis=-1)
        return TanhGaussian(location, jnp.clip(log_std, *LOG_STD_RANGE))

    def choose(self, state: Any, obs: PyTree) -> Array:
        return self._taken(self.policy(state.actor, obs).mode())

    def explore(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock
    ) -> tuple[PyTree, Array]:
        if not self.carry_only_explores:
            return carry, self._taken(self.policy(state.actor, obs).sample(key))
        carry = carry.next(key, self.noise_every)
        policy: Any = self.actor.apply(state.actor, obs)
        return carry, self._taken(jnp.tanh(policy.sample_with(carry.noise)))

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
