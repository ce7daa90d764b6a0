"""Domain randomisation on brax: every copy of the environment has its own physics.

    pip install 'jaxrl[brax]'
    python examples/domain_randomisation.py
    python examples/domain_randomisation.py --total-steps 2_000_000 --env brax/hopper

The parameters of an environment are leaves. Stacked leaves give each training copy its own mass and
friction (`batched_env=True`); the policy is evaluated on the nominal physics (`eval_env`) and, at
the end, with light and heavy masses.
"""

import argparse

import jax
import jax.numpy as jnp

import jaxrl
import jaxrl_envs

SCALES = (0.5, 1.0, 2.0)
"""Mass scales of the comparison at the end."""


def randomized(env, key, num_envs):
    """`num_envs` copies with masses and frictions between half and twice the nominal ones."""
    mass_key, friction_key = jax.random.split(key)

    def draw(key):  # log-uniform
        return 2.0 ** jax.random.uniform(key, (num_envs,), minval=-1.0, maxval=1.0)

    def one(mass_scale, friction_scale):
        return env.with_params(mass_scale=mass_scale, friction_scale=friction_scale)

    return jax.vmap(one)(draw(mass_key), draw(friction_key))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--env", default="brax/inverted_pendulum", help="(default: brax/inverted_pendulum)"
    )
    parser.add_argument("--total-steps", type=int, default=400_000, help="(default: 400000)")
    parser.add_argument("--num-envs", type=int, default=64, help="training copies (default: 64)")
    parser.add_argument("--max-steps", type=int, default=1000, help="time limit (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    options = parser.parse_args()

    try:
        env = jaxrl_envs.make(options.env, max_steps=options.max_steps)
    except ValueError as error:  # brax is not installed, or there is no such environment
        raise SystemExit(f"{error}") from None
    nominal = env.with_params(mass_scale=1.0, friction_scale=1.0)
    env_key, train_key, play_key = jax.random.split(jax.random.key(options.seed), 3)
    envs = randomized(env, env_key, options.num_envs)

    agent = jaxrl.agents.PPO(
        num_envs=options.num_envs,
        num_steps=32,
        num_minibatches=4,
        learning_rate=1e-3,
        entropy_coefficient=0.0,
    )
    arguments = dict(
        total_steps=options.total_steps,
        normalize_observations=True,
        normalize_rewards=True,
        batched_env=True,
        eval_env=nominal,
    )
    training = jaxrl.Training.create(agent, envs, **arguments)

    @jax.jit
    def train_and_compare(envs, key, play_key):
        state, metrics = jaxrl.train(agent, envs, key, num_evaluations=5, **arguments)
        policy = training.policy(state)

        def play(mass_scale):
            heavier = nominal.with_params(mass_scale=mass_scale)
            return jaxrl.evaluate(policy, heavier, play_key, num_episodes=16).returns.mean()

        return metrics, jax.lax.map(play, jnp.asarray(SCALES))

    print(f"training PPO on {options.num_envs} copies of {options.env}, each with its own physics")
    metrics, returns = train_and_compare(envs, train_key, play_key)
    steps = metrics.iterations * agent.plan.steps_per_iteration
    for step, nominal_returns in zip(steps, metrics.evaluation.returns, strict=True):
        print(f"step {step:>10,}  return on the nominal physics {nominal_returns.mean():8.1f}")
    for scale, mean in zip(SCALES, returns, strict=True):
        print(f"masses times {scale:g}: return {mean:8.1f}")


if __name__ == "__main__":
    main()
