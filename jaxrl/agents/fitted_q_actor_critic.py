"""Actor-critic with a fitted Q.

Sutton, McAllester, Singh and Mansour, "Policy gradient methods for reinforcement learning with
function approximation", 2000, section 2: f(s, a) is fitted to unbiased estimates of Q(s, a).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import EvalMode
from jaxrl.agents.bases.action_critic import ActionCriticAgent
from jaxrl.agents.bases.learning import Networks
from jaxrl.agents.bases.random_horizon import RandomHorizonAgent, Visit
from jaxrl.distributions import Categorical
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.trees import tree_where
from jaxrl.types import Array, Box, Clock, Discrete, EnvSpec, Key, PyTree, Trajectory, split_mask


class FittedQActorCritic(ActionCriticAgent, RandomHorizonAgent):
    """Actor-critic whose advantage comes from an f(s, a) fitted to unbiased roll-outs.

    The advantage is f(s, a) - E_{a' ~ pi} f(s, a'). The policy's step comes first, so that f is
    independent of the states and actions it weighs.
    """

    num_envs: int = 16
    num_steps: int = 256
    fitted_actions: Literal["policy", "uniform"] = hyper(
        "policy",
        static=True,
        doc="Actions to whose roll-outs f is fitted: the policy's own, or uniformly random ones, "
        "so that f also learns about actions that the policy rarely takes.",
    )
    num_action_samples: int = hyper(
        16,
        static=True,
        doc="Actions sampled for the mean of f over the policy in a box; it is exact for discrete "
        "actions.",
    )

    @property
    def eval_modes(self) -> tuple[EvalMode, ...]:  # type: ignore[override]
        """Without "sample" if exploring takes a uniform action in each episode."""
        return ("greedy", "sample") if self.fitted_actions == "policy" else ("greedy",)

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        space = spec.action
        if self.fitted_actions == "policy":
            return
        if isinstance(space, Box) and not np.isfinite(space.bounds()).all():
            raise InvalidValue(
                f"fitted_actions='uniform' needs a Box with finite bounds, but it is {space}: give "
                "it bounds, or set fitted_actions='policy'"
            )
        if self.num_pairs > 1:
            raise InvalidValue(
                f"num_pairs is {self.num_pairs}: with fitted_actions='uniform' an episode has one "
                "random action, and so one pair of stops. Set num_pairs=1"
            )

    def initial_carry(self, num_envs: int) -> PyTree:
        """Whether the copy is still rolling in, if its action at the first stop is special."""
        return jnp.ones(num_envs, bool) if self.carry_only_explores else ()

    @property
    def carry_only_explores(self) -> bool:
        return self.fitted_actions == "uniform"

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        if not explore or self.fitted_actions == "policy":
            return super().act(state, carry, obs, key, clock, explore=explore)
        key, uniform_key = jax.random.split(key)
        _, action, extras = super().act(state, carry, obs, key, clock, explore=True)
        stop = extras["stop"][:, 0]
        uniform = self.uniform_actions(obs, uniform_key, action.shape)
        return carry & ~stop, tree_where(carry & stop, uniform, action), extras

    def uniform_actions(self, obs: PyTree, key: Key, shape: tuple[int, ...]) -> Array:
        """Uniformly random available actions, of this shape `[N, ...]`."""
        space, mask = self.bound_spec.action, split_mask(obs)[1]
        if isinstance(space, Discrete):
            return Categorical(jnp.zeros((*shape, space.num)), mask).sample(key)
        low, high = (jnp.asarray(x)[None] for x in space.bounds())  # type: ignore[union-attr]
        return low + (high - low) * jax.random.uniform(key, shape)

    def evaluate(self, params: Networks, batch: Trajectory, key: Key) -> Trajectory:
        """The advantages of f, and y with discount E f(s', .) where the roll-out was cut."""
        visit: Visit = batch.steps
        key, next_key = jax.random.split(key)
        target = visit.target + jnp.where(
            visit.cut, self.discount * self.value(params, visit.next_obs, next_key), 0.0
        )
        taken = self.action_values(params.critic, visit.obs, visit.policy_action)
        advantage = taken - self.value(params, visit.obs, key)
        return batch.replace(steps=visit.replace(target=target, advantage=advantage))

    def value(self, params: Networks, obs: PyTree, key: Key) -> Array:
        """E_{a ~ pi} f(obs, a), `[K, N]`: a sum over discrete actions, samples in a box."""
        apply: Any = self.network.apply
        policy, _ = apply(params.actor, obs, (), None, method="policy")
        if isinstance(self.bound_spec.action, Discrete):
            values = self.action_values(params.critic, obs)

            def log_prob(action):
                return policy.log_prob(jnp.full(values.shape[:-1], action))

            actions = jnp.arange(values.shape[-1])
            probabilities = jnp.exp(jax.vmap(log_prob, out_axes=-1)(actions))
            return jnp.sum(probabilities * values, axis=-1)
        return sampled_mean(
            lambda action: self.action_values(params.critic, obs, action),
            policy,
            key,
            self.num_action_samples,
        )


def sampled_mean(function: Any, policy: Any, key: Key, num: int) -> Array:
    """The mean of `function(action)` over `num` actions of the policy; unbiased for E f."""
    values = jax.vmap(lambda k: function(policy.sample(k)))(jax.random.split(key, num))
    return jnp.sum(values, axis=0) / num
