"""Distributions agree with scipy, with closed forms in float64 NumPy and with their own samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxrl.distributions import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    Product,
)

NUM_ACTIONS = [1, 2, 3, 6, 7, 18]  # either side of the unrolled sums
EVENT_SHAPES = [(), (3,), (2, 3)]


def normal(seed: int, *shape: int, scale: float = 1.0) -> jax.Array:
    return scale * jax.random.normal(jax.random.key(seed), shape)


def random_mask(seed: int, *shape: int) -> np.ndarray:
    """Allows about half of the actions, the first one always."""
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
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def draw(distribution: Distribution, seed: int, num_samples: int):
    return jax.vmap(distribution.sample)(jax.random.split(jax.random.key(seed), num_samples))


EXAMPLES = {
    "categorical": Categorical(normal(0, 5, 4)),
    "many actions": Categorical(normal(0, 5, 11)),
    "masked": Categorical(normal(0, 5, 4), jnp.asarray(random_mask(0, 5, 4))),
    "multi-categorical": MultiCategorical(normal(0, 5, 12), (2, 3, 7)),
    "gaussian": DiagonalGaussian(normal(0, 5, 3), normal(1, 5, 3, scale=0.3)),
    "scalar gaussian": DiagonalGaussian(normal(0, 5), normal(1, 5, scale=0.3), event_ndim=0),
    "product": Product(
        (Categorical(normal(0, 5, 4)), DiagonalGaussian(normal(1, 5, 2), normal(2, 5, 2)))
    ),
}
each_example = pytest.mark.parametrize("distribution", EXAMPLES.values(), ids=EXAMPLES.keys())


# Every distribution -------------------------------------------------------------------------------


@each_example
def test_batch_shape_and_dtype(distribution):
    assert isinstance(distribution, Distribution)
    action = distribution.sample(jax.random.key(0))
    for value in (
        distribution.log_prob(action),
        distribution.entropy(),
        distribution.kl(distribution),
    ):
        assert value.shape == (5,)
        assert value.dtype == jnp.float32
    assert jax.tree.map(lambda x: (x.shape, x.dtype), action) == jax.tree.map(
        lambda x: (x.shape, x.dtype), distribution.mode()
    )


@each_example
def test_jit_and_vmap_change_nothing(distribution):
    action = distribution.sample(jax.random.key(0))
    eager = (distribution.log_prob(action), distribution.entropy(), distribution.kl(distribution))

    def evaluate(distribution, action):
        return distribution.log_prob(action), distribution.entropy(), distribution.kl(distribution)

    for transform in (jax.jit, jax.vmap):
        values = transform(evaluate)(distribution, action)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), values, eager
        )
    jitted = jax.jit(lambda distribution, key: distribution.sample(key))
    same = jax.tree.map(
        lambda x, y: np.allclose(x, y, rtol=1e-6), jitted(distribution, jax.random.key(0)), action
    )
    assert all(jax.tree.leaves(same))


@each_example
def test_kl_to_itself_is_zero_with_zero_gradient(distribution):
    assert (distribution.kl(distribution) == 0).all()
    leaves, treedef = jax.tree.flatten(distribution)

    def kl(floats):
        rest = [f if f is not None else leaf for f, leaf in zip(floats, leaves, strict=True)]
        return distribution.kl(treedef.unflatten(rest)).sum()

    floats = [leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else None for leaf in leaves]
    for gradient in jax.tree.leaves(jax.grad(kl)(floats)):
        np.testing.assert_allclose(gradient, 0.0, atol=2e-6)


@each_example
def test_no_action_is_likelier_than_the_mode(distribution):
    samples = draw(distribution, 1, 200)
    best = distribution.log_prob(distribution.mode())
    log_probs = jax.vmap(distribution.log_prob)(samples)
    assert (np.asarray(log_probs) <= np.asarray(best)[None] + 1e-6).all()


@each_example
def test_entropy_is_the_mean_of_minus_log_prob(distribution):
    log_probs = np.asarray(jax.vmap(distribution.log_prob)(draw(distribution, 2, 20_000)))
    standard_error = log_probs.std(axis=0) / np.sqrt(len(log_probs))
    error = np.abs(-log_probs.mean(axis=0) - np.asarray(distribution.entropy()))
    assert (error <= 4.5 * standard_error + 1e-5).all()


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "masked"])
def test_kl_is_the_mean_of_the_log_ratio(name):
    p = EXAMPLES[name]
    q = jax.tree.map(lambda x: 0.7 * x + 0.2 * jnp.sin(3 * x), p)
    samples = draw(p, 3, 20_000)
    log_ratio = np.asarray(jax.vmap(p.log_prob)(samples) - jax.vmap(q.log_prob)(samples))
    standard_error = log_ratio.std(axis=0) / np.sqrt(len(log_ratio))
    kl = np.asarray(p.kl(q))
    assert (kl > 0).all()
    assert (np.abs(log_ratio.mean(axis=0) - kl) <= 4.5 * standard_error + 1e-5).all()


@each_example
def test_score_has_mean_zero(distribution):
    """E[grad log p] = 0, summed over the batch: what makes a baseline unbiased."""
    floats, rest = zip(
        *[
            (leaf, None) if jnp.issubdtype(leaf.dtype, jnp.floating) else (None, leaf)
            for leaf in jax.tree.leaves(distribution)
        ],
        strict=True,
    )
    treedef = jax.tree.structure(distribution)

    def log_prob(floats, action):
        leaves = [r if f is None else f for f, r in zip(floats, rest, strict=True)]
        return treedef.unflatten(leaves).log_prob(action).sum()

    scores = jax.vmap(jax.grad(log_prob), in_axes=(None, 0))(floats, draw(distribution, 4, 20_000))
    for score in jax.tree.leaves(scores):
        score = np.asarray(score, np.float64)
        standard_error = score.std(axis=0) / np.sqrt(len(score))
        assert (np.abs(score.mean(axis=0)) <= 4.5 * standard_error + 1e-6).all()


@pytest.mark.parametrize("name", EXAMPLES)
def test_low_precision_parameters_are_computed_in_float32(name):
    low = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        EXAMPLES[name],
    )
    wide = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, low)
    action = wide.sample(jax.random.key(0))
    np.testing.assert_array_equal(low.log_prob(action), wide.log_prob(action))
    np.testing.assert_array_equal(low.entropy(), wide.entropy())
    np.testing.assert_array_equal(low.kl(wide), 0.0)


@functools.partial(jax.jit, static_argnums=2)
def roll_out(parameters, key, make):
    """Draws an action and its log_prob in each step of a scan, as a rollout does."""

    def step(key, parameters):
        key, action_key = jax.random.split(key)
        action = make(parameters).sample(action_key)
        return key, (action, make(parameters).log_prob(action))

    return jax.lax.scan(step, key, parameters)[1]


@pytest.mark.parametrize("num_actions", NUM_ACTIONS)
def test_first_importance_ratio_of_a_categorical_is_exactly_one(num_actions):
    """The same bits from the rollout's scan, the update's gradient and log_prob by itself."""
    logits = normal(0, 32, 67, num_actions, scale=3.0)
    flat_logits = logits.reshape(-1, num_actions)
    actions, old = (x.reshape(-1) for x in roll_out(logits, jax.random.key(0), Categorical))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def update(logits, actions, old):
        distribution = Categorical(logits)
        ratio = jnp.exp(distribution.log_prob(actions) - old)
        return (jnp.clip(ratio, 0.8, 1.2) * old).sum() - distribution.entropy().sum(), ratio

    _, ratio = update(flat_logits, actions, old)
    np.testing.assert_array_equal(ratio, 1.0)
    alone = jax.jit(lambda logits, actions: Categorical(logits).log_prob(actions))
    np.testing.assert_array_equal(alone(flat_logits, actions), old)


@each_example
def test_log_prob_recomputed_under_jit_is_bit_equal(distribution):
    log_prob = jax.jit(lambda distribution, action: distribution.log_prob(action))
    action = distribution.sample(jax.random.key(0))
    first, second = log_prob(distribution, action), log_prob(distribution, action)
    np.testing.assert_array_equal(jnp.exp(second - first), 1.0)


def test_first_importance_ratio_of_a_gaussian_is_one_to_rounding():
    """Not exactly: inside a rollout XLA may fuse the noise into log_prob and round it anew."""
    mean = normal(0, 32, 67, 6)
    actions, old = roll_out(mean, jax.random.key(0), make_gaussian)
    new = jax.jit(lambda mean, actions: make_gaussian(mean).log_prob(actions))(mean, actions)
    np.testing.assert_allclose(jnp.exp(new - old), 1.0, atol=1e-5)


def make_gaussian(mean):
    return DiagonalGaussian(mean, jnp.linspace(-1.0, 0.5, mean.shape[-1]))


# Categorical --------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_actions", NUM_ACTIONS)
def test_categorical_matches_scipy(num_actions, masked):
    logits, other_logits = (normal(seed, 4, 5, num_actions, scale=2.0) for seed in (0, 1))
    mask = random_mask(0, 4, 5, num_actions) if masked else None
    p, q = (
        Categorical(x, None if mask is None else jnp.asarray(mask)) for x in (logits, other_logits)
    )
    log_p, log_q = (reference_log_probs(x, mask) for x in (logits, other_logits))

    np.testing.assert_allclose(
        p.entropy(), scipy.stats.entropy(np.exp(log_p), axis=-1), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        p.kl(q), scipy.special.rel_entr(np.exp(log_p), np.exp(log_q)).sum(-1), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(p.mode(), log_p.argmax(axis=-1))
    for a in range(num_actions):
        log_prob = np.asarray(p.log_prob(jnp.full((4, 5), a, jnp.int32)))
        allowed = np.isfinite(log_p[..., a])
        np.testing.assert_allclose(log_prob[allowed], log_p[..., a][allowed], rtol=1e-5, atol=1e-6)
        assert np.isfinite(log_prob).all()
        assert (log_prob[~allowed] < -1e37).all()
        assert (np.exp(log_prob[~allowed]) == 0).all()


@pytest.mark.parametrize("num_actions", NUM_ACTIONS)
def test_categorical_gradients_match_the_closed_forms(num_actions):
    """Gradients are onehot - p; -p (log p + H); p (log p - log q - KL); and q - p for KL's q."""
    logits, other_logits = (normal(seed, 5, num_actions) for seed in (0, 1))
    action = Categorical(logits).sample(jax.random.key(0))
    log_p, log_q = reference_log_probs(logits), reference_log_probs(other_logits)
    p, q = np.exp(log_p), np.exp(log_q)
    entropy = -(p * log_p).sum(-1, keepdims=True)
    kl = (p * (log_p - log_q)).sum(-1, keepdims=True)

    def gradient(function, argument=0):
        return jax.grad(lambda *logits: function(*logits).sum(), argument)(logits, other_logits)

    def kl_of(x, y):
        return Categorical(x).kl(Categorical(y))

    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    close(
        gradient(lambda x, y: Categorical(x).log_prob(action)),
        np.eye(num_actions)[np.asarray(action)] - p,
    )
    close(gradient(lambda x, y: Categorical(x).entropy()), -p * (log_p + entropy))
    close(gradient(kl_of), p * (log_p - log_q - kl))
    close(gradient(kl_of, 1), q - p)


