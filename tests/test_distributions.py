"""Distributions, against SciPy, closed forms in float64 NumPy, and sample statistics.

Each test compiles one or two programs; eager operations would each be compiled separately.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxrl.distributions import (
    Beta,
    Categorical,
    DiagonalGaussian,
    Distribution,
    GaussianMixture,
    MultiCategorical,
    Product,
    Scaled,
    TanhGaussian,
)

NUM_ACTIONS = [2, 7, 8, 18]  # on either side of the limit for unrolled sums
NUM_SAMPLES = 20_000


def normal(seed: int, *shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def random_mask(seed: int, *shape: int) -> np.ndarray:
    """Allows about half of the actions, and always the first."""
    mask = np.random.default_rng(seed).random(shape) < 0.5
    mask[..., 0] = True
    return mask


def reference_log_probs(logits, mask=None) -> np.ndarray:
    """Log probabilities in float64, -inf where masked."""
    logits = np.asarray(logits, np.float64)
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    return logits - scipy.special.logsumexp(logits, axis=-1, keepdims=True)


def all_finite(tree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def assert_mean(samples, expected) -> None:
    """The mean over axis 0 is `expected` to within 4.5 standard errors."""
    samples = np.asarray(samples, np.float64)
    standard_error = samples.std(axis=0) / np.sqrt(len(samples))
    error = np.abs(samples.mean(axis=0) - np.asarray(expected))
    assert (error <= 4.5 * standard_error + 1e-5).all()


def assert_same_law(counts, expected_probs) -> None:
    """The counts pass a chi-square test against the probabilities at p = 0.001."""
    assert scipy.stats.chisquare(counts, counts.sum() * expected_probs).pvalue > 1e-3


def measures(p: Distribution, q: Distribution, action):
    return p.log_prob(action), p.entropy(), p.kl(q)


jit_measures = jax.jit(measures)
jit_mode = jax.jit(lambda distribution: distribution.mode())


@functools.partial(jax.jit, static_argnums=2)
def draw(distribution: Distribution, key: jax.Array, num_samples: int):
    """Draws independent actions along a new leading axis."""
    return jax.vmap(distribution.sample)(jax.random.split(key, num_samples))


EXAMPLES = {
    "categorical": Categorical(normal(0, 5, 4)),
    "many actions": Categorical(normal(0, 5, 11)),
    "masked": Categorical(normal(0, 5, 4), jnp.asarray(random_mask(0, 5, 4))),
    "multi-categorical": MultiCategorical(normal(0, 5, 5), (2, 3)),
    "gaussian": DiagonalGaussian(normal(0, 5, 3), normal(1, 5, 3, scale=0.3)),
    "scalar gaussian": DiagonalGaussian(normal(0, 5), normal(1, 5, scale=0.3), event_ndim=0),
    "product": Product(
        (Categorical(normal(0, 5, 4)), DiagonalGaussian(normal(1, 5, 2), normal(2, 5, 2)))
    ),
    "beta": Beta(2.0 + normal(0, 5, 3) ** 2, 2.0 + normal(1, 5, 3) ** 2),
    "squashed": TanhGaussian(normal(0, 5, 3), normal(1, 5, 3, scale=0.3)),
}
EXAMPLES["scaled"] = Scaled(EXAMPLES["beta"], jnp.full((5, 3), -2.0), jnp.full((5, 3), 5.0))
ACTIONS = {
    "masked": np.zeros(5, np.int32),
    "gaussian": normal(2, 5, 3),
    "product": (np.arange(5, dtype=np.int32) % 4, normal(2, 5, 2)),
}
each_example = pytest.mark.parametrize("p", EXAMPLES.values(), ids=EXAMPLES.keys())


# Every distribution -------------------------------------------------------------------------------


def another(p: Distribution) -> Distribution:
    """A distribution with other parameters, and the same masks and interval."""
    if isinstance(p, Scaled):
        return p.replace(distribution=another(p.distribution))
    return jax.tree.map(lambda x: x if x.dtype == bool else x * 0.7 + 0.2 * np.sin(3 * x), p)


@each_example
def test_samples_agree_with_entropy_kl_mode_and_score(p):
    """-E[log p] is the entropy, E[log p - log q] the KL, E[grad log p] 0; the mode is likeliest.

    Except that the mode of a squashed Gaussian is its median, and that of a Beta its mean.
    """

    @jax.jit
    def measure(p, q, key):
        def one(key):
            action = p.sample(key)

            def total(p):
                log_prob = p.log_prob(action)
                return log_prob.sum(), log_prob

            score, log_prob = jax.grad(total, has_aux=True, allow_int=True)(p)
            return action, log_prob, q.log_prob(action), score

        samples = jax.vmap(one)(jax.random.split(key, NUM_SAMPLES))
        kl_to_itself, slopes = jax.value_and_grad(lambda q: p.kl(q).sum(), allow_int=True)(p)
        return samples, p.mode(), p.entropy(), p.kl(q), p.log_prob(p.mode()), kl_to_itself, slopes

    assert isinstance(p, Distribution)
    samples, mode, entropy, kl, best, kl_to_itself, slopes = measure(
        p, another(p), jax.random.key(1)
    )
    actions, log_p, log_q, scores = samples
    for drawn, likeliest in zip(*map(jax.tree.leaves, (actions, mode)), strict=True):
        assert drawn.shape[1:] == likeliest.shape
        assert drawn.dtype == likeliest.dtype
    for value in (log_p[0], entropy, kl):
        assert value.shape == (5,)
        assert value.dtype == jnp.float32

    log_p, log_q = np.asarray(log_p), np.asarray(log_q)
    assert_mean(-log_p, entropy)
    assert_mean(log_p - log_q, kl)
    if isinstance(p, TanhGaussian):
        assert_mean(np.asarray(actions) < np.asarray(mode), 0.5)
    elif isinstance(p, Beta | Scaled):
        assert_mean(actions, mode)
    else:
        assert (log_p <= np.asarray(best)[None] + 1e-6).all()
    np.testing.assert_allclose(kl_to_itself, 0.0, atol=1e-6)
    if isinstance(p, Scaled):  # the interval is no parameter
        p, scores, slopes = (x.distribution for x in (p, scores, slopes))
    for parameter, score, slope in zip(*map(jax.tree.leaves, (p, scores, slopes)), strict=True):
        if parameter.dtype != bool:
            assert_mean(score, 0.0)
            np.testing.assert_allclose(slope, 0.0, atol=2e-6)  # KL(p || q) is minimal at q = p


@pytest.mark.parametrize("name", ["masked", "gaussian"])
def test_vmap_and_eager_calls_agree_with_jit(name):
    p, q, action = EXAMPLES[name], another(EXAMPLES[name]), ACTIONS[name]
    expected = jit_measures(p, q, action)
    for values in (measures(p, q, action), jax.jit(jax.vmap(measures))(p, q, action)):
        for value, reference in zip(values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["masked", "gaussian"])
def test_low_precision_parameters_are_computed_in_float32(name):
    p = EXAMPLES[name]
    low = jax.tree.map(lambda x: x if x.dtype == bool else x.astype(jnp.bfloat16), p)
    wide = jax.tree.map(lambda x: x if x.dtype == bool else x.astype(jnp.float32), low)
    action = ACTIONS[name]
    for value, expected in zip(
        jit_measures(low, wide, action), jit_measures(wide, wide, action), strict=True
    ):
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, expected)


@pytest.mark.optimized
@pytest.mark.parametrize("name", ["masked", "gaussian"])
def test_log_prob_recomputed_under_jit_is_bit_equal(name):
    p, action = EXAMPLES[name], ACTIONS[name]
    first, again = (jit_measures(p, another(p), action)[0] for _ in range(2))
    np.testing.assert_array_equal(np.exp(again - first), 1.0)


@functools.partial(jax.jit, static_argnums=2)
def roll_out(parameters, key, make):
    """Draws an action and its log_prob in each step of a scan, as a rollout does."""

    def step(key, parameters):
        key, action_key = jax.random.split(key)
        action = make(parameters).sample(action_key)
        return key, (action, make(parameters).log_prob(action))

    return jax.lax.scan(step, key, parameters)[1]


@pytest.mark.optimized
@pytest.mark.parametrize("num_actions", NUM_ACTIONS)
def test_first_importance_ratio_of_a_categorical_is_exactly_one(num_actions):
    """Bit-identical in the rollout's scan, the update's gradient and log_prob alone."""
    logits = normal(0, 32, 67, num_actions, scale=3.0)
    flat_logits = logits.reshape(-1, num_actions)
    actions, old = (x.reshape(-1) for x in roll_out(logits, jax.random.key(0), Categorical))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def update(logits, actions, old):
        ratio = jnp.exp(Categorical(logits).log_prob(actions) - old)
        objective = (jnp.clip(ratio, 0.8, 1.2) * old).sum() - Categorical(logits).entropy().sum()
        return objective, ratio

    _, ratio = update(flat_logits, actions, old)
    alone = jax.jit(lambda logits, actions: Categorical(logits).log_prob(actions))
    new = alone(flat_logits, actions)
    if jax.default_backend() == "cpu":
        np.testing.assert_array_equal(ratio, 1.0)
        np.testing.assert_array_equal(new, old)
    np.testing.assert_allclose(ratio, 1.0, atol=1e-5)


def make_gaussian(mean):
    return DiagonalGaussian(mean, jnp.linspace(-1.0, 0.5, mean.shape[-1]))


@pytest.mark.optimized
def test_first_importance_ratio_of_a_gaussian_is_one_to_rounding():
    """Not exactly: the rollout's program and log_prob alone differ in the last bits."""
    mean = normal(0, 32, 67, 6)
    actions, old = roll_out(mean, jax.random.key(0), make_gaussian)
    new = jax.jit(lambda mean, actions: make_gaussian(mean).log_prob(actions))(mean, actions)
    np.testing.assert_allclose(np.exp(new - old), 1.0, atol=1e-5)


