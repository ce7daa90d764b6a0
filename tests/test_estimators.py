"""Estimators: golden numbers, reference loops, identities and invariances."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.jaxprs import primitives
from helpers.reference import estimators as reference

from jaxrl import estimators

NONE = np.zeros((5,), bool)
FOREVER = np.zeros((5, 2), bool)
"""No episode of the golden sequences ends."""

# rlax, multistep_test.py: two sequences, here time-major.
RLAX_REWARDS = np.array([[1.0, 0.0, -1.0, 0.0, 1.0], [0.5, 0.8, -0.7, 0.0, 2.1]], np.float32).T
RLAX_DISCOUNTS = np.array([[0.5, 0.9, 1.0, 0.5, 0.8], [0.9, 0.5, 0.3, 0.8, 0.7]], np.float32).T
RLAX_NEXT_VALUES = np.array([[3.0, 1, 5, -5, 3], [-1.7, 1.2, 2.3, 2.2, 2.7]], np.float32).T

GAE_REWARDS = np.array([[0.0, 0, 1, 0, -0.5], [0.0, 0, 0, 0, 1]], np.float32).T
GAE_VALUES = np.array([[1.0, 4, -3, -2, -1, -1], [-3.0, -2, -1, 0, 5, -1]], np.float32).T
GAE_DISCOUNTS = np.array([[0.99] * 5, [0.9, 0.9, 0.9, 0.0, 0.9]], np.float32).T


def problem(seed, shape, *, endings=0.3):
    """Random arguments for every estimator; masks overlap, next values are NaN if terminated."""
    rng = np.random.default_rng(seed)

    def normal():
        return rng.normal(size=shape).astype(np.float32)

    terminated, truncated = rng.random((2, *shape)) < endings / 2
    return SimpleNamespace(
        rewards=normal(),
        values=normal(),
        next_values=np.where(terminated, np.nan, normal()).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        log_ratios=normal(),
    )


def ends(p):
    return p.next_values, p.terminated, p.truncated


CASES = {
    "discounted_returns": lambda e, p, discount, lambda_: e.discounted_returns(
        p.rewards, *ends(p), discount
    ),
    "one_step_returns": lambda e, p, discount, lambda_: e.n_step_returns(
        p.rewards, *ends(p), discount, n=1
    ),
    "n_step_returns": lambda e, p, discount, lambda_: e.n_step_returns(
        p.rewards, *ends(p), discount, n=3
    ),
    "lambda_returns": lambda e, p, discount, lambda_: e.lambda_returns(
        p.rewards, *ends(p), discount, lambda_
    ),
    "gae": lambda e, p, discount, lambda_: e.gae(p.rewards, p.values, *ends(p), discount, lambda_),
    "vtrace": lambda e, p, discount, lambda_: e.vtrace(
        p.rewards,
        p.values,
        *ends(p),
        p.log_ratios,
        discount,
        lambda_,
        clip_rho=1.3,
        clip_c=0.9,
        clip_pg_rho=1.1,
    ),
}
every_estimator = pytest.mark.parametrize("name", CASES)


def close(actual, expected, tolerance=1e-5):
    """Compares arrays, or tuples of them (`VTrace` is one)."""
    pair = [x if isinstance(x, tuple) else (x,) for x in (actual, expected)]
    for a, b in zip(*pair, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


class TestGoldenNumbers:
    @pytest.mark.parametrize(
        ("lambda_", "expected", "tolerance"),
        [
            (1.0, [[-1.45118, -4.4557, 2.5396, 0.5249, -0.49], [3.0, 2.0, 1.0, 0.0, -4.9]], 1e-4),
            (
                0.7,
                [[-0.676979, -5.248167, 2.4846, 0.6704, -0.49], [2.2899, 1.73, 1.0, 0.0, -4.9]],
                1e-4,
            ),
            (0.4, [[0.56731, -6.042, 2.3431, 0.815, -0.49], [1.725, 1.46, 1.0, 0.0, -4.9]], 1e-3),
        ],
    )
    def test_gae_matches_rlax_with_a_zero_discount(self, lambda_, expected, tolerance):
        """rlax gives the numbers for lambda 0.4 to three digits."""
        actual = estimators.gae(
            GAE_REWARDS, GAE_VALUES[:-1], GAE_VALUES[1:], FOREVER, FOREVER, GAE_DISCOUNTS, lambda_
        )
        close(actual, np.array(expected).T, tolerance)

    def test_gae_of_constant_rewards(self):
        zeros, none = np.zeros(4, np.float32), np.zeros(4, bool)
        actual = estimators.gae(np.ones(4, np.float32), zeros, zeros, none, none, 0.9, 0.5)
        close(actual, [1.743625, 1.6525, 1.45, 1.0])

    def test_gae_of_one_step_is_the_td_error_of_rlax(self):
        """For discounts of 0, 0.5 and 1, and next values of 0, 1 and 2."""
        ones, never = np.ones((1, 9), np.float32), np.zeros((1, 9), bool)
        discounts, next_values = np.meshgrid([0, 0.5, 1], [0, 1, 2], indexing="ij")
        actual = estimators.gae(
            -ones, ones, next_values.reshape(1, 9), never, never, discounts.reshape(1, 9), 0.0
        )
        close(actual, [[-2, -2, -2, -2, -1.5, -1, -2, -1, 0]])

    def test_lambda_returns_match_rlax(self):
        actual = estimators.lambda_returns(
            RLAX_REWARDS, RLAX_NEXT_VALUES, FOREVER, FOREVER, RLAX_DISCOUNTS, 0.75
        )
        expected = [
            [1.6460547, 0.72281253, 0.7375001, 0.6500001, 3.4],
            [0.7866317, 0.9913063, 0.1101501, 2.834, 3.99],
        ]
        close(actual, np.array(expected).T)

    def test_discounted_returns_match_rlax(self):
        actual = estimators.discounted_returns(
            RLAX_REWARDS, RLAX_NEXT_VALUES, FOREVER, FOREVER, RLAX_DISCOUNTS
        )
        expected = [[1.315, 0.63, 0.7, 1.7, 3.4], [1.33592, 0.9288, 0.2576, 3.192, 3.99]]
        close(actual, np.array(expected).T)

    @pytest.mark.parametrize(
        ("n", "expected"),
        [
            (3, [[2.8, -3.15, 0.7, 1.7, 3.4], [1.2155, 0.714, 0.2576, 3.192, 3.99]]),
            (5, [[1.315, 0.63, 0.7, 1.7, 3.4], [1.33592, 0.9288, 0.2576, 3.192, 3.99]]),
            (7, [[1.315, 0.63, 0.7, 1.7, 3.4], [1.33592, 0.9288, 0.2576, 3.192, 3.99]]),
        ],
    )
    def test_n_step_returns_match_rlax(self, n, expected):
        actual = estimators.n_step_returns(
            RLAX_REWARDS, RLAX_NEXT_VALUES, FOREVER, FOREVER, RLAX_DISCOUNTS, n
        )
        close(actual, np.array(expected).T)

    def test_vtrace_matches_rlax(self):
        """rlax's test defines a clip_pg_rho of 5 but never passes it: the numbers are for 1."""
        behaviour = np.array(
            [
                [[8.9, 0.7], [5.0, 1.0], [0.6, 0.1], [-0.9, -0.1]],
                [[0.3, -5.0], [1.0, -8.0], [0.3, 1.7], [4.7, 3.3]],
            ],
            np.float32,
        )
        target = np.array(
            [
                [[0.4, 0.5], [9.2, 8.8], [0.7, 4.4], [7.9, 1.4]],
                [[1.0, 0.9], [1.0, -1.0], [-4.3, 8.7], [0.8, 0.3]],
            ],
            np.float32,
        )
        actions = np.array([[0, 1, 0, 0], [1, 0, 0, 1]])
        log_ratios = jax.nn.log_softmax(target) - jax.nn.log_softmax(behaviour)
        log_ratios = jnp.take_along_axis(log_ratios, actions[..., None], axis=-1)[..., 0].T
        rewards = np.array([[-1.3, -1.3, 2.3, 42.0], [1.3, 5.3, -3.3, -5.0]], np.float32).T
        discounts = np.array([[0.0, 0.89, 0.85, 0.99], [0.88, 1.0, 0.83, 0.95]], np.float32).T
        values = np.array([[2.1, 1.1, -3.1, 0.0], [3.1, 0.1, -1.1, 7.4]], np.float32).T
        next_values = np.concatenate([values[1:], np.array([[8.4, -1.2]], np.float32)])
        never = np.zeros((4, 2), bool)
        actual = estimators.vtrace(
            rewards, values, next_values, never, never, log_ratios, discounts
        )
        expected = np.array(
            [
                [-1.6155143, -3.4973226, 1.8670533, 50.316002],
                [1.4662437, 3.6116405, -8.3327293e-5, -13.54],
            ]
        ).T
        close(actual.errors, expected, 2e-5)
        close(actual.advantages, expected, 2e-5)
        close(actual.targets, values + expected, 2e-5)


