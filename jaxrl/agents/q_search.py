"""Q-learning for continuous actions by search (Kalashnikov et al., "QT-Opt", 2018)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrl.agent import Update
from jaxrl.agents.bases.continuous import ContinuousAgent
from jaxrl.agents.bases.learning import TargetState
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.networks.variables import polyak_update
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Linear, Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Stream, stream
from jaxrl.validation import UNROLLED

Proposal = Literal["uniform", "gaussian"]


class QSearch(ContinuousAgent):
    """Q-learning that maximises Q(s, a) by sampling and cross-entropy search, without a policy.

    Q is the minimum of the critics, also in the search; QT-Opt searches with one critic and takes
    the minimum only at the result.
    """

    proposal: Proposal = hyper(
        "uniform",
        static=True,
        doc="Distribution of the first candidates: uniform in the box, or Gaussian at its centre.",
    )
    num_candidates: int = hyper(32, static=True, doc="Candidate actions per round of the search.")
    num_refinements: int = hyper(
        1,
        low=0,
        high=UNROLLED,
        static=True,
        doc="Rounds of refinement by cross-entropy search; 0 for the best of one sample.",
    )
    num_elites: int = hyper(
        4, static=True, doc="Best candidates, to which the Gaussian of the next round is fitted."
    )
    epsilon: Scheduled = hyper(
        Linear(0.5, 0.05, 0.5), low=0.0, high=1.0, doc="Probability of a random action."
    )
    exploration_noise: Scheduled = hyper(
        0.1,
        low=0.0,
        doc="Standard deviation of the noise on other actions, relative to half the action range.",
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.num_refinements and self.num_elites < 2:
            raise InvalidValue(
                "num_elites is 1, but a Gaussian needs at least 2 candidates: give more, or "
                "num_refinements=0"
            )
        if self.num_refinements and self.num_elites > self.num_candidates:
            raise InvalidValue(
                f"num_elites is {self.num_elites}, more than num_candidates = {self.num_candidates}"
            )

    def init(self, key: Key) -> TargetState:
        params, optimizer = self.init_critic(key)
        return TargetState(params, params, optimizer)

    def search(self, params: PyTree, obs: PyTree, key: Key) -> tuple[Array, Array]:
        """The best candidate, `[N, num_values]` in [-1, 1], and its value `[N]`."""
        num_envs, num = jax.tree.leaves(obs)[0].shape[0], self.num_candidates
        repeated = jax.tree.map(lambda x: jnp.repeat(x, num, axis=0), obs)

        def values(actions: Array) -> Array:  # [N, C]
            flat = actions.reshape(-1, self.num_values)
            found: Any = self.critic.apply(params, repeated, flat)
            return jnp.min(found, axis=0).reshape(num_envs, num)

        first_key, *keys = jax.random.split(key, 1 + self.num_refinements)
        shape = (num_envs, num, self.num_values)
        if self.proposal == "uniform":
            actions = jax.random.uniform(first_key, shape, minval=-1.0, maxval=1.0)
        else:
            actions = jnp.clip(0.5 * jax.random.normal(first_key, shape), -1.0, 1.0)
        q = values(actions)
        best, best_q = _best(actions, q)
        for round_key in keys:
            _, elite = jax.lax.top_k(q, self.num_elites)  # [N, E]
            elites = jnp.take_along_axis(actions, elite[..., None], axis=1)
            centre = mean(elites, axis=1)[:, None]
            spread = jnp.sqrt(mean(jnp.square(elites - centre), axis=1))[:, None]
            actions = jnp.clip(centre + spread * jax.random.normal(round_key, shape), -1.0, 1.0)
            q = values(actions)
            new, new_q = _best(actions, q)
            better = new_q > best_q
            best, best_q = jnp.where(better[:, None], new, best), jnp.maximum(new_q, best_q)
        return best, best_q

    def choose(self, state: TargetState, obs: PyTree) -> Array:
        """The best of the same candidates each time."""
        return self.unscale_action(self.search(state.params, obs, jax.random.key(0))[0])

    def explore(
        self, state: TargetState, carry: PyTree, obs: PyTree, key: Key, clock: Clock
    ) -> tuple[PyTree, Array]:
        key, whether_key, what_key, noise_key = jax.random.split(key, 4)
        action, _ = self.search(state.params, obs, key)
        noise = at(self.exploration_noise, clock) * jax.random.normal(noise_key, action.shape)
        anything = jax.random.uniform(what_key, action.shape, minval=-1.0, maxval=1.0)
        explores = jax.random.bernoulli(whether_key, at(self.epsilon, clock), action.shape[:1])
        action = jnp.where(explores[:, None], anything, jnp.clip(action + noise, -1.0, 1.0))
        return carry, self.unscale_action(action)

    def update(self, state: TargetState, rows: Replayed, key: Key, clock: Clock) -> Update:
        """One gradient step towards r + discount max Q(s', .), with the maximum found by search."""
        _, next_value = self.search(state.target, rows.next_obs, key)
        target = self.bellman_target(rows, next_value)
        dropout_key = stream(key, Stream.DROPOUT)
        params, optimizer, metrics, priorities = self.learn_critic(
            state.params, state.optimizer, rows, target, dropout_key, clock
        )
        moved = polyak_update(params, state.target, self.tau)
        return Update(TargetState(params, moved, optimizer), metrics, priorities)


def _best(actions: Array, q: Array) -> tuple[Array, Array]:
    """The best candidate and its value, from `[N, C, ...]` and `[N, C]`."""
    index = jnp.argmax(q, axis=1)
    chosen = jnp.take_along_axis(actions, index[:, None, None], axis=1)[:, 0]
    return chosen, jnp.max(q, axis=1)
