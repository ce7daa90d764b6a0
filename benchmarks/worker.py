"""Benchmarks one library in its own process: compiles a workload, then runs it on request.

It runs under the library's own interpreter and prints lines of JSON: first {"trace_seconds",
"compile_seconds", "env_steps", "parameters", "machine", "versions"}; then {"seconds"} for each line
"run SEED" on stdin, and {"peak_mib"} for "quit".
"""

import argparse
import importlib.metadata
import json
import os
import resource
import sys
import time
import types

from workloads import WORKLOADS, Workload


def jaxrl_setup(work: Workload):
    """The agent and the environment."""
    import jaxrl
    import jaxrl_envs

    sizes = {"num_envs": work.num_envs, "num_steps": work.num_steps}
    replay = {
        "num_updates": work.num_updates,
        "batch_size": work.batch_size,
        "capacity": work.capacity,
        "warmup": work.warmup,
        "hidden_sizes": (64, 64),
    }
    agent: jaxrl.Agent
    if work.algorithm == "sac":
        agent = jaxrl.agents.SAC(**sizes, **replay)
    elif work.algorithm == "td3":
        agent = jaxrl.agents.TD3(**sizes, **replay)
    elif work.algorithm == "dqn":
        agent = jaxrl.agents.DQN(**sizes, **replay, double="target", target_every=200)
    elif work.algorithm == "ppo":
        agent = jaxrl.agents.PPO(
            **sizes,
            learning_rate=jaxrl.schedules.Linear(2.5e-4),
            hidden_sizes=(work.width, work.width),
        )
    else:
        agent = jaxrl.agents.TRPO(
            **sizes,
            cg_iterations=15,
            cg_tolerance=0.0,
            critic_epochs=20,
            critic_minibatches=work.critic_minibatches,
        )
    return agent, jaxrl_envs.make(f"gymnax/{work.env}")


def jaxrl_agent(work: Workload):
    """`jaxrl.train` without evaluations."""
    import jaxrl

    agent, env = jaxrl_setup(work)

    def train(key):
        return jaxrl.train(agent, env, key, total_steps=work.steps_per_seed, num_evaluations=0)

    return train


def jaxrl_on_devices(work: Workload):
    """The programs of `jaxrl.fit(..., devices=n)` for all devices that there are.

    Returns:
      As `compiled_by_jax`.
    """
    import jax
    import jax.numpy as jnp

    from jaxrl.engine.training import Training
    from jaxrl.runs.members import Members
    from jaxrl.runs.programs import Programs

    def keys(seed: int):
        key = jax.random.key(seed)
        return key if work.num_seeds == 1 else jax.random.split(key, work.num_seeds)

    training = Training.create(*jaxrl_setup(work), total_steps=work.steps_per_seed)
    programs = Programs(Members.of(training, keys(0), devices=jax.device_count()))
    parameters = count_parameters(jax.eval_shape(training.init, jax.random.key(0)))

    def run(seed: int):
        key = programs.place(keys(seed))
        state = programs.init(programs.training, key)
        start, stop = jnp.int32(0), jnp.int32(training.num_iterations)
        jax.block_until_ready(programs.chunk(programs.training, state, key, start, stop))

    compiled = programs.compiled
    return run, parameters, compiled.trace_seconds, compiled.compile_seconds


def purejaxrl_ppo(work: Workload, path: str):
    """PureJaxRL's ppo.py from a checkout; it needs gymnax 0.0.9 and distrax."""
    for name in ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix"):
        stub = types.ModuleType(name)  # imported by its wrappers, not used here
        stub.envs = stub.EpisodeWrapper = stub.AutoResetWrapper = None
        sys.modules.setdefault(name, stub)
    sys.path.insert(0, f"{path}/purejaxrl")
    import ppo

    return ppo.make_train(
        {
            "LR": 2.5e-4,
            "NUM_ENVS": work.num_envs,
            "NUM_STEPS": work.num_steps,
            "TOTAL_TIMESTEPS": work.steps_per_seed,
            "UPDATE_EPOCHS": 4,
            "NUM_MINIBATCHES": 4,
            "GAMMA": 0.99,
            "GAE_LAMBDA": 0.95,
            "CLIP_EPS": 0.2,
            "ENT_COEF": 0.01,
            "VF_COEF": 0.5,
            "MAX_GRAD_NORM": 0.5,
            "ACTIVATION": "tanh",
            "ENV_NAME": "CartPole-v1",
            "ANNEAL_LR": True,
            "DEBUG": False,
        }
    )


def rejax_ppo(work: Workload):
    """rejax's PPO without evaluations (it cannot anneal, and clips element-wise)."""
    import jax.numpy as jnp
    from rejax import PPO

    algorithm = PPO.create(
        env="CartPole-v1",
        num_envs=work.num_envs,
        num_steps=work.num_steps,
        total_timesteps=work.steps_per_seed,
        eval_freq=work.steps_per_seed,
        skip_initial_evaluation=True,
        num_epochs=4,
        num_minibatches=4,
        learning_rate=2.5e-4,
        max_grad_norm=0.5,
        gamma=0.99,
        gae_lambda=0.95,
        clip_eps=0.2,
        ent_coef=0.01,
        vf_coef=0.5,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (work.width, work.width)},
    ).replace(eval_callback=lambda algorithm, state, key: jnp.float32(0.0))
    return algorithm.train