# Categorical --------------------------------------------------------------------------------------


def log_prob_of_every_action(p: Categorical) -> jax.Array:  # [..., A]
    num_actions = p.logits.shape[-1]
    batch_shape = p.logits.shape[:-1]
    actions = [jnp.full(batch_shape, a, jnp.int32) for a in range(num_actions)]
    return jnp.moveaxis(jax.vmap(p.log_prob)(jnp.stack(actions)), 0, -1)


@jax.jit
def categorical_measures(p: Categorical, q: Categorical):
    return log_prob_of_every_action(p), p.entropy(), p.kl(q), p.mode()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_actions", [1, 2, 8])
def test_categorical_matches_scipy(num_actions, masked):
    logits, other_logits = (normal(seed, 4, 5, num_actions, scale=2.0) for seed in (0, 1))
    mask = random_mask(0, 4, 5, num_actions) if masked else None
    p, q = (Categorical(x, mask) for x in (logits, other_logits))
    log_p, log_q = (reference_log_probs(x, mask) for x in (logits, other_logits))
    allowed = np.isfinite(log_p)

    log_prob, entropy, kl, mode = (np.asarray(x) for x in categorical_measures(p, q))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(entropy, scipy.stats.entropy(np.exp(log_p), axis=-1))
    close(kl, scipy.special.rel_entr(np.exp(log_p), np.exp(log_q)).sum(-1))
    np.testing.assert_array_equal(mode, log_p.argmax(axis=-1))
    close(log_prob[allowed], log_p[allowed])
    assert np.isfinite(log_prob).all()
    assert (log_prob[~allowed] < -1e29).all()
    assert (np.exp(log_prob[~allowed]) == 0).all()


