"""Losses: golden numbers, hand-computed values, gradients and edge cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import losses

# rlax, policy_gradients_test.py.
LOGITS = np.array([[1.0, 1, 1], [2, 0, 0], [-1, -2, -3]], np.float32)
OLD_LOGITS = np.array([[1.0, 1, 1], [2, 0, 0], [-3, -2, -1]], np.float32)
ADVANTAGES = np.array([0.3, 0.2, 0.1], np.float32)
WEIGHTS = np.array([-2.0, 2, 0], np.float32)


def log_probs(logits, actions):
    return jnp.take_along_axis(jax.nn.log_softmax(logits), np.array(actions)[:, None], axis=1)[:, 0]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def numerical_gradient(f, x, step=1e-2):
    """Central differences, one entry at a time."""
    gradient = np.zeros(x.size)
    for i in range(x.size):
        bump = np.zeros(x.size, np.float32)
        bump[i] = step
        bump = bump.reshape(x.shape)
        gradient[i] = (float(f(x + bump)) - float(f(x - bump))) / (2 * step)
    return gradient.reshape(x.shape)


class TestMean:
    def test_is_the_mean(self):
        x = normal(0, 5, 3)
        close(losses.mean(x), x.mean())
        close(losses.mean(x, axis=0), x.mean(0))
        close(losses.mean(x > 0), (x > 0).mean())

    def test_where_excludes_entries(self):
        x, where = normal(1, 5, 3), normal(2, 5, 3) > 0
        close(losses.mean(x, where), x[where].mean())
        close(losses.mean(x, where, axis=0), np.mean(x, axis=0, where=where))
        close(losses.mean(x > 0, where), (x > 0)[where].mean())

    def test_excluded_entries_may_be_nan(self):
        x = np.array([1.0, np.nan, 3.0], np.float32)
        where = np.array([True, False, True])
        value, gradient = jax.value_and_grad(losses.mean)(x, where)
        close(value, 2.0)
        close(gradient, [0.5, 0.0, 0.5])

    def test_empty_mean_is_zero_with_zero_gradient(self):
        x, where = normal(3, 4), np.zeros(4, bool)
        value, gradient = jax.value_and_grad(losses.mean)(x, where)
        assert value == 0.0
        np.testing.assert_array_equal(gradient, np.zeros(4))

    def test_where_must_be_a_mask_of_the_same_shape(self):
        with pytest.raises(ValueError, match=r"^where has shape \(3,\), x \(5, 3\)"):
            losses.mean(normal(4, 5, 3), np.ones(3, bool))
        with pytest.raises(TypeError, match=r"^where has dtype float32: it must be bool"):
            losses.mean(normal(4, 3), np.ones(3, np.float32))


class TestStandardize:
    def test_mean_zero_and_deviation_one(self):
        y = np.asarray(losses.standardize(3.0 + 7.0 * normal(5, 8, 9)))
        close(y.mean(), 0.0)
        close(y.std(), 1.0)

    def test_is_invariant_to_affine_changes(self):
        x = np.array([-1.0, 1, 1, -1, 1], np.float32)
        close(losses.standardize(x), losses.standardize((x + 9) / 2))  # -1, +1 become 4, 5
        close(losses.standardize(1e-4 * x), losses.standardize(x), 1e-3)

    @pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 123.456, -1e6])
    def test_constant_data_become_zeros(self, constant):
        close(losses.standardize(np.full(7, constant, np.float32)), np.zeros(7), 1e-3)

    def test_one_entry_becomes_zero(self):
        close(losses.standardize(np.array([0.3], np.float32)), [0.0])


class TestPolicyGradientLoss:
    @pytest.mark.parametrize(
        ("logits", "actions", "advantages", "weights", "expected"),
        [
            (LOGITS, [0, 1, 2], ADVANTAGES, WEIGHTS, 0.0788835088),
            (LOGITS + 1, [0, 0, 0], -ADVANTAGES, WEIGHTS - 1, 0.327200909),
        ],
    )
    def test_policy_gradient_loss_matches_rlax(
        self, logits, actions, advantages, weights, expected
    ):
        """rlax multiplies the advantage of each step by a weight."""
        actual = losses.policy_gradient_loss(log_probs(logits, actions), advantages * weights)
        close(actual, expected)

    def test_gradient(self):
        gradient = jax.grad(losses.policy_gradient_loss)(normal(6, 3), ADVANTAGES)
        close(gradient, -ADVANTAGES / 3)

    def test_policy_gradient_loss_does_not_differentiate_advantages(self):
        gradient = jax.grad(losses.policy_gradient_loss, argnums=1)(normal(6, 3), ADVANTAGES)
        np.testing.assert_array_equal(gradient, np.zeros(3))

    def test_descent_makes_a_good_action_likelier(self):
        def loss(logits):
            return losses.policy_gradient_loss(log_probs(logits, [0, 1]), np.float32([1.0, -1.0]))

        gradient = jax.grad(loss)(np.zeros((2, 3), np.float32))
        assert gradient[0, 0] < 0 < gradient[1, 1]


class TestEntropyLoss:
    @pytest.mark.parametrize(
        ("logits", "weights", "expected"),
        [(LOGITS, WEIGHTS, 0.288693), (LOGITS + 1, WEIGHTS - 1, 1.15422)],
    )
    def test_entropy_loss_matches_rlax(self, logits, weights, expected):
        log_p = jax.nn.log_softmax(logits)
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=1)
        close(losses.entropy_loss(entropy * weights), expected)


class TestClippedSurrogate:
    @pytest.mark.parametrize(("sign", "expected"), [(1, -0.17117467), (-1, 0.19333333)])
    def test_clipped_surrogate_matches_rlax(self, sign, expected):
        log_ratio = log_probs(LOGITS, [0, 1, 2]) - log_probs(OLD_LOGITS, [0, 1, 2])
        close(losses.clipped_surrogate(log_ratio, sign * ADVANTAGES, 0.2), expected)

    @pytest.mark.parametrize(
        ("ratio", "advantage", "objective", "slope"),
        [
            (1.1, 2.0, 2.2, 2.2),
            (1.5, 2.0, 2.4, 0.0),  # more likely and good: clipped
            (0.5, 2.0, 1.0, 1.0),  # less likely but good: pulled back
            (1.5, -2.0, -3.0, -3.0),  # more likely but bad: pulled back
            (0.5, -2.0, -1.6, 0.0),  # less likely and bad: clipped
            (0.9, -2.0, -1.8, -1.8),
        ],
    )
    def test_each_case_of_the_paper(self, ratio, advantage, objective, slope):
        """Schulman et al., 2017, figure 1; the slope is in log r, where dr = r dlog r."""

        def loss(log_ratio):
            return losses.clipped_surrogate(log_ratio, np.float32([advantage]), 0.2)

        value, gradient = jax.value_and_grad(loss)(np.log(np.float32([ratio])))
        close(value, -objective)
        close(gradient, [-slope])

    def test_gradient_at_ratio_one_is_the_policy_gradient(self):
        advantages = normal(7, 6, 2)
        zeros = np.zeros_like(advantages)
        surrogate = jax.grad(losses.clipped_surrogate)(zeros, advantages, 0.2)
        close(surrogate, jax.grad(losses.policy_gradient_loss)(zeros, advantages))

    def test_clipped_surrogate_gradient_equals_finite_differences(self):
        log_ratio, advantages = 0.5 * normal(8, 12), normal(9, 12)
        log_ratio = log_ratio[np.abs(np.abs(np.expm1(log_ratio)) - 0.2) > 0.05]  # away from kinks
        advantages = advantages[: len(log_ratio)]

        def loss(x):
            return losses.clipped_surrogate(x, advantages, 0.2)

        close(jax.grad(loss)(log_ratio), numerical_gradient(loss, log_ratio), 2e-3)

    def test_clipped_surrogate_does_not_differentiate_advantages(self):
        gradient = jax.grad(losses.clipped_surrogate, argnums=1)(normal(8, 3), ADVANTAGES, 0.2)
        np.testing.assert_array_equal(gradient, np.zeros(3))

    def test_infinite_clipped_ratios_have_zero_gradient(self):
        slope = jax.grad(lambda x: losses.clipped_surrogate(x, jnp.ones(2), 0.2))
        np.testing.assert_array_equal(slope(jnp.array([100.0, 0.0])), [0.0, -0.5])

    def test_epsilon_may_be_vmapped(self):
        log_ratio, advantages = normal(8, 4, 3), normal(9, 4, 3)
        epsilons = jnp.array([0.1, 0.2, 0.3])
        batched = jax.vmap(losses.clipped_surrogate, in_axes=(None, None, 0))(
            log_ratio, advantages, epsilons
        )
        one_by_one = [losses.clipped_surrogate(log_ratio, advantages, x) for x in (0.1, 0.2, 0.3)]
        close(batched, np.array(one_by_one), 1e-6)


class TestValueLosses:
    def test_value_loss(self):
        values, targets = np.float32([1.0, 2.0]), np.float32([0.0, 4.0])
        value, gradient = jax.value_and_grad(losses.value_loss)(values, targets)
        close(value, 0.5 * (1 + 4) / 2)
        close(gradient, [0.5, -1.0])

    @pytest.mark.parametrize(
        ("value", "old", "target", "expected", "slope"),
        [
            (1.1, 1.0, 2.0, 0.5 * 0.9**2, -0.9),  # close to the old value
            (1.5, 1.0, 2.0, 0.5 * 0.8**2, 0.0),  # far towards the target: clipped
            (0.5, 1.0, 2.0, 0.5 * 1.5**2, -1.5),  # far from the target: pulled back
            (3.0, 1.0, 2.0, 0.5 * 1.0**2, 1.0),  # far beyond the target
        ],
    )
    def test_each_case_of_the_clipped_loss(self, value, old, target, expected, slope):
        def loss(value):
            return losses.clipped_value_loss(value, np.float32([old]), np.float32([target]), 0.2)

        actual, gradient = jax.value_and_grad(loss)(np.float32([value]))
        close(actual, expected)
        close(gradient, [slope])

    def test_clipping_never_lowers_the_loss(self):
        values, old, targets = normal(10, 3, 50)
        clipped = losses.clipped_value_loss(values, old, targets, 0.2)
        assert clipped > losses.value_loss(values, targets)
        close(
            losses.clipped_value_loss(values, old, targets, 100.0),
            losses.value_loss(values, targets),
        )

    def test_epsilon_none_disables_clipping(self):
        values, old, targets = normal(11, 3, 50)
        actual = losses.clipped_value_loss(values, old, targets, None)
        np.testing.assert_array_equal(actual, losses.value_loss(values, targets))

    def test_clipped_value_gradient_equals_finite_differences(self):
        values, old, targets = normal(12, 3, 10)

        def loss(x):
            return losses.clipped_value_loss(x, old, targets, 0.2)

        close(jax.grad(loss)(values), numerical_gradient(loss, values, 1e-3), 2e-3)

    @pytest.mark.parametrize("epsilon", [0.2, None])
    def test_gradients_reach_the_values_only(self, epsilon):
        arguments = tuple(normal(13, 3, 10))
        gradients = jax.grad(losses.clipped_value_loss, argnums=(0, 1, 2))(*arguments, epsilon)
        assert gradients[0].any()
        assert not gradients[1].any()
        assert not gradients[2].any()


class TestStatistics:
    def test_approximate_kl_is_the_kl_in_expectation(self):
        """Averaged over all actions under the old policy."""
        old, new = jax.nn.softmax(normal(14, 5)), jax.nn.softmax(normal(15, 5))
        log_ratio = jnp.log(new / old)
        terms = jnp.stack([losses.approximate_kl(x[None]) for x in log_ratio])
        close(jnp.sum(old * terms), jnp.sum(old * jnp.log(old / new)))

    def test_approximate_kl_is_r_minus_one_minus_log_r(self):
        log_ratio = normal(16, 7)
        close(losses.approximate_kl(log_ratio), np.mean(np.exp(log_ratio) - 1 - log_ratio))
        wrong = np.mean((np.exp(log_ratio) - 1) * log_ratio)
        assert abs(losses.approximate_kl(log_ratio) - wrong) > 0.1

    def test_approximate_kl_of_a_small_step(self):
        """It is log(r)^2 / 2; exp(x) - 1 in float32 would be off by 1e-7."""
        assert losses.approximate_kl(np.zeros(3, np.float32)) == 0.0
        close(1e6 * losses.approximate_kl(np.full(3, 1e-3, np.float32)), 0.5, 1e-3)

    def test_clip_fraction(self):
        log_ratio = np.log(np.float32([0.7, 0.85, 1.0, 1.15, 1.3]))
        close(losses.clip_fraction(log_ratio, 0.2), 2 / 5)
        close(losses.clip_fraction(log_ratio, 0.5), 0.0)

    def test_explained_variance(self):
        targets = normal(17, 4, 9)
        noise = normal(18, 4, 9)
        close(losses.explained_variance(targets, targets), 1.0)
        close(losses.explained_variance(targets + 5, targets), 1.0)
        close(losses.explained_variance(np.full_like(targets, 2.0), targets), 0.0)
        close(losses.explained_variance(targets + noise, targets), 1 - noise.var() / targets.var())

    @pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
    def test_explained_variance_of_constant_targets_is_zero(self, constant):
        targets = np.full(7, constant, np.float32)
        assert losses.explained_variance(targets, targets) == 0.0
        assert losses.explained_variance(normal(19, 7), targets) == 0.0
        gradient = jax.grad(losses.explained_variance)(normal(19, 7), targets)
        assert np.isfinite(gradient).all()


class TestShapes:
    @pytest.mark.parametrize(
        ("loss", "arguments", "message"),
        [
            (losses.policy_gradient_loss, 2, "advantages has shape .*, log_prob"),
            (losses.surrogate_loss, 2, "advantages has shape .*, log_ratio"),
            (losses.clipped_surrogate, 2, "advantages has shape .*, log_ratio"),
            (losses.value_loss, 2, "targets has shape .*, values"),
            (losses.clipped_value_loss, 3, "targets has shape .*, values"),
            (losses.explained_variance, 2, "targets has shape .*, values"),
        ],
    )
    def test_columns_do_not_broadcast_against_rows(self, loss, arguments, message):
        *rows, column = [np.ones((1, 4), np.float32)] * (arguments - 1) + [np.ones((4, 1))]
        epsilon = (0.2,) if "clipped" in loss.__name__ else ()
        with pytest.raises(ValueError, match=message):
            loss(*rows, column, *epsilon)

    def test_results_are_scalars_of_float32(self):
        x, y, z = normal(20, 3, 5, 2)
        for result in (
            losses.policy_gradient_loss(x, y),
            losses.surrogate_loss(x, y),
            losses.clipped_surrogate(x, y, 0.2),
            losses.clipped_value_loss(x, y, z, 0.2),
            losses.value_loss(x, y),
            losses.entropy_loss(x),
            losses.approximate_kl(x),
            losses.clip_fraction(x, 0.2),
            losses.explained_variance(x, y),
        ):
            assert result.shape == ()
            assert result.dtype == jnp.float32
