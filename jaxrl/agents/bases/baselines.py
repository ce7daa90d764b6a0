"""Baselines for the score-function gradient, from the returns of other copies."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.critic import CriticAgent
from jaxrl.devices.shards import as_different, num_shards, sum_over_shards
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.types import Array, EnvSpec, PyTree

Credit = Literal["return", "reward_to_go"]
Baseline = Literal["none", "constant", "time", "optimal", "learned"]
Standardize = Literal["none", "returns", "advantages"]


class BaselineAgent(CriticAgent):
    """Returns and baselines for the score-function gradient."""

    whole_episodes: bool = hyper(
        False,
        static=True,
        doc="Play one whole episode per copy and iteration, instead of rollouts of num_steps.",
    )
    credit: Credit = hyper(
        "reward_to_go",
        static=True,
        doc="Return that weights an action: that of the whole episode, or the reward to go.",
    )
    baseline: Baseline = hyper(
        "learned",
        static=True,
        doc="Baseline: the mean return (constant), the mean per time step (time), the one of "
        "least variance (optimal; estimated, worthwhile from about 64 episodes), or V(obs) "
        "(learned).",
    )
    standardize: Standardize = hyper(
        "none",
        static=True,
        doc="Standardise the returns before subtracting the baseline, or the advantages after it.",
    )
    discount_states: bool = hyper(
        False,
        static=True,
        doc="Weight step t by discount^t; with rewards to go, this is the gradient of the "
        "discounted return.",
    )

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(
            self.num_envs, self.num_steps, layout="env", reset_each_iteration=self.whole_episodes
        )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        needs_whole = {
            f"baseline={self.baseline!r}": self.baseline != "learned",
            "credit='return'": self.credit == "return",
            "discount_states": self.discount_states,
            "standardize='returns'": self.standardize == "returns",
        }
        for what, wanted in needs_whole.items():
            if wanted and not self.whole_episodes:
                raise InvalidValue(
                    f"{what} needs whole episodes: set whole_episodes. (Rollouts cut episodes, and "
                    "only a learned baseline can bootstrap)"
                )
        if self.discount_states and self.credit == "return":
            raise InvalidValue(
                "discount_states is True and credit is 'return': whole returns are already "
                "discounted from the start of the episode. Leave it False"
            )
        if self.baseline == "optimal" and self.credit != "return":
            raise InvalidValue("baseline='optimal' needs whole returns: set credit='return'")
        if self.baseline == "optimal" and self.standardize == "advantages":
            raise InvalidValue(
                "standardize='advantages' needs the baseline before the gradient, but "
                "baseline='optimal' is part of it: set standardize='returns' or 'none'"
            )
        if self.baseline in ("constant", "time", "optimal") and self.num_envs < 2:
            raise InvalidValue(
                f"num_envs is {self.num_envs}: the baseline of a copy comes from the others, so it "
                "must be at least 2"
            )
        if self.whole_episodes:
            check_whole_episodes(self.num_steps, spec)
        self._check_standardize(spec)

    def _check_standardize(self, spec: EnvSpec) -> None:
        """Raises ValueError if all standardised values are equal by construction, and become 0."""
        if self.standardize == "none":
            return
        steps = min(self.num_steps, spec.max_steps or 1) if self.whole_episodes else self.num_steps
        # Baselines from other copies need two anyway, and V(obs) differs between steps.
        one_return = self.credit == "return" and (
            self.standardize == "returns" or self.baseline == "none"
        )
        if self.num_envs == 1 and (steps == 1 or one_return):
            what = "the same return at every step" if steps > 1 else "a single step"
            raise InvalidValue(
                f"standardize={self.standardize!r} with num_envs=1 standardises {what}, which "
                "always gives 0: the policy would never learn. Set num_envs to at least 2, or "
                "standardize='none'"
            )


def check_whole_episodes(num_steps: int, spec: EnvSpec) -> None:
    """Raises ValueError if an episode may be longer than a rollout of `num_steps`."""
    longest = spec.max_steps
    if longest is None or num_steps < longest:
        raise InvalidValue(
            f"num_steps is {num_steps}, but whole episodes need at least the length of the longest "
            f"one: {'no limit is known' if longest is None else longest}"
        )


def first_episode(done: Array) -> tuple[Array, Array]:
    """Whether steps `[T, N]` belong to the first episode of their copy, and their time step."""
    ended_before = jnp.cumsum(done, axis=0) - done
    time = jnp.broadcast_to(jnp.arange(done.shape[0], dtype=jnp.int32)[:, None], done.shape)
    return ended_before == 0, time


def mean_of_others(returns: Array, counts: Array, *, over_time: bool) -> Array:
    """The mean return of the other copies, over all steps or at the same time step, `[T, N]`.

    Leaving out a copy's own episode keeps its baseline independent of its actions.
    """
    total, number = jnp.where(counts, returns, 0.0), counts.astype(jnp.float32)
    if over_time:
        total, number = jnp.sum(total, 0, keepdims=True), jnp.sum(number, 0, keepdims=True)
    others = sum_over_shards(jnp.sum(total, 1, keepdims=True)) - total
    counted = sum_over_shards(jnp.sum(number, 1, keepdims=True)) - number
    baseline = others / jnp.maximum(counted, 1.0)
    return jnp.broadcast_to(baseline, returns.shape)


def optimal_baseline(
    scores: Callable[[PyTree], Array], actor: PyTree, weight: Array, episode_return: Array
) -> PyTree:
    """Mean of g b with b = E[g^2 R] / E[g^2] for each parameter, where g is an episode's score.

    The baseline of a copy comes from the others, so that the gradient is unbiased. For few copies
    the ratio is noisy, so an additional episode with their mean return and mean g^2 is included.

    Args:
      scores: maps parameters of the policy to the weighted log-probabilities of the steps,
        `float32[T, N]`.
      actor: parameters of the policy.
      weight: weights of the steps, `[T, N]`.
      episode_return: R at each step of its episode, `[T, N]`.
    """
    num_steps, num_envs = weight.shape
    # Of each device's own copies: without `as_different`, the gradients would be added up.
    _, pull = jax.vjp(scores, as_different(actor))

    def score(n):  # the score of copy n's episode
        of_copy = (jnp.arange(num_envs) == n).astype(jnp.float32) / num_steps
        return pull(as_different(jnp.broadcast_to(of_copy, weight.shape)))[0]

    of_copies = jax.vmap(score)(jnp.arange(num_envs))  # leaves [N, ...]
    episode, num_all = episode_return[0], num_envs * num_shards()

    def of_others(x):
        return sum_over_shards(jnp.sum(x, axis=0, keepdims=True)) - x

    def correction(g):
        one_each = (-1, *(1,) * (g.ndim - 1))
        mean_return = of_others(episode).reshape(one_each) / (num_all - 1)
        squared = jnp.square(g)
        total = of_others(squared)
        prior = total / (num_all - 1)
        weighted = of_others(squared * episode.reshape(one_each)) + prior * mean_return
        total = total + prior
        known = total > 0
        baseline = jnp.where(known, weighted / jnp.where(known, total, 1.0), mean_return)
        return mean(g * baseline, axis=0)

    return jax.tree.map(correction, of_copies)
