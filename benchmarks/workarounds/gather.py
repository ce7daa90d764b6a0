"""Gradients of a choice among a few entries: a mask and a sum, and `take_along_axis`.

`log_prob` in `jaxrl/distributions/categorical.py` and `of_actions` in
`jaxrl/agents/bases/action_values.py`: the gradient of `take_along_axis` is a scatter.
"""

import jax
import jax.numpy as jnp

from benchmarks.workarounds.harness import compare_times
from jaxrl.distributions import Categorical


def steps(choose):
    """Gradient steps on the chosen entries."""

    def run(x, action):
        def step(x, _):
            return x - 1e-3 * jax.grad(lambda x: jnp.mean(choose(x, action)))(x), None

        return jax.lax.scan(step, x, length=100)[0]

    return run


def log_prob_by_mask(logits, action):
    return Categorical(logits).log_prob(action)


def log_prob_by_index(logits, action):
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]


def values_by_mask(values, action):
    chosen = action[:, None] == jnp.arange(values.shape[1])[None]
    return jnp.square(jnp.sum(jnp.where(chosen[:, :, None], values, 0.0), axis=1))


def values_by_index(values, action):
    return jnp.square(jnp.take_along_axis(values, action[:, None, None], axis=1)[:, 0])


def main() -> None:
    ours, index = steps(log_prob_by_mask), steps(log_prob_by_index)
    for num_actions in (2, 18):
        logits = jax.random.normal(jax.random.key(0), (2048, num_actions))
        action = jax.random.randint(jax.random.key(1), (2048,), 0, num_actions)
        compare_times(f"log_prob, 2,048 rows of {num_actions}", ours, index, logits, action)
    ours, index = steps(values_by_mask), steps(values_by_index)
    for num_outputs in (1, 51):
        values = jax.random.normal(jax.random.key(0), (128, 6, num_outputs))
        action = jax.random.randint(jax.random.key(1), (128,), 0, 6)
        case = f"values, 128 rows of 6 actions with {num_outputs}"
        compare_times(case, ours, index, values, action)


if __name__ == "__main__":
    main()