class TestDefinitions:
    @every_estimator
    @pytest.mark.parametrize(
        ("seed", "shape", "endings", "discount", "lambda_"),
        [
            (0, (1,), 0.0, 0.9, 0.8),
            (1, (1,), 1.5, 0.9, 0.8),
            (2, (12,), 0.3, 0.99, 0.95),
            (3, (12,), 0.0, 1.0, 1.0),
            (4, (9, 4), 0.3, 0.9, 0.5),
            (5, (9, 4), 1.0, 0.9, 0.9),
            (6, (6, 2, 3), 0.5, 0.7, 0.0),
            (7, (7, 7), 0.2, 0.0, 1.0),
            (8, (1, 3), 0.5, 0.95, 0.3),
        ],
    )
    def test_matches_the_sum_over_future_steps(self, name, seed, shape, endings, discount, lambda_):
        p = problem(seed, shape, endings=endings)
        actual = jax.jit(lambda: CASES[name](estimators, p, discount, lambda_))()
        expected = CASES[name](reference, p, discount, lambda_)
        close(actual, expected)
        for x in jax.tree.leaves(actual):
            assert x.dtype == jnp.float32
            assert not x.weak_type

    @every_estimator
    @pytest.mark.parametrize("shape", [(12,), (9, 4)])
    def test_discount_and_lambda_may_differ_by_step(self, name, shape):
        p = problem(20, shape)
        rng = np.random.default_rng(21)
        discount, lambda_ = rng.random((2, *shape)).astype(np.float32)
        actual = CASES[name](estimators, p, discount, lambda_)
        expected = CASES[name](reference, p, discount, lambda_)
        close(actual, expected)

    @every_estimator
    def test_axes_of_size_one_are_broadcast(self, name):
        p = problem(22, (9, 4))
        rng = np.random.default_rng(23)
        discount = rng.random((9, 1)).astype(np.float32)
        lambda_ = rng.random((1, 4)).astype(np.float32)
        actual = CASES[name](estimators, p, discount, lambda_)
        whole = CASES[name](estimators, p, np.tile(discount, 4), np.tile(lambda_, (9, 1)))
        jax.tree.map(np.testing.assert_array_equal, actual, whole)

    @every_estimator
    def test_discount_and_lambda_may_be_vmapped(self, name):
        p = problem(24, (9, 4))
        discounts, lambdas = jnp.array([0.0, 0.9, 1.0]), jnp.array([0.3, 0.95, 1.0])
        batched = jax.vmap(lambda d, g: CASES[name](estimators, p, d, g))(discounts, lambdas)
        for i in range(3):
            expected = CASES[name](reference, p, float(discounts[i]), float(lambdas[i]))
            one = jax.tree.map(lambda x, i=i: x[i], batched)
            close(one, expected)

    @pytest.mark.parametrize("n", [1, 2, 4, 8, 9, 100])
    def test_n_step_returns_for_any_n(self, n):
        p = problem(25, (9, 4))
        actual = estimators.n_step_returns(p.rewards, *ends(p), 0.9, n)
        close(actual, reference.n_step_returns(p.rewards, *ends(p), 0.9, n=n))

    @every_estimator
    def test_batch_columns_are_independent(self, name):
        p = problem(26, (9, 4))
        whole = CASES[name](estimators, p, 0.9, 0.8)

        def column(i):
            q = SimpleNamespace(**{k: v[:, i] for k, v in vars(p).items()})
            return CASES[name](estimators, q, 0.9, 0.8)

        stacked = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *map(column, range(4)))
        close(whole, stacked, 1e-6)


