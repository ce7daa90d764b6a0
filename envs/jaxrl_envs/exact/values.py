"""What a policy is worth in a finite MDP, and which states it visits: exact, by linear algebra.

A policy is `[S, A]`, rows of probabilities. Values are those of the endless problem, in which a
time limit has no part (`stationary` and `rollout_states` do heed it: restarts move the states). All
is NumPy float64. Equations are those of Sutton and Barto 2018, chapters 3 and 4, with P(s'|s, a)
reduced to the steps that the episode survives.
"""

from typing import NamedTuple

import numpy as np

from jaxrl_envs.exact.tabular import TabularMDP

Floats = np.ndarray


class Model(NamedTuple):
    """The MDP as float64 arrays.

    Attributes:
      survive: `[S, A, S]`, the probability to come to s' and go on; rows sum to at most 1.
      reward: `[S, A]`.
      start: `[S]`.
    """

    survive: Floats
    reward: Floats
    start: Floats


def model(mdp: TabularMDP) -> Model:
    """The arrays that all truths are computed from; float32's rounding of sums to 1 is undone."""
    leaves = (mdp.transition, mdp.reward, mdp.start, mdp.termination)
    transition, reward, start, termination = (np.asarray(x, np.float64) for x in leaves)
    transition = transition / transition.sum(-1, keepdims=True)
    return Model(transition * (1.0 - termination), reward, start / start.sum())


def softmax(logits: Floats) -> Floats:
    """The policy `[S, A]` with these logits."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def chain(mdp: TabularMDP, policy: Floats) -> tuple[Floats, Floats]:
    """What `policy` makes of the MDP: surviving transitions `[S, S]` and expected rewards `[S]`."""
    survive, reward, _ = model(mdp)
    return np.einsum("sa,sat->st", policy, survive), (policy * reward).sum(-1)


# Values -------------------------------------------------------------------------------------------


def policy_value(mdp: TabularMDP, policy: Floats, discount: float) -> Floats:
    """V `[S]`, the solution of V = r + discount P V.

    A discount of 1 is allowed where every state leads to termination.
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
    """The expectation of GAE `[S, A]` with the estimates `value[S]`, never cut short.

    Schulman et al. 2016, equation 16. The truth where `value` is; else biased for `gae_lambda` < 1
    (at 1, only by a number for each state).
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
    """Q* `[S, A]`, by policy iteration; V* is its maximum over the actions."""
    policy = greedy(model(mdp).reward)
    while True:
        values = action_value(mdp, policy, discount)
        current = (policy * values).sum(-1)
        better = values.max(-1) > current + 1e-12 * (1.0 + np.abs(values).max())
        if not better.any():
            return values
        policy = np.where(better[:, None], greedy(values), policy)


def greedy(action_value: Floats) -> Floats:
    """The deterministic policy `[S, A]` that takes the best action; the lowest index of equals."""
    return np.eye(action_value.shape[1])[action_value.argmax(-1)]


def finite_horizon_values(
    mdp: TabularMDP, policy: Floats, discount: float, horizon: int
) -> tuple[Floats, Floats]:
    """Q `[H, S, A]` and V `[H, S]` after h steps, where nothing is paid after `horizon` of them."""
    action_values = np.zeros((horizon, *policy.shape))
    values = np.zeros((horizon + 1, len(policy)))
    for h in reversed(range(horizon)):
        action_values[h] = lookahead(mdp, values[h + 1], discount)
        values[h] = (policy * action_values[h]).sum(-1)
    return action_values, values[:-1]


# States -------------------------------------------------------------------------------------------


def episode_states(mdp: TabularMDP, policy: Floats, num_steps: int) -> Floats:
    """`[T, S]`: the probability that an episode has a step t and takes it from s; no time limit."""
    survive, _ = chain(mdp, policy)
    states = np.zeros((num_steps, len(policy)))
    states[0] = model(mdp).start
    for t in range(1, num_steps):
        states[t] = states[t - 1] @ survive
    return states


def rollout_states(mdp: TabularMDP, policy: Floats, num_steps: int) -> Floats:
    """`[T, S]`: the distribution of s_t in a rollout that begins with a reset and never stops.

    Episodes that terminate or meet the time limit start anew. The mean over T is how A2C, PPO and
    all that drop discount^t weight the states; `stationary` is its limit.
    """
    survive, _ = chain(mdp, policy)
    limit, start = mdp.spec.max_steps, model(mdp).start
    ages = np.zeros((limit or 1, len(start)))  # where the rollout is, by the age of its episode
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

    Sums to 1 where nothing terminates, else to less: what is missing is spent after the end.
    """
    survive, _ = chain(mdp, policy)
    start = (1.0 - discount) * model(mdp).start
    return np.linalg.solve(np.eye(len(start)) - discount * survive.T, start)


def stationary(mdp: TabularMDP, policy: Floats) -> Floats:
    """The share of time that an endless rollout, restarts included, spends in each state, `[S]`."""
    limit = mdp.spec.max_steps
    if limit is not None:  # the visits in one episode, by the renewal theorem
        visits = episode_states(mdp, policy, limit).sum(0)
        return visits / visits.sum()
    survive, _ = chain(mdp, policy)
    start = model(mdp).start
    step = survive + np.outer(1.0 - survive.sum(-1), start)
    step = (step + np.eye(len(start))) / 2  # to stay half of the time removes all periods
    for _ in range(60):
        step = step @ step
        step /= step.sum(-1, keepdims=True)
    return start @ step
