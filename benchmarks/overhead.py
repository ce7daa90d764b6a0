"""The overhead of auto-reset and of each wrapper, in a rollout with random actions.

    python -m benchmarks.overhead
    python -m benchmarks.overhead brax/hopper --env-param backend=spring --num-envs 256

The variants alternate, and medians are printed: microseconds per step of all copies, and the
fraction that is not the bare environment.
"""

import argparse
import statistics
import time

import jax

import jaxrl
import jaxrl_envs
from jaxrl import wrappers
from jaxrl.cli.train import _env_param
from jaxrl.types import Box, sample_action, split_mask

WRAPPERS = {
    "TimeLimit": lambda env: wrappers.TimeLimit(env, 10_000),
    "ActionRepeat(1)": lambda env: wrappers.ActionRepeat(env, 1),
    "ScaleReward": lambda env: wrappers.ScaleReward(env, 0.1),
    "ClipReward": lambda env: wrappers.ClipReward(env),
    "ScaleObservation": lambda env: wrappers.ScaleObservation(env, 0.1),
    "ClipObservation": lambda env: wrappers.ClipObservation(env),
    "FlattenObservation": lambda env: wrappers.FlattenObservation(env),
    "MaskVelocity": lambda env: wrappers.MaskVelocity(env, (0,)),
    "TimeAwareObservation": lambda env: wrappers.TimeAwareObservation(env),
    "FrameStack(4)": lambda env: wrappers.FrameStack(env, 4),
    "StickyActions": lambda env: wrappers.StickyActions(env, 0.25),
    "RescaleActions()": lambda env: wrappers.RescaleActions(env),
    "DiscretizeActions(3)": lambda env: wrappers.DiscretizeActions(env, 3),
}


def bare(env, num_envs, num_steps):
    """Steps without resets, the minimum cost of any rollout."""

    def run(key):
        keys = jax.random.split(key, num_envs)
        state, _ = jax.vmap(env.reset)(keys)

        def one(state, keys):
            def step(state, key):
                act_key, step_key = jax.random.split(key)
                return env.step(step_key, state, sample_action(env.spec.action, act_key))

            return jax.vmap(step)(state, keys)

        step_keys = jax.random.split(key, (num_steps, num_envs))
        return jax.lax.scan(one, state, step_keys)

    return run


def with_resets(env, num_envs, num_steps, policy):
    """jaxrl's rollout."""
    envs = jaxrl.VectorEnv(env, num_envs, policy)

    def act(carry, obs, key):
        draw = jax.vmap(lambda k: sample_action(envs.spec.action, k))
        return carry, draw(jax.random.split(key, num_envs)), ()

    def run(key):
        return jaxrl.rollout(act, envs, envs.reset(key), (), (), key, num_steps)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("env", nargs="?", default="gymnax/CartPole-v1")
    parser.add_argument("--env-param", action="append", default=[], type=_env_param)
    parser.add_argument("--num-envs", type=int, default=2048)
    parser.add_argument("--num-steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-wrappers", action="store_true", help="auto-reset alone")
    options = parser.parse_args()
    env = jaxrl_envs.make(options.env, **dict(options.env_param))
    sizes = options.num_envs, options.num_steps

    programs = {
        "bare": bare(env, *sizes),
        "auto-reset, fresh": with_resets(env, *sizes, "fresh"),
        "auto-reset, pool": with_resets(env, *sizes, "pool"),
    }
    if not options.no_wrappers:
        is_vector = split_mask(env.spec.observation)[0]
        for name, wrap in WRAPPERS.items():
            if "Actions(" in name and not isinstance(env.spec.action, Box):
                continue
            if name == "MaskVelocity" and getattr(is_vector, "ndim", 0) != 1:
                continue
            programs[name] = bare(wrap(env), *sizes)
    key = jax.random.key(0)
    compiled = {name: jax.jit(run).lower(key).compile() for name, run in programs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.rounds + 1):
        for name, run in compiled.items():
            began = time.perf_counter()
            jax.block_until_ready(run(key))
            seconds[name].append(time.perf_counter() - began)
    print(f"{options.env}, {sizes[0]} copies, {sizes[1]} steps, on {jax.devices()[0].platform}")
    base = statistics.median(seconds["bare"][1:])
    for name in programs:
        median = statistics.median(seconds[name][1:])
        share = max(0.0, 1 - base / median)
        print(f"  {name:<22} {1e6 * median / sizes[1]:10.1f} us a step   {share:6.1%}")


if __name__ == "__main__":
    main()
