"""Core types: spaces, specs, streams, means and tree utilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers.environments import timestep

from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.trees import strong, tree_where
from jaxrl.types import (
    Box,
    Clock,
    Discrete,
    EnvSpec,
    EpisodeStats,
    Masked,
    Mean,
    Mixed,
    MultiDiscrete,
    Stream,
    into_bounds,
    sample_action,
    split_mask,
    stream,
)

KEY = jax.random.key(0)
INF = float("inf")


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


# Spaces -------------------------------------------------------------------------------------------


def test_box_equality_ignores_how_bounds_are_given():
    boxes = [
        Box.of(-1.0, 1.0, (2,)),
        Box.of(-1, 1, [2]),
        Box.of(np.float32(-1), jnp.float32(1), (np.int64(2),)),
        Box.of(np.full(2, -1.0), jnp.ones(2), (2,)),
        Box.of([-1, -1], (1.0, 1.0), (2,)),
    ]
    assert set(boxes) == {Box(-1.0, 1.0, (2,))}
    uneven = [Box.of([-1.0, -2.0], 1.0, (2,)), Box.of(jnp.array([-1.0, -2.0]), [1, 1], (2,))]
    assert set(uneven) == {Box((-1.0, -2.0), 1.0, (2,))}
    rows = Box.of(np.array([[0.0], [1.0]]), 2.0, (2, 3))  # broadcast to the shape
    assert rows == Box(((0.0,) * 3, (1.0,) * 3), 2.0, (2, 3))
    assert Box.of(0.0, 1.0, ()) == Box(0.0, 1.0, ())
    assert Box.of(0.0, 1.0, (2,)) != Box.of(0.0, 1.0, (3,))
    assert hash(Box.of(0.0, 1.0, (0,))) == hash(Box.of(0.0, 1.0, (0,)))


def test_spaces_are_compared_by_value():
    def build():
        return Mixed((Discrete(3), Box.of(np.zeros(2), 1.0, (2,)), MultiDiscrete((2, 3))))

    assert build() == build()
    assert len({build(), build(), Mixed((Discrete(4),)), Discrete(3), Discrete(3)}) == 3


def test_clip_moves_into_the_bounds():
    box = Box.of([-1.0, 0.0, -INF], [1.0, 0.5, 3.0], (3,))
    np.testing.assert_array_equal(box.clip(jnp.array([-7.0, 9.0, 9.0])), [-1.0, 0.5, 3.0])
    inside = jnp.array([0.3, 0.2, -1e9])
    np.testing.assert_array_equal(box.clip(inside), inside)
    assert box.clip(inside).dtype == jnp.float32
    assert Box.of(-1.0, 1.0, ()).clip(jnp.float32(3.0)) == 1.0


SPACES = [
    Discrete(3),
    MultiDiscrete((1, 2, 5)),
    Box.of(-2.0, 3.0, (2,)),
    Box.of([[0.0, -1.0]], [[0.1, 5.0]], (1, 2)),
    Box.of(-1.0, 1.0, ()),
    Mixed((Discrete(2), Mixed((Box.of(0.0, 1.0, (1,)), MultiDiscrete((3,)))))),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_samples_are_uniform(space):
    """Each coordinate is within its bounds, with the mean and variance of a uniform variable."""
    keys = jax.random.split(KEY, 4000)
    samples = jax.vmap(lambda k: sample_action(space, k))(keys)

    def check(space, samples):
        match space:
            case Discrete(num):
                assert samples.shape == (4000,)
                check_integers(samples, num)
            case MultiDiscrete(nums):
                assert samples.shape == (4000, len(nums))
                for i, num in enumerate(nums):
                    check_integers(samples[:, i], num)
            case Box():
                assert samples.shape == (4000, *space.shape)
                assert samples.dtype == jnp.float32
                low, high = np.broadcast_to(space.low, space.shape), np.asarray(space.high)
                unit = (np.asarray(samples) - low) / (high - low)
                assert unit.min() >= 0
                assert unit.max() <= 1
                np.testing.assert_allclose(unit.mean(0), 1 / 2, atol=5 / np.sqrt(12 * 4000))
                np.testing.assert_allclose(unit.var(0), 1 / 12, rtol=0.06)
            case Mixed(spaces):
                assert isinstance(samples, tuple)
                for part, sample in zip(spaces, samples, strict=True):
                    check(part, sample)

    def check_integers(x, num):
        assert x.dtype == jnp.int32
        share = np.bincount(x, minlength=num) / 4000
        np.testing.assert_allclose(share, np.full(num, 1 / num), atol=5 / np.sqrt(4 * 4000))

    check(space, samples)
    if isinstance(space, Mixed):  # the parts are independent
        unit, choice = np.asarray(samples[1][0])[:, 0], np.asarray(samples[0])
        assert abs(np.corrcoef(unit, choice)[0, 1]) < 0.08


def test_samples_of_unbounded_boxes():
    """Uniform between two bounds, normal without bounds, half-normal with one bound."""
    largest = float(np.finfo(np.float32).max)
    low = [-INF, -1.0, 5.0, -INF, -largest, 0.0]
    high = [INF, 3.0, INF, 5.0, largest, INF]
    box = Box.of(low, high, (6,))
    x = np.asarray(jax.vmap(lambda k: sample_action(box, k))(jax.random.split(KEY, 4000)))
    assert np.isfinite(x).all()
    assert (x >= np.float32(low)).all()
    assert (x <= np.float32(high)).all()
    half = np.sqrt(2 / np.pi)  # the mean of |normal|
    np.testing.assert_allclose(x.mean(0), [0, 1, 5 + half, 5 - half, 0, half], atol=0.1)
    np.testing.assert_allclose(x.std(0)[[0, 1, 4]], [1, 4 / np.sqrt(12), 1], rtol=0.05)
    assert ((x == np.float32(low)) | (x == np.float32(high))).mean() < 0.001  # no mass at a bound


def test_non_spaces_are_rejected():
    with pytest.raises(TypeError, match="3 is not an action space: use Discrete"):
        sample_action(3, KEY)


NAN = float("nan")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Discrete(0), "Discrete.num is 0: it must be a whole number, at least 1"),
        (lambda: Discrete(2.0), "Discrete.num is 2.0: it must be a whole number"),
        (lambda: Discrete(True), "Discrete.num is True: it must be a whole number"),
        (lambda: Discrete(2**31), "Discrete.num is 2147483648: it must be at most 2147483647"),
        (lambda: MultiDiscrete((2, 2**40)), r"MultiDiscrete.nums\[1\] is .*: it must be at most"),
        (lambda: MultiDiscrete(()), r"MultiDiscrete.nums is \(\): give a tuple"),
        (lambda: MultiDiscrete(3), "MultiDiscrete.nums is 3: give a tuple"),
        (lambda: MultiDiscrete((2, 0)), r"MultiDiscrete.nums\[1\] is 0: it must be"),
        (lambda: Box.of(1, -1, (2,)), r"low is 1 and Box.high is -1 in entry \(0,\): low must be"),
        (lambda: Box(1.0, -1.0, (2,)), "low must be below high"),
        (lambda: Box.of([0, 3], 3, (2,)), r"low is 3 and Box.high is 3 in entry \(1,\): leave"),
        (
            lambda: Box.of(0, 1e-50, ()),
            "leave constant entries out",
        ),  # underflows to 0 in float32
        (lambda: Box.of(INF, INF, (2,)), "low is inf and Box.high is inf"),
        (lambda: Box.of(NAN, 1, (2,)), "Box.low is nan: a bound must not be NaN"),
        (lambda: Box.of("low", 1, (2,)), "Box.low is 'low': give a number or an array"),
        (lambda: Box.of([0, 0, 0], 1, (2,)), r"Box.low has the shape \(3,\), which does not"),
        (lambda: Box.of(-1, 1, 2), r"Box.shape is 2: give a tuple, \(2,\)"),
        (lambda: Box(-1, 1, shape=2), r"Box.shape is 2: give a tuple, \(2,\)"),
        (lambda: Box.of(-1, 1, (2.0,)), r"Box.shape\[0\] is 2.0: it must be a whole number"),
        (lambda: Box.of(-1, 1, (-2,)), r"Box.shape\[0\] is -2: it must be a whole number"),
        (lambda: Mixed(()), r"Mixed.spaces is \(\): give a tuple with at least one entry"),
        (lambda: Mixed(Discrete(2)), "Mixed.spaces is Discrete.*: give a tuple"),
        (lambda: Mixed((Discrete(2), 3)), r"Mixed.spaces\[1\]: 3 is not an action space"),
    ],
)
def test_invalid_spaces_are_rejected(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_numpy_numbers_are_converted_to_python():
    """Conversion keeps spaces hashable and makes them print alike."""
    spaces = [Discrete(np.int64(3)), MultiDiscrete(np.array([2, 3])), Box(np.zeros(2), 1, [2])]
    assert spaces == [Discrete(3), MultiDiscrete((2, 3)), Box(0.0, 1.0, (2,))]
    assert repr(spaces[:2]) == "[Discrete(num=3), MultiDiscrete(nums=(2, 3))]"
    assert repr(spaces[2]) == "Box(low=0.0, high=1.0, shape=(2,))"
    assert EnvSpec(jnp.zeros(3), Discrete(2), np.int32(5)).max_steps == 5
    assert len({*spaces, *spaces}) == 3


def test_into_bounds_clips_only_boxes():
    space = Mixed((Discrete(3), Box.of(-1.0, [1.0, 2.0], (2,)), Mixed((Box.of(0.0, 1.0, ()),))))
    action = (jnp.int32(7), jnp.array([-5.0, 5.0]), (jnp.float32(-3.0),))
    expected = (jnp.int32(7), jnp.array([-1.0, 2.0]), (jnp.float32(0.0),))
    assert equal(into_bounds(space, action), expected)
    assert equal(into_bounds(MultiDiscrete((2, 2)), jnp.array([9, 9])), jnp.array([9, 9]))


class Echo(struct.PyTreeNode):
    """Its observation is the last action."""

    spec = EnvSpec(
        (jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.float32)),
        Mixed((Discrete(3), Box.of([-1.0, -0.5], 1.0, (2,)))),
    )

    def reset(self, key):
        obs = (jnp.int32(0), jnp.zeros(2))
        return (), obs

    def step(self, key, state, action):
        return state, timestep(action, action[1].sum(), False)


def test_environments_get_clipped_actions_and_trajectories_raw_ones():
    """The log-probability belongs to the raw action."""
    raw = (jnp.array([0, 1, 2]), jnp.array([[-9.0, -9.0], [0.5, 0.25], [9.0, 0.0]]))

    def policy(carry, obs, key):
        return carry, raw, ()

    envs = VectorEnv(Echo(), 3)
    *_, trajectory, _ = rollout(policy, envs, envs.reset(KEY), (), (), KEY, 2)
    for t in range(2):
        step = jax.tree.map(lambda x: x[t], trajectory.steps)  # noqa: B023
        assert equal(step.action, raw)
        np.testing.assert_array_equal(step.next_obs[0], [0, 1, 2])
        np.testing.assert_array_equal(step.next_obs[1], [[-1.0, -0.5], [0.5, 0.25], [1.0, 0.0]])
        np.testing.assert_array_equal(step.reward, [-1.5, 0.75, 1.0])


# Specifications -----------------------------------------------------------------------------------


def spec(**changes):
    observation = Masked(
        {
            "image": jax.ShapeDtypeStruct((4, 4, 1), changes.get("dtype", jnp.uint8)),
            "speed": jax.ShapeDtypeStruct(changes.get("shape", ()), jnp.float32),
        },
        jax.ShapeDtypeStruct((3,), jnp.bool_),
    )
    observation = changes.get("observation", observation)
    return EnvSpec(observation, changes.get("action", Discrete(3)), changes.get("max_steps", 9))


def test_specifications_are_compared_by_value():
    """They are static fields: an unequal one would recompile the program."""
    assert spec() == spec()
    assert hash(spec()) == hash(spec())
    array = EnvSpec(jnp.zeros(3), Discrete(2))
    assert array == EnvSpec(jax.ShapeDtypeStruct((3,), jnp.float32), Discrete(2))
    others = [
        spec(dtype=jnp.float32),
        spec(shape=(1,)),
        spec(action=MultiDiscrete((1, 2))),
        spec(max_steps=None),
        spec(observation=spec().observation.obs),
        spec(observation=tuple(jax.tree.leaves(spec().observation))),
    ]
    assert len({spec(), spec(), *others}) == 1 + len(others)
    assert spec() != "spec"


FLOATS = jax.ShapeDtypeStruct((2,), jnp.float32)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EnvSpec(FLOATS, 4), "spec.action: 4 is not an action space: use Discrete"),
        (lambda: EnvSpec(FLOATS, Discrete), "is not an action space: use Discrete"),
        (lambda: EnvSpec(FLOATS, Discrete(2), 5.0), "max_steps is 5.0: it must be a whole number"),
        (
            lambda: EnvSpec(FLOATS, Discrete(2), 2**31),
            "max_steps is 2147483648: .* at most 2147483647",
        ),
        (lambda: EnvSpec(FLOATS, Discrete(2), 0), "max_steps is 0: .* at least 1, or None"),
        (lambda: EnvSpec(FLOATS, Discrete(2), True), "max_steps is True: it must be a whole"),
        (
            lambda: EnvSpec(FLOATS, Discrete(2), reset_policy="Pool"),
            "reset_policy is 'Pool': use 'fresh' or 'pool'",
        ),
        (lambda: EnvSpec(FLOATS, Discrete(2), truncates="never"), "truncates is 'never': use 'any"),
        (lambda: EnvSpec((2,), Discrete(2)), r"spec.observation\[0\] is 2: give jax.ShapeDtype"),
        (lambda: EnvSpec(Box.of(-1, 1, (2,)), Discrete(2)), "spec.observation is Box.*: give jax"),
        (lambda: EnvSpec({"x": jnp.float32}, Discrete(2)), r"spec.observation\['x'\] is .*: give"),
        (
            lambda: EnvSpec(jax.ShapeDtypeStruct((2.0,), jnp.float32), Discrete(2)),
            r"spec.observation has the shape \(2.0,\): an entry is 2.0",
        ),
    ],
)
def test_invalid_specifications_are_rejected(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def masked(space, mask):
    def shape(x):
        return jax.ShapeDtypeStruct(*x)

    mask = jax.tree.map(shape, mask, is_leaf=lambda x: isinstance(x, tuple) and len(x) == 2)
    return EnvSpec(Masked(FLOATS, mask), space)


@pytest.mark.parametrize(
    ("space", "mask", "message"),
    [
        # Would broadcast and silently allow forbidden actions.
        (Discrete(4), ((1,), bool), r"action_mask is bool\[1\], but Discrete.* needs bool\[4\]"),
        (Discrete(4), ((), bool), r"action_mask is bool\[\], but"),
        (Discrete(4), ((4,), jnp.float32), r"is float32\[4\], but .* needs bool\[4\]"),
        (Discrete(4), ((5,), bool), r"is bool\[5\], but .* needs bool\[4\]"),
        (Discrete(4), ((1, 4), bool), r"is bool\[1, 4\], but .* needs bool\[4\]"),
        (Discrete(4), {"mask": ((4,), bool)}, "action_mask is a dict, but"),
        (MultiDiscrete((2, 3)), ((3,), bool), r"is bool\[3\], but .* needs bool\[5\]"),
        (MultiDiscrete((2, 2)), ((2, 2), bool), r"is bool\[2, 2\], but .* needs bool\[4\]"),
        (Box.of(-1, 1, (2,)), ((2,), bool), r"is bool\[2\], but Box.* takes no mask: use None"),
        (Mixed((Discrete(2),)), ((2,), bool), r"is bool\[2\], but .* needs a tuple of 1 entries"),
        (
            Mixed((Discrete(2), Box.of(-1, 1, (1,)))),
            [((2,), bool)],
            "is 1 entries, but .* needs a tuple of 2 entries",
        ),
        (
            Mixed((Discrete(2), Box.of(-1, 1, (1,)))),
            [((2,), bool), ((1,), bool)],
            r"action_mask\[1\] is bool\[1\], but Box.* takes no mask",
        ),
        (
            Mixed((Box.of(-1, 1, (1,)), Mixed((Discrete(2), Discrete(3))))),
            [None, [((2,), bool), ((2,), bool)]],
            r"action_mask\[1\]\[1\] is bool\[2\], but Discrete\(num=3\) needs bool\[3\]",
        ),
    ],
)
def test_masks_must_fit_the_action_space(space, mask, message):
    with pytest.raises(ValueError, match=message):
        masked(space, mask)


def test_masks_that_fit_are_accepted():
    masked(Discrete(4), ((4,), bool))
    masked(MultiDiscrete((2, 3)), ((5,), bool))
    mixed = Mixed((Discrete(2), Box.of(-1, 1, (1,)), Mixed((MultiDiscrete((2, 3)),))))
    shapes = [jax.ShapeDtypeStruct((n,), jnp.bool_) for n in (2, 5)]
    for mask in ((shapes[0], None, (shapes[1],)), (None, None, None), None):
        assert EnvSpec(Masked(FLOATS, mask), mixed).observation.action_mask == mask
    assert EnvSpec(Masked(FLOATS, None), Box.of(-1, 1, (1,))).action.shape == (1,)


def test_only_the_whole_observation_can_be_masked():
    """A nested mask would be part of the observation, and every action would be allowed."""
    for within in ({"agent": spec().observation}, Masked(spec().observation, None)):
        with pytest.raises(ValueError, match="is Masked: only the whole observation can be"):
            EnvSpec(within, Discrete(3))


def test_dummy_observation_matches_the_spec_and_allows_all_actions():
    dummy = spec().dummy_observation(2, 3)
    assert isinstance(dummy, Masked)
    assert dummy.action_mask.shape == (2, 3, 3)
    assert dummy.action_mask.dtype == jnp.bool_
    assert dummy.action_mask.all()
    assert (dummy.obs["image"].shape, dummy.obs["image"].dtype) == ((2, 3, 4, 4, 1), jnp.uint8)
    assert (dummy.obs["speed"].shape, dummy.obs["speed"].dtype) == ((2, 3), jnp.float32)
    assert not dummy.obs["image"].any()
    assert spec().dummy_observation().obs["speed"].shape == ()


def test_split_mask():
    obs, mask = jnp.zeros(3), jnp.ones(2, bool)
    assert split_mask(obs) == (obs, None)
    assert split_mask(Masked(obs, mask)) == (obs, mask)


# Keys ---------------------------------------------------------------------------------------------


def test_no_two_streams_share_a_key():
    """Streams of one key, of a neighbouring key, and streams of streams are all distinct."""
    keys = [KEY, jax.random.key(1)]
    keys += [stream(key, name) for key in keys for name in Stream]
    keys += [stream(stream(KEY, name), Stream.INIT) for name in Stream]
    data = {tuple(np.asarray(jax.random.key_data(key))) for key in keys}
    assert len(data) == len(keys) == 2 + 3 * len(Stream)
    assert len(Stream) == len(Stream.__members__)  # no alias
    assert stream(KEY, Stream.ACT) == stream(KEY, Stream.ACT)


# Means --------------------------------------------------------------------------------------------


def test_means_pool_their_data():
    mean = Mean.of(2.0) + Mean.of(jnp.float32(4.0)) + Mean.of(9)
    assert (mean.value, mean.count) == (5.0, 3.0)
    assert Mean.of(mean) is mean
    uneven = Mean(jnp.float32(10.0), jnp.float32(4.0)) + Mean.of(0.0)  # not the mean of the means
    assert uneven.value == 2.0


def test_a_mean_without_data_is_nan_and_adds_nothing():
    nothing = Mean.where(jnp.array([False, False]), jnp.array([1.0, np.nan]))
    assert np.isnan(nothing.value).all()
    assert np.isnan(nothing.pooled().value)
    assert (nothing.pooled() + Mean.of(3.0)).value == 3.0


def test_mean_where_averages_the_selected_entries():
    condition = jnp.array([[True, False, True], [False, False, False]])
    x = jnp.array([[1.0, np.nan, 5.0], [7.0, np.inf, 0.0]])
    mean = Mean.where(condition, x)
    np.testing.assert_array_equal(mean.value, [[1, np.nan, 5], [np.nan] * 3])
    assert (mean.pooled().value, mean.pooled().count) == (3.0, 2.0)
    np.testing.assert_array_equal(mean.pooled(axis=1).value, [3.0, np.nan])
    np.testing.assert_array_equal(mean.pooled(axis=0).count, [1.0, 0.0, 1.0])
    integers = Mean.where(condition[0], jnp.array([3, 4, 5]))
    assert integers.total.dtype == integers.count.dtype == jnp.float32
    assert integers.pooled().value == 4.0


def test_episode_statistics_pool_episodes():
    returns, lengths = jnp.array([1.0, 50.0, 3.0]), jnp.array([10, 99, 30])
    ended = EpisodeStats.of(returns, lengths, jnp.array([True, False, True]))
    pooled = (EpisodeStats.none() + ended + ended).pooled()
    assert (pooled.count, pooled.returns.value, pooled.lengths.value) == (4.0, 2.0, 20.0)
    assert np.isnan(EpisodeStats.none().returns.value)


# Utilities ----------------------------------------------------------------------------------------


def test_tree_where_chooses_rows_of_leaves_of_any_rank():
    condition = jnp.array([True, False])
    keys = jax.random.split(KEY, 4)
    x = {"a": jnp.ones(2), "b": jnp.ones((2, 3, 1)), "c": jnp.array([1, 2]), "key": keys[:2]}
    y = {"a": jnp.zeros(2), "b": jnp.zeros((2, 3, 1)), "c": jnp.array([3, 4]), "key": keys[2:]}
    out = tree_where(condition, x, y)
    np.testing.assert_array_equal(out["a"], [1, 0])
    np.testing.assert_array_equal(out["b"][:, :, 0], [[1] * 3, [0] * 3])
    np.testing.assert_array_equal(out["c"], [1, 4])
    assert out["c"].dtype == jnp.int32
    assert (out["key"] == keys[jnp.array([0, 3])]).all()
    shared = tree_where(condition, jnp.ones((1, 3)), jnp.zeros((2, 3)))  # one row for all
    np.testing.assert_array_equal(shared, [[1] * 3, [0] * 3])
    assert tree_where(condition, (), ()) == ()


def test_tree_where_drops_nan():
    """A step from a finished state may be NaN: it must not survive the reset."""
    out = tree_where(jnp.array([True, False]), jnp.zeros((2, 2)), jnp.array([[np.nan] * 2, [1, 1]]))
    np.testing.assert_array_equal(out, [[0, 0], [1, 1]])


def test_strong_removes_weak_types():
    """A scan carry must keep its type when a strongly typed number is added."""
    tree = {"a": 1, "b": 2.0, "c": True, "d": jnp.asarray(1.0), "e": np.float32(3), "key": KEY}
    out = strong(tree)
    assert out.pop("key") == KEY
    kinds = {name: (leaf.dtype, leaf.weak_type) for name, leaf in out.items()}
    dtypes = dict(a=jnp.int32, b=jnp.float32, c=jnp.bool_, d=jnp.float32, e=jnp.float32)
    assert kinds == {name: (dtype, False) for name, dtype in dtypes.items()}
    jax.lax.scan(lambda x, _: (x + jnp.float32(1), None), out["b"], length=2)


def test_the_clock_starts_at_zero():
    clock = Clock.start()
    assert [leaf.item() for leaf in jax.tree.leaves(clock)] == [0, 0, 0.0]
    assert [leaf.dtype for leaf in jax.tree.leaves(clock)] == [jnp.int32, jnp.int32, jnp.float32]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(clock))
