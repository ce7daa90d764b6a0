"""Policies: modules that map features or observations to action distributions."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import zeros_init

from jaxrl.distributions import (
    Beta,
    Categorical,
    DiagonalGaussian,
    Distribution,
    FeatureGaussian,
    GaussianMixture,
    MultiCategorical,
    Product,
    Scaled,
    TanhGaussian,
)
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.networks.layers import MLP, dense
from jaxrl.trees import num_values
from jaxrl.types import (
    ActionSpace,
    Array,
    Box,
    Discrete,
    Mixed,
    MultiDiscrete,
    PyTree,
)

BoxPolicy = Literal["gaussian", "squashed", "beta"]
StdFrom = Literal["parameter", "output", "features"]


class PolicyHead(nn.Module):
    """Maps features to a distribution over the actions of `space`.

    The last layer has gain 0.01, so that training starts near the uniform policy, or near the
    centre of a box.

    Attributes:
      space: the action space.
      initial_log_std: initial log of the standard deviation of actions; of the Gaussian inside
        tanh, if squashed.
      box_policy: the distribution for a `Box`: a Gaussian, whose samples may lie outside; its tanh
        scaled to the bounds; or a Beta distribution between them.
      std_from: what a Gaussian's standard deviation is: a parameter of its own, an output of the
        network, or that of noise which is linear in the features (`FeatureGaussian`, through which
        no gradient reaches the features).
    """

    space: ActionSpace
    initial_log_std: float = 0.0
    box_policy: BoxPolicy = "gaussian"
    std_from: StdFrom = "parameter"

    @nn.compact
    def __call__(self, x: Array, mask: PyTree = None) -> Distribution:
        match self.space:
            case Discrete(num):
                return Categorical(dense(num, 0.01)(x), mask)
            case MultiDiscrete(nums):
                return MultiCategorical(dense(sum(nums), 0.01)(x), nums, mask)
            case Box():
                return self._over_box(self.space, x)
            case Mixed(spaces):
                masks = (None,) * len(spaces) if mask is None else mask
                options = self.initial_log_std, self.box_policy, self.std_from
                parts = zip(spaces, masks, strict=True)
                return Product(tuple(PolicyHead(space, *options)(x, m) for space, m in parts))
        raise InvalidType(f"{self.space!r} is not an action space")

    def _over_box(self, space: Box, x: Array) -> Distribution:
        shape = space.shape

        def output() -> Array:
            return dense(num_values(shape), 0.01)(x).reshape(*x.shape[:-1], *shape)

        first = output()
        if self.box_policy == "beta":
            alpha, beta = (1.0 + jnp.minimum(nn.softplus(y), 500.0) for y in (first, output()))
            return _scaled_to(space, Beta(alpha, beta, len(shape)), (0.0, 1.0), first.shape)
        if self.std_from == "features":
            log_std = noise_log_std(self, (x.shape[-1], *shape), self.initial_log_std)
            return FeatureGaussian.of(first, jax.lax.stop_gradient(x), log_std, len(shape))
        if self.std_from == "output":
            log_std = jnp.clip(self.initial_log_std + output(), -20.0, 10.0)
        else:
            log_std = self.param(
                "log_std", lambda _, s: jnp.full(s, self.initial_log_std, jnp.float32), shape
            )
            log_std = jnp.broadcast_to(log_std, first.shape)
        if self.box_policy == "squashed":
            policy = TanhGaussian(first, log_std, len(shape))
            return _scaled_to(space, policy, (-1.0, 1.0), first.shape)
        return DiagonalGaussian(first, log_std, len(shape))


def _scaled_to(
    space: Box, policy: Distribution, ends: tuple[float, float], shape: tuple[int, ...]
) -> Scaled:
    """A policy of actions between `ends`, `[*shape]`, scaled to the bounds of the box."""
    low, high = (jnp.broadcast_to(jnp.asarray(x), shape) for x in space.bounds())
    scale = (high - low) / (ends[1] - ends[0])
    return Scaled(policy, low - ends[0] * scale, scale, len(space.shape))


def noise_log_std(module: nn.Module, shape: tuple[int, ...], initial: float) -> Array:
    """The parameter of `module` for the standard deviations of a `FeatureGaussian`'s weights."""
    return module.param("noise_log_std", lambda _, s: jnp.full(s, initial, jnp.float32), shape)


