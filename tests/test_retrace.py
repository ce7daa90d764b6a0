"""Retrace and Q(lambda), against rlax's published numbers and a reference loop."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.estimators import lambda_returns, retrace

NEVER = np.zeros((3, 2), bool)


def test_q_lambda_matches_rlax():
    """Its targets are lambda-returns with the maximum action value of the next observation."""
    q = np.array([[[1.1, 2.1], [-1.1, 1.1], [3.1, -3.1]], [[2.1, 3.1], [-1.1, 0.1], [-2.1, -1.1]]])
    action = np.array([[0, 1, 0], [1, 0, 0]])
    discount = np.array([[0.0, 0.89, 0.85], [0.88, 1.0, 0.83]])
    reward = np.array([[-1.3, -1.3, 2.3], [1.3, 5.3, -3.3]])
    following = np.array(
        [[[1.2, 2.2], [-1.2, 0.2], [2.2, -1.2]], [[4.2, 2.2], [1.2, 1.2], [-1.2, -2.2]]]
    )
    taken = np.take_along_axis(q, action[..., None], -1)[..., 0]
    target = lambda_returns(reward.T, following.max(-1).T, NEVER, NEVER, discount.T, 0.75)
    expected = [[-2.4, 0.427975, 1.07], [0.69348, 3.478, -2.196]]
    np.testing.assert_allclose(np.asarray(target).T - taken, expected, rtol=1e-4)


def test_retrace_matches_rlax():
    """Half the squared error; all bootstrap values come from the target network."""
    q = np.array([[1.1, 1.1, 3.1], [3.1, 9.5, -2.1]])
    target_q = np.array(
        [[[1.2, 2.2], [-1.2, 0.2], [2.2, -1.2], [-2.25, -6.0]],
         [[4.2, 2.2], [1.2, 1.2], [-1.2, -2.2], [1.5, 1.0]]]
    )  # fmt: skip
    action = np.array([[0, 1, 0, 0], [1, 0, 0, 1]])
    reward = np.array([[-1.3, -1.3, 2.3], [1.3, 5.3, -3.3]])
    discount = np.array([[0.0, 0.89, 0.85], [0.88, 1.0, 0.83]])
    target_policy = np.array(
        [[[0.5, 0.5], [0.2, 0.8], [0.6, 0.4], [0.9, 0.1]],
         [[0.1, 0.9], [1.0, 0.0], [0.3, 0.7], [0.7, 0.3]]]
    )  # fmt: skip
    behaviour = np.array([[0.5, 0.1, 0.9, 0.3], [0.4, 0.6, 1.0, 0.9]])
    taken = np.take_along_axis(target_q, action[..., None], -1)[..., 0]
    ratio = np.take_along_axis(target_policy, action[..., None], -1)[..., 0] / behaviour
    expected_value = (target_policy * target_q).sum(-1)
    found = retrace(
        reward.T, taken[:, :-1].T, expected_value[:, 1:].T, NEVER, NEVER,
        np.log(ratio[:, :-1]).T, discount.T, 0.9,
    )  # fmt: skip
    loss = 0.5 * np.square(np.asarray(found).T - q)
    expected = [[2.8800001, 3.8934109, 4.5942383], [0.31121615, 20.253206, 0.0031601219]]
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_retrace_matches_a_reference_loop(seed):
    rng = np.random.default_rng(seed)
    shape = (12, 3)
    reward, q, value, log_ratio = rng.standard_normal((4, *shape))
    terminated, truncated = rng.random((2, *shape)) < 0.2
    discount, lambda_ = 0.9, 0.8
    expected = np.zeros(shape)
    for n in range(shape[1]):
        for t in reversed(range(shape[0])):
            v = 0.0 if terminated[t, n] else value[t, n]
            g = reward[t, n] + discount * v
            last = t == shape[0] - 1 or terminated[t, n] or truncated[t, n]
            if not last:
                c = lambda_ * min(1.0, np.exp(log_ratio[t + 1, n]))
                g += discount * c * (expected[t + 1, n] - q[t + 1, n])
            expected[t, n] = g
    found = retrace(reward, q, value, terminated, truncated, log_ratio, discount, lambda_)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_on_policy_retrace_at_lambda_one_is_the_return():
    """For a deterministic policy, ratio 1 and V(x) = Q(x, a): r + ... + V at the end."""
    reward = jnp.array([1.0, 2.0, 3.0])
    q = jnp.array([5.0, -1.0, 2.0])
    value = jnp.array([-1.0, 2.0, 7.0])
    never, zero = jnp.zeros(3, bool), jnp.zeros(3)
    found = retrace(reward, q, value, never, never, zero, 0.5)
    np.testing.assert_allclose(found, [1 + 1 + 0.75 + 0.875, 2 + 1.5 + 1.75, 3 + 3.5])
