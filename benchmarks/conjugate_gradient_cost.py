"""The cost of a conjugate-gradient step in TRPO: time of an update over the number of steps.

    python -m benchmarks.conjugate_gradient_cost

A step is one Fisher-vector product: a forward pass (J v) and a backward pass (J^T u) through the
policy, which is linearised once. So the time of an update is linear in the number of steps, and the
slope should be the time of one product, which is also measured. Variants alternate, and medians are
printed.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
import jaxrl_envs
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.solvers import gauss_newton_product
from jaxrl.types import Clock, Trajectory

STEPS = (1, 5, 10, 15, 20, 30, 40)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8192, help="of the batch (default: 8192)")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    env = jaxrl_envs.make("gymnax/CartPole-v1")
    rows, key = options.rows, jax.random.key(0)
    base = jaxrl.agents.TRPO(num_envs=rows, num_steps=1, cg_tolerance=0.0).bind(env.spec)
    actor = jax.jit(base.init)(key).params.actor
    obs = jax.random.normal(key, (rows, 4))
    policy = base.network.apply(actor, obs, method="policy")[0]
    action, zeros = policy.sample(key), jnp.zeros(rows)
    advantage = jax.random.normal(jax.random.key(1), (rows,))
    sample = Sample(obs, action, policy.log_prob(action), zeros, advantage, zeros)
    batch = Trajectory(sample, jnp.zeros(rows, bool))

    def update(num_steps):
        agent = base.replace(cg_iterations=num_steps)
        return jax.jit(lambda actor: agent.improve(actor, batch, Clock.start())[0])

    def products(v):  # enough to make the loop's overhead small
        metric = base.policy(actor, batch).fisher
        product = gauss_newton_product(lambda p: base.policy(p, batch).parameters, actor, metric)
        return jax.lax.fori_loop(0, 20, lambda _, v: product(v), v)

    programs = {n: update(n) for n in STEPS} | {"product": jax.jit(products)}
    seconds: dict = {name: [] for name in programs}
    for _ in range(options.rounds + 1):
        for name, run in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(run(actor))
            seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(s[1:]) for name, s in seconds.items()}
    times = np.array([median[n] for n in STEPS])
    slope, start = np.polyfit(STEPS, times, 1)
    fitted = start + slope * np.array(STEPS)
    r_squared = 1.0 - np.sum((times - fitted) ** 2) / np.sum((times - times.mean()) ** 2)
    print(f"{rows} rows, tanh 64x64, on {jax.devices()[0].platform}")
    for n, measured in zip(STEPS, times, strict=True):
        print(f"  {n:3d} steps  {1e3 * measured:8.2f} ms")
    print(
        f"  {1e3 * start:.2f} ms + {1e3 * slope:.2f} ms a step (R^2 = {r_squared:.4f}); "
        f"one product alone {1e3 * median['product'] / 20:.2f} ms"
    )


if __name__ == "__main__":
    main()
