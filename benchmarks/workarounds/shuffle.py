"""Random orders of rows: Feistel rounds, and a sort by `jax.random.permutation`.

`permutation` in `jaxrl/minibatches.py`.
"""

import jax

from benchmarks.workarounds.harness import compare_times
from jaxrl.minibatches import permutation


def main() -> None:
    for num, rows in ((100, 512), (8, 65_536)):

        def ours(keys, rows=rows):
            return jax.lax.map(lambda key: permutation(key, rows), keys)

        def sort(keys, rows=rows):
            return jax.lax.map(lambda key: jax.random.permutation(key, rows), keys)

        keys = jax.random.split(jax.random.key(0), num)
        compare_times(f"{num} orders of {rows:,} rows", ours, sort, keys, tolerance=None)


if __name__ == "__main__":
    main()
