"""Torsos, recurrent cores and heads, in flax.linen; a user's own module fits in as a torso.

A torso of ours maps observations `[..., *obs]` to features `[..., F]` for any leading axes; a
user's module always sees one, `[B, *obs]`. What else it may hold than params (batch statistics,
dropout), and in which agents, is in `jaxrl.own_modules`. A core maps a sequence of features to
another, carrying a state across time and dropping it at episode starts.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import orthogonal, zeros_init

from jaxrl.convolution import conv_general_dilated
from jaxrl.distributions import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    Product,
)
from jaxrl.own_modules import call_directly, leaf_shapes
from jaxrl.types import (
    ActionSpace,
    Array,
    Box,
    Discrete,
    EnvSpec,
    Mixed,
    MultiDiscrete,
    PyTree,
    num_values,
    split_mask,
    tree_where,
)

Activation = Literal["tanh", "relu", "gelu", "silu", "elu"]
CoreName = Literal["none", "gru", "lstm"]


def activation(name: str) -> Callable[[Array], Array]:
    """The activation function of that name."""
    if name not in get_args(Activation):
        raise ValueError(f"activation is {name!r}: use one of {', '.join(get_args(Activation))}")
    return jnp.tanh if name == "tanh" else getattr(nn, name)


def dense(features: int, scale: float, name: str | None = None) -> nn.Dense:
    """A dense layer, orthogonal with gain `scale` (Saxe et al., 2014), bias zero."""
    return nn.Dense(
        features,
        kernel_init=orthogonal(scale),
        bias_init=zeros_init(),
        dot_general=_by_columns if features <= FEW_COLUMNS else None,
        name=name,
    )


FEW_COLUMNS = 4
"""Outputs up to which a layer multiplies by one column after the other. XLA's product for the
gradient of so narrow a kernel is slow on a CPU, and that with a vector is not; a GPU does either as
fast."""


def _by_columns(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    columns = [jax.lax.dot_general(x, column, dimensions, **options) for column in kernel.T]
    return jnp.stack(columns, axis=-1)


# Torsos -------------------------------------------------------------------------------------------


class MLP(nn.Module):
    """Dense layers, each followed by the activation; orthogonal with gain sqrt(2).

    With `layer_norm` what enters each activation is normalised over the features.
    """

    hidden_sizes: Sequence[int] = (64, 64)
    activation: str = "tanh"
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for size in self.hidden_sizes:
            x = dense(size, 2**0.5)(x)
            x = nn.LayerNorm()(x) if self.layer_norm else x
            x = activation(self.activation)(x)
        return x


class Conv(nn.Conv):
    """`flax.linen.Conv` that is fast in training on a CPU, too; use it in torsos of your own.

    The fields, the parameters and their names are those of `flax.linen.Conv`, and so are the
    numbers, but for rounding; see `jaxrl.convolution`. On other devices the programs are the same.
    """

    conv_general_dilated: Any = conv_general_dilated


class CNN(nn.Module):
    """Convolutions over images `[..., height, width, channels]`, then a dense layer.

    Bytes are scaled to [0, 1]. Each of `layers` is (features, kernel, stride); relu between.
    """

    layers: Sequence[tuple[int, int, int]] = ((16, 3, 1), (32, 3, 1))
    features: int = 128

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = 255.0 if x.dtype == jnp.uint8 else 1.0
        batch, x = x.shape[:-3], x.reshape(-1, *x.shape[-3:]).astype(jnp.float32) / scale
        for features, kernel, stride in self.layers:
            conv = Conv(
                features, (kernel, kernel), (stride, stride), kernel_init=orthogonal(2**0.5)
            )
            x = nn.relu(conv(x))
        x = nn.relu(dense(self.features, 2**0.5)(x.reshape(x.shape[0], -1)))
        return x.reshape(*batch, self.features)


class Flatten(nn.Module):
    """Lays the leaves of an observation side by side, as floats, and feeds them to `torso`.

    Attributes:
      shapes: the leaves' unbatched shapes, in tree order.
      torso: a module from `[..., F]` to features.
    """

    shapes: tuple[tuple[int, ...], ...]
    torso: nn.Module

    @nn.compact
    def __call__(self, obs: PyTree) -> Array:
        def row(x, shape):
            batch = x.shape[: x.ndim - len(shape)]
            return x.reshape(*batch, num_values(shape)).astype(jnp.float32)

        rows = [row(x, s) for x, s in zip(jax.tree.leaves(obs), self.shapes, strict=True)]
        return self.torso(rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=-1))


def default_torso(
    spec: EnvSpec, hidden_sizes: Sequence[int], activation: str, layer_norm: bool = False
) -> nn.Module:
    """An MLP over the flattened observation, whatever its structure."""
    return Flatten(leaf_shapes(spec), MLP(tuple(hidden_sizes), activation, layer_norm))


# Recurrent cores ----------------------------------------------------------------------------------


def cell(name: CoreName, size: int) -> nn.RNNCellBase | None:
    """A recurrent cell of that name; None for "none"."""
    match name:
        case "none":
            return None
        case "gru":
            return nn.GRUCell(size)
        case "lstm":
            return nn.OptimizedLSTMCell(size)
    raise ValueError(f"core is {name!r}: use one of {', '.join(get_args(CoreName))}")


def initial_carry(name: CoreName, size: int, num_envs: int) -> PyTree:
    """The recurrent state in which an episode begins: zeros, leaves `[num_envs, size]`."""
    zeros = jnp.zeros((num_envs, size), jnp.float32)
    return {"none": (), "gru": zeros, "lstm": (zeros, zeros)}[name]


class Core(nn.Module):
    """Runs a recurrent cell over time and drops its state where an episode begins."""

    name_: CoreName
    size: int

    @nn.compact
    def __call__(self, carry: PyTree, x: Array, first: Array) -> tuple[PyTree, Array, PyTree]:
        """Unrolls the cell.

        Args:
          carry: the state before step 0, leaves `[N, size]`.
          x: features `[T, N, F]`.
          first: `bool[T, N]`.

        Returns:
          The state after the last step, the outputs `[T, N, size]`, and the state after each step,
          leaves `[T, N, size]`.
        """
        start = initial_carry(self.name_, self.size, x.shape[1])

        def one_step(cell, carry, inputs):
            x, first = inputs
            carry, y = cell(tree_where(first, start, carry), x)
            return carry, (y, carry)

        scan = nn.scan(one_step, variable_broadcast="params", split_rngs={"params": False})
        carry, (outputs, carries) = scan(cell(self.name_, self.size), carry, (x, first))
        return carry, outputs, carries


# Heads --------------------------------------------------------------------------------------------


class PolicyHead(nn.Module):
    """From features to a distribution over the actions of `space`.

    The last layer is small (gain 0.01), so that training starts near the uniform policy; a box has
    a learned `log_std` that does not depend on the state.
    """

    space: ActionSpace
    initial_log_std: float = 0.0

    @nn.compact
    def __call__(self, x: Array, mask: PyTree = None) -> Distribution:
        match self.space:
            case Discrete(num):
                return Categorical(dense(num, 0.01)(x), mask)
            case MultiDiscrete(nums):
                return MultiCategorical(dense(sum(nums), 0.01)(x), nums, mask)
            case Box(shape=shape):
                mean = dense(num_values(shape), 0.01)(x).reshape(*x.shape[:-1], *shape)
                log_std = self.param(
                    "log_std", lambda _, s: jnp.full(s, self.initial_log_std, jnp.float32), shape
                )
                return DiagonalGaussian(mean, jnp.broadcast_to(log_std, mean.shape), len(shape))
            case Mixed(spaces):
                masks = (None,) * len(spaces) if mask is None else mask
                return Product(
                    tuple(
                        PolicyHead(space, self.initial_log_std)(x, m)
                        for space, m in zip(spaces, masks, strict=True)
                    )
                )
        raise TypeError(f"{self.space!r} is no action space")


class SoftmaxLinear(nn.Module):
    """pi(a | s) proportional to exp(theta^T phi(s, a)), theta zero at first: uniform.

    Attributes:
      features: phi, from observations `[..., *obs]` to `[..., A, K]`.
    """

    features: Callable[[PyTree], Array]

    @nn.compact
    def __call__(self, obs: PyTree, mask: PyTree = None) -> Distribution:
        phi = self.features(obs)
        theta = self.param("theta", zeros_init(), (phi.shape[-1],))
        return Categorical(phi @ theta, mask)


class Scorer(nn.Module):
    """pi(a | s) proportional to exp(f(s, a)): one network scores each action beside the state.

    Attributes:
      num_actions: A.
      torso: f's hidden layers, from `[B, F + A]` (observation and one-hot action) to features;
        None for an MLP.
    """

    num_actions: int
    torso: nn.Module | None = None

    @nn.compact
    def __call__(self, obs: Array, mask: PyTree = None) -> Distribution:
        actions = jnp.eye(self.num_actions, dtype=jnp.float32)
        shape = (*obs.shape[:-1], self.num_actions)
        pairs = jnp.concatenate(
            [
                jnp.broadcast_to(obs[..., None, :].astype(jnp.float32), (*shape, obs.shape[-1])),
                jnp.broadcast_to(actions, (*shape, self.num_actions)),
            ],
            axis=-1,
        )
        if self.torso is None:
            x = MLP()(pairs)
        else:  # with one batch axis, as any module of the user's own
            x = self.torso(pairs.reshape(-1, pairs.shape[-1])).reshape(*shape, -1)
        return Categorical(jnp.squeeze(dense(1, 0.01)(x), -1), mask)


class ActorCritic(nn.Module):
    """A policy and a state value, with torsos of their own or one in common.

    All methods take `obs` with leading axes `[...]`; with a recurrent core these must be
    `[T, N]`, `carry` the state before step 0 and `first` the episode starts, and what they return
    besides is the recurrent state after each step, leaves `[T, N, ...]`. Without a core `carry` is
    `()` and `first` is not read.

    Attributes:
      torso: builds a new torso from observations to features.
      space: the action space.
      shared: one torso (and core) for both.
      core: the recurrent cell between torso and head.
      core_size: its size.
      policy_network: the policy as a module of its own, `(obs, mask)` to a distribution, instead of
        a torso and a head.
      call_torso, call_policy: how these modules are called, see `jaxrl.own_modules`.
    """

    torso: Callable[[], nn.Module]
    space: ActionSpace
    shared: bool = False
    core: CoreName = "none"
    core_size: int = 64
    initial_log_std: float = 0.0
    policy_network: nn.Module | None = None
    call_torso: Callable[..., Any] = call_directly
    call_policy: Callable[..., Any] = call_directly

    def setup(self) -> None:
        if self.policy_network is not None:
            self.actor = self.policy_network.clone(parent=None)
        else:
            self.actor_torso = self.torso()
            self.actor_head = PolicyHead(self.space, self.initial_log_std)
        self.critic_head = dense(1, 1.0)
        if not self.shared:
            self.critic_torso = self.torso()
        if self.core != "none":
            self.actor_core = Core(self.core, self.core_size)
            if not self.shared:
                self.critic_core = Core(self.core, self.core_size)

    def initial_carry(self, num_envs: int) -> PyTree:
        """The recurrent state in which an episode begins."""
        one = initial_carry(self.core, self.core_size, num_envs)
        return one if self.shared or self.core == "none" else (one, one)

    def _features(self, which: str, obs: PyTree, carry: PyTree, first: Array | None) -> Any:
        which = "actor" if self.shared else which
        x = self.call_torso(getattr(self, f"{which}_torso"), obs)
        if self.core == "none":
            return x, ()
        if not self.shared:
            carry = carry[0 if which == "actor" else 1]
        _, x, carries = getattr(self, f"{which}_core")(carry, x, first)
        return x, carries

    def policy(
        self, obs: PyTree, carry: PyTree = (), first: Array | None = None
    ) -> tuple[Distribution, PyTree]:
        """The distribution over actions, `[...]`."""
        obs, mask = split_mask(obs)
        if self.policy_network is not None:
            return self.call_policy(self.actor, obs, mask), ()
        x, carries = self._features("actor", obs, carry, first)
        return self.actor_head(x, mask), carries

    def value(
        self, obs: PyTree, carry: PyTree = (), first: Array | None = None
    ) -> tuple[Array, PyTree]:
        """V(obs), `float32[...]`."""
        x, carries = self._features("critic", split_mask(obs)[0], carry, first)
        return jnp.squeeze(self.critic_head(x), -1), carries

    def __call__(
        self, obs: PyTree, carry: PyTree = (), first: Array | None = None
    ) -> tuple[Distribution, Array, PyTree]:
        """Both; the recurrent state has the structure of `initial_carry`."""
        if not self.shared:
            distribution, actor = self.policy(obs, carry, first)
            value, critic = self.value(obs, carry, first)
            return distribution, value, () if self.core == "none" else (actor, critic)
        obs, mask = split_mask(obs)
        x, carries = self._features("actor", obs, carry, first)
        return self.actor_head(x, mask), jnp.squeeze(self.critic_head(x), -1), carries