@pytest.mark.parametrize("num_actions", [2, 12])
def test_categorical_gradients_match_the_closed_forms(num_actions):
    """Gradients: onehot - p; -p (log p + H); p (log p - log q - KL); for KL's q, q - p."""
    logits, other_logits = (normal(seed, 5, num_actions) for seed in (0, 1))
    action = np.arange(5, dtype=np.int32) % num_actions
    log_p, log_q = reference_log_probs(logits), reference_log_probs(other_logits)
    p, q = np.exp(log_p), np.exp(log_q)
    entropy = -(p * log_p).sum(-1, keepdims=True)
    kl = (p * (log_p - log_q)).sum(-1, keepdims=True)

    @jax.jit
    def gradients(x, y):
        def total(x, y):
            return [v.sum() for v in measures(Categorical(x), Categorical(y), action)]

        return jax.jacrev(total, (0, 1))(x, y)

    by_log_prob, by_entropy, by_kl = gradients(logits, other_logits)
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    close(by_log_prob[0], np.eye(num_actions)[action] - p)
    close(by_entropy[0], -p * (log_p + entropy))
    close(by_kl[0], p * (log_p - log_q - kl))
    close(by_kl[1], q - p)


@pytest.mark.parametrize("num_actions", [4, 11])
def test_hessian_of_kl_is_the_fisher_matrix(num_actions):
    """d2 KL(old || new) / d new2 at new = old is diag(p) - p p^T, as TRPO assumes."""
    logits = normal(0, num_actions)
    kl = jax.jit(jax.hessian(lambda new, old: Categorical(old).kl(Categorical(new))))
    p = np.exp(reference_log_probs(logits))
    np.testing.assert_allclose(kl(logits, logits), np.diag(p) - np.outer(p, p), atol=1e-6)


