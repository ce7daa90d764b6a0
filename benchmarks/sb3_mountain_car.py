"""Row S7-dqn in Stable-Baselines3: the spread of its seeds around the single published run.

    PYTHON benchmarks/sb3_mountain_car.py --seeds 6

PYTHON is an interpreter with `pip install stable-baselines3`. The settings are rl-zoo's, as in
jaxrl's preset; the score is the mean return of 100 greedy episodes at the end.
"""

import argparse
import statistics


def score(seed: int) -> float:
    """Trains one seed (a few minutes on one core) and plays 100 episodes."""
    import gymnasium
    from stable_baselines3 import DQN
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    agent = DQN(
        "MlpPolicy",
        gymnasium.make("MountainCar-v0"),
        learning_rate=4e-3,
        batch_size=128,
        buffer_size=10_000,
        learning_starts=1_000,
        gamma=0.98,
        target_update_interval=600,
        train_freq=16,
        gradient_steps=8,
        exploration_fraction=0.2,
        exploration_final_eps=0.07,
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
        device="cpu",
    )
    agent.learn(120_000)
    evaluation = Monitor(gymnasium.make("MountainCar-v0"))
    return float(evaluate_policy(agent, evaluation, n_eval_episodes=100)[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=6, metavar="N", help="0 to N - 1 (6)")
    scores = []
    for seed in range(parser.parse_args().seeds):
        scores.append(score(seed))
        print(f"seed {seed}: {scores[-1]:.1f}", flush=True)
    print(f"mean {statistics.mean(scores):.1f}, deviation {statistics.pstdev(scores):.1f}")


if __name__ == "__main__":
    main()
