"""Categorical distributions over discrete actions."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from jaxrl.distributions.base import at_least_float32
from jaxrl.distributions.product import Product
from jaxrl.errors import InvalidValue
from jaxrl.xla import minor_axis

# Far below any logit, but unlike finfo.min, sums and differences of 1e8 of them are finite.
_MASKED_LOGIT = -1e30


@flax.struct.dataclass
class Categorical:
    """One of A actions, with p(a) = exp(logits[a]) / sum_b exp(logits[b]).

    A masked action has probability exactly 0: it is never sampled, adds nothing to entropy and KL,
    and its logit gets a gradient of exactly 0. Its log_prob is finite, about -1e30; kl(other) is
    also large and finite if `other` masks an action that `self` may take. If all actions of a row
    are masked, the row is uniform with zero gradients. Actions are int32 [...].

    Attributes:
        logits: float [..., A], unnormalised log probabilities of magnitude well below 1e30.
        mask: bool, broadcastable to logits; True where the action is allowed. None allows all.
    """

    logits: Array
    mask: Array | None = None

    def sample(self, key: Array) -> Array:
        """Draws actions, int32 [...], by the Gumbel-max trick."""
        logits = self._masked_logits()
        if self.mask is not None:
            # If all actions are masked, the noise would be lost to rounding next to -1e30.
            logits = logits - jnp.max(logits, axis=-1, keepdims=True)
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)

    def mode(self) -> Array:
        """Returns the most probable actions, int32 [...]; ties go to the lowest index."""
        return jnp.argmax(self._masked_logits(), axis=-1).astype(jnp.int32)

    def log_prob(self, action: Array) -> Array:
        """Returns log p(action), float [...], for integer actions [...]; -inf outside [0, A)."""
        # A mask, because the gradient of take_along_axis is a scatter, slower in a scan for few
        # actions: `python -m benchmarks.workarounds gather`.
        indices = jnp.arange(self.logits.shape[-1], dtype=jnp.int32)
        chosen = jnp.expand_dims(action, -1) == jnp.broadcast_to(indices, self.logits.shape)
        log_probs = self._log_probs()
        terms = list(zip(minor_axis.split(chosen), log_probs, strict=True))
        # Invalid actions get -inf, which shows in metrics; an empty sum would mean probability 1.
        if len(terms) > 1:  # selects are as cheap as the sum
            log_prob: Any = -jnp.inf
            for hit, log_p in terms:
                log_prob = jnp.where(hit, log_p, log_prob)
            return log_prob
        known = (action >= 0) & (action < self.logits.shape[-1])
        log_prob = minor_axis.total([jnp.where(hit, log_p, 0.0) for hit, log_p in terms])
        return jnp.where(known, log_prob, -jnp.inf)

    def probabilities(self) -> Array:
        """Returns p, float [..., A]; exactly 0 where masked."""
        return jax.nn.softmax(self._masked_logits(), axis=-1)

    def entropy(self) -> Array:
        """Returns -sum_a p(a) log p(a), float [...], from 0 to log A."""
        # Masked log probabilities are finite, so 0 * log 0 is 0 here, and so is its gradient.
        return -minor_axis.total([jnp.exp(log_p) * log_p for log_p in self._log_probs()])

    def kl(self, other: Categorical) -> Array:
        """Returns sum_a p(a) (log p(a) - log q(a)), float [...], where q is `other`."""
        pairs = zip(self._log_probs(), other._log_probs(), strict=True)
        return minor_axis.total([jnp.exp(log_p) * (log_p - log_q) for log_p, log_q in pairs])

    @property
    def parameters(self) -> Array:
        """The logits, float [..., A]."""
        return at_least_float32(self.logits)

    def fisher(self, tangent: Array) -> Array:
        """Returns p (v - sum_a p(a) v(a)), float [..., A]: F = diag(p) - p p^T in the logits."""
        p = jax.nn.softmax(self._masked_logits(), axis=-1)
        if self.mask is not None:  # masked actions have no gradient, even if all are masked
            p = jnp.where(jnp.broadcast_to(self.mask, p.shape), p, 0.0)
        return p * (tangent - jnp.sum(p * tangent, axis=-1, keepdims=True))

    def _masked_logits(self) -> Array:  # [..., A]
        logits = at_least_float32(self.logits)
        if self.mask is None:
            return logits
        return jnp.where(jnp.broadcast_to(self.mask, logits.shape), logits, _MASKED_LOGIT)

    def _log_probs(self) -> list[Array]:  # blocks of [..., A], see minor_axis.split
        blocks = minor_axis.split(self._masked_logits())
        largest = jax.lax.stop_gradient(minor_axis.maximum(blocks))
        shifted = minor_axis.subtract(blocks, largest)
        total = minor_axis.total([jnp.exp(block) for block in shifted])
        return minor_axis.subtract(shifted, jnp.log(total))


@flax.struct.dataclass
class MultiCategorical:
    """Several independent Categoricals; actions are int32 [..., len(nums)].

    Attributes:
        logits: float [..., sum(nums)], the concatenated logits of all Categoricals.
        nums: number of actions of each Categorical (static).
        mask: bool, broadcastable to logits; True where the action is allowed. None allows all.
    """

    logits: Array
    nums: tuple[int, ...] = flax.struct.field(pytree_node=False)
    mask: Array | None = None

    @property
    def components(self) -> tuple[Categorical, ...]:
        """The Categoricals, in order.

        Raises:
            ValueError: if nums is empty or does not add up to the last axis of logits.
        """
        if not self.nums or sum(self.nums) != self.logits.shape[-1]:
            raise InvalidValue(
                f"MultiCategorical: nums={self.nums} adds up to {sum(self.nums)}, but the last axis"
                f" of logits is {self.logits.shape[-1]}: give one logit for each action."
            )
        offsets = [sum(self.nums[:i]) for i in range(1, len(self.nums))]
        logits = jnp.split(self.logits, offsets, axis=-1)
        if self.mask is None:
            return tuple(Categorical(part) for part in logits)
        masks = jnp.split(jnp.broadcast_to(self.mask, self.logits.shape), offsets, axis=-1)
        return tuple(Categorical(*parts) for parts in zip(logits, masks, strict=True))

    def sample(self, key: Array) -> Array:
        """Draws actions, int32 [..., len(nums)], with a separate key for each component."""
        return jnp.stack(Product(self.components).sample(key), axis=-1)

    def mode(self) -> Array:
        """Returns the most probable actions, int32 [..., len(nums)]."""
        return jnp.stack(Product(self.components).mode(), axis=-1)

    def log_prob(self, action: Array) -> Array:
        """Returns the sum of the components' log p, float [...], for actions [..., len(nums)].

        It is -inf if any component's action is invalid.
        """
        actions = tuple(action[..., i] for i in range(len(self.nums)))
        return Product(self.components).log_prob(actions)

    def entropy(self) -> Array:
        """Returns the sum of the components' entropies, float [...]."""
        return Product(self.components).entropy()

    def kl(self, other: MultiCategorical) -> Array:
        """Returns the sum of the components' KL(self || other), float [...]."""
        return Product(self.components).kl(Product(other.components))

    @property
    def parameters(self) -> Array:
        """The logits, float [..., sum(nums)]."""
        return at_least_float32(self.logits)

    def fisher(self, tangent: Array) -> Array:
        """Returns the concatenated F v of the components, float [..., sum(nums)]."""
        components = self.components
        offsets = [sum(self.nums[:i]) for i in range(1, len(self.nums))]
        tangents = tuple(jnp.split(tangent, offsets, axis=-1))
        return jnp.concatenate(Product(components).fisher(tangents), axis=-1)
