"""Two biases of off-policy learning, compared with exact values: writes two figures to docs/.

    python -m benchmarks.off_policy_bias

overestimation.png: how far max Q(s, .) of DQN and Double DQN lies above the true values during
training, on a random MDP with noisy rewards and many actions. stale_returns.png: the error of
n-step returns from an older policy as targets for a new one, and of Retrace, which corrects it.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from benchmarks.figures import figure, label_ticks
from jaxrl.agents import DQN
from jaxrl.analysis.statistics import interval, mean
from jaxrl.engine.training import Training
from jaxrl.estimators import n_step_returns, retrace
from jaxrl_envs.exact import garnet, values

DOCS = Path(__file__).parent.parent / "docs"
DISCOUNT = 0.8
KINDS = {"DQN": "none", "Double DQN": "target", "two networks": "two_networks"}


def overestimation(seeds: int, iterations: int) -> dict[str, np.ndarray]:
    """Name -> mean over states of max Q - V* during training, `[seeds, 20]`."""
    mdp = garnet.make(20, 10, branching=5, seed=1, reward_std=2.0, max_steps=50)
    best = values.optimal_action_value(mdp, DISCOUNT).max(-1)
    found = {}
    for name, double in KINDS.items():
        agent = DQN(
            double=double,
            discount=DISCOUNT,
            epsilon=1.0,
            learning_rate=1e-3,
            hidden_sizes=(64, 64),
            capacity=2_000,
            target_every=100,
        )

        def run(key, agent=agent):
            training = Training.create(agent, mdp, total_steps=iterations * 8)

            def part(state, start):
                state, *_ = training.chunk(state, key, start, start + iterations // 20)
                q = training.agent.q_values(state.agent.params, jnp.eye(20))
                return state, jnp.mean(jnp.max(q, -1) - jnp.asarray(best, jnp.float32))

            starts = jnp.arange(20, dtype=jnp.int32) * (iterations // 20)
            return jax.lax.scan(part, training.init(key), starts)[1]

        keys = jax.random.split(jax.random.key(0), seeds)
        found[name] = np.asarray(jax.jit(jax.vmap(run))(keys))
    return found


def stale_returns(num_envs: int, horizon: int = 40) -> tuple[list[int], dict[str, np.ndarray]]:
    """n -> root mean square error of the mean target against Q, over states and actions.

    The data come from the policy `old`; Q and the bootstrapped values are the exact ones of `new`.
    """
    mdp = garnet.make(10, 3, branching=4, seed=2)
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((10, 3))
    new = values.softmax(2.0 * logits)
    q = values.action_value(mdp, new, DISCOUNT)
    v = jnp.asarray((new * q).sum(-1), jnp.float32)
    steps = [1, 2, 3, 5, 8, 13, 20]
    curves = {}
    for name, old in {
        "fresh data": new,
        "from an older policy": values.softmax(0.5 * logits - 0.5 * rng.standard_normal((10, 3))),
    }.items():
        state, action, reward = _play(mdp, old, num_envs, horizon + 1)
        log_ratio = np.log(new / old)[state, action][:horizon]
        next_values = v[state[1:]]
        never = jnp.zeros((horizon, num_envs), bool)
        taken = jnp.asarray(q, jnp.float32)[state, action][:horizon]

        def error(target, state=state, action=action):
            total, count = np.zeros((10, 3)), np.zeros((10, 3))
            early = horizon - max(steps)  # whose targets see all n steps
            where = (state[:early].ravel(), action[:early].ravel())
            np.add.at(total, where, np.asarray(target[:early]).ravel())
            np.add.at(count, where, 1)
            return np.sqrt(np.mean((total / count - q) ** 2))

        curves[f"n-step returns, {name}"] = np.array(
            [error(n_step_returns(reward, next_values, never, never, DISCOUNT, n)) for n in steps]
        )
        corrected = retrace(
            reward, taken, next_values, never, never, jnp.asarray(log_ratio), DISCOUNT, 1.0
        )
        curves[f"Retrace, {name}"] = np.full(len(steps), error(corrected))
    return steps, curves


def _play(mdp, policy, num_envs: int, num_steps: int):
    """Plays a policy in an endless MDP: states, actions `int[T, N]` and rewards `[T - 1, N]`."""
    log_policy = jnp.log(jnp.asarray(policy, jnp.float32))

    def one(state, key):
        act_key, step_key = jax.random.split(key)
        index = jnp.argmax(state[1], -1)
        action = jax.random.categorical(act_key, log_policy[index])
        keys = jax.random.split(step_key, num_envs)
        inner, timestep = jax.vmap(mdp.step)(keys, state[0], action)
        return (inner, timestep.obs), (index, action, timestep.reward)

    @jax.jit
    def run(key):
        start = jax.vmap(mdp.reset)(jax.random.split(key, num_envs))
        return jax.lax.scan(one, start, jax.random.split(key, num_steps))[1]

    state, action, reward = run(jax.random.key(1))
    return np.asarray(state), np.asarray(action), reward[:-1]


def draw(over, steps, curves) -> None:
    with figure(
        DOCS / "overestimation.png",
        xlabel="share of training",
        ylabel="mean over states of max Q - V*",
        ylim=(-2.0, None),
        title="Overestimation on a random MDP: 10 actions, noisy rewards",
    ) as axes:
        for name, rows in over.items():
            x = np.linspace(0.05, 1, rows.shape[1])
            axes.plot(x, rows.mean(0), label=name)
            low, high = np.array([interval(mean, column) for column in rows.T]).T
            axes.fill_between(x, low, high, alpha=0.2)
        axes.axhline(0.0, color="black", lw=0.8)
    with figure(
        DOCS / "stale_returns.png",
        yscale="log",
        xlabel="n",
        ylabel="error of the mean target against Q (root mean square)",
        title="An older policy's data taken for the new one's",
    ) as axes:
        for name, row in curves.items():
            axes.plot(steps, row, marker="o", ls="--" if "Retrace" in name else "-", label=name)
        label_ticks(axes, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--num-envs", type=int, default=100_000)
    options = parser.parse_args()
    print("jaxrl", jaxrl.__version__)
    over = overestimation(options.seeds, options.iterations)
    for name, rows in over.items():
        last = rows[:, -1]
        print(f"{name:14} max Q - V* at the end: {last.mean():+.3f} ± {last.std(ddof=1):.3f}")
    steps, curves = stale_returns(options.num_envs)
    for name, row in curves.items():
        print(f"{name:40}", *(f"n={n}: {x:.4f}" for n, x in zip(steps, row, strict=True)))
    draw(over, steps, curves)


if __name__ == "__main__":
    main()
