"""A compensated sum and a first importance ratio: with fixed rounding, and with plain sums.

`jaxrl/xla/rounding.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workarounds.harness import compare_faults
from jaxrl.xla import rounding


def apply(is_applied: bool) -> None:
    if not is_applied:  # before the modules that use them are imported
        rounding.rounded_sum = lambda x, y: x + y
        rounding.ordered_sum = lambda x: jnp.sum(x, axis=-1)


def compensated_sum(is_applied: bool) -> str | None:
    apply(is_applied)
    from jaxrl.engine.sums import CompensatedSum

    num = 2**20

    @jax.jit
    def run(terms):
        start = CompensatedSum.zeros_like(terms)
        return jax.lax.fori_loop(0, num, lambda _, total: total + terms, start).value

    terms = np.array([0.1, -1e-3], np.float32)
    exact = terms.astype(np.float64) * num
    error = np.max(np.abs(run(terms) / exact - 1))
    return f"a sum of 2**20 terms is off by {error:.0e}" if error > 1e-7 else None


def first_ratio(is_applied: bool) -> str | None:
    apply(is_applied)
    from jaxrl.distributions import Categorical

    for num_actions in (8, 18):
        logits = 3 * jax.random.normal(jax.random.key(0), (32, 67, num_actions))

        @jax.jit
        def rollout(logits):
            def step(key, logits):
                key, action_key = jax.random.split(key)
                action = Categorical(logits).sample(action_key)
                return key, (action, Categorical(logits).log_prob(action))

            return jax.lax.scan(step, jax.random.key(1), logits)[1]

        @jax.jit
        def update(logits, action, old):
            def loss(logits):
                ratio = jnp.exp(Categorical(logits).log_prob(action) - old)
                objective = jnp.sum(jnp.clip(ratio, 0.8, 1.2) * old)
                return objective - jnp.sum(Categorical(logits).entropy()), ratio

            return jax.grad(loss, has_aux=True)(logits)[1]

        action, old = (x.reshape(-1) for x in rollout(logits))
        share = np.mean(np.asarray(update(logits.reshape(-1, num_actions), action, old)) != 1)
        if share:
            return f"{share:.0%} of first ratios are not 1 with {num_actions} actions"
    return None


if __name__ == "__main__":
    compare_faults("a compensated sum of a million terms", compensated_sum)
    compare_faults("the first importance ratio of 8 or 18 actions", first_ratio)