class TestIdentities:
    """Identities between estimators; `values` and `next_values` need not be consistent."""

    def test_gae_at_lambda_one_is_the_monte_carlo_advantage(self):
        p = problem(30, (9, 4))
        advantages = estimators.gae(p.rewards, p.values, *ends(consistent(p)), 0.9, 1.0)
        returns = estimators.discounted_returns(p.rewards, *ends(consistent(p)), 0.9)
        close(advantages, returns - p.values)

    def test_gae_at_lambda_zero_is_the_td_error(self):
        p = problem(31, (9, 4))
        advantages = estimators.gae(p.rewards, p.values, *ends(p), 0.9, 0.0)
        one_step = estimators.n_step_returns(p.rewards, *ends(p), 0.9, 1)
        close(advantages, one_step - p.values)

    @pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
    def test_gae_is_the_lambda_return_minus_the_value(self, lambda_):
        p = consistent(problem(32, (9, 4)))
        advantages = estimators.gae(p.rewards, p.values, *ends(p), 0.9, lambda_)
        returns = estimators.lambda_returns(p.rewards, *ends(p), 0.9, lambda_)
        close(advantages, returns - p.values)

    @pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
    def test_vtrace_on_policy_is_gae(self, lambda_):
        p = problem(33, (9, 4))
        zeros = np.zeros_like(p.rewards)
        advantages = estimators.gae(p.rewards, p.values, *ends(p), 0.9, lambda_)
        trace = estimators.vtrace(p.rewards, p.values, *ends(p), zeros, 0.9, lambda_)
        close(trace.errors, advantages)
        close(trace.targets, p.values + advantages)

    def test_vtrace_advantage_on_policy_is_gae_at_lambda_one(self):
        p = consistent(problem(34, (9, 4)))
        zeros = np.zeros_like(p.rewards)
        trace = estimators.vtrace(p.rewards, p.values, *ends(p), zeros, 0.9)
        close(trace.advantages, estimators.gae(p.rewards, p.values, *ends(p), 0.9, 1.0))

    def test_vtrace_without_clipping_is_unbiased(self):
        """Two actions, one state, two steps: the expectation under mu is the value of pi."""
        pi, mu, reward = np.array([0.2, 0.8]), np.array([0.7, 0.3]), np.array([1.0, -2.0])
        first, second = (x.reshape(-1) for x in np.meshgrid([0, 1], [0, 1]))
        actions = np.stack([first, second])  # [T, action pairs]
        never = np.zeros((2, 4), bool)
        rewards = reward[actions].astype(np.float32)
        values = np.full((2, 4), 0.4, np.float32)
        log_ratios = np.log(pi / mu)[actions].astype(np.float32)
        probability = mu[first] * mu[second]

        def first_target(clip):
            trace = estimators.vtrace(
                rewards, values, values, never, never, log_ratios, 0.9, 1.0, clip, clip
            )
            return np.sum(probability * trace.targets[0])

        expected = (1 + 0.9) * pi @ reward + 0.9**2 * 0.4
        close(first_target(np.inf), expected)
        assert abs(first_target(1.0) - expected) > 0.1

    def test_lambda_0_and_1_give_one_step_and_full_returns(self):
        p = problem(35, (9, 4))
        at = {x: estimators.lambda_returns(p.rewards, *ends(p), 0.9, x) for x in (0.0, 1.0)}
        close(at[0.0], estimators.n_step_returns(p.rewards, *ends(p), 0.9, 1))
        close(at[1.0], estimators.discounted_returns(p.rewards, *ends(p), 0.9))

    @pytest.mark.parametrize("n", [9, 10])
    def test_n_step_returns_to_the_end_are_full_returns(self, n):
        p = problem(36, (9, 4))
        actual = estimators.n_step_returns(p.rewards, *ends(p), 0.9, n)
        close(actual, estimators.discounted_returns(p.rewards, *ends(p), 0.9))

    def test_n_step_returns_bootstrap_with_the_discount_to_the_n(self):
        zeros = np.zeros(5, np.float32)
        next_values = np.arange(1, 6, dtype=np.float32)
        actual = estimators.n_step_returns(zeros, next_values, NONE, NONE, 0.5, 3)
        close(actual, [3 / 8, 4 / 8, 5 / 8, 5 / 4, 5 / 2])

    def test_true_values_are_a_fixed_point(self):
        """A constant reward of 1 has the value 1 / (1 - discount), and then advantages are zero."""
        ones, truth = np.ones(5, np.float32), np.full(5, 10.0, np.float32)
        for name, estimator in CASES.items():
            p = SimpleNamespace(
                rewards=ones,
                values=truth,
                next_values=truth,
                terminated=NONE,
                truncated=np.array([0, 0, 1, 0, 0], bool),
                log_ratios=np.zeros(5, np.float32),
            )
            zeros = np.zeros(5)
            expected = {"gae": zeros, "vtrace": (zeros, truth, zeros)}.get(name, truth)
            close(estimator(estimators, p, 0.9, 0.8), expected)


