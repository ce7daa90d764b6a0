"""REINFORCE and its baselines (Williams, 1992; Greensmith, Bartlett and Baxter, 2004)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.agents.bases.baselines import (
    BaselineAgent,
    first_episode,
    mean_of_others,
    optimal_baseline,
)
from jaxrl.agents.bases.score_function import ScoreFunctionAgent, ScoreFunctionState
from jaxrl.estimators import discounted_returns
from jaxrl.losses import mean, standardize
from jaxrl.optimizers import value_and_gradient
from jaxrl.schedules import at
from jaxrl.types import Array, Clock, PyTree, Trajectory


class Returns(struct.PyTreeNode):
    """The steps as `update` needs them, `[T, N]`.

    Attributes:
      sample: as for other agents; `advantage` is the return minus the baseline.
      weight: weight of the step in the gradient; 0 outside the episodes that count.
      episode_return: the return that multiplies the episode's score, for the optimal baseline.
    """

    sample: Sample
    weight: Array
    episode_return: Array


class REINFORCE(BaselineAgent, ScoreFunctionAgent):
    """REINFORCE: the Monte Carlo policy gradient, with various baselines."""

    @property
    def fits_critic(self) -> bool:
        return self.baseline == "learned"

    def prepare(
        self, state: ScoreFunctionState, trajectory: Trajectory, clock: Clock
    ) -> Trajectory:
        """Computes returns, baseline, and the weights of the steps."""
        steps = trajectory.steps
        learned = self.fits_critic
        counts, age = jnp.ones(steps.reward.shape, bool), jnp.zeros(steps.reward.shape, jnp.int32)
        if self.whole_episodes:
            counts, age = first_episode(steps.terminated | steps.truncated)
        values = next_values = jnp.zeros_like(steps.reward)
        if learned:
            values, next_values = self.values(state.params.critic, trajectory)
        behind = jnp.zeros_like(next_values) if self.whole_episodes else next_values
        returns = discounted_returns(
            steps.reward, behind, steps.terminated, steps.truncated, self.discount
        )
        if self.credit == "return":
            returns = jnp.broadcast_to(returns[:1], returns.shape)
        if self.standardize == "returns":
            returns = standardize(returns, counts)
        baseline = {
            "learned": lambda: values,
            "constant": lambda: mean_of_others(returns, counts, over_time=True),
            "time": lambda: mean_of_others(returns, counts, over_time=False),
        }.get(self.baseline, lambda: jnp.zeros_like(returns))()
        advantage = returns - baseline
        if self.standardize == "advantages":
            advantage = standardize(advantage, counts)
        weight = counts.astype(jnp.float32)
        if self.discount_states:
            weight = weight * jnp.asarray(self.discount, jnp.float32) ** age
        if self.whole_episodes:  # a sum over the steps of an episode, a mean over episodes
            weight = weight * self.num_steps
        only = counts if self.whole_episodes else None
        log_prob = steps.extras["log_prob"]
        sample = Sample(steps.obs, steps.action, log_prob, values, advantage, returns, only)
        return trajectory.replace(steps=Returns(sample, weight, returns))

    def critic_samples(self, batch: Trajectory) -> Trajectory:
        return batch.replace(steps=batch.steps.sample)

    def gradient(
        self, actor: PyTree, batch: Trajectory, clock: Clock
    ) -> tuple[PyTree, dict[str, Array]]:
        """The gradient E[sum_t grad log pi(a_t | s_t) (R_t - b)], to be ascended, and metrics."""
        returns: Returns = batch.steps

        def objective(actor):
            apply: Any = self.network.apply
            policy, _ = apply(actor, returns.sample.obs, batch.carry, batch.first, method="policy")
            scores = returns.weight * policy.log_prob(returns.sample.action)
            entropy = mean(policy.entropy(), returns.sample.valid)
            gain = mean(scores * returns.sample.advantage)
            bonus = at(self.entropy_coefficient, clock) * entropy
            return gain + bonus, (scores, {"policy_loss": -gain, "entropy": entropy})

        (_, (_, metrics)), gradient = value_and_gradient(objective, actor)
        if self.baseline == "optimal":
            correction = optimal_baseline(
                lambda actor: objective(actor)[1][0], actor, returns.weight, returns.episode_return
            )
            gradient = jax.tree.map(jnp.subtract, gradient, correction)
        norm = optax.tree.norm(gradient)
        return gradient, metrics | {"gradient_norm": norm}
