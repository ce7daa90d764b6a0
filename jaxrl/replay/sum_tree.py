"""A sum tree for prioritised sampling with wide nodes: three levels hold 262,144 leaves.

Schaul, Quan, Antonoglou and Silver, "Prioritized experience replay", 2016, section 3.3. An update
recomputes sums from their children instead of adding differences, so float32 does not drift.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.types import Array, Key

WIDTH = 64
"""Children per node: descending one level is one gather of rows of 64."""


class SumTree(struct.PyTreeNode):
    """A sum tree of non-negative leaves.

    Attributes:
      levels: the leaves, `float32[num_leaves]` rounded up to a multiple of `WIDTH`, and the levels
        of sums above them, up to `float32[WIDTH]`.
    """

    levels: tuple[Array, ...]

    @classmethod
    def zeros(cls, num_leaves: int) -> "SumTree":
        """A tree of at least `num_leaves` leaves, all 0."""
        return cls(tuple(jnp.zeros(n, jnp.float32) for n in cls.sizes(num_leaves)))

    @staticmethod
    def sizes(num_leaves: int) -> list[int]:
        """The sizes of the levels of such a tree, from the leaves."""
        sizes, size = [], max(num_leaves, 1)
        while True:
            size = -(-size // WIDTH) * WIDTH
            sizes.append(size)
            if size == WIDTH:
                return sizes
            size //= WIDTH

    @property
    def total(self) -> Array:
        return jnp.sum(self.levels[-1])

    def __getitem__(self, index: Array) -> Array:
        return self.levels[0][index]

    def set(self, index: Array, value: Array) -> "SumTree":
        """Sets leaves `index[B]` to `value[B]`.

        Indices beyond the last leaf (a multiple of 64) are ignored. A repeated index gets one of
        its values.
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
        """Draws `int32[num]` leaves in proportion to their values by stratified sampling.

        One leaf is drawn from each of `num` equal parts of the total. Leaves of value 0 are never
        drawn, unless all are 0: then it is the last leaf.
        """
        part = self.total / num
        mass = part * (jnp.arange(num) + jax.random.uniform(key, (num,)))
        node = jnp.zeros(num, jnp.int32)
        for level in reversed(self.levels):
            children = level.reshape(-1, WIDTH)[node]  # [num, WIDTH]
            upto = jnp.cumsum(children, axis=-1)
            positive = children > 0
            beyond = positive & (upto > mass[:, None])
            # Rounding may leave no child beyond the mass: then take the last positive one.
            last = WIDTH - 1 - jnp.argmax(positive[:, ::-1], axis=-1)
            child = jnp.where(beyond.any(-1), jnp.argmax(beyond, axis=-1), last)
            row = jnp.arange(num)
            mass = jnp.maximum(mass - (upto - children)[row, child], 0.0)
            node = node * WIDTH + child
        return node
