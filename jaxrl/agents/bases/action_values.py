"""What agents that learn Q(s, a) of a few actions share: the network, acting and the errors."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agents.bases.learning import AdamAgent, bellman_target, check_widths
from jaxrl.distributions import Categorical
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import categorical_projection, cross_entropy, huber, mean, quantile_huber
from jaxrl.networks.layers import Activation
from jaxrl.networks.own_modules import OneBatchAxis, call_directly, check_module, learning_pass
from jaxrl.networks.q_networks import QNetwork
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
    split_mask,
    stream,
)
from jaxrl.validation import check_whole

Head = Literal["scalar", "c51", "quantile", "iqn"]
Exploration = Literal["epsilon", "boltzmann"]


class QAgent(AdamAgent):
    """A network of action values; subclasses add `plan` and `update`."""

    hidden_sizes: tuple[int, ...] = hyper(
        (64, 64),
        static=True,
        doc="Widths of the hidden layers; the last lies in each stream of the head, behind the "
        "torso.",
    )
    activation: Activation = hyper("relu", static=True, doc="Activation between the layers.")
    torso: nn.Module | None = hyper(
        None,
        static=True,
        doc="Your own flax module from observations `[B, ...]` to features `[B, F]`; with a "
        "keyword `train` it may hold BatchNorm and dropout. None for an MLP of hidden_sizes.",
    )
    head: Head = hyper(
        "scalar",
        static=True,
        doc="What the network says of an action: its value, or a distribution of the return.",
    )
    dueling: bool = hyper(False, static=True, doc="A stream for the state and one for the actions.")
    noisy: bool = hyper(
        False,
        static=True,
        doc="Noisy layers, whose noise explores: the paper takes epsilon 0 beside it.",
    )
    layer_norm: bool = hyper(
        False,
        static=True,
        doc="Normalise the features of every layer but your own torso's: keeps values from "
        "diverging.",
    )
    num_atoms: int = hyper(51, static=True, doc="Atoms of c51; quantiles of quantile and iqn.")
    value_min: Scalar = hyper(-10.0, doc="The lowest return that c51 knows.")
    value_max: Scalar = hyper(10.0, doc="The highest return that c51 knows.")
    embedding_size: int = hyper(64, static=True, doc="Cosines in which iqn sees a quantile level.")
    exploration: Exploration = hyper(
        "epsilon",
        static=True,
        doc="Take any action with probability epsilon, or each by the softmax of its value.",
    )
    epsilon: Scheduled = hyper(
        Linear(1.0, 0.05, 0.5), low=0.0, high=1.0, doc="Probability of an action at random."
    )
    temperature: Scheduled = hyper(
        1.0, low=0.0, open_low=True, doc="Of the softmax: the difference of values that matters."
    )
    huber_delta: Scalar | None = hyper(
        None,
        low=0.0,
        open_low=True,
        doc="Where the loss of an error becomes linear (1 in the DQN of 2015), which thinks too "
        "well of rare bad ends; none: the square, and for quantiles 1. Not for c51.",
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        name = type(self).__name__
        if not isinstance(spec.action, Discrete):
            raise InvalidValue(
                f"{name} chooses the best of a few actions, and the action space is {spec.action}: "
                "wrap the environment in jaxrl.wrappers.DiscretizeActions (layout='joint'), or use "
                "QSearch, TD3 or SAC"
            )
        check_widths(self.hidden_sizes)
        normed = self.hidden_sizes if self.torso is None else self.hidden_sizes[-1:]
        if self.layer_norm and min(normed) == 1:
            raise InvalidValue(
                f"layer_norm is True and hidden_sizes {self.hidden_sizes}: over one feature it is "
                "always 0, whatever is observed. Give widths of at least 2, or layer_norm=False"
            )
        if self.head == "c51":
            check_whole("num_atoms", self.num_atoms, 2)
        ends = (self.value_min, self.value_max)
        known = not any(isinstance(x, jax.core.Tracer) for x in ends)
        if self.head == "c51" and known and np.any(np.asarray(ends[0]) >= np.asarray(ends[1])):
            raise InvalidValue(f"value_min is {ends[0]}, not below value_max = {ends[1]}")
        check_module(self, "torso", spec, trains=True)

    @property
    def network(self) -> QNetwork:
        """Observations to `[..., A, K]`."""
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
        )

    def init_params(self, key: Key) -> PyTree:
        """Fresh parameters of the network."""
        obs = self.bound_spec.dummy_observation(1)
        levels = jnp.ones((1, self.num_atoms)) if self.head == "iqn" else None
        return self.network.init(key, obs, levels)

    # Values ---------------------------------------------------------------------------------------

    def outputs(
        self, params: PyTree, obs: PyTree, key: Key | None, level_key: Key | None = None
    ) -> tuple[Array, Array]:
        """What the network says of every action, `[N, A, K]`, and the quantile levels `[N, K]`.

        Without a key there is no noise, and levels are the midpoints of K equal parts. With a
        `level_key`, too, noise is that of `key` and levels are others.
        """
        levels, rngs = self._draws(obs, key, level_key)
        apply: Any = self.network.apply
        return apply(params, obs, levels if self.head == "iqn" else None, rngs=rngs), levels

    def learning_outputs(
        self, params: PyTree, obs: PyTree, key: Key | None, dropout_key: Key
    ) -> tuple[Array, Array, PyTree]:
        """The same from the network that learns, and the collections that this changes."""
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
        self, obs: PyTree, key: Key | None, level_key: Key | None = None
    ) -> tuple[Array, dict[str, Key]]:
        """Quantile levels `[N, K]`, and the random streams of a network."""
        num = jax.tree.leaves(obs)[0].shape[0]
        levels = (jnp.arange(self.num_atoms, dtype=jnp.float32) + 0.5) / self.num_atoms
        levels = jnp.broadcast_to(levels, (num, self.num_atoms))
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
        """Q `[..., A]`: the means of what `[..., A, K]` describes."""
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
        """Q(obs, .) by which the agent acts, `float32[N, A]`."""
        return self.network_values(params, obs, key)

    def network_values(self, params: PyTree, obs: PyTree, key: Key | None = None) -> Array:
        """Q(obs, .) of one network, `float32[N, A]`; what is not available is worth -1e30."""
        return _available(self.means(self.outputs(params, obs, key)[0]), obs)

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, Array, PyTree]:
        """The best actions, or with exploration sometimes others."""
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
        other = Categorical(_available(jnp.zeros_like(q), obs)).sample(what_key)
        explores = jax.random.bernoulli(whether_key, at(self.epsilon, clock), best.shape)
        return jnp.where(explores, other, best)

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
        """Each row's loss, and how far its value is off (for priorities); `float32[B]` both. Last
        the collections that the pass has changed (`own_modules.learning_pass`).

        The target is r + discount^n Z(s', a*), Z by `evaluator` and a* the best action of
        `selector`, or of the same Z; its distribution for the heads that have one. No gradient
        flows through it.
        """
        dropout_key = stream(key, Stream.DROPOUT)
        key, select_key, evaluate_key = jax.random.split(key, 3)
        following, _ = self.outputs(evaluator, rows.next_obs, evaluate_key)
        if selector is not None:
            q = self.network_values(selector, rows.next_obs, select_key)
        else:  # one draw of noise for both
            chooses = following
            if self.head == "iqn":  # what looks best at some levels is worth less at others
                chooses, _ = self.outputs(evaluator, rows.next_obs, evaluate_key, select_key)
            q = _available(self.means(chooses), rows.next_obs)
        following = jax.lax.stop_gradient(of_actions(following, jnp.argmax(q, axis=-1)))  # [B, K]
        predicted, levels, carried = self.learning_outputs(params, rows.obs, key, dropout_key)
        predicted = of_actions(predicted, rows.action)

        def target_of(values: Array) -> Array:  # [B or 1, K]
            return bellman_target(rows, self.discount, values)

        match self.head:
            case "scalar":
                error = (target_of(following) - predicted)[:, 0]
                return self.scalar_loss(error), jnp.abs(error), carried
            case "c51":
                support = self.support
                target = categorical_projection(
                    target_of(support[None]), jax.nn.softmax(following), support
                )
                loss = cross_entropy(predicted, target)
                entropy = -jnp.sum(jax.scipy.special.xlogy(target, target), axis=-1)
                return loss, jnp.maximum(loss - entropy, 0.0), carried  # KL(target || predicted)
        target = target_of(following)
        kappa = 1.0 if self.huber_delta is None else self.huber_delta
        loss = quantile_huber(predicted, levels, target, kappa)
        return loss, jnp.abs(_over_quantiles(target) - _over_quantiles(predicted)), carried

    def scalar_loss(self, error: Array) -> Array:
        """Of an error of a value: its square, or Huber's."""
        if self.huber_delta is None:
            return 0.5 * jnp.square(error)
        return huber(error, self.huber_delta)


def of_actions(outputs: Array, action: Array) -> Array:
    """`outputs[N, A, K]` of the actions `int[N]`: `[N, K]`; NaN for an action that does not exist.

    A sum, whose gradient is no scatter.
    """
    chosen = action[:, None] == jnp.arange(outputs.shape[1])[None]
    values = jnp.sum(jnp.where(chosen[:, :, None], outputs, 0.0), axis=1)
    known = (action >= 0) & (action < outputs.shape[1])
    return jnp.where(known[:, None], values, jnp.nan)


def _over_quantiles(x: Array) -> Array:
    """The mean of a distribution, no mean over data."""
    return jnp.sum(x, axis=-1) / x.shape[-1]


def _available(q: Array, obs: PyTree) -> Array:
    """-1e30 for what is not available; where nothing is, as in some last states, all stay."""
    mask = split_mask(obs)[1]
    if mask is None:
        return q
    return jnp.where(mask | ~jnp.any(mask, axis=-1, keepdims=True), q, -1e30)


def weighted_mean(loss: Array, rows: Replayed, exponent: Any) -> Array:
    """The mean loss of the rows that count, each with weight (N P)^-exponent, the largest being 1.

    Schaul, Quan, Antonoglou and Silver, "Prioritized experience replay", 2016, section 3.4.
    """
    weight = jnp.where(rows.valid, jnp.maximum(rows.relative_probability, 1e-20) ** -exponent, 0.0)
    weight = weight / jnp.maximum(jnp.max(weight), 1e-20)
    return mean(weight * loss, rows.valid)
