"""Products of independent distributions."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
from jax import Array

from jaxrl.distributions.base import Distribution, _add


@flax.struct.dataclass
class Product:
    """Independent distributions with the same batch shape; an action is a tuple of their actions.

    Attributes:
        components: the distributions, at least one.
    """

    components: tuple[Distribution, ...]

    def sample(self, key: Array) -> tuple[Any, ...]:
        """Draws a tuple of actions, with a separate key for each component."""
        keys = jax.random.split(key, len(self.components))
        return tuple(c.sample(k) for c, k in zip(self.components, keys, strict=True))

    def mode(self) -> tuple[Any, ...]:
        """Returns the tuple of the components' modes."""
        return tuple(component.mode() for component in self.components)

    def log_prob(self, action: tuple[Any, ...]) -> Array:
        """Returns the sum of the components' log p, float [...]."""
        pairs = zip(self.components, action, strict=True)
        return _add([component.log_prob(part) for component, part in pairs])

    def entropy(self) -> Array:
        """Returns the sum of the components' entropies, float [...]."""
        return _add([component.entropy() for component in self.components])

    def kl(self, other: Product) -> Array:
        """Returns the sum of the components' KL(self || other), float [...]."""
        pairs = zip(self.components, other.components, strict=True)
        return _add([component.kl(part) for component, part in pairs])

    @property
    def parameters(self) -> tuple[Any, ...]:
        """The components' parameters."""
        return tuple(component.parameters for component in self.components)

    def fisher(self, tangent: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the components' F v: F is block-diagonal."""
        pairs = zip(self.components, tangent, strict=True)
        return tuple(component.fisher(part) for component, part in pairs)
