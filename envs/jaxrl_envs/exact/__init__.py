"""Environments whose truth is known, and that truth: the oracles that estimators are judged by.

- `tabular`: any finite MDP; its truth is in `values` and `gradients`, by linear solves.
- `garnet`: a random one.
- `corridor`: one with a time limit, and what is learned by taking the limit for the end.
- `lqr`: linear dynamics and quadratic costs; Riccati and Lyapunov equations.
- `rock_paper_scissors`: an opponent who answers habits; the sum over all counts of past moves.
- `bandit`: one step; gradient, variance and best baselines of REINFORCE.

The environments are JAX, float32. The truths are NumPy, float64: functions of an environment (one,
not a batch of them) and of a policy, written as an array.
"""