@pytest.mark.parametrize("num_actions", [4, 11])
def test_hessian_of_kl_is_the_fisher_matrix(num_actions):
    """d2 KL(old || new) / d new2 at new = old is diag(p) - p p^T: what TRPO's product relies on."""
    logits = normal(0, num_actions)
    hessian = jax.hessian(lambda x: Categorical(logits).kl(Categorical(x)))(logits)
    p = np.exp(reference_log_probs(logits))
    np.testing.assert_allclose(hessian, np.diag(p) - np.outer(p, p), atol=1e-6)


@pytest.mark.parametrize("num_actions", [2, 5, 12])
def test_sampling_frequencies_pass_a_chi_square_test(num_actions):
    num_samples = 100_000
    logits = normal(7, num_actions)
    samples = np.asarray(
        Categorical(jnp.broadcast_to(logits, (num_samples, num_actions))).sample(jax.random.key(1))
    )
    assert samples.dtype == np.int32
    counts = np.bincount(samples, minlength=num_actions)
    expected = num_samples * np.exp(reference_log_probs(logits))
    assert scipy.stats.chisquare(counts, expected * (counts.sum() / expected.sum())).pvalue > 1e-3


def test_masked_actions_are_never_sampled_and_the_others_keep_their_odds():
    num_samples, mask = 100_000, np.array([True, False, True, True, False])
    logits = jnp.asarray([0.0, 50.0, 1.0, -1.0, 9.0])  # the masked ones would win
    distribution = Categorical(jnp.broadcast_to(logits, (num_samples, 5)), jnp.asarray(mask))
    counts = np.bincount(distribution.sample(jax.random.key(2)), minlength=5)
    assert (counts[~mask] == 0).all()
    expected = num_samples * np.exp(reference_log_probs(logits, mask))[mask]
    assert scipy.stats.chisquare(counts[mask], expected).pvalue > 1e-3
    assert (distribution.mode() == 2).all()


