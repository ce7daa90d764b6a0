"""Exact policy gradients and trust-region bounds of finite MDPs.

Gradients are with respect to the logits `[S, A]` of a tabular softmax policy. For other
parameterisations use `through`: every policy is the softmax of its log-probabilities.
"""

import numpy as np

from jaxrl_envs.exact.tabular import TabularMDP
from jaxrl_envs.exact.values import (
    Floats,
    advantage,
    discounted_states,
    episode_states,
    finite_horizon_values,
    objective,
)


def policy_gradient(
    mdp: TabularMDP, policy: Floats, discount: float, state_weights: Floats | None = None
) -> Floats:
    """sum_s w(s) sum_a grad pi(a|s) Q(s, a), `[S, A]`; Sutton et al. 2000, theorem 1.

    Args:
      mdp: the environment.
      policy: `[S, A]`.
      discount: discount of the action values.
      state_weights: w `[S]`; None for w(s) = sum_t discount^t P(s_t = s), which gives the gradient
        of J. The mean of `rollout_states`, or `stationary`, gives what actor-critic methods
        estimate when they drop discount^t, in general not the gradient of any function (Nota and
        Thomas 2020, "Is the policy gradient a gradient?").
    """
    if state_weights is None:
        state_weights = discounted_states(mdp, policy, discount) / (1.0 - discount)
    return state_weights[:, None] * policy * advantage(mdp, policy, discount)


def finite_horizon_gradient(
    mdp: TabularMDP,
    policy: Floats,
    discount: float,
    horizon: int,
    state_discount: float | None = None,
) -> Floats:
    """The gradient `[S, A]` of E[sum_{t < horizon} discount^t r_t] for a time-invariant policy.

    `state_discount` is the base of the state weights: None for `discount`, and 1 for the
    expectation of estimators that drop discount^t.
    """
    base = discount if state_discount is None else state_discount
    action_values, values = finite_horizon_values(mdp, policy, discount, horizon)
    weights = base ** np.arange(horizon)[:, None] * episode_states(mdp, policy, horizon)
    return np.einsum("hs,sa,hsa->sa", weights, policy, action_values - values[..., None])


def through(gradient: Floats, jacobian: Floats) -> Floats:
    """The chain rule: converts a gradient `[S, A]` to one `[K]` with respect to other parameters.

    Args:
      gradient: gradient with respect to the logits.
      jacobian: `[S, A, K]`, Jacobian of the logits or, equivalently, of the log-probabilities: the
        features phi(s, a) of a linear softmax policy, or any score function.
    """
    return np.einsum("sa,sak->k", gradient, jacobian)


def fisher(policy: Floats, state_weights: Floats) -> Floats:
    """The Fisher information of the logits, as diagonal blocks `[S, A, A]`, one per state.

    w(s) (diag(pi) - pi pi^T).
    """
    diagonal = policy[:, :, None] * np.eye(policy.shape[1])
    return state_weights[:, None, None] * (diagonal - policy[:, :, None] * policy[:, None, :])


def natural_gradient(mdp: TabularMDP, policy: Floats, discount: float) -> Floats:
    """F^+ grad J `[S, A]`, F under `discounted_states`; Kakade 2002, "A natural policy gradient".

    It is A(s, a) / (1 - discount) up to a constant for each state, which does not affect a softmax:
    the pseudo-inverse makes the mean over actions 0. Unvisited states get 0.
    """
    natural = advantage(mdp, policy, discount) / (1.0 - discount)
    visited = discounted_states(mdp, policy, discount) > 0
    return np.where(visited[:, None], natural - natural.mean(-1, keepdims=True), 0.0)


# Two policies -------------------------------------------------------------------------------------


def expected_advantage(
    mdp: TabularMDP, states: Floats, new: Floats, old: Floats, discount: float
) -> float:
    """E_{s ~ states, a ~ new}[A_old(s, a)], with the state distribution `states[S]`."""
    return float(states @ (new * advantage(mdp, old, discount)).sum(-1))


def performance_difference(mdp: TabularMDP, new: Floats, old: Floats, discount: float) -> float:
    """J(new) - J(old) = E_{s ~ d_new, a ~ new}[A_old] / (1 - discount).

    Kakade and Langford 2002, lemma 6.1.
    """
    states = discounted_states(mdp, new, discount)
    return expected_advantage(mdp, states, new, old, discount) / (1.0 - discount)


def surrogate(mdp: TabularMDP, new: Floats, old: Floats, discount: float) -> float:
    """L_old(new) = J(old) + E_{s ~ d_old, a ~ new}[A_old] / (1 - discount).

    Schulman et al. 2015, "Trust region policy optimization", equation 3.
    """
    states = discounted_states(mdp, old, discount)
    gain = expected_advantage(mdp, states, new, old, discount) / (1.0 - discount)
    return objective(mdp, old, discount) + gain


def max_total_variation(new: Floats, old: Floats) -> float:
    """max_s sum_a |new - old| / 2."""
    return float(np.abs(new - old).sum(-1).max() / 2)


def max_kl(old: Floats, new: Floats) -> float:
    """max_s KL(old(.|s) || new(.|s)); `new` must be positive where `old` is."""
    ratio = np.divide(old, new, out=np.ones_like(old), where=old > 0)
    return float((old * np.log(ratio)).sum(-1).max())


def trust_region_bound(
    mdp: TabularMDP, new: Floats, old: Floats, discount: float, *, kl: bool = False
) -> float:
    """A lower bound of J(new): L_old(new) - 4 epsilon discount / (1 - discount)^2 alpha^2.

    Schulman et al. 2015, theorem 1, where epsilon = max |A_old| and alpha is the maximum total
    variation distance; with `kl`, equation 9, with the maximum KL(old || new) instead of alpha^2.
    """
    epsilon = np.abs(advantage(mdp, old, discount)).max()
    distance = max_kl(old, new) if kl else max_total_variation(new, old) ** 2
    penalty = 4.0 * epsilon * discount / (1.0 - discount) ** 2 * distance
    return surrogate(mdp, new, old, discount) - float(penalty)
