"""Gradient of a choice among a few entries: a sum over a mask, and `take_along_axis`.

In `jaxrl/distributions/categorical.py` and `jaxrl/agents/bases/action_values.py`: the gradient of
`take_along_axis` is a scatter.
"""

import jax
import jax.numpy as jnp

from benchmarks.workarounds.harness import compare_times


def steps(choose):
    def run(values, action):
        def step(values, _):
            gradient = jax.grad(lambda x: jnp.mean(jnp.square(choose(x, action))))(values)
            return values - 1e-3 * gradient, None

        return jax.lax.scan(step, values, length=20)[0]

    return run


def by_mask(values, action):
    chosen = action[:, None] == jnp.arange(values.shape[1])[None]
    return jnp.sum(jnp.where(chosen, values, 0.0), axis=1)


def by_index(values, action):
    return jnp.take_along_axis(values, action[:, None], axis=1)[:, 0]


def main() -> None:
    for num_actions in (2, 18):
        values = jax.random.normal(jax.random.key(0), (2048, num_actions))
        action = jax.random.randint(jax.random.key(1), (2048,), 0, num_actions)
        case = f"20 steps on 2,048 rows of {num_actions}"
        compare_times(case, steps(by_mask), steps(by_index), values, action)


if __name__ == "__main__":
    main()