@pytest.mark.parametrize("num_actions", [5, 12])
def test_a_masked_categorical_is_the_categorical_of_what_is_left(num_actions):
    logits, other_logits = (normal(seed, 3, num_actions) for seed in (0, 1))
    kept = np.array([0, 2, 3])
    mask = jnp.zeros(num_actions, bool).at[kept].set(True)  # one mask for the whole batch
    p, q = Categorical(logits, mask), Categorical(other_logits, mask)
    left_p, left_q = Categorical(logits[:, kept]), Categorical(other_logits[:, kept])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(p.entropy(), left_p.entropy())
    close(p.kl(q), left_p.kl(left_q))
    for i, a in enumerate(kept):
        close(p.log_prob(jnp.full(3, a)), left_p.log_prob(jnp.full(3, i)))
    gradient = jax.grad(lambda x: Categorical(x, mask).entropy().sum())(logits)
    left_gradient = jax.grad(lambda x: Categorical(x).entropy().sum())(logits[:, kept])
    close(gradient[:, kept], left_gradient)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("num_actions", [2, 6, 12])
def test_gradients_are_finite_and_zero_at_masked_logits(num_actions, scale):
    mask = random_mask(3, 64, num_actions)
    mask[0] = False  # a row with nothing allowed
    logits, other_logits = (normal(s, 64, num_actions, scale=scale) for s in (0, 1))
    every_action = jnp.broadcast_to(jnp.arange(num_actions)[:, None], (num_actions, 64))

    def values(logits, other_logits):
        p, q = (Categorical(x, jnp.asarray(mask)) for x in (logits, other_logits))
        return jax.vmap(p.log_prob)(every_action), p.entropy(), p.kl(q)

    assert all_finite(values(logits, other_logits))
    for i in range(3):
        gradients = jax.grad(lambda x, y, i=i: values(x, y)[i].sum(), (0, 1))(logits, other_logits)
        assert all_finite(gradients)
        for gradient in gradients:
            assert (np.asarray(gradient)[~mask] == 0).all()
    assert all_finite(jax.jvp(values, (logits, other_logits), (other_logits, logits)))


