"""Steps of Adam on an actor and a critic: parameters as one vector, and as a tree.

`jaxrl/xla/flatten.py`; "moments" is `optax.flatten` in `jaxrl/optimizers.py`.
"""

import jax
import jax.numpy as jnp
import optax

from benchmarks.workarounds.harness import compare_times, used_on
from jaxrl.networks.layers import MLP
from jaxrl.xla.flatten import Flattened, as_tree

ACTOR, CRITIC = MLP((64, 64, 2)), MLP((64, 64, 1))


def steps(transform, of):
    def loss(params, obs):
        logits, values = (net.apply(p, obs) for net, p in zip((ACTOR, CRITIC), params, strict=True))
        return jnp.mean(jnp.square(logits)) + jnp.mean(jnp.square(values))

    def run(params, obs):
        def step(carry, _):
            carried, state = carry
            params = as_tree(carried)
            updates, state = transform.update(jax.grad(loss)(params, obs), state, params)
            return (of(optax.apply_updates(params, updates)), state), None

        start = of(params), transform.init(params)
        return as_tree(jax.lax.scan(step, start, length=100)[0][0])

    return run


def main() -> None:
    adam = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-3))
    flat = optax.flatten(adam)
    keys = jax.random.split(jax.random.key(0), 3)
    for rows in (128, 2048):
        obs = jax.random.normal(keys[0], (rows, 4))
        params = ACTOR.init(keys[1], obs), CRITIC.init(keys[2], obs)
        case = f"100 steps on {rows:,} rows"
        tree = steps(flat, lambda params: params)
        if used_on("CPU"):
            compare_times(f"parameters, {case}", steps(flat, Flattened.of), tree, params, obs)
        by_leaf = steps(adam, lambda params: params)
        compare_times(f"moments, {case}", tree, by_leaf, params, obs)


if __name__ == "__main__":
    main()