def consistent(p):
    """The same problem, with next_values equal to the next step's values within an episode."""
    following = np.concatenate([p.values[1:], p.next_values[-1:]])
    next_values = np.where(p.terminated | p.truncated, p.next_values, following)
    return SimpleNamespace(**{**vars(p), "next_values": next_values})


class TestEnds:
    @every_estimator
    def test_next_values_are_ignored_at_termination(self, name):
        p = problem(40, (9, 4), endings=0.6)
        assert np.isnan(p.next_values).any()
        other = SimpleNamespace(**vars(p))
        with_nan = CASES[name](estimators, p, 0.9, 0.8)
        for garbage in (np.inf, -np.inf, 1e30, 0.0):
            other.next_values = np.where(p.terminated, garbage, p.next_values).astype(np.float32)
            jax.tree.map(
                np.testing.assert_array_equal,
                CASES[name](estimators, other, 0.9, 0.8),
                with_nan,
            )
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(with_nan))

    @every_estimator
    def test_gradients_are_finite_despite_nan_at_termination(self, name):
        p = problem(41, (9, 4), endings=0.6)

        def total(floats):
            q = SimpleNamespace(**{**vars(p), **floats})
            return sum(jnp.sum(x) for x in jax.tree.leaves(CASES[name](estimators, q, 0.9, 0.8)))

        floats = {k: getattr(p, k) for k in ("rewards", "values", "next_values", "log_ratios")}
        gradient = jax.grad(total)(floats)
        assert all(np.isfinite(g).all() for g in gradient.values())
        assert not gradient["next_values"][p.terminated].any()

    @pytest.mark.parametrize("name", ["vtrace", "retrace"])
    def test_gradients_are_finite_where_a_ratio_is_huge(self, name):
        """exp(100) overflows float32, and the zero slope of the clipped ratio times inf is NaN."""
        p = problem(43, (9, 4))
        log_ratios = np.where(p.log_ratios > 0, 100.0, p.log_ratios).astype(np.float32)
        assert (log_ratios == 100.0).any()

        def total(log_ratios):
            if name == "vtrace":
                return sum(jnp.sum(x) for x in estimators.vtrace(*arguments, log_ratios, 0.9))
            return jnp.sum(estimators.retrace(*arguments, log_ratios, 0.9))

        arguments = (p.rewards, p.values, p.next_values, p.terminated, p.truncated)
        assert np.isfinite(jax.grad(total)(log_ratios)).all()

    @pytest.mark.parametrize("end", ["terminated", "truncated"])
    @every_estimator
    def test_estimates_do_not_cross_episode_ends(self, name, end):
        p = problem(42, (12,), endings=0.0)
        setattr(p, end, np.arange(12) == 4)
        before = CASES[name](estimators, p, 0.9, 0.8)
        for x in (p.rewards, p.values, p.next_values, p.log_ratios):
            x[5:] += 1.0
        after = CASES[name](estimators, p, 0.9, 0.8)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            np.testing.assert_array_equal(a[:5], b[:5])
            assert (a[5:] != b[5:]).any()

    @every_estimator
    def test_truncation_is_not_termination(self, name):
        """With positive next values, a truncated step is worth more than a terminated one."""
        p = problem(43, (12,), endings=0.0)
        p.truncated = np.arange(12) == 3
        p.next_values[:] = 10.0
        truncated = jax.tree.leaves(CASES[name](estimators, p, 0.9, 0.8))
        p.terminated, p.truncated = p.truncated, p.terminated
        terminated = jax.tree.leaves(CASES[name](estimators, p, 0.9, 0.8))
        for a, b in zip(truncated, terminated, strict=True):
            weight = np.minimum(1.0, np.exp(p.log_ratios[3])) if name == "vtrace" else 1.0
            assert a[3] - b[3] > 0.9 * 0.9 * weight * 10.0 - 1e-4
            np.testing.assert_array_equal(a[4:], b[4:])

    def test_truncation_bootstraps_from_next_obs(self):
        """With V(next_obs), not V(obs), and not the value of the next episode."""
        p = SimpleNamespace(
            rewards=np.array([1.0, 1.0, 1.0], np.float32),
            values=np.array([10.0, 20.0, 30.0], np.float32),
            terminated=np.zeros(3, bool),
            truncated=np.array([False, True, False]),
            next_values=np.array([20.0, 50.0, 70.0], np.float32),
        )
        actual = estimators.gae(p.rewards, p.values, *ends(p), 0.5, 0.5)
        second = 1 + 0.5 * 50 - 20
        close(actual, [1 + 0.5 * 20 - 10 + 0.25 * second, second, 1 + 0.5 * 70 - 30])

    @every_estimator
    def test_terminated_wins_over_truncated(self, name):
        p = problem(44, (9, 4), endings=0.6)
        both = CASES[name](estimators, p, 0.9, 0.8)
        p.truncated = p.truncated & ~p.terminated
        one = CASES[name](estimators, p, 0.9, 0.8)
        jax.tree.map(np.testing.assert_array_equal, both, one)

    def test_returns_do_not_read_values_inside_an_episode(self):
        p = problem(45, (9, 4))
        expected = estimators.discounted_returns(p.rewards, *ends(p), 0.9)
        inside = ~(p.terminated | p.truncated)
        inside[-1] = False
        p.next_values[inside] = np.nan
        actual = estimators.discounted_returns(p.rewards, *ends(p), 0.9)
        np.testing.assert_array_equal(actual, expected)