@pytest.mark.parametrize("num_actions", [4, 9])
def test_a_fully_masked_row_is_uniform(num_actions):
    distribution = Categorical(normal(0, 2, num_actions), jnp.zeros((2, num_actions), bool))
    for a in range(num_actions):
        log_prob = distribution.log_prob(jnp.full(2, a))
        np.testing.assert_allclose(log_prob, -np.log(num_actions), rtol=1e-6)
    np.testing.assert_allclose(distribution.entropy(), np.log(num_actions), rtol=1e-6)
    counts = np.bincount(np.asarray(draw(distribution, 0, 5_000)).ravel(), minlength=num_actions)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("num_actions", [3, 8])
def test_masks_that_disagree_give_a_huge_finite_kl(num_actions):
    logits = normal(0, num_actions)
    narrow = jnp.arange(num_actions) > 0
    everything = jnp.ones(num_actions, bool)

    def kl(x, y, mask, other_mask):
        return Categorical(x, mask).kl(Categorical(y, other_mask))

    into = kl(logits, logits, narrow, everything)  # p forbids what q allows: -log q(allowed)
    reference = reference_log_probs(logits)
    np.testing.assert_allclose(into, -scipy.special.logsumexp(reference[1:]), rtol=1e-5)
    out = kl(logits, logits, everything, narrow)
    assert jnp.isfinite(out)
    assert out > 1e30
    assert all_finite(jax.grad(kl, (0, 1))(logits, logits, everything, narrow))