@pytest.mark.parametrize("num_actions", [2, 12])
def test_sampling_frequencies_pass_a_chi_square_test(num_actions):
    logits = normal(7, num_actions)
    samples = np.asarray(draw(Categorical(logits), jax.random.key(1), 100_000))
    assert samples.dtype == np.int32
    counts = np.bincount(samples, minlength=num_actions)
    assert_same_law(counts, np.exp(reference_log_probs(logits)))


def test_masked_actions_are_never_sampled_and_the_others_keep_their_odds():
    mask = np.array([True, False, True, True, False])
    logits = jnp.asarray([0.0, 50.0, 1.0, -1.0, 9.0])  # the masked ones would win
    distribution = Categorical(logits, jnp.asarray(mask))
    counts = np.bincount(draw(distribution, jax.random.key(2), 100_000), minlength=5)
    assert (counts[~mask] == 0).all()
    assert_same_law(counts[mask], np.exp(reference_log_probs(logits, mask))[mask])
    assert jit_mode(distribution) == 2


@pytest.mark.parametrize("num_actions", [5, 12])
def test_masking_equals_removing_the_actions(num_actions):
    """In values and gradients, with one mask for the whole batch."""
    kept = np.array([0, 2, 3])
    mask = np.isin(np.arange(num_actions), kept)
    logits, other_logits = (normal(seed, 3, num_actions) for seed in (0, 1))

    @functools.partial(jax.jit, static_argnums=2)
    def evaluate(x, y, masked):
        def values(x, y):
            shared = (mask,) if masked else ()
            p, q = Categorical(x, *shared), Categorical(y, *shared)
            each = measures(p, q, kept if masked else np.arange(3))
            return [value.sum() for value in each], each

        return jax.jacrev(values, has_aux=True)(x, y)

    slopes, values = evaluate(logits, other_logits, True)
    left_slopes, left_values = evaluate(logits[:, kept], other_logits[:, kept], False)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    for value, expected in zip(values, left_values, strict=True):
        close(value, expected)
    for slope, expected in zip(slopes, left_slopes, strict=True):
        close(slope[:, kept], expected)


@pytest.mark.parametrize("num_actions", [2, 12])
def test_results_are_finite_and_masked_logits_have_zero_gradient(num_actions):
    """For allowed and masked actions, fully masked rows, and logits of scale 1 and 1e4."""
    mask = random_mask(3, 64, num_actions)
    mask[0] = False

    def values(x, y):
        p, q = Categorical(x, mask), Categorical(y, mask)
        return [v.sum(axis=0) for v in (log_prob_of_every_action(p), p.entropy(), p.kl(q))]

    @jax.jit
    def evaluate(x, y):
        return values(x, y), jax.jacrev(values, (0, 1))(x, y), jax.jvp(values, (x, y), (y, x))

    for scale in (1.0, 1e4):
        outputs = evaluate(*(normal(seed, 64, num_actions, scale=scale) for seed in (0, 1)))
        assert all_finite(outputs)
        for jacobian in jax.tree.leaves(outputs[1]):
            assert (np.asarray(jacobian)[..., ~mask] == 0).all()


