"""A sum tree for prioritised sampling, flat and wide: three levels for a quarter of a million.

Schaul, Quan, Antonoglou and Silver, "Prioritized experience replay", 2016, section 3.3. Every sum
that an update touches is summed anew from its children, never changed by a difference, so float32
does not drift however long a run is.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.types import Array, Key

WIDTH = 64
"""Children of a node: a level is one gather of rows of 64, and a power of 64 is a level."""


class SumTree(struct.PyTreeNode):
    """Attributes:
    levels: sums from the leaves, `float32[WIDTH^k]`, up to `float32[WIDTH]`; not negative.
    """

    levels: tuple[Array, ...]

    @classmethod
    def zeros(cls, num_leaves: int) -> "SumTree":
        """A tree with room for that many leaves, all 0."""
        sizes, size = [], max(num_leaves, 1)
        while True:
            size = -(-size // WIDTH) * WIDTH
            sizes.append(size)
            if size == WIDTH:
                break
            size //= WIDTH
        return cls(tuple(jnp.zeros(n, jnp.float32) for n in sizes))

    @property
    def total(self) -> Array:
        return jnp.sum(self.levels[-1])

    def __getitem__(self, index: Array) -> Array:
        return self.levels[0][index]

    def set(self, index: Array, value: Array) -> "SumTree":
        """The tree with leaves `index[B]` at `value[B]`.

        There is room for leaves up to a multiple of 64; an index past that is left out. One that is
        named twice gets either of its values.
        """
        leaves = self.levels[0].at[index].set(value, mode="drop")
        levels = [leaves]
        for above in self.levels[1:]:
            index = index // WIDTH
            rows = levels[-1].reshape(-1, WIDTH)
            sums = jnp.sum(rows.at[index].get(mode="fill", fill_value=0.0), axis=-1)
            levels.append(above.at[index].set(sums, mode="drop"))
        return SumTree(tuple(levels))

    def sample(self, key: Key, num: int) -> Array:
        """Draws `int32[num]` leaves in proportion to their values, one from each of `num` equal
        parts of the whole mass. Never one of value 0, as long as any other is above it; where none
        is, the last."""
        part = self.total / num
        mass = part * (jnp.arange(num) + jax.random.uniform(key, (num,)))
        node = jnp.zeros(num, jnp.int32)
        for level in reversed(self.levels):
            children = level.reshape(-1, WIDTH)[node]  # [num, WIDTH]
            upto = jnp.cumsum(children, axis=-1)
            positive = children > 0
            beyond = positive & (upto > mass[:, None])
            # Rounding may leave no child beyond the mass: then it is the last that has any.
            last = WIDTH - 1 - jnp.argmax(positive[:, ::-1], axis=-1)
            child = jnp.where(beyond.any(-1), jnp.argmax(beyond, axis=-1), last)
            row = jnp.arange(num)
            mass = jnp.maximum(mass - (upto - children)[row, child], 0.0)
            node = node * WIDTH + child
        return node
