"""Q-learning for continuous actions by search (Kalashnikov et al., "QT-Opt", 2018)."""

from typing import Any, Literal, Self, get_args

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agents.bases.continuous import ContinuousAgent, regression
from jaxrl.errors import InvalidValue
from jaxrl.hyper import check_range
from jaxrl.losses import mean
from jaxrl.networks.critics import Critics
from jaxrl.networks.own_modules import learning_pass
from jaxrl.networks.variables import polyak_update, trained
from jaxrl.optimizers import adam, learn
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Linear, Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, Metrics, PyTree, Stream, static, stream
from jaxrl.validation import UNROLLED, check_whole

Proposal = Literal["uniform", "gaussian"]


class QSearchState(struct.PyTreeNode):
    """Attributes:
    params: of the critics.
    target: their slow copy.
    optimizer: Adam's moments.
    """

    params: PyTree
    target: PyTree
    optimizer: optax.OptState


class QSearch(ContinuousAgent):
    """max Q(s, a) over sampled actions, refined by cross-entropy search: no policy network.

    Q is the least of the critics, also in the search; QT-Opt searches by one critic, and takes the
    least at what it found.
    """

    num_critics: int = static(default=2)
    """Critics; the least of their values counts."""
    proposal: Proposal = static(default="uniform")
    """Where the first candidates come from: the whole box, or a normal around its middle."""
    num_candidates: int = static(default=32)
    """Actions tried in a round of the search."""
    num_refinements: int = static(default=1)
    """Rounds after the first, each around the best of the one before; 0: the best of a sample."""
    num_elites: int = static(default=4)
    """Best candidates to which a round's normal distribution is fitted."""
    epsilon: Scheduled = Linear(0.5, 0.05, 0.5)
    """Probability of an action at random."""
    exploration_noise: Scheduled = 0.1
    """Standard deviation of the noise on the other actions, in halves of their range."""

    def bind(self, spec: EnvSpec) -> Self:
        if self.proposal not in get_args(Proposal):
            raise InvalidValue(f"proposal is {self.proposal!r}: use 'uniform' or 'gaussian'")
        check_range(self, "epsilon", 0.0, 1.0)
        check_range(self, "exploration_noise")
        for field in ("num_candidates", "num_elites"):
            check_whole(field, getattr(self, field))
        check_whole("num_critics", self.num_critics, most=UNROLLED)
        check_whole("num_refinements", self.num_refinements, 0, most=UNROLLED)
        if self.num_refinements and self.num_elites < 2:
            raise InvalidValue(
                "num_elites is 1, which has no spread to refine by: give at least 2, or "
                "num_refinements=0"
            )
        if self.num_refinements and self.num_elites > self.num_candidates:
            raise InvalidValue(
                f"num_elites is {self.num_elites}, more than num_candidates = {self.num_candidates}"
            )
        return super().bind(spec)

    @property
    def critic(self) -> Critics:
        return self.critics(self.num_critics)

    def init(self, key: Key) -> QSearchState:
        obs = self.bound_spec.dummy_observation(1)
        params = self.critic.init(key, obs, jnp.zeros((1, self.num_values)))
        transform = adam(self.critic_learning_rate, Clock.start())
        return QSearchState(params, params, transform.init(trained(params)))

    def search(self, params: PyTree, obs: PyTree, key: Key) -> tuple[Array, Array]:
        """The best action that was tried, `[N, num_values]` in [-1, 1], and its value `[N]`."""
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

    def choose(self, state: QSearchState, obs: PyTree, key: Key | None, clock: Clock) -> Array:
        if key is None:  # the same candidates each time
            return self.unscale_action(self.search(state.params, obs, jax.random.key(0))[0])
        key, whether_key, what_key, noise_key = jax.random.split(key, 4)
        action, _ = self.search(state.params, obs, key)
        noise = at(self.exploration_noise, clock) * jax.random.normal(noise_key, action.shape)
        anything = jax.random.uniform(what_key, action.shape, minval=-1.0, maxval=1.0)
        explores = jax.random.bernoulli(whether_key, at(self.epsilon, clock), action.shape[:1])
        action = jnp.where(explores[:, None], anything, jnp.clip(action + noise, -1.0, 1.0))
        return self.unscale_action(action)

    def update(
        self, state: QSearchState, rows: Replayed, key: Key, clock: Clock
    ) -> tuple[QSearchState, Metrics]:
        """A step towards r + discount max Q(s', .), the maximum found by search."""
        _, next_value = self.search(state.target, rows.next_obs, key)
        target = self.bellman_target(rows, next_value)
        taken = self.scale_action(rows.action)

        def loss(params):
            dropout_key = stream(key, Stream.DROPOUT)
            values, carried = learning_pass(self.critic, params, rows.obs, taken, key=dropout_key)
            return regression(values, target, rows), (carried, mean(values))

        params, optimizer, error, value = learn(
            adam(self.critic_learning_rate, clock), loss, state.params, state.optimizer
        )
        target_params = polyak_update(params, state.target, self.tau)
        return QSearchState(params, target_params, optimizer), {
            "critic_loss": error,
            "value": value,
        }


def _best(actions: Array, q: Array) -> tuple[Array, Array]:
    """The candidate of the highest value: of `[N, C, ...]` and `[N, C]`."""
    index = jnp.argmax(q, axis=1)
    chosen = jnp.take_along_axis(actions, index[:, None, None], axis=1)[:, 0]
    return chosen, jnp.max(q, axis=1)
