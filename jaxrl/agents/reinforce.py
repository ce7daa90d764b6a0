"""REINFORCE and its baselines (Williams, 1992; Greensmith, Bartlett and Baxter, 2004)."""

from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.actor_critic import NetworkAgent, Sample
from jaxrl.agents.bases.critic import check_critic, finite_adam, fit_critic, join, split
from jaxrl.errors import InvalidValue
from jaxrl.estimators import discounted_returns
from jaxrl.hyper import check_range
from jaxrl.losses import mean, standardize
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, Metrics, PyTree, Trajectory, static

Credit = Literal["return", "reward_to_go"]
Baseline = Literal["none", "constant", "time", "optimal", "learned"]
Standardize = Literal["none", "returns", "advantages"]


class REINFORCEState(struct.PyTreeNode):
    """Attributes:
    params: of policy and value.
    optimizer: the policy's.
    critic_optimizer: the critic's, `()` without a learned baseline.
    """

    params: PyTree
    optimizer: optax.OptState
    critic_optimizer: Any


class Returns(struct.PyTreeNode):
    """What the gradient sees of each step, `[T, N]`.

    Attributes:
      sample: as for other agents; `advantage` is the return less the baseline.
      weight: of the step in the sum: 0 outside the episodes that count.
      episode_return: the return to multiply the episode's score with, for the optimal baseline.
    """

    sample: Sample
    weight: Array
    episode_return: Array


