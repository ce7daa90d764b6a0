"""Base class of Q-learning agents for discrete actions: network, acting and TD errors."""

import operator
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl.agents.bases.learning import AdamAgent, bellman_target, check_norm, check_widths
from jaxrl.devices.shards import num_shards, shard_index
from jaxrl.distributions import Categorical
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import categorical_projection, cross_entropy, huber, quantile_huber
from jaxrl.networks.layers import Activation
from jaxrl.networks.own_modules import OneBatchAxis, call_directly, check_module, learning_pass
from jaxrl.networks.q_networks import QNetwork, available_only, of_actions
from jaxrl.networks.torsos import default_torso
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Linear, Scheduled, at
from jaxrl.types import (
    Array,
    Clock,
    Discrete,
    EnvSpec,
    Key,
    PyTree,
    Scalar,
    Stream,
    stream,
)
from jaxrl.validation import check_whole, holds_anywhere

Head = Literal["scalar", "c51", "quantile", "iqn"]
Exploration = Literal["epsilon", "boltzmann"]


class QAgent(AdamAgent):
    """Q-network and exploration for discrete actions; subclasses add `plan` and `update`."""

    hidden_sizes: tuple[int, ...] = hyper(
        (64, 64),
        static=True,
        doc="Widths of the hidden layers; the last one belongs to each stream of the head.",
    )
    activation: Activation = hyper("relu", static=True, doc="Activation function.")
    torso: nn.Module | None = hyper(
        None,
        static=True,
        doc="Your own flax module from observations `[B, ...]` to features `[B, F]`; with a "
        "keyword `train`, it may contain BatchNorm and dropout. None for an MLP of hidden_sizes.",
    )
    head: Head = hyper(
        "scalar",
        static=True,
        doc="Output per action: its value, or a distribution of the return (c51, quantile, iqn).",
    )
    dueling: bool = hyper(
        False, static=True, doc="Dueling network: separate streams for state value and advantages."
    )
    noisy: bool = hyper(
        False, static=True, doc="Noisy layers for exploration; the paper uses them with epsilon 0."
    )
    layer_norm: bool = hyper(
        False,
        static=True,
        doc="Layer normalisation, except inside your own torso, against diverging values.",
    )
    noise_scale: float = hyper(
        0.5,
        low=0.0,
        static=True,
        doc="Initial standard deviation of noisy layers, sigma_0, in units of 1 / sqrt(inputs).",
    )
    num_atoms: int = hyper(51, static=True, doc="Atoms of c51, or quantiles of quantile and iqn.")
    num_target_levels: int | None = hyper(
        None, static=True, doc="Quantile levels of iqn's targets, N'; none for num_atoms, N."
    )
    num_acting_levels: int | None = hyper(
        None, static=True, doc="Quantile levels by which iqn acts, K; none for num_atoms, N."
    )
    value_min: Scalar = hyper(-10.0, doc="Smallest return in c51's support.")
    value_max: Scalar = hyper(10.0, doc="Largest return in c51's support.")
    embedding_size: int = hyper(64, static=True, doc="Cosine features of a quantile level in iqn.")
    exploration: Exploration = hyper(
        "epsilon",
        static=True,
        doc="Exploration: epsilon-greedy, or sampling from the softmax of the values (boltzmann).",
    )
    epsilon: Scheduled = hyper(
        Linear(1.0, 0.05, 0.5), low=0.0, high=1.0, doc="Probability of a random action."
    )
    epsilon_power: Scalar | None = hyper(
        None,
        low=0.0,
        doc="Copy i of the N environments explores with epsilon^(1 + epsilon_power i / (N - 1)), "
        "as in Ape-X with 7; none for the same epsilon in all.",
    )
    temperature: Scheduled = hyper(
        1.0, low=0.0, open_low=True, doc="Temperature of Boltzmann exploration."
    )
    huber_delta: Scalar | None = hyper(
        None,
        low=0.0,
        open_low=True,
        doc="Error at which the loss becomes linear (Huber; 1 in the original DQN), so that values "
        "neglect rare bad outcomes; none for the squared error, and 1 for quantiles. Not for c51.",
    )

    instead: ClassVar[str] = (
        "wrap the environment in jaxrl.wrappers.DiscretizeActions (layout='joint'), or use "
        "QSearch, TD3 or SAC"
    )
    """What to do about an action space that the agent does not support."""

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        name = type(self).__name__
        if not isinstance(spec.action, Discrete):
            raise InvalidValue(
                f"{name} needs discrete actions, but the action space is {spec.action}: "
                f"{self.instead}"
            )
        check_widths(self.hidden_sizes)
        if self.torso is None:
            check_norm(self.layer_norm, self.hidden_sizes)
        else:
            check_norm(self.layer_norm, self.hidden_sizes[-1:], "hidden_sizes[-1:]")
        if self.head == "c51":
            check_whole("num_atoms", self.num_atoms, 2)
        for field in ("num_target_levels", "num_acting_levels"):
            if (value := getattr(self, field)) is not None and self.head != "iqn":
                raise InvalidValue(
                    f"{field} is {value}, but head is {self.head!r}: only 'iqn' draws levels"
                )
        if self.epsilon_power is not None and self.exploration != "epsilon":
            raise InvalidValue(
                f"epsilon_power is {self.epsilon_power}, but exploration is "
                f"{self.exploration!r}: use 'epsilon', or leave it out"
            )
        ends = (self.value_min, self.value_max)
        if self.head == "c51" and holds_anywhere(operator.ge, *ends):
            raise InvalidValue(f"value_min is {ends[0]}: it must be below value_max = {ends[1]}")
        check_module(self, "torso", spec, trains=True)

    @property
    def network(self) -> QNetwork:
        """The network from observations to `[..., A, K]`."""
        spec: Any = self.bound_spec
        torso, call = self.torso, call_directly
        if torso is None:
            torso = default_torso(spec, self.hidden_sizes[:-1], self.activation, self.layer_norm)
        else:
            call = OneBatchAxis.of(torso, spec, trains=True)
        return QNetwork(
            torso.clone(parent=None),
            spec.action.num,
            1 if self.head == "scalar" else self.num_atoms,
            self.hidden_sizes[-1],
            self.activation,
            self.dueling,
            self.noisy,
            self.embedding_size if self.head == "iqn" else 0,
            self.layer_norm,
            call,
            self.noise_scale,
        )

    def init_params(self, key: Key) -> PyTree:
        """Initial parameters of the network."""
        obs = self.bound_spec.dummy_observation(1)
        levels = jnp.ones((1, self.num_atoms)) if self.head == "iqn" else None
        return self.new_params(self.network, key, obs, levels)

    # Values ---------------------------------------------------------------------------------------

    def outputs(
        self,
        params: PyTree,
        obs: PyTree,
        key: Key | None,
        level_key: Key | None = None,
        num_levels: int | None = None,
    ) -> tuple[Array, Array]:
        """The outputs for all actions, `[N, A, K]`, and the quantile levels `[N, K]`.

        Args:
          params: parameters of the network.
          obs: observations, leaves `[N, ...]`.
          key: for noise and levels; without it, there is no noise, and levels are the midpoints of
            K equal parts.
          level_key: for levels that are independent of `key`.
          num_levels: K for iqn; None for `num_atoms`.
        """
        levels, rngs = self._draws(obs, key, level_key, num_levels)
        apply: Any = self.network.apply
        return apply(params, obs, levels if self.head == "iqn" else None, rngs=rngs), levels

    def learning_outputs(
        self, params: PyTree, obs: PyTree, key: Key | None, dropout_key: Key
    ) -> tuple[Array, Array, PyTree]:
        """Like `outputs` in training mode; also returns the collections that it changed."""
        if self.torso is None:
            return *self.outputs(params, obs, key), {}
        levels, rngs = self._draws(obs, key)
        outputs, carried = learning_pass(
            self.network,
            params,
            obs,
            levels if self.head == "iqn" else None,
            key=dropout_key,
            rngs=rngs,
        )
        return outputs, levels, carried

    def _draws(
        self,
        obs: PyTree,
        key: Key | None,
        level_key: Key | None = None,
        num_levels: int | None = None,
    ) -> tuple[Array, dict[str, Key]]:
        """Quantile levels `[N, K]` and the network's random streams."""
        num, num_levels = jax.tree.leaves(obs)[0].shape[0], num_levels or self.num_atoms
        levels = (jnp.arange(num_levels, dtype=jnp.float32) + 0.5) / num_levels
        levels = jnp.broadcast_to(levels, (num, num_levels))
        rngs = {}
        if key is not None:
            noise_key, own_level_key = jax.random.split(key)
            rngs = {"noise": noise_key} if self.noisy else {}
            if self.head == "iqn":
                levels = jax.random.uniform(
                    own_level_key if level_key is None else level_key, levels.shape
                )
        return levels, rngs

    def means(self, outputs: Array) -> Array:
        """Q `[..., A]`, the means of the distributions in `[..., A, K]`."""
        match self.head:
            case "scalar":
                return outputs[..., 0]
            case "c51":
                support = self.support.reshape((1,) * (outputs.ndim - 1) + (-1,))
                return jnp.sum(jax.nn.softmax(outputs) * support, axis=-1)
        return _over_quantiles(outputs)

    @property
    def support(self) -> Array:
        """The atoms of c51, `float32[K]`."""
        share = jnp.linspace(0.0, 1.0, self.num_atoms)
        return self.value_min + (self.value_max - self.value_min) * share

    def q_values(self, params: PyTree, obs: PyTree, key: Key | None = None) -> Array:
        """Q(obs, .) for acting, `float32[N, A]`."""
        return self.network_values(params, obs, key)

    def network_values(self, params: PyTree, obs: PyTree, key: Key | None = None) -> Array:
        """Q(obs, .) of one network, `float32[N, A]`; -1e30 for unavailable actions."""
        outputs, _ = self.outputs(params, obs, key, num_levels=self.num_acting_levels)
        return available_only(self.means(outputs), obs)

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, Array, PyTree]:
        """Greedy actions, or exploring ones."""
        return carry, self._choose(state.params, obs, key, clock, explore=explore), ()

    def _choose(
        self, params: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> Array:
        if not explore:
            return jnp.argmax(self.q_values(params, obs), axis=-1).astype(jnp.int32)
        value_key, whether_key, what_key = jax.random.split(key, 3)
        q = self.q_values(params, obs, value_key)
        if self.exploration == "boltzmann":
            return Categorical(q / at(self.temperature, clock)).sample(what_key)
        best = jnp.argmax(q, axis=-1).astype(jnp.int32)
        other = Categorical(available_only(jnp.zeros_like(q), obs)).sample(what_key)
        epsilon = self._epsilons(at(self.epsilon, clock), best.shape[0])
        explores = jax.random.bernoulli(whether_key, epsilon, best.shape)
        return jnp.where(explores, other, best)

    def _epsilons(self, epsilon: Array, num_envs: int) -> Array:
        """The epsilon of each copy, or the one of all (Horgan et al., 2018, section 4.1)."""
        if self.epsilon_power is None:
            return epsilon
        copy = shard_index() * num_envs + jnp.arange(num_envs)
        share = copy / max(num_envs * num_shards() - 1, 1)
        return epsilon ** (1.0 + self.epsilon_power * share)

    # Errors ---------------------------------------------------------------------------------------

    def td_errors(
        self,
        params: PyTree,
        evaluator: PyTree,
        rows: Replayed,
        key: Key,
        *,
        selector: PyTree | None = None,
    ) -> tuple[Array, Array, PyTree]:
        """Losses and TD errors for the target r + discount^n Z(s', a*).

        Z is a value or a distribution, depending on the head. No gradient flows through the target.

        Args:
          params: parameters to learn.
          evaluator: parameters of Z.
          rows: transitions `[B]`.
          key: for noise, quantile levels and dropout.
          selector: parameters that select a*; None for those of Z.

        Returns:
          Losses and absolute errors of the values (for priorities), both `float32[B]`, and the
          collections that the learning pass changed (`own_modules.learning_pass`).
        """
        dropout_key = stream(key, Stream.DROPOUT)
        key, select_key, evaluate_key = jax.random.split(key, 3)
        following = jax.lax.stop_gradient(
            self.next_outputs(evaluator, rows.next_obs, select_key, evaluate_key, selector)
        )
        outputs, levels, carried = self.learning_outputs(params, rows.obs, key, dropout_key)
        return *self.losses_of(outputs, levels, following, rows), carried

    def losses_of(
        self, outputs: Array, levels: Array, following: Array, rows: Replayed
    ) -> tuple[Array, Array]:
        """Losses and absolute errors, `[B]`, of outputs `[B, A, K]` for the target's `[B, K]`."""
        predicted = of_actions(outputs, rows.action)

        def target_of(values: Array) -> Array:  # [B or 1, K]
            return bellman_target(rows, self.discount, values)

        match self.head:
            case "scalar":
                error = (target_of(following) - predicted)[:, 0]
                return self.scalar_loss(error), jnp.abs(error)
            case "c51":
                support = self.support
                target = categorical_projection(
                    target_of(support[None]), jax.nn.softmax(following), support
                )
                loss = cross_entropy(predicted, target)
                entropy = -jnp.sum(jax.scipy.special.xlogy(target, target), axis=-1)
                return loss, jnp.maximum(loss - entropy, 0.0)  # KL(target || predicted)
        target = target_of(following)
        kappa = 1.0 if self.huber_delta is None else self.huber_delta
        loss = quantile_huber(predicted, levels, target, kappa)
        return loss, jnp.abs(_over_quantiles(target) - _over_quantiles(predicted))

    def next_outputs(
        self,
        evaluator: PyTree,
        next_obs: PyTree,
        select_key: Key,
        evaluate_key: Key,
        selector: PyTree | None,
    ) -> Array:
        """Z(s', a*) of the target, `[B, K]`; see `td_errors` for the arguments."""
        num = self.num_target_levels
        following, _ = self.outputs(evaluator, next_obs, evaluate_key, num_levels=num)
        if selector is not None:
            q = self.network_values(selector, next_obs, select_key)
        else:
            q = self.own_values(following, evaluator, next_obs, evaluate_key, select_key)
        return of_actions(following, jnp.argmax(q, axis=-1))

    def own_values(
        self, outputs: Array, params: PyTree, obs: PyTree, key: Key, level_key: Key
    ) -> Array:
        """Q(obs, .) by which a network chooses among its `outputs` at `key`, `float32[B, A]`.

        It has the same noise; but iqn draws other levels, since the same would overestimate.
        """
        if self.head == "iqn":
            outputs, _ = self.outputs(params, obs, key, level_key, self.num_acting_levels)
        return available_only(self.means(outputs), obs)

    def scalar_loss(self, error: Array) -> Array:
        """The squared or Huber loss of an error."""
        if self.huber_delta is None:
            return 0.5 * jnp.square(error)
        return huber(error, self.huber_delta)


def _over_quantiles(x: Array) -> Array:
    """The mean of a distribution; not a mean over data, so it does not use `losses.mean`."""
    return jnp.sum(x, axis=-1) / x.shape[-1]
