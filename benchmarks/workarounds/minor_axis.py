"""Gradients of `Categorical.log_prob` and `entropy`: actions apart, and reductions over them.

`jaxrl/xla/minor_axis.py`.
"""

from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.workarounds.harness import compare_times
from jaxrl.distributions import Categorical
from jaxrl.xla import minor_axis


def steps(logits, action):
    def step(logits, _):
        def loss(logits):
            policy = Categorical(logits)
            return jnp.mean(policy.log_prob(action) + 0.1 * policy.entropy())

        return logits - 1e-3 * jax.grad(loss)(logits), None

    return jax.lax.scan(step, logits, length=100)[0]


def reduced(logits, action):
    with mock.patch.object(minor_axis, "MAX_UNROLLED", 1):
        return steps(logits, action)


def main() -> None:
    for num_actions in (2, 6):
        logits = jax.random.normal(jax.random.key(0), (2048, num_actions))
        action = jax.random.randint(jax.random.key(1), (2048,), 0, num_actions)
        case = f"100 steps on 2,048 rows of {num_actions} actions"
        compare_times(case, steps, reduced, logits, action)


if __name__ == "__main__":
    main()
