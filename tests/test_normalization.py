"""Running statistics, against float64 NumPy and reference loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.normalization import Normalizer, RunningMoments, normalized_leaves
from jaxrl.types import Discrete, EnvSpec, Masked

KEY = jax.random.key(0)


def moments_of(batches):
    """Moments after one update with each of the batches `[k, ..., *shape]`."""

    @jax.jit
    def run(start, batches):
        return jax.lax.scan(lambda m, x: (m.update(x), None), start, batches)[0]

    return run(RunningMoments.of_shape(batches.shape[3:]), batches)


# Moments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "scale"), [(0.0, 1.0), (3.0, 100.0), (1e4, 1.0), (-1e5, 10.0), (0.0, 1e-3)]
)
def test_moments_match_numpy(offset, scale):
    """100 batches of 16 x 64 rows; the variance stays accurate despite a large offset."""
    rng = np.random.default_rng(0)
    data = np.float32(offset + scale * rng.standard_normal((100, 16, 64, 3)))
    moments = moments_of(jnp.asarray(data))
    rows = data.reshape(-1, 3).astype(np.float64)
    assert moments.count == len(rows)
    resolution = abs(offset) * 2.0**-23  # of float32 itself
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5, atol=2 * resolution)
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-4)


def test_first_batch_far_from_zero_is_accurate():
    """The first batch has no previous mean to subtract: a plain float32 sum would lose digits."""
    rng = np.random.default_rng(1)
    data = np.float32(1e5 + rng.standard_normal((1, 2048, 64, 2)))
    moments = moments_of(jnp.asarray(data))
    rows = data.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=2.0**-22)
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-3)


def test_moments_of_batches_of_different_sizes_and_shapes():
    rng = np.random.default_rng(2)
    moments, rows = RunningMoments.of_shape((2, 2)), []
    for leading in ((1,), (7,), (3, 5), (2, 2, 2), ()):
        batch = rng.standard_normal((*leading, 2, 2)) * 5 + 2
        moments = moments.update(jnp.asarray(batch, jnp.float32))
        rows.append(batch.reshape(-1, 2, 2))
    rows = np.concatenate(rows)
    assert moments.count == len(rows) == 32
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-5)


def test_normalised_data_have_mean_0_and_standard_deviation_1():
    data = jax.random.normal(KEY, (1, 50, 40, 2)) * jnp.array([[[[1.0, 100.0]]]]) + 7.0
    scaled = moments_of(data).normalize(data)
    np.testing.assert_allclose(scaled.mean((0, 1, 2)), [0, 0], atol=1e-5)
    np.testing.assert_allclose(scaled.std((0, 1, 2)), [1, 1], rtol=1e-5)


def test_outliers_are_clipped_and_constants_stay_small():
    moments = moments_of(jnp.full((3, 8, 8, 1), 0.1))
    assert np.abs(moments.normalize(jnp.full((5, 1), 0.1))).max() < 0.01
    moments = moments_of(jax.random.normal(KEY, (1, 50, 40, 1)))
    np.testing.assert_array_equal(moments.normalize(jnp.array([[1e6], [-1e6]])), [[10], [-10]])
    np.testing.assert_array_equal(moments.normalize(jnp.array([[1e6]]), clip=3.0), [[3]])


# Observations -------------------------------------------------------------------------------------

SPEC = EnvSpec(
    Masked(
        {
            "bytes": jax.ShapeDtypeStruct((4, 4, 1), jnp.uint8),
            "flag": jax.ShapeDtypeStruct((2,), jnp.bool_),
            "level": jax.ShapeDtypeStruct((), jnp.int32),
            "position": jax.ShapeDtypeStruct((3,), jnp.float32),
            "speed": jax.ShapeDtypeStruct((), jnp.float32),
        },
        jax.ShapeDtypeStruct((5,), jnp.bool_),
    ),
    Discrete(5),
)


def observations(*leading):
    rng = np.random.default_rng(3)
    return Masked(
        {
            "bytes": jnp.asarray(rng.integers(0, 256, (*leading, 4, 4, 1)), jnp.uint8),
            "flag": jnp.asarray(rng.random((*leading, 2)) < 0.5),
            "level": jnp.asarray(rng.integers(0, 9, leading), jnp.int32),
            "position": jnp.asarray(rng.standard_normal((*leading, 3)) * 9 + 5, jnp.float32),
            "speed": jnp.asarray(rng.standard_normal(leading) * 0.1 - 5, jnp.float32),
        },
        jnp.asarray(rng.random((*leading, 5)) < 0.5),
    )


def test_numbers_in_observations_are_normalised():
    """Integers and bytes become floats, scaled leaf by leaf; flags and masks are unchanged."""
    obs = observations(6, 7)
    normalizer = Normalizer.create(SPEC, 7, observations=True, rewards=False)
    reward, done = jnp.zeros((6, 7)), jnp.zeros((6, 7), bool)
    normalizer = normalizer.update(obs, reward, done, 0.99)
    scaled = normalizer.normalize_obs(obs)
    assert isinstance(scaled, Masked)
    np.testing.assert_array_equal(scaled.action_mask, obs.action_mask)
    np.testing.assert_array_equal(scaled.obs["flag"], obs.obs["flag"])
    assert scaled.obs["flag"].dtype == scaled.action_mask.dtype == jnp.bool_
    for name in ("bytes", "level", "position", "speed"):
        assert scaled.obs[name].dtype == jnp.float32
        x = np.asarray(obs.obs[name], np.float64)
        expected = (x - x.mean((0, 1))) / x.std((0, 1))
        np.testing.assert_allclose(scaled.obs[name], expected, rtol=1e-3, atol=1e-4)
    one = jax.tree.map(lambda x: x[0, 0], obs)  # any leading axes, or none
    again = jax.tree.map(lambda x: x[0, 0], scaled)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
        normalizer.normalize_obs(one),
        again,
    )


def test_nothing_is_scaled_before_the_first_update():
    normalizer = Normalizer.create(SPEC, 7, observations=True, rewards=True)
    obs = observations(2)

    scaled = normalizer.normalize_obs(obs)
    np.testing.assert_array_equal(scaled.obs.pop("bytes"), obs.obs.pop("bytes") / np.float32(255))
    jax.tree.map(
        np.testing.assert_array_equal, scaled, obs
    )  # bytes are divided by 255, as in networks
    rewards = jnp.array([[0.0, 1.0, -950.0]])
    np.testing.assert_array_equal(normalizer.normalize_reward(rewards), rewards)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint16", "uint32", "uint8"])
def test_all_integer_dtypes_are_normalised(dtype):
    """Including their extremes: they are cast to float before any subtraction."""
    spec = EnvSpec(jax.ShapeDtypeStruct((2,), dtype), Discrete(2))
    limits = np.iinfo(dtype)
    rows = np.random.default_rng(5).choice([limits.min, limits.max, 3], (8, 4, 2)).astype(dtype)
    normalizer = Normalizer.create(spec, 4, observations=True, rewards=False)
    zeros = jnp.zeros((8, 4))
    with jax.numpy_dtype_promotion("strict"):
        normalizer = normalizer.update(jnp.asarray(rows), zeros, zeros > 0, 0.99)
        scaled = normalizer.normalize_obs(jnp.asarray(rows))
    exact = rows.astype(np.float64)
    expected = (exact - exact.mean((0, 1))) / exact.std((0, 1))
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-4)


def test_floats_mode_leaves_integers_unchanged():
    obs = observations(6, 7)
    options = dict(observations=True, rewards=False, normalized="floats")
    normalizer = Normalizer.create(SPEC, 7, **options)
    zeros = jnp.zeros((6, 7))
    scaled = normalizer.update(obs, zeros, zeros > 0, 0.99).normalize_obs(obs)
    for name in ("bytes", "flag", "level"):
        np.testing.assert_array_equal(scaled.obs[name], obs.obs[name])
        assert scaled.obs[name].dtype == obs.obs[name].dtype
    both = Normalizer.create(SPEC, 7, observations=True, rewards=False).update(
        obs, zeros, zeros > 0, 0.99
    )
    for name in ("position", "speed"):
        np.testing.assert_array_equal(scaled.obs[name], both.normalize_obs(obs).obs[name])


def test_normalised_leaves_are_listed():
    assert list(normalized_leaves(SPEC)) == ["bytes", "level", "position", "speed"]
    assert list(normalized_leaves(SPEC, "floats")) == ["position", "speed"]


def test_disabled_normalizer_is_the_identity():
    normalizer = Normalizer.create(SPEC, 7, observations=False, rewards=False)
    assert jax.tree.leaves(normalizer) == []
    obs, reward = observations(3), jnp.array([1e6])
    assert normalizer.normalize_obs(obs) is obs
    assert normalizer.normalize_reward(reward) is reward
    assert normalizer.update(obs, reward, reward > 0, 0.99) == normalizer


# Rewards ------------------------------------------------------------------------------------------


def slow_returns(rewards, done, discount, leak):
    """The running discounted return after every step, in a plain loop.

    With `leak`, the end of an episode is applied one step too early, as in PureJaxRL and rejax: the
    running return is reset before the last reward, which then leaks into the next episode.
    """
    num_steps, num_envs = rewards.shape
    out = np.zeros((num_steps, num_envs))
    for n in range(num_envs):
        running = 0.0
        for t in range(num_steps):
            if leak:
                running = running * discount * (1 - done[t, n]) + rewards[t, n]
            elif t > 0 and done[t - 1, n]:
                running = rewards[t, n]
            else:
                running = discount * running + rewards[t, n]
            out[t, n] = running
    return out


def first_steps(done):
    """Where episodes begin, `bool[T, N]`, given where they end."""
    return np.concatenate([np.ones_like(done[:1]), done[:-1]])


def scaled_rewards_case():
    """Four rollouts; the last reward of an episode is large, as at a goal."""
    rng = np.random.default_rng(4)
    done = rng.random((4, 20, 6)) < 0.15
    rewards = rng.standard_normal((4, 20, 6)) + 20.0 * done
    return rewards, done


def test_rewards_are_scaled_by_the_std_of_the_running_return():
    discount = 0.9
    rewards, done = scaled_rewards_case()
    normalizer = Normalizer.create(SPEC, 6, observations=False, rewards=True)
    update = jax.jit(lambda n, r, d: n.update((), r, d, discount))
    flat = rewards.reshape(-1, 6), done.reshape(-1, 6)
    first = first_steps(flat[1]).reshape(done.shape)
    for r, f in zip(rewards, first, strict=True):
        normalizer = update(normalizer, jnp.asarray(r, jnp.float32), jnp.asarray(f))

    right, wrong = (slow_returns(*flat, discount, leak).std() for leak in (False, True))
    probe = jnp.array([[0.3, -1.0, 2.0]])
    scaled = normalizer.normalize_reward(probe)
    np.testing.assert_allclose(scaled, np.asarray(probe) / right, rtol=1e-4)
    assert abs(right - wrong) > 0.03 * right  # so a leak would be noticed
    np.testing.assert_array_equal(normalizer.normalize_reward(probe * 1e6)[0], [10, -10, 10])


def test_last_rewards_do_not_leak_into_the_next_episode():
    """By hand: rewards 1 and 100, then 1; a leak would start the next episode with 100."""
    normalizer = Normalizer.create(SPEC, 1, observations=False, rewards=True)
    rewards = jnp.array([[1.0], [100.0], [1.0]])
    first = jnp.array([[True], [False], [True]])
    new = normalizer.update((), rewards, first, 0.5)
    np.testing.assert_allclose(new.reward.mean, (1 + 100.5 + 1) / 3, rtol=1e-6)
    np.testing.assert_array_equal(new.running_return, [1.0])
    # The same when a rollout ends there and the next rollout starts a new episode.
    left = normalizer.update((), rewards[:2], first[:2], 0.5)
    np.testing.assert_array_equal(
        left.update((), rewards[2:], first[2:], 0.5).running_return, [1.0]
    )


def test_vmap_lanes_are_independent():
    """With batched data, statistics and discounts."""
    rewards, done = (jnp.asarray(x) for x in scaled_rewards_case())
    rewards = rewards.astype(jnp.float32)
    obs = observations(4, 20, 6)
    discounts = jnp.array([0.0, 0.5, 0.9, 1.0])
    start = Normalizer.create(SPEC, 6, observations=True, rewards=True)

    @jax.jit
    def run(obs, rewards, done, discount):
        new = start.update(obs, rewards, done, discount)
        return new, new.normalize_obs(obs), new.normalize_reward(rewards)

    lanes = jax.vmap(run)(obs, rewards, done, discounts)
    for i in (0, 3):
        pick = jax.tree.map(lambda x: x[i], (obs, rewards, done, discounts))  # noqa: B023
        lane = jax.tree.map(lambda x: x[i], lanes)  # noqa: B023
        for x, y in zip(jax.tree.leaves(lane), jax.tree.leaves(run(*pick)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
