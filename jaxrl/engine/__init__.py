"""The engine: rollout, learners, evaluation, training and sweeps. It knows no algorithm."""