@pytest.mark.parametrize("num_actions", [4, 9])
def test_a_fully_masked_row_is_uniform(num_actions):
    p = Categorical(normal(0, num_actions), np.zeros(num_actions, bool))
    log_prob, entropy, kl, _ = categorical_measures(p, Categorical(np.zeros(num_actions), p.mask))
    np.testing.assert_allclose(log_prob, -np.log(num_actions), rtol=1e-6)
    np.testing.assert_allclose(entropy, np.log(num_actions), rtol=1e-6)
    assert kl == 0
    counts = np.bincount(draw(p, jax.random.key(0), NUM_SAMPLES), minlength=num_actions)
    assert_same_law(counts, np.full(num_actions, 1 / num_actions))


@pytest.mark.parametrize("num_actions", [3, 8])
def test_kl_between_different_masks_is_finite(num_actions):
    logits = normal(0, num_actions)
    everything = np.ones(num_actions, bool)
    narrow = np.arange(num_actions) > 0

    @jax.jit
    def kl(x, y, mask, other_mask):
        return jax.value_and_grad(
            lambda x, y: Categorical(x, mask).kl(Categorical(y, other_mask)), (0, 1)
        )(x, y)

    # p = q(. | narrow), and KL(q(. | narrow) || q) = -log q(narrow).
    inside, _ = kl(logits, logits, narrow, everything)
    expected = -scipy.special.logsumexp(reference_log_probs(logits)[1:])
    np.testing.assert_allclose(inside, expected, rtol=1e-5)
    outside, gradients = kl(logits, logits, everything, narrow)  # infinite in exact arithmetic
    assert outside > 1e28
    assert all_finite((outside, gradients))


@pytest.mark.parametrize("num_actions", [2, 9])
def test_huge_logits_give_finite_accurate_results(num_actions):
    logits = jnp.asarray([1e4] + [-1e4] * (num_actions - 1), jnp.float32)

    @jax.jit
    def evaluate(x):
        def values(x):
            p, uniform = Categorical(x), Categorical(jnp.zeros(num_actions))
            return log_prob_of_every_action(p), p.entropy(), p.kl(uniform), uniform.kl(p)

        return values(x), jax.jacrev(values)(x)

    (log_prob, entropy, kl, reverse_kl), jacobians = evaluate(logits)
    np.testing.assert_array_equal(log_prob, [0.0] + [-2e4] * (num_actions - 1))
    assert entropy == 0
    np.testing.assert_allclose(kl, np.log(num_actions), rtol=1e-6)
    np.testing.assert_allclose(reverse_kl, 2e4 * (1 - 1 / num_actions), rtol=1e-3)
    assert all_finite(jacobians)


@pytest.mark.parametrize("num_actions", [1, 2, 8])
def test_out_of_range_actions_have_probability_zero(num_actions):
    """log 0 = -inf, not the 0 of an empty sum; gradients stay correct if such rows are masked."""
    logits, action = normal(0, 4, num_actions), jnp.array([0, -1, num_actions, num_actions - 1])
    there = np.array([True, False, False, True])

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(logits):
        log_prob = Categorical(logits).log_prob(action)
        return jnp.sum(jnp.where(there, log_prob, 0.0)), log_prob

    (_, log_prob), gradient = total(logits)
    np.testing.assert_array_equal(np.isneginf(log_prob), ~there)
    rows = np.exp(reference_log_probs(logits))
    expected = np.where(there[:, None], np.eye(num_actions)[np.asarray(action) % num_actions], rows)
    np.testing.assert_allclose(gradient, expected - rows, atol=1e-6)
    several = MultiCategorical(jnp.zeros((3, 4)), (2, 2))
    log_prob = several.log_prob(jnp.array([[0, 1], [0, 2], [-1, 1]]))
    np.testing.assert_allclose(log_prob, [-np.log(4), -np.inf, -np.inf], rtol=1e-6)