def check_box_policy(
    space: ActionSpace, initial_log_std: float, box_policy: BoxPolicy, std_from: StdFrom
) -> None:
    """Raises ValueError if `PolicyHead` has no use for one of its options, naming it."""
    parts = space.spaces if isinstance(space, Mixed) else (space,)
    boxes = [part for part in parts if isinstance(part, Box)]
    given: dict[str, Any] = {}
    if initial_log_std:
        given["initial_log_std"] = initial_log_std
    if std_from != "parameter":
        given["std_from"] = std_from
    if box_policy != "gaussian" and not boxes:
        given["box_policy"] = box_policy
    for name, value in given.items():
        if not boxes:
            raise InvalidValue(
                f"{name} is {value!r}, but there is no box among the actions, {space}: leave it out"
            )
        if box_policy == "beta":
            raise InvalidValue(
                f"{name} is {value!r}, and box_policy is 'beta', which has no standard deviation "
                "of its own: leave it out, or use 'gaussian' or 'squashed'"
            )
    if std_from == "features" and (box_policy != "gaussian" or not isinstance(space, Box)):
        raise InvalidValue(
            f"std_from is 'features', which needs a single box and box_policy='gaussian', not "
            f"{space} and {box_policy!r}: use 'output' or 'parameter'"
        )
    for box in boxes:
        if box_policy != "gaussian" and not np.isfinite(np.subtract(*box.bounds())).all():
            raise InvalidValue(
                f"box_policy is {box_policy!r}, whose actions lie between bounds, but some of "
                f"{box} are not finite: give the environment finite bounds, or use 'gaussian'"
            )


class MixturePolicy(nn.Module):
    """Mixtures of Gaussians over the actions of a box.

    The Gaussians start apart, spread over the box, and each has a standard deviation of its own,
    the same for all observations: otherwise most collapse onto nothing before they find their
    actions.

    Attributes:
      torso: builds a module from observations to features.
      space: the box.
      num_components: the number of Gaussians, K.
    """

    torso: Callable[[], nn.Module]
    space: Box
    num_components: int

    @nn.compact
    def __call__(self, obs: PyTree, mask: PyTree = None) -> GaussianMixture:
        x = self.torso()(obs)
        shape = (self.num_components, *self.space.shape)
        low, high = self.space.bounds()
        with np.errstate(over="ignore"):
            finite = np.isfinite(high - low)
        low, high = (np.where(finite, x, end)[None] for x, end in ((low, -1.0), (high, 1.0)))
        scale = jnp.asarray(0.5 * (high - low), jnp.float32)  # [1, *event]

        def spread(key: Any, shape: Any) -> Array:
            """A Latin hypercube: along each axis, one centre in each of K equal parts."""
            places = (jnp.arange(shape[0], dtype=jnp.float32) + 0.5) / shape[0]
            places = jnp.broadcast_to(places.reshape(-1, *(1,) * (len(shape) - 1)), shape)
            return low + (high - low) * jax.random.permutation(key, places, independent=True)

        centre = self.param("centre", spread, shape)
        log_std = self.param("log_std", lambda _, s: jnp.full(s, -np.log(s[0]), jnp.float32), shape)
        offset = dense(num_values(shape), 0.01)(x).reshape(*x.shape[:-1], *shape)
        log_std = jnp.log(scale) + jnp.clip(log_std, -5.0, 2.0)
        scale, centre, log_std = (
            jnp.broadcast_to(y, offset.shape) for y in (scale, centre, log_std)
        )
        mean = centre + scale * offset
        logits = dense(self.num_components, 0.01)(x)
        return GaussianMixture(logits, mean, log_std, len(self.space.shape))


class SoftmaxLinear(nn.Module):
    """pi(a | s) proportional to exp(theta^T phi(s, a)), with theta initialised to zero: uniform.

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
    """pi(a | s) proportional to exp(f(s, a)): one network scores each pair of state and action.

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
        else:  # user-defined modules see one batch axis
            x = self.torso(pairs.reshape(-1, pairs.shape[-1])).reshape(*shape, -1)
        return Categorical(jnp.squeeze(dense(1, 0.01)(x), -1), mask)