class REINFORCE(NetworkAgent):
    """REINFORCE: the policy gradient from returns, with a baseline to choose."""

    num_envs: int = static(default=8)
    """Copies of the environment."""
    num_steps: int = static(default=128)
    """Steps of each copy between updates."""
    whole_episodes: bool = static(default=False)
    """Play one whole episode in each copy an iteration; else go on, and cut after num_steps."""
    credit: Credit = static(default="reward_to_go")
    """What an action is given credit for: the episode's whole return, or the rewards after it."""
    baseline: Baseline = static(default="learned")
    """Subtracted from the returns: a mean, one for each time, that of least variance (which is
    estimated, and pays from some 64 episodes on), or V(obs)."""
    standardize: Standardize = static(default="none")
    """Standardise the returns before the baseline is fitted, or the advantages after it."""
    discount_states: bool = static(default=False)
    """Weight step t by discount^t: with rewards to go the gradient of the discounted return."""
    learning_rate: Scheduled = 2e-3
    """Adam's step size for the policy."""
    entropy_coefficient: Scheduled = 0.0
    """Weight of the entropy bonus."""
    critic_learning_rate: Scheduled = 1e-3
    """Adam's step size for the learned baseline."""
    critic_epochs: int = static(default=10)
    """Passes of the learned baseline over the collected steps."""
    critic_minibatches: int = static(default=1)
    """Parts into which each of these passes is divided, whole copies each."""

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(
            self.num_envs,
            self.num_steps,
            layout="env",
            reset_each_iteration=self.whole_episodes,
        )

    def bind(self, spec: EnvSpec) -> Self:
        check_range(self, "learning_rate")
        check_range(self, "entropy_coefficient")
        check_critic(self, self.num_envs, "num_envs")
        for field, choices in (
            ("credit", ("return", "reward_to_go")),
            ("baseline", ("none", "constant", "time", "optimal", "learned")),
            ("standardize", ("none", "returns", "advantages")),
        ):
            if getattr(self, field) not in choices:
                raise InvalidValue(
                    f"{field} is {getattr(self, field)!r}: use one of {', '.join(choices)}"
                )
        needs_whole = {
            f"baseline={self.baseline!r}": self.baseline != "learned",
            "credit='return'": self.credit == "return",
            "discount_states": self.discount_states,
            "standardize='returns'": self.standardize == "returns",
        }
        for what, wanted in needs_whole.items():
            if wanted and not self.whole_episodes:
                raise InvalidValue(
                    f"{what} needs whole episodes: set whole_episodes. (A rollout cuts episodes, "
                    "and only a learned baseline knows what would have followed)"
                )
        if self.discount_states and self.credit == "return":
            raise InvalidValue(
                "discount_states weights the rewards to go; the whole return is discounted from "
                "the start of the episode already. Leave it False"
            )
        if self.baseline == "optimal" and self.credit != "return":
            raise InvalidValue("baseline='optimal' is that of whole returns: set credit='return'")
        if self.baseline == "optimal" and self.standardize == "advantages":
            raise InvalidValue(
                "standardize='advantages' comes after the baseline, and baseline='optimal' is made "
                "with the gradient: set standardize='returns' or 'none'"
            )
        if self.baseline in ("constant", "time", "optimal") and self.num_envs < 2:
            raise InvalidValue(
                f"num_envs is {self.num_envs}: the baseline of a copy comes from the others, so "
                "there must be at least 2"
            )
        longest = spec.max_steps
        if self.whole_episodes and (longest is None or self.num_steps < longest):
            raise InvalidValue(
                f"num_steps is {self.num_steps}, and whole_episodes needs as many as the longest "
                f"episode has: {'no limit is known' if longest is None else longest}"
            )
        self._check_standardize(spec)
        return super().bind(spec)

    def _check_standardize(self, spec: EnvSpec) -> None:
        """Raises ValueError where all that is standardised is equal by construction, and so 0."""
        if self.standardize == "none":
            return
        steps = min(self.num_steps, spec.max_steps or 1) if self.whole_episodes else self.num_steps
        # Baselines from other copies need two of them anyway; V(obs) differs between steps.
        one_return = self.credit == "return" and (
            self.standardize == "returns" or self.baseline == "none"
        )
        if self.num_envs == 1 and (steps == 1 or one_return):
            what = "the same return at every step" if steps > 1 else "a single step"
            raise InvalidValue(
                f"standardize={self.standardize!r} with num_envs=1 standardises {what}, which "
                "always gives 0: the policy would never learn. Take num_envs of at least 2, or "
                "standardize='none'"
            )

    def init(self, key: Key) -> REINFORCEState:
        params = self.init_params(key)
        actor, critic = split(params)
        clock = Clock.start()
        fitted: Any = ()
        if self.baseline == "learned":
            fitted = finite_adam(self.critic_learning_rate, clock).init(critic)
        return REINFORCEState(params, finite_adam(self.learning_rate, clock).init(actor), fitted)

    def prepare(self, state: REINFORCEState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Returns, which steps count, and the baseline."""
        steps = trajectory.steps
        learned = self.baseline == "learned"
        counts, age = jnp.ones(steps.reward.shape, bool), jnp.zeros(steps.reward.shape, jnp.int32)
        if self.whole_episodes:
            counts, age = _first_episode(steps.terminated | steps.truncated)
        values = next_values = jnp.zeros_like(steps.reward)
        if learned:
            values, next_values = self.values(state.params, trajectory)
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
            "constant": lambda: _mean_of_others(returns, counts, over_time=True),
            "time": lambda: _mean_of_others(returns, counts, over_time=False),
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
        sample = Sample(steps.obs, steps.action, steps.extras, values, advantage, returns, only)
        return trajectory.replace(steps=Returns(sample, weight, returns))

    def update(
        self, state: REINFORCEState, batch: Trajectory, key: Key, clock: Clock
    ) -> tuple[REINFORCEState, Metrics]:
        actor, critic = split(state.params)
        gradient, metrics = self.gradient(actor, batch, clock)
        descent = jax.tree.map(jnp.negative, gradient)
        adam = finite_adam(self.learning_rate, clock)
        updates, optimizer = adam.update(descent, state.optimizer, actor)
        actor, fitted = optax.apply_updates(actor, updates), state.critic_optimizer
        if self.baseline == "learned":
            samples = batch.replace(steps=batch.steps.sample)
            critic, fitted, error = fit_critic(self, critic, fitted, samples, key, clock)
            metrics = metrics | {"value_loss": error}
        return REINFORCEState(join(actor, critic), optimizer, fitted), metrics

    def gradient(
        self, actor: PyTree, batch: Trajectory, clock: Clock
    ) -> tuple[PyTree, dict[str, Array]]:
        """Of E[sum_t grad log pi(a_t | s_t) (R_t - b)], to be ascended, and what to report."""
        returns: Returns = batch.steps

        def objective(actor):
            apply: Any = self.network.apply
            policy, _ = apply(actor, returns.sample.obs, batch.carry, batch.first, method="policy")
            scores = returns.weight * policy.log_prob(returns.sample.action)
            entropy = mean(policy.entropy(), returns.sample.valid)
            gain = mean(scores * returns.sample.advantage)
            bonus = at(self.entropy_coefficient, clock) * entropy
            return gain + bonus, (scores, {"policy_loss": -gain, "entropy": entropy})

        gradient, (_, metrics) = jax.grad(objective, has_aux=True)(actor)
        if self.baseline == "optimal":
            _, pull = jax.vjp(lambda actor: objective(actor)[1][0], actor)
            correction = self._optimal_baseline(pull, returns)
            gradient = jax.tree.map(jnp.subtract, gradient, correction)
        norm = optax.tree.norm(gradient)
        return gradient, metrics | {"gradient_norm": norm}

    def _optimal_baseline(self, pull: Any, returns: Returns) -> PyTree:
        """mean of g b with b = E[g^2 R] / E[g^2] for each parameter, g the score of an episode.

        The baseline of a copy comes from the others, which leaves the gradient without bias. With
        few copies that ratio is noise, so one more episode counts among them, of their mean return
        and their mean g^2.
        """
        num_steps, num_envs = returns.weight.shape

        def score(n):  # of copy n's episode
            of_copy = (jnp.arange(num_envs) == n).astype(jnp.float32) / num_steps
            return pull(jnp.broadcast_to(of_copy, returns.weight.shape))[0]

        scores = jax.vmap(score)(jnp.arange(num_envs))  # leaves [N, ...]
        episode = returns.episode_return[0]

        def of_others(x):
            return jnp.sum(x, axis=0, keepdims=True) - x

        def correction(g):
            one_each = (-1, *(1,) * (g.ndim - 1))
            mean_return = of_others(episode).reshape(one_each) / (num_envs - 1)
            squared = jnp.square(g)
            total = of_others(squared)
            prior = total / (num_envs - 1)
            weighted = of_others(squared * episode.reshape(one_each)) + prior * mean_return
            total = total + prior
            known = total > 0
            baseline = jnp.where(known, weighted / jnp.where(known, total, 1.0), mean_return)
            return mean(g * baseline, axis=0)

        return jax.tree.map(correction, scores)


def _first_episode(done: Array) -> tuple[Array, Array]:
    """Which steps `[T, N]` belong to the first episode of their copy, and their time in it."""
    ended_before = jnp.cumsum(done, axis=0) - done
    time = jnp.broadcast_to(jnp.arange(done.shape[0], dtype=jnp.int32)[:, None], done.shape)
    return ended_before == 0, time


def _mean_of_others(returns: Array, counts: Array, *, over_time: bool) -> Array:
    """The mean return of the other copies, at all times or at the same, `[T, N]`.

    Leaving its own episode out keeps a baseline independent of the actions it judges.
    """
    total, number = jnp.where(counts, returns, 0.0), counts.astype(jnp.float32)
    if over_time:
        total, number = jnp.sum(total, 0, keepdims=True), jnp.sum(number, 0, keepdims=True)
    others = jnp.sum(total, 1, keepdims=True) - total
    baseline = others / jnp.maximum(jnp.sum(number, 1, keepdims=True) - number, 1.0)
    return jnp.broadcast_to(baseline, returns.shape)