# MultiCategorical and Product ---------------------------------------------------------------------


def test_multi_categorical_is_the_sum_of_its_parts():
    nums, bounds = (3, 8), [(0, 3), (3, 11)]
    logits, other_logits = (normal(seed, 4, 11) for seed in (0, 1))
    mask = np.concatenate([random_mask(i, 4, num) for i, num in enumerate(nums)], axis=-1)
    p, q = (MultiCategorical(x, nums, mask) for x in (logits, other_logits))
    action = np.asarray(draw(p, jax.random.key(0), 1)[0])
    assert action.shape == (4, 2)
    assert action.dtype == np.int32

    log_prob, entropy, kl = 0.0, 0.0, 0.0
    mode = np.asarray(jit_mode(p))
    for i, (start, stop) in enumerate(bounds):
        log_p, log_q = (
            reference_log_probs(x[:, start:stop], mask[:, start:stop])
            for x in (logits, other_logits)
        )
        log_prob = log_prob + np.take_along_axis(log_p, action[:, i : i + 1], axis=-1)[:, 0]
        entropy = entropy + scipy.stats.entropy(np.exp(log_p), axis=-1)
        kl = kl + scipy.special.rel_entr(np.exp(log_p), np.exp(log_q)).sum(-1)
        np.testing.assert_array_equal(mode[:, i], log_p.argmax(-1))
    for value, expected in zip(jit_measures(p, q, action), (log_prob, entropy, kl), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "p",
    [
        MultiCategorical(np.zeros(4, np.float32), (2, 2)),
        Product((Categorical(np.zeros(2, np.float32)), Categorical(np.zeros(2, np.float32)))),
    ],
    ids=["multi-categorical", "product"],
)
def test_components_are_sampled_independently(p):
    """Equal components drawn from one key would always agree."""
    pairs = draw(p, jax.random.key(0), NUM_SAMPLES)
    first, second = pairs if isinstance(pairs, tuple) else np.asarray(pairs).T
    counts = np.bincount(2 * np.asarray(first) + np.asarray(second), minlength=4)
    assert_same_law(counts, np.full(4, 0.25))


def test_product_is_the_sum_of_its_parts():
    p, q, actions = EXAMPLES["product"], another(EXAMPLES["product"]), ACTIONS["product"]

    @jax.jit
    def evaluate(p, q, actions):
        parts = [measures(*part) for part in zip(p.components, q.components, actions, strict=True)]
        nested = measures(Product((p, p)), Product((q, q)), (actions, actions))
        return measures(p, q, actions), *parts, nested

    for whole, first, second, nested in zip(*evaluate(p, q, actions), strict=True):
        np.testing.assert_allclose(whole, first + second, rtol=1e-6)
        np.testing.assert_allclose(nested, 2 * whole, rtol=1e-6)


@pytest.mark.parametrize("nums", [(2, 3), ()])
def test_nums_must_add_up_to_the_logits(nums):
    with pytest.raises(ValueError, match="adds up to"):
        MultiCategorical(np.zeros((1, 4)), nums).entropy()


def test_kl_rejects_products_of_different_lengths():
    one = Product((Categorical(jnp.zeros(2)),))
    with pytest.raises(ValueError, match="zip"):
        one.kl(Product(one.components * 2))


