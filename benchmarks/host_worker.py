"""Benchmarks one library on an environment that steps outside JAX, in its own process.

It prints and understands the same lines as worker.py. PPO has 8 x 128 steps, 4 epochs of 4
minibatches and Adam; on Atari the network is that of Mnih et al. (2015), shared by actor and
critic, else two tanh layers of 64 units for each.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time

NUM_ENVS, NUM_STEPS = 8, 128


def say(**values) -> None:
    print(json.dumps(values), flush=True)


def jaxrl_ppo(env_id: str, iterations: int, lag: int):
    """PPO by the programs of `jaxrl.fit`, without evaluations: a function of the seed."""
    import jax

    import jaxrl
    import jaxrl_envs
    from jaxrl.engine.training import Training
    from jaxrl.runs.host_programs import HostPrograms
    from jaxrl.runs.members import Members
    from jaxrl.runs.run_options import RunOptions

    env = jaxrl_envs.make(env_id)
    is_atari = len(jax.tree.leaves(env.spec.observation)[0].shape) == 3
    network = {"shared_torso": True, "hidden_sizes": (512,), "activation": "relu"}
    agent = jaxrl.agents.PPO(
        num_envs=NUM_ENVS,
        num_steps=NUM_STEPS,
        learning_rate=jaxrl.schedules.Linear(2.5e-4),
        **(network if is_atari else {}),
    )
    steps = iterations * NUM_ENVS * NUM_STEPS
    training = Training.create(agent, env, total_steps=steps, num_eval_episodes=1)
    members = Members.of(training, jax.random.key(0))
    programs = HostPrograms(members, RunOptions(actor_lag=lag))

    def run(seed: int):
        state = programs.init(programs.training, programs.key)
        jax.block_until_ready(
            programs.chunk(programs.training, state, programs.key, 0, iterations)[0].agent
        )
        programs.close()
        programs.actors = None
        if programs.fault:
            raise programs.fault

    return run


def sb3_ppo(env_id: str, iterations: int):
    """Stable-Baselines3's PPO."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import VecFrameStack

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    is_atari = env_id.startswith("envpool/")

    def run(seed: int):
        if is_atari:
            import ale_py  # noqa: F401  (registers the games)

            game = env_id.partition("/")[2].replace("-v5", "NoFrameskip-v4")
            env = VecFrameStack(make_atari_env(game, n_envs=NUM_ENVS, seed=seed), n_stack=4)
        else:
            env = make_vec_env(env_id.partition("/")[2], n_envs=NUM_ENVS, seed=seed)
        model = PPO(
            "CnnPolicy" if is_atari else "MlpPolicy",
            env,
            n_steps=NUM_STEPS,
            batch_size=NUM_ENVS * NUM_STEPS // 4,
            n_epochs=4,
            learning_rate=lambda left: 2.5e-4 * left,
            ent_coef=0.01,
            device="cpu",
        )
        model.learn(iterations * NUM_ENVS * NUM_STEPS)
        env.close()

    return run


def cleanrl_ppo(env_id: str, iterations: int, path: str):
    """CleanRL's script from a checkout; returns the seconds that it counts itself."""
    family, _, name = env_id.partition("/")
    script = "ppo_atari_envpool.py" if family == "envpool" else "ppo.py"
    steps = iterations * NUM_ENVS * NUM_STEPS

    def run(seed: int) -> float:
        command = [sys.executable, f"{path}/cleanrl/{script}", "--env-id", name, "--no-cuda"]
        command += ["--total-timesteps", str(steps), "--num-envs", str(NUM_ENVS)]
        command += ["--num-steps", str(NUM_STEPS), "--seed", str(seed)]
        with tempfile.TemporaryDirectory() as there:
            done = subprocess.run(command, cwd=there, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return steps / float(re.findall(r"SPS: (\d+)", done.stdout)[-1])

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", choices=("jaxrl", "jaxrl-lag", "sb3", "cleanrl"))
    parser.add_argument("workload", help="[id, iterations] as JSON")
    parser.add_argument("--path", default="")
    options = parser.parse_args()
    env_id, iterations = json.loads(options.workload)
    began = time.perf_counter()
    if options.program == "sb3":
        run = sb3_ppo(env_id, iterations)
    elif options.program == "cleanrl":
        run = cleanrl_ppo(env_id, iterations, options.path)
    else:
        run = jaxrl_ppo(env_id, iterations, lag=int(options.program == "jaxrl-lag"))
    steps = iterations * NUM_ENVS * NUM_STEPS
    say(env_steps=steps, compile_seconds=time.perf_counter() - began)
    for line in sys.stdin:
        command, _, seed = line.partition(" ")
        if command == "run":
            began = time.perf_counter()
            counted = run(int(seed))
            say(seconds=time.perf_counter() - began if counted is None else counted)
        else:
            say(peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return


if __name__ == "__main__":
    main()