@pytest.mark.parametrize("num_actions", [2, 7])
def test_huge_logits_stay_finite_and_right(num_actions):
    logits = jnp.full(num_actions, -1e4).at[0].set(1e4)
    distribution, uniform = Categorical(logits), Categorical(jnp.zeros(num_actions))
    np.testing.assert_allclose(distribution.log_prob(jnp.int32(0)), 0.0)
    np.testing.assert_allclose(distribution.log_prob(jnp.int32(1)), -2e4)
    assert distribution.entropy() == 0
    np.testing.assert_allclose(distribution.kl(uniform), np.log(num_actions), rtol=1e-6)
    np.testing.assert_allclose(
        uniform.kl(distribution), 2e4 * (num_actions - 1) / num_actions, rtol=1e-3
    )
    for value in (
        lambda x: Categorical(x).log_prob(jnp.int32(1)),
        lambda x: Categorical(x).entropy(),
        lambda x: Categorical(x).kl(uniform),
        lambda x: uniform.kl(Categorical(x)),
    ):
        assert all_finite(jax.grad(value)(logits))


# MultiCategorical and Product ---------------------------------------------------------------------


def test_multi_categorical_is_the_sum_of_its_parts():
    nums, bounds = (3, 2, 8), [(0, 3), (3, 5), (5, 13)]
    logits, other_logits = (normal(seed, 4, 13) for seed in (0, 1))
    mask = np.concatenate([random_mask(i, 4, num) for i, num in enumerate(nums)], axis=-1)
    p, q = (MultiCategorical(x, nums, jnp.asarray(mask)) for x in (logits, other_logits))
    action = np.asarray(p.sample(jax.random.key(0)))
    assert action.shape == (4, 3)
    assert action.dtype == np.int32

    log_prob, entropy, kl = 0.0, 0.0, 0.0
    for i, (start, stop) in enumerate(bounds):
        log_p, log_q = (
            reference_log_probs(x[:, start:stop], mask[:, start:stop])
            for x in (logits, other_logits)
        )
        log_prob = log_prob + np.take_along_axis(log_p, action[:, i : i + 1], axis=-1)[:, 0]
        entropy = entropy + scipy.stats.entropy(np.exp(log_p), axis=-1)
        kl = kl + scipy.special.rel_entr(np.exp(log_p), np.exp(log_q)).sum(-1)
        np.testing.assert_array_equal(p.mode()[:, i], log_p.argmax(-1))
    np.testing.assert_allclose(p.log_prob(jnp.asarray(action)), log_prob, rtol=1e-5)
    np.testing.assert_allclose(p.entropy(), entropy, rtol=1e-5)
    np.testing.assert_allclose(p.kl(q), kl, rtol=1e-5, atol=1e-6)


def test_components_are_sampled_independently():
    """Equal components drawn from one key would always agree."""
    half = Categorical(jnp.zeros((20_000, 2)))
    pairs = [
        MultiCategorical(jnp.zeros((20_000, 4)), (2, 2)).sample(jax.random.key(0)).T,
        Product((half, half)).sample(jax.random.key(0)),
    ]
    for first, second in pairs:
        table = np.zeros((2, 2))
        np.add.at(table, (np.asarray(first), np.asarray(second)), 1)
        assert scipy.stats.chisquare(table.ravel()).pvalue > 1e-3