# DiagonalGaussian ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event_shape", "std_batch"),
    [((), ()), ((), (4, 5)), ((3,), ()), ((3,), (4, 5)), ((2, 3), ())],
)
def test_gaussian_matches_scipy(event_shape, std_batch):
    """With log_std per state (std_batch = batch), and shared by all states."""
    shape = (4, 5, *event_shape)
    std_shape = (*std_batch, *event_shape)
    p, q = (
        DiagonalGaussian(
            normal(seed, *shape), normal(seed + 1, *std_shape, scale=0.5), len(event_shape)
        )
        for seed in (0, 10)
    )
    action = normal(20, *shape)
    assert jax.eval_shape(p.sample, jax.random.key(0)).shape == shape
    np.testing.assert_array_equal(jit_mode(p), p.mean)

    event_axes = tuple(range(2, 2 + len(event_shape)))
    (m, s), (mq, sq) = (
        (
            np.asarray(d.mean, np.float64),
            np.broadcast_to(np.exp(np.asarray(d.log_std, np.float64)), shape),
        )
        for d in (p, q)
    )
    log_prob = scipy.stats.norm.logpdf(np.asarray(action, np.float64), m, s).sum(event_axes)
    entropy = scipy.stats.norm.entropy(m, s).sum(event_axes)
    kl = (np.log(sq / s) + (s**2 + (m - mq) ** 2) / (2 * sq**2) - 0.5).sum(event_axes)
    for value, expected in zip(jit_measures(p, q, action), (log_prob, entropy, kl), strict=True):
        assert value.shape == (4, 5)
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def test_gaussian_samples_pass_a_kolmogorov_smirnov_test():
    mean, std = np.array([1.5, -3.0]), np.array([0.2, 4.0])
    distribution = DiagonalGaussian(mean.astype(np.float32), np.log(std).astype(np.float32))
    z = (np.asarray(draw(distribution, jax.random.key(0), NUM_SAMPLES), np.float64) - mean) / std
    for i in range(2):
        assert scipy.stats.kstest(z[:, i], "norm").pvalue > 1e-3
    assert scipy.stats.pearsonr(z[:, 0], z[:, 1]).pvalue > 1e-3


# Bounded intervals --------------------------------------------------------------------------------


def test_beta_matches_scipy():
    p, q = EXAMPLES["scaled"], another(EXAMPLES["scaled"])
    (a, b), (aq, bq) = (tuple(np.asarray(x, np.float64) for x in d.parameters) for d in (p, q))
    action = np.random.default_rng(0).uniform(-1.9, 2.9, (5, 3)).astype(np.float32)
    law, other = (scipy.stats.beta(*x, loc=-2.0, scale=5.0) for x in ((a, b), (aq, bq)))
    x = np.linspace(-2.0, 3.0, 20_001)[1:-1, None, None]
    kl = np.sum(law.pdf(x) * (law.logpdf(x) - other.logpdf(x)), axis=0) * (5.0 / 20_000)
    expected = law.logpdf(action).sum(-1), law.entropy().sum(-1), kl.sum(-1)
    for value, reference in zip(jit_measures(p, q, action), expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=2e-4, atol=2e-4)


def test_beta_samples_pass_a_kolmogorov_smirnov_test():
    """Down to the smallest parameters, where proposals are rejected most often."""
    alpha, beta = np.float32([1.0, 1.0, 1.2, 30.0]), np.float32([1.0, 5.0, 1.7, 2.0])
    num = 200_000
    drawn = draw(Beta(alpha, beta), jax.random.key(0), num)
    for i in range(4):
        law = scipy.stats.beta(alpha[i], beta[i])
        assert scipy.stats.kstest(np.asarray(drawn[:, i], np.float64), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("p", [EXAMPLES["beta"], EXAMPLES["squashed"]], ids=["beta", "squashed"])
def test_hessian_of_kl_of_bounded_policies_is_their_fisher_matrix(p):
    first, second = (x[0, :1] for x in p.parameters)
    make = type(p)

    @jax.jit
    def both(v):
        old = make(first, second)
        hessian = jax.hessian(lambda v: old.kl(make(first + v[:1], second + v[1:])))(v)
        rows = [old.fisher((x[:1], x[1:])) for x in jnp.eye(2)]
        return hessian, jnp.stack([jnp.concatenate(row) for row in rows])

    hessian, fisher = both(jnp.zeros(2))
    np.testing.assert_allclose(hessian, fisher, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (3.0, 1.0), (0.5, 2.0), (-0.2, 0.1)])