class TestChecks:
    def arguments(self):
        p = problem(50, (4,))
        return {**vars(p), "discount": 0.9, "lambda_": 0.8}

    @pytest.mark.parametrize(
        "name", ["values", "next_values", "terminated", "truncated", "log_ratios"]
    )
    @pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
    def test_wrong_shapes_are_rejected(self, name, shape):
        arguments = self.arguments()
        arguments[name] = np.resize(arguments[name], shape)
        with pytest.raises(
            ValueError, match=rf"^{name} has shape .*, rewards \(4,\): both must be"
        ):
            jax.eval_shape(lambda: estimators.vtrace(**arguments))

    @pytest.mark.parametrize("name", ["discount", "lambda_"])
    @pytest.mark.parametrize("shape", [(3,), (4, 4)])
    def test_wrong_hyper_parameter_shapes_are_rejected(self, name, shape):
        arguments = {**self.arguments(), name: np.ones(shape, np.float32)}
        with pytest.raises(ValueError, match=rf"^{name} has shape .*: give a scalar"):
            estimators.vtrace(**arguments)

    def test_ambiguous_discount_vectors_are_rejected(self):
        p = problem(51, (3, 3))
        with pytest.raises(ValueError, match=r"^discount has shape \(3,\)"):
            estimators.discounted_returns(p.rewards, *ends(p), np.ones(3, np.float32))

    @pytest.mark.parametrize("name", ["terminated", "truncated"])
    @pytest.mark.parametrize("estimator", CASES)
    def test_a_mask_must_be_boolean(self, estimator, name):
        p = problem(52, (4,))
        setattr(p, name, getattr(p, name).astype(np.float32))
        with pytest.raises(TypeError, match=f"^{name} has dtype float32: it must be bool"):
            CASES[estimator](estimators, p, 0.9, 0.8)

    @pytest.mark.parametrize("shape", [(), (0,), (0, 3)])
    def test_sequences_must_not_be_empty(self, shape):
        p = problem(53, shape)
        with pytest.raises(ValueError, match=r"^rewards has shape .* T at least 1"):
            estimators.discounted_returns(p.rewards, *ends(p), 0.9)

    @pytest.mark.parametrize("n", [0, -1])
    def test_n_must_be_positive(self, n):
        p = problem(54, (4,))
        with pytest.raises(ValueError, match=f"^n is {n}: it must be at least 1"):
            estimators.n_step_returns(p.rewards, *ends(p), 0.9, n)

    def test_integer_and_half_precision_rewards_give_float32(self):
        p = problem(55, (4,))
        for dtype in (np.int32, jnp.bfloat16):
            rewards = jnp.asarray(p.rewards, dtype)
            assert estimators.gae(rewards, p.values, *ends(p), 0.9, 0.8).dtype == jnp.float32


class TestProgram:
    @every_estimator
    def test_is_one_scan(self, name):
        p = problem(60, (9, 4))
        jaxpr = jax.make_jaxpr(lambda: CASES[name](estimators, p, 0.9, 0.8))().jaxpr
        found = primitives(jaxpr)
        assert found["scan"] == 1
        assert "while" not in found

    @every_estimator
    def test_the_program_does_not_grow_with_the_sequence(self, name):
        def size(num_steps):
            p = problem(61, (num_steps,))
            jaxpr = jax.make_jaxpr(lambda: CASES[name](estimators, p, 0.9, 0.8))().jaxpr
            return primitives(jaxpr).total()

        assert size(8) == size(64)
