"""The engine: rollout, learners, evaluation, training and sweeps, for any algorithm."""