def rejax_off_policy(work: Workload):
    """rejax's DQN, SAC or TD3 without evaluations."""
    import jax.numpy as jnp
    import rejax

    common = {
        "env": work.env,
        "num_envs": work.num_envs,
        "total_timesteps": work.steps_per_seed,
        "eval_freq": work.steps_per_seed,
        "skip_initial_evaluation": True,
        "num_epochs": work.num_updates,
        "batch_size": work.batch_size,
        "buffer_size": work.capacity,
        "fill_buffer": work.warmup,
        "gamma": 0.99,
    }
    kind = {"dqn": rejax.DQN, "sac": rejax.SAC, "td3": rejax.TD3}[work.algorithm]
    own = {"agent_kwargs": {"activation": "relu"}} if work.algorithm == "dqn" else {}
    algorithm = kind.create(**common, **own)
    return algorithm.replace(eval_callback=lambda algorithm, state, key: jnp.float32(0.0)).train


def sb3_trpo(work: Workload):
    """sb3-contrib's TRPO on Gymnasium: a function of the seed, and the number of parameters."""
    from sb3_contrib import TRPO
    from stable_baselines3.common.env_util import make_vec_env

    num_envs, num_steps = work.sb3_sizes or (work.num_envs, work.num_steps)

    def build(seed: int):
        return TRPO(
            "MlpPolicy",
            make_vec_env("CartPole-v1", num_envs, seed=seed),
            n_steps=num_steps,
            batch_size=num_envs * num_steps // work.critic_minibatches,
            cg_max_steps=15,
            cg_damping=0.1,
            n_critic_updates=20,
            gae_lambda=0.97,
            seed=seed,
            device="cpu",
        )

    parameters = sum(p.numel() for p in build(0).policy.parameters())
    return lambda seed: build(seed).learn(work.env_steps), parameters


def count_parameters(out) -> int:
    """The number of trained values, which is equal for all libraries if the networks are."""
    import jax

    def is_weight(path, leaf):
        names = [str(getattr(k, "name", getattr(k, "key", ""))) for k in path]
        learns = "params" in names or "log_temperature" in names  # a parameter in rejax, too
        return learns and not {"opt_state", "optimizer"} & set(names)

    leaves = jax.tree_util.tree_leaves_with_path(out)
    return sum(leaf.size for path, leaf in leaves if is_weight(path, leaf))


def compiled_by_jax(train, work: Workload, make_key):
    """Compiles a program.

    Returns:
      A function of the seed, the number of parameters, and tracing and compilation time.
    """
    import jax

    def keys(seed: int):
        if work.num_seeds == 1:
            return make_key(seed)
        return jax.random.split(make_key(seed), work.num_seeds)

    began = time.perf_counter()
    lowered = jax.jit(train if work.num_seeds == 1 else jax.vmap(train)).lower(keys(0))
    traced = time.perf_counter()
    compiled = lowered.compile()
    ready = time.perf_counter()
    parameters = count_parameters(jax.eval_shape(train, make_key(0)))
    return (
        lambda seed: jax.block_until_ready(compiled(keys(seed))),
        parameters,
        traced - began,
        ready - traced,
    )


def machine() -> str:
    """What jax runs on: the kind of accelerator, or the number of cores."""
    import jax

    device = jax.devices()[0]
    cpu = f"{len(os.sched_getaffinity(0))} CPU cores"
    return cpu if device.platform == "cpu" else str(device.device_kind)


def main() -> None:
    parser = argparse.ArgumentParser()
    own = ("jaxrl", "jaxrl-devices", "jaxrl-one-thread")
    parser.add_argument("program", choices=(*own, "purejaxrl", "rejax", "sb3"))
    parser.add_argument("workload", help="a name of WORKLOADS, or the fields of one as JSON")
    parser.add_argument("--path", default="")
    options = parser.parse_args()
    work = WORKLOADS.get(options.workload) or Workload(**json.loads(options.workload))
    if options.program == "sb3":
        run, parameters = sb3_trpo(work)
        trace_seconds = compile_seconds = 0.0
    elif options.program == "jaxrl-devices":
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(len(os.sched_getaffinity(0))))
        run, parameters, trace_seconds, compile_seconds = jaxrl_on_devices(work)
    else:
        if options.program == "jaxrl-one-thread":
            os.environ.setdefault("NPROC", "1")
        if options.program in own:
            train = jaxrl_agent(work)
        elif options.program == "rejax":
            train = rejax_ppo(work) if work.algorithm == "ppo" else rejax_off_policy(work)
        else:
            train = purejaxrl_ppo(work, options.path)
        import jax

        make_key = jax.random.key if options.program in own else jax.random.PRNGKey
        run, parameters, trace_seconds, compile_seconds = compiled_by_jax(train, work, make_key)
    packages = ("jaxrl", "jax", "gymnax", "rejax", "sb3_contrib", "torch")
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    say(
        trace_seconds=trace_seconds,
        compile_seconds=compile_seconds,
        env_steps=work.env_steps,
        parameters=parameters,
        machine="CPU" if options.program == "sb3" else machine(),
        versions={name: found[name] for name in packages if name in found},
    )
    for line in sys.stdin:
        command, _, seed = line.partition(" ")
        if command == "run":
            began = time.perf_counter()
            run(int(seed))
            say(seconds=time.perf_counter() - began)
        else:
            say(peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return


def say(**values) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