def test_entropy_of_a_squashed_gaussian_matches_numerical_integration(mean, std):
    u = mean + std * np.linspace(-12.0, 12.0, 48_001)
    density = scipy.stats.norm.pdf(u, mean, std)
    log_slope = 2.0 * (np.log(2.0) - u - np.logaddexp(0.0, -2.0 * u))
    expected = scipy.stats.norm.entropy(mean, std) + np.sum(density * log_slope) * std / 2000
    p = TanhGaussian(jnp.float32([mean]), jnp.log(jnp.float32([std])))
    np.testing.assert_allclose(p.entropy(), expected, rtol=0, atol=1e-3)


def test_actions_at_the_bounds_have_finite_densities_and_gradients():
    for p in (EXAMPLES["beta"], EXAMPLES["squashed"]):
        low = -1.0 if isinstance(p, TanhGaussian) else 0.0
        for bound in (low, 1.0):
            action = jnp.full((5, 3), bound, jnp.float32)
            value, slopes = jax.value_and_grad(lambda p, a: p.log_prob(a).sum())(p, action)
            assert all_finite((value, slopes))


def test_small_kl_is_accurate():
    """Trust regions measure KLs of about step^2, where exp(x) - 1 - x loses precision."""
    for step in (1e-2, 1e-3):
        p = DiagonalGaussian(np.zeros(1, np.float32), np.zeros(1, np.float32))
        q = DiagonalGaussian(np.zeros(1, np.float32), np.full(1, step, np.float32))
        exact = (np.expm1(-2 * step) + 2 * step) / 2
        kl = jit_measures(p, q, np.zeros(1, np.float32))[2]
        np.testing.assert_allclose(kl, exact, rtol=3e-7 / step)


def test_sample_gradients_are_reparameterised():
    """d action / d mean = 1 and d action / d log_std = action - mean."""
    mean, log_std = normal(0, 3), normal(1, 3)

    @jax.jit
    def evaluate(mean, log_std):
        def sample(mean, log_std):
            return DiagonalGaussian(mean, log_std).sample(jax.random.key(0))

        return sample(mean, log_std), jax.jacobian(sample, (0, 1))(mean, log_std)

    action, (by_mean, by_log_std) = evaluate(mean, log_std)
    np.testing.assert_allclose(by_mean, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(by_log_std, np.diag(action - mean), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("event", [(), (2,), (2, 3)])
def test_mixtures_match_scipy(event):
    """Likelihoods, the share and the moments of each Gaussian's samples, the densest mean."""
    axes = len(event)
    mean = jnp.stack([normal(0, 5, *event) - 10.0, normal(1, 5, *event) + 10.0], axis=1)
    log_std = 0.3 * normal(2, 5, 2, *event)
    logits, action = normal(3, 5, 2), normal(4, 5, *event, scale=8.0)
    p = GaussianMixture(logits, mean, log_std, axes)

    @jax.jit
    def evaluate(p, action):
        keys = jax.random.split(jax.random.key(0), NUM_SAMPLES)
        return p.log_prob(action), p.mode(), jax.vmap(p.sample)(keys)

    log_prob, mode, samples = evaluate(p, action)
    each = scipy.stats.norm.logpdf(np.asarray(action)[:, None], mean, np.exp(log_std))
    each = each.reshape(5, 2, -1).sum(-1)
    shares = np.exp(reference_log_probs(logits))
    wanted = scipy.special.logsumexp(np.log(shares) + each, axis=1)
    np.testing.assert_allclose(log_prob, wanted, rtol=1e-5)
    spread = np.asarray(log_std).reshape(5, 2, -1).sum(-1)  # a density at its own mean
    best = np.argmax(np.log(shares) - spread, axis=1)
    np.testing.assert_array_equal(mode, np.asarray(mean)[np.arange(5), best])
    second = np.asarray(samples).reshape(NUM_SAMPLES, 5, -1)[..., 0] > 0
    np.testing.assert_allclose(second.mean(0), shares[:, 1], atol=0.02)
    row = shares[:, 1].argmax()
    values = np.asarray(samples)[:, row][second[:, row]]
    np.testing.assert_allclose(values.mean(0), mean[row, 1], atol=0.05)
    np.testing.assert_allclose(values.std(0), np.exp(log_std[row, 1]), rtol=0.05)