def test_product_is_the_sum_of_its_parts():
    p = (Categorical(normal(0, 5, 3)), DiagonalGaussian(normal(1, 5, 2), normal(2, 5, 2)))
    q = (Categorical(normal(3, 5, 3)), DiagonalGaussian(normal(4, 5, 2), normal(5, 5, 2)))
    action = Product(p).sample(jax.random.key(0))
    assert isinstance(action, tuple)
    log_probs = [part.log_prob(a) for part, a in zip(p, action, strict=True)]
    np.testing.assert_array_equal(Product(p).log_prob(action), sum(log_probs))
    np.testing.assert_array_equal(Product(p).entropy(), p[0].entropy() + p[1].entropy())
    np.testing.assert_array_equal(Product(p).kl(Product(q)), p[0].kl(q[0]) + p[1].kl(q[1]))
    nested = Product((Product(p), p[0]))
    np.testing.assert_array_equal(nested.entropy(), Product(p).entropy() + p[0].entropy())


@pytest.mark.parametrize("nums", [(2, 3), ()])
def test_nums_must_add_up_to_the_logits(nums):
    with pytest.raises(ValueError, match="adds up to"):
        MultiCategorical(jnp.zeros((1, 4)), nums).entropy()


def test_products_of_different_lengths_do_not_mix():
    one = Product((Categorical(jnp.zeros(2)),))
    with pytest.raises(ValueError, match="zip"):
        one.kl(Product(one.components * 2))


# DiagonalGaussian ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True], ids=["std per state", "shared std"])
@pytest.mark.parametrize("event_shape", EVENT_SHAPES)
def test_gaussian_matches_scipy(event_shape, shared):
    shape = (4, 5, *event_shape)
    std_shape = event_shape if shared else shape
    p, q = (
        DiagonalGaussian(
            normal(seed, *shape), normal(seed + 1, *std_shape, scale=0.5), len(event_shape)
        )
        for seed in (0, 10)
    )
    action = p.sample(jax.random.key(3))
    assert action.shape == shape
    np.testing.assert_array_equal(p.mode(), p.mean)

    event_axes = tuple(range(2, 2 + len(event_shape)))
    (m, s), (mq, sq) = (
        (
            np.asarray(d.mean, np.float64),
            np.broadcast_to(np.exp(np.asarray(d.log_std, np.float64)), shape),
        )
        for d in (p, q)
    )
    oracle = scipy.stats.norm(m, s)
    log_prob = oracle.logpdf(np.asarray(action)).sum(event_axes)
    kl = (np.log(sq / s) + (s**2 + (m - mq) ** 2) / (2 * sq**2) - 0.5).sum(event_axes)
    for value, expected in (
        (p.log_prob(action), log_prob),
        (p.entropy(), oracle.entropy().sum(event_axes)),
        (p.kl(q), kl),
    ):
        assert value.shape == (4, 5)
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def test_gaussian_samples_pass_a_kolmogorov_smirnov_test():
    mean, std = np.array([1.5, -3.0]), np.array([0.2, 4.0])
    distribution = DiagonalGaussian(jnp.asarray(mean), jnp.log(jnp.asarray(std)))
    samples = np.asarray(draw(distribution, 0, 20_000), np.float64)
    for i in range(2):
        assert scipy.stats.kstest(samples[:, i], "norm", (mean[i], std[i])).pvalue > 1e-3
    assert abs(scipy.stats.pearsonr(samples[:, 0], samples[:, 1]).statistic) < 0.03


@pytest.mark.parametrize("step", [1e-2, 1e-3])
def test_a_small_kl_keeps_its_digits(step):
    """A trust region measures KLs of about step^2, where naive float32 forms lose every digit."""
    p = DiagonalGaussian(jnp.zeros(1), jnp.zeros(1))
    q = DiagonalGaussian(jnp.zeros(1), jnp.full(1, step))
    exact = step + np.exp(-2 * step) / 2 - 0.5
    np.testing.assert_allclose(p.kl(q), exact, rtol=1e-6 / step)


def test_sample_gradients_are_those_of_the_reparameterisation():
    """d action / d mean = 1 and d action / d log_std = action - mean."""
    mean, log_std = normal(0, 3), normal(1, 3)

    def sample(mean, log_std):
        return DiagonalGaussian(mean, log_std).sample(jax.random.key(0))

    by_mean, by_log_std = jax.jacobian(sample, (0, 1))(mean, log_std)
    np.testing.assert_allclose(by_mean, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(np.diag(by_log_std), sample(mean, log_std) - mean, rtol=1e-5)
