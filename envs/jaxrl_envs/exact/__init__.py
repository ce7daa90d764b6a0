"""Environments with exact solutions, to test estimators and agents against.

- `tabular`: any finite MDP; exact values and gradients by linear solves are in `values` and
  `gradients`.
- `garnet`: a random finite MDP.
- `corridor`: an MDP with a time limit, and the values learned if truncation counts as termination.
- `lqr`: linear dynamics and quadratic costs; Riccati and Lyapunov equations.
- `rock_paper_scissors`: an opponent that exploits habits; a sum over all counts of past moves.
- `bandit`: one step; gradient, variance and optimal baselines of REINFORCE.
- `arm`: a planar arm with targets in reach; inverse kinematics, and the best point of a grid.
- `continuous_bandit`: one step with a quadratic cost of the action; gradient of a normal policy.

Environments use JAX in float32. Exact solutions are NumPy functions in float64, of one environment
(not a batch) and a policy given as an array.
"""
