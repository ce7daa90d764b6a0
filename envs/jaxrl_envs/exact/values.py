"""Exact values and state distributions of policies in finite MDPs, by linear algebra.

A policy is `[S, A]`, rows of probabilities. Values are those of the continuing problem and ignore
the time limit (`stationary` and `rollout_states` respect it, since restarts change the state
distribution). Everything is NumPy float64. Equations follow Sutton and Barto 2018, chapters 3 and
4, with P(s'|s, a) restricted to transitions that do not terminate.
"""

from typing import NamedTuple

import numpy as np

from jaxrl_envs.exact.tabular import TabularMDP

Floats = np.ndarray


class Model(NamedTuple):
    """The MDP as float64 arrays.

    Attributes:
      survive: `[S, A, S]`, probability of moving to s' without terminating; rows sum to at most 1.
      reward: `[S, A]`.
      start: `[S]`.
    """

    survive: Floats
    reward: Floats
    start: Floats


def model(mdp: TabularMDP) -> Model:
    """The MDP in float64, with probabilities renormalised to undo float32 rounding."""
    leaves = (mdp.transition, mdp.reward, mdp.start, mdp.termination)
    transition, reward, start, termination = (np.asarray(x, np.float64) for x in leaves)
    transition = transition / transition.sum(-1, keepdims=True)
    return Model(transition * (1.0 - termination), reward, start / start.sum())


def softmax(logits: Floats) -> Floats:
    """The policy `[S, A]` with these logits."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def chain(mdp: TabularMDP, policy: Floats) -> tuple[Floats, Floats]:
    """The Markov chain of `policy`: surviving transitions `[S, S]` and expected rewards `[S]`."""
    survive, reward, _ = model(mdp)
    return np.einsum("sa,sat->st", policy, survive), (policy * reward).sum(-1)


# Values -------------------------------------------------------------------------------------------


def policy_value(mdp: TabularMDP, policy: Floats, discount: float) -> Floats:
    """V `[S]`, the solution of V = r + discount P V.

    The discount may be 1 if every state leads to termination.
    """
    survive, reward = chain(mdp, policy)
    return np.linalg.solve(np.eye(len(reward)) - discount * survive, reward)


def lookahead(mdp: TabularMDP, value: Floats, discount: float) -> Floats:
    """r(s, a) + discount sum_s' P(s'|s, a) value(s'), `[S, A]`, for any `value[S]`."""
    survive, reward, _ = model(mdp)
    return reward + discount * survive @ value


def action_value(mdp: TabularMDP, policy: Floats, discount: float) -> Floats:
    """Q `[S, A]`."""
    return lookahead(mdp, policy_value(mdp, policy, discount), discount)


def advantage(mdp: TabularMDP, policy: Floats, discount: float) -> Floats:
    """A = Q - V `[S, A]`; its mean under the policy is 0 in each state."""
    value = policy_value(mdp, policy, discount)
    return lookahead(mdp, value, discount) - value[:, None]


def gae_advantage(
    mdp: TabularMDP, policy: Floats, discount: float, gae_lambda: float, value: Floats
) -> Floats:
    """The expectation of untruncated GAE `[S, A]` with value estimates `value[S]`.

    Schulman et al. 2016, equation 16. It is exact if `value` is; otherwise it is biased for
    `gae_lambda` < 1 (at 1, only by a constant for each state).
    """
    error = lookahead(mdp, value, discount) - value[:, None]  # E[delta | s, a]
    survive, _ = chain(mdp, policy)
    decay = discount * gae_lambda
    future = np.linalg.solve(np.eye(len(value)) - decay * survive, (policy * error).sum(-1))
    return error + decay * model(mdp).survive @ future


def objective(mdp: TabularMDP, policy: Floats, discount: float) -> float:
    """J = start . V, the expected discounted return."""
    return float(model(mdp).start @ policy_value(mdp, policy, discount))


def optimal_action_value(mdp: TabularMDP, discount: float) -> Floats:
    """Q* `[S, A]` by policy iteration; V* is its maximum over actions."""
    policy = greedy(model(mdp).reward)
    while True:
        values = action_value(mdp, policy, discount)
        current = (policy * values).sum(-1)
        better = values.max(-1) > current + 1e-12 * (1.0 + np.abs(values).max())
        if not better.any():
            return values
        policy = np.where(better[:, None], greedy(values), policy)


def greedy(action_value: Floats) -> Floats:
    """The deterministic greedy policy `[S, A]`; ties go to the lowest index."""
    return np.eye(action_value.shape[1])[action_value.argmax(-1)]


def finite_horizon_values(
    mdp: TabularMDP, policy: Floats, discount: float, horizon: int
) -> tuple[Floats, Floats]:
    """Q `[H, S, A]` and V `[H, S]` at step h of an episode of `horizon` steps."""
    action_values = np.zeros((horizon, *policy.shape))
    values = np.zeros((horizon + 1, len(policy)))
    for h in reversed(range(horizon)):
        action_values[h] = lookahead(mdp, values[h + 1], discount)
        values[h] = (policy * action_values[h]).sum(-1)
    return action_values, values[:-1]


# States -------------------------------------------------------------------------------------------


def episode_states(mdp: TabularMDP, policy: Floats, num_steps: int) -> Floats:
    """`[T, S]`: probability that an episode reaches step t and is in s; no time limit."""
    survive, _ = chain(mdp, policy)
    states = np.zeros((num_steps, len(policy)))
    states[0] = model(mdp).start
    for t in range(1, num_steps):
        states[t] = states[t - 1] @ survive
    return states


def rollout_states(mdp: TabularMDP, policy: Floats, num_steps: int) -> Floats:
    """`[T, S]`: the distribution of s_t in a rollout with auto-reset.

    The mean over T is the state weighting of A2C, PPO and other methods that drop discount^t;
    `stationary` is its limit.
    """
    survive, _ = chain(mdp, policy)
    limit, start = mdp.spec.max_steps, model(mdp).start
    ages = np.zeros((limit or 1, len(start)))  # state distribution by age of the episode
    ages[0] = start
    states = np.zeros((num_steps, len(start)))
    for t in range(num_steps):
        states[t] = ages.sum(0)
        ages = ages @ survive
        if limit is not None:
            ages = np.concatenate([np.zeros_like(ages[:1]), ages[:-1]])
        ages[0] += (1.0 - ages.sum()) * start
    return states


def discounted_states(mdp: TabularMDP, policy: Floats, discount: float) -> Floats:
    """d(s) = (1 - discount) sum_t discount^t P(s_t = s), `[S]`.

    It sums to 1 without termination, and to less otherwise.
    """
    survive, _ = chain(mdp, policy)
    start = (1.0 - discount) * model(mdp).start
    return np.linalg.solve(np.eye(len(start)) - discount * survive.T, start)


def stationary(mdp: TabularMDP, policy: Floats) -> Floats:
    """The fraction of time that an endless rollout with auto-reset spends in each state, `[S]`."""
    limit = mdp.spec.max_steps
    if limit is not None:  # visits in one episode, by the renewal theorem
        visits = episode_states(mdp, policy, limit).sum(0)
        return visits / visits.sum()
    survive, _ = chain(mdp, policy)
    start = model(mdp).start
    step = survive + np.outer(1.0 - survive.sum(-1), start)
    step = (step + np.eye(len(start))) / 2  # staying half of the time removes periodicity
    for _ in range(60):
        step = step @ step
        step /= step.sum(-1, keepdims=True)
    return start @ step
