"""The effect of each wrapper; termination, truncation and masks are preserved."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers.environments import timestep

import jaxrl
from jaxrl import wrappers
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.types import Box, Discrete, EnvSpec, Masked, Mixed, MultiDiscrete, static
from jaxrl_envs import check
from jaxrl_envs.exact import arm

KEY = jax.random.key(0)
OBS = {
    "image": jax.ShapeDtypeStruct((2, 2, 1), jnp.uint8),
    "vector": jax.ShapeDtypeStruct((2,), jnp.float32),
}
MASK = jax.ShapeDtypeStruct((3,), jnp.bool_)


class Steps(struct.PyTreeNode):
    """Counts its steps in the observation; rewards are 1, 2, 3, ... within an episode.

    Terminates after `terminates` steps and truncates after `truncates`. Action `time % 3` is not
    available.
    """

    terminates: int = static(default=100)
    truncates: int = static(default=100)
    speed: float = 1.0

    spec = EnvSpec(Masked(OBS, MASK), Discrete(3))

    def observed(self, time):
        time = jnp.asarray(time)
        obs = {
            "image": jnp.full((2, 2, 1), time, jnp.uint8),
            "vector": jnp.stack([time, -time]).astype(jnp.float32) * self.speed,
        }
        return Masked(obs, jnp.arange(3) != time % 3)

    def reset(self, key):
        state = (jnp.int32(0), jnp.int32(-1))
        return state, self.observed(0)

    def step(self, key, state, action):
        time = state[0] + 1
        terminated = time >= self.terminates
        truncated = (time >= self.truncates) & ~terminated
        reward = time.astype(jnp.float32)
        state = (time, jnp.asarray(action, jnp.int32))
        return state, timestep(self.observed(time), reward, terminated, truncated)


class Push(struct.PyTreeNode):
    """The observation is the last action. Truncates after five steps."""

    spec = EnvSpec(
        jax.ShapeDtypeStruct((2,), jnp.float32),
        Box.of([-1.0, 0.0], [1.0, 4.0], (2,)),
        max_steps=5,
        truncates="at_max_steps",
    )

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(2)

    def step(self, key, state, action):
        return state + 1, timestep(action, 0.0, False, state + 1 >= 5)


class Cube(struct.PyTreeNode):
    """The observation is the last action."""

    spec = EnvSpec(
        jax.ShapeDtypeStruct((3, 1), jnp.float32),
        Box.of([[-1.0], [0.0], [-3.0]], [[1.0], [4.0], [5.0]], (3, 1)),
    )

    def reset(self, key):
        return (), jnp.zeros((3, 1))

    def step(self, key, state, action):
        return state, timestep(action, 0.0, False, False)


def plain(truncates=100, terminates=100):
    """`Steps` with a vector observation and no mask."""

    class Plain(Steps):
        spec = EnvSpec(OBS["vector"], Discrete(3))

        def observed(self, time):
            return super().observed(time).obs["vector"]

    return Plain(terminates, truncates)


def play(env, num_steps, actions=None, num_envs=2):
    """The trajectory of `num_envs` copies under a fixed sequence of actions."""

    def policy(carry, obs, key):
        chosen = jnp.int32(0) if actions is None else jnp.asarray(actions)[carry[0]]
        action = jnp.broadcast_to(chosen, (num_envs, *chosen.shape))
        return carry + 1, action, ()

    envs = VectorEnv(env, num_envs)
    carry = jnp.zeros(num_envs, jnp.int32)

    @jax.jit
    def run(env):
        vector = envs.replace(env=env)

        def keep_counting(carry, obs, key):
            return policy(carry, obs, key)

        return rollout(keep_counting, vector, vector.reset(KEY), carry, carry, KEY, num_steps)[2]

    return jax.device_get(run(env).steps)


MASKED = {
    "TimeLimit": lambda env: wrappers.TimeLimit(env, 50),
    "ActionRepeat": lambda env: wrappers.ActionRepeat(env, 1),
    "ScaleReward": lambda env: wrappers.ScaleReward(env, 2.0),
    "ClipReward": lambda env: wrappers.ClipReward(env, -1.0, 1.0),
    "ScaleObservation": lambda env: wrappers.ScaleObservation(env, 0.5, 1.0),
    "ClipObservation": lambda env: wrappers.ClipObservation(env, -1.0, 1.0),
    "FlattenObservation": lambda env: wrappers.FlattenObservation(env),
    "MaskVelocity": lambda env: wrappers.MaskVelocity(wrappers.FlattenObservation(env), (0,)),
    "FrameStack": lambda env: wrappers.FrameStack(env, 3),
    "TimeAwareObservation": lambda env: wrappers.TimeAwareObservation(
        wrappers.TimeLimit(wrappers.FlattenObservation(env), 50)
    ),
    "StickyActions": lambda env: wrappers.StickyActions(env, 0.5),
}


@pytest.mark.parametrize("wrap", MASKED.values(), ids=MASKED)
@pytest.mark.parametrize(("terminates", "truncates"), [(4, 100), (100, 4), (4, 4)])
def test_truncation_and_masks_survive(wrap, terminates, truncates):
    env = wrap(Steps(terminates, truncates))
    steps = play(env, 10)
    ends = np.arange(1, 11) % 4 == 0
    np.testing.assert_array_equal(steps.terminated[:, 0], ends & (terminates == 4))
    np.testing.assert_array_equal(steps.truncated[:, 0], ends & (terminates > 4))
    # The mask belongs to its observation, including the last next_obs of an episode.
    time, next_time = np.arange(10) % 4, np.arange(10) % 4 + 1
    np.testing.assert_array_equal(steps.obs.action_mask[:, 0], np.arange(3) != time[:, None] % 3)
    np.testing.assert_array_equal(
        steps.next_obs.action_mask[:, 0], np.arange(3) != next_time[:, None] % 3
    )


@pytest.mark.parametrize("wrap", MASKED.values(), ids=MASKED)
def test_a_wrapped_environment_keeps_the_contract(wrap):
    check(wrap(Steps(terminates=7)), num_steps=30)


def test_parameters_of_wrapped_environments_stay_leaves():
    def last_seen(speed):
        env = wrappers.TimeLimit(wrappers.FlattenObservation(plain().replace(speed=speed)), 5)
        state, _ = env.reset(KEY)
        return env.step(KEY, state, 0)[1].obs[0]

    np.testing.assert_allclose(jax.vmap(last_seen)(jnp.array([1.0, 2.0])), [1.0, 2.0])


# Time ---------------------------------------------------------------------------------------------


def test_time_limit_truncates_and_keeps_termination():
    steps = play(wrappers.TimeLimit(plain(), 3), 7)
    np.testing.assert_array_equal(steps.truncated[:, 0], [0, 0, 1, 0, 0, 1, 0])
    assert not steps.terminated.any()
    steps = play(wrappers.TimeLimit(plain(terminates=3), 3), 7)
    np.testing.assert_array_equal(steps.terminated[:, 0], [0, 0, 1, 0, 0, 1, 0])
    assert not steps.truncated.any()
    np.testing.assert_array_equal(steps.next_obs[:, 0, 0], [1, 2, 3, 1, 2, 3, 1])
    assert wrappers.TimeLimit(Push(), 9).spec.max_steps == 5
    assert wrappers.TimeLimit(Push(), 2).spec.max_steps == 2


def test_a_time_limit_can_belong_to_the_task():
    steps = play(wrappers.TimeLimit(plain(), 3, terminates=True), 7)
    np.testing.assert_array_equal(steps.terminated[:, 0], np.arange(1, 8) % 3 == 0)
    assert not steps.truncated.any()


def test_wrappers_keep_the_declared_truncation():
    """Only the wrapped environment knows whether it truncates elsewhere."""
    assert wrappers.TimeLimit(plain(truncates=2), 50).spec.truncates == "anywhere"
    assert wrappers.TimeLimit(Push(), 2).spec.truncates == "at_max_steps"
    assert wrappers.ActionRepeat(Push(), 2).spec.truncates == "at_max_steps"
    assert wrappers.FrameStack(wrappers.DiscretizeActions(Push())).spec.truncates == "at_max_steps"


def test_action_repeat_sums_rewards_and_stops_at_episode_ends():
    steps = play(wrappers.ActionRepeat(plain(truncates=5), 3), 4)
    np.testing.assert_array_equal(steps.reward[:, 0], [1 + 2 + 3, 4 + 5, 1 + 2 + 3, 4 + 5])
    np.testing.assert_array_equal(steps.truncated[:, 0], [0, 1, 0, 1])
    np.testing.assert_array_equal(steps.next_obs[:, 0, 0], [3, 5, 3, 5])
    assert wrappers.ActionRepeat(Push(), 3).spec.max_steps == 2


# Rewards and observations -------------------------------------------------------------------------


def test_rewards_are_scaled_and_clipped():
    scaled = play(wrappers.ScaleReward(plain(), 0.5), 3).reward
    np.testing.assert_allclose(scaled[:, 0], [0.5, 1, 1.5])
    np.testing.assert_allclose(
        play(wrappers.ClipReward(plain(), 1.5, 2.0), 3).reward[:, 0], [1.5, 2, 2]
    )


def test_observations_are_scaled_and_clipped():
    scaled = play(wrappers.ScaleObservation(Steps(), 0.5, 1.0), 3).next_obs.obs
    np.testing.assert_allclose(scaled["vector"][:, 0], [[1.5, 0.5], [2, 0], [2.5, -0.5]])
    np.testing.assert_allclose(scaled["image"][:, 0, 0, 0, 0], [1.5, 2, 2.5])
    per_entry = play(wrappers.ScaleObservation(plain(), jnp.array([1.0, 0.0])), 2).next_obs
    np.testing.assert_allclose(per_entry[:, 0], [[1, 0], [2, 0]])
    clipped = play(wrappers.ClipObservation(Steps(), -1.5, 1.5), 3).next_obs.obs
    np.testing.assert_allclose(clipped["vector"][:, 0], [[1, -1], [1.5, -1.5], [1.5, -1.5]])
    np.testing.assert_array_equal(clipped["image"][:, 0, 0, 0, 0], [1, 2, 3])


def test_flattening_concatenates_sorted_keys():
    flat = play(wrappers.FlattenObservation(Steps()), 2).next_obs.obs
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(flat[:, 0], [[1, 1, 1, 1, 1, -1], [2, 2, 2, 2, 2, -2]])


def test_masked_velocities_are_zero():
    np.testing.assert_array_equal(
        play(wrappers.MaskVelocity(plain(), (1,)), 2).next_obs[:, 0], [[1, 0], [2, 0]]
    )


def test_frame_stack_repeats_the_first_frame_of_an_episode():
    steps = play(wrappers.FrameStack(Steps(truncates=3), 3), 5)
    image = steps.obs.obs["image"][:, 0, 0, 0]
    np.testing.assert_array_equal(image, [[0, 0, 0], [0, 0, 1], [0, 1, 2], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(steps.next_obs.obs["image"][2, 0, 1, 1], [1, 2, 3])
    np.testing.assert_array_equal(steps.obs.obs["vector"][2, 0], [0, 0, 1, -1, 2, -2])
    assert image.dtype == np.uint8


def test_the_time_that_is_left_is_seen():
    """Also in the last observation of an episode, whose share is 0."""
    env = wrappers.TimeAwareObservation(wrappers.TimeLimit(plain(), 4))
    steps = play(env, 6)
    np.testing.assert_array_equal(steps.obs[:, 0, 2], [1, 0.75, 0.5, 0.25, 1, 0.75])
    np.testing.assert_array_equal(steps.next_obs[:, 0, 2], [0.75, 0.5, 0.25, 0, 0.75, 0.5])
    unaware = play(plain(truncates=4), 6)
    np.testing.assert_array_equal(steps.obs[:, 0, :2], unaware.obs[:, 0])


# Actions ------------------------------------------------------------------------------------------


def test_discretised_actions_span_the_bounds_evenly():
    factored = wrappers.DiscretizeActions(Push(), 3)
    assert factored.spec.action == MultiDiscrete((3, 3))
    actions = [[0, 0], [1, 1], [2, 2], [0, 2], [2, 1], [1, 0]]
    values = [[-1, 0], [0, 2], [1, 4], [-1, 4], [1, 2], [0, 0]]
    steps = play(factored, 6, np.asarray(actions))
    np.testing.assert_allclose(steps.next_obs[:4, 0], values[:4])
    np.testing.assert_array_equal(steps.truncated[:, 0], [0, 0, 0, 0, 1, 0])
    joint = wrappers.DiscretizeActions(Push(), 3, "joint")
    assert joint.spec.action == Discrete(9)
    taken = [joint.step(KEY, jnp.int32(0), jnp.int32(a))[1].obs for a in range(9)]
    np.testing.assert_allclose(taken, [[x, y] for x in (-1, 0, 1) for y in (0, 2, 4)])
    check(factored)
    check(joint)


@pytest.mark.parametrize("bins", [(3, 3, 3), (2, 3, 4), (4, 3, 2)])
def test_joint_and_factored_actions_are_the_same_actions(bins):
    """Joint actions are all combinations in lexicographic order, here of itertools."""
    factored = wrappers.DiscretizeActions(Cube(), bins)
    joint = wrappers.DiscretizeActions(Cube(), bins, "joint")
    assert factored.spec.action == MultiDiscrete(bins)
    assert joint.spec.action == Discrete(math.prod(bins))
    choices = np.asarray(list(itertools.product(*map(range, bins))))
    by_choices = jax.vmap(lambda a: factored.step(KEY, (), a)[1].obs)(choices)
    by_number = jax.vmap(lambda a: joint.step(KEY, (), a)[1].obs)(np.arange(len(choices)))
    np.testing.assert_array_equal(by_choices, by_number)
    low, high = np.array([-1.0, 0.0, -3.0]), np.array([1.0, 4.0, 5.0])
    expected = low + (high - low) * choices / (np.array(bins) - 1)
    np.testing.assert_allclose(by_number[:, :, 0], expected, rtol=1e-6)
    check(joint, num_steps=5)


def test_many_discretised_actions_are_exact_at_corners_and_centre():
    """The joint action of 753,571 is decoded in int32, without a table."""
    joint = wrappers.DiscretizeActions(arm.make(), 91, "joint")
    assert joint.spec.action == Discrete(753_571)
    most = joint.env.spec.action.bounds()[1][0]
    corners = list(itertools.product((-most, most), repeat=3))
    numbers = [a * 91**2 + b * 91 + c for a, b, c in itertools.product((0, 90), repeat=3)]

    class Seen(type(joint.env)):
        def step(self, key, state, action):
            return state, action

    seen = joint.replace(env=Seen(joint.env.lengths))
    step = jax.jit(lambda a: seen.step(KEY, (), a)[1])
    np.testing.assert_array_equal([step(a) for a in numbers], corners)
    np.testing.assert_array_equal(step(753_570 // 2), [0.0, 0.0, 0.0])
    degrees = np.degrees([step(a) for a in (17 * 91**2 + 45 * 91 + 46, 1, 91)])
    np.testing.assert_allclose(
        degrees, [[-28, 0, 1], [-45, -45, -44], [-45, -44, -45]], rtol=0, atol=1e-5
    )


def test_rescaled_actions_reach_the_bounds():
    env = wrappers.RescaleActions(Push(), -1.0, 3.0)
    assert env.spec.action == Box.of(-1.0, 3.0, (2,))
    actions = np.float32([[-1, -1], [3, 3], [1, 0], [1, 1]])
    seen = play(env, 4, actions).next_obs[:, 0]
    np.testing.assert_allclose(seen, [[-1, 0], [1, 4], [0, 1], [0, 2]], atol=1e-6)


def test_sticky_actions_repeat_with_their_probability():
    """Step t chooses action t, so every repetition is visible."""

    class Any3(Steps):
        spec = EnvSpec(OBS["vector"], Discrete(3))

        def observed(self, time):
            return super().observed(time).obs["vector"]

    env = wrappers.StickyActions(Any3(), 0.25)

    def one(key):
        reset_key, *keys = jax.random.split(key, 4)
        state, _ = env.reset(reset_key)
        taken = []
        for t, k in enumerate(keys):
            state, _ = env.step(k, state, jnp.int32(t))
            taken.append(state[1])
        return jnp.stack(taken)

    taken = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, 4000)))
    assert (taken[:, 0] == 0).all()  # the first action is always the chosen one
    error = np.sqrt(0.25 * 0.75 / 4000)
    assert abs((taken[:, 1] == 0).mean() - 0.25) < 5 * error
    assert abs((taken[:, 2] == 0).mean() - 0.25**2) < 5 * error  # repeated twice


def test_sticky_actions_never_repeat_unavailable_actions():
    env = wrappers.StickyActions(Steps(), 1.0)
    state, _ = env.reset(KEY)
    state, _ = env.step(KEY, state, jnp.int32(1))  # time 1: action 1 is not available
    state, _ = env.step(KEY, state, jnp.int32(2))
    assert state[1] == 2
    state, _ = env.step(KEY, state, jnp.int32(0))  # time 2: action 2 is not available
    assert state[1] == 0
    state, _ = env.step(KEY, state, jnp.int32(1))  # time 3: 0 is not available, so 1 is taken
    assert state[1] == 1
    state, _ = env.step(KEY, state, jnp.int32(2))  # time 4: 1 is not available
    state, _ = env.step(KEY, state, jnp.int32(0))  # time 5: 2 is not available
    assert state[1] == 0
    state, _ = env.step(KEY, state, jnp.int32(2))  # time 6: 0 is not available
    assert state[1] == 2
    state, _ = env.step(KEY, state, jnp.int32(0))  # time 7: 2 is available and repeats
    assert state[1] == 2


@pytest.mark.parametrize(
    ("space", "mask", "action", "expected"),
    [
        (Discrete(2), None, 1, True),
        (Discrete(2), [True, False], 1, False),
        (MultiDiscrete((2, 3)), [True, False, True, True, False], [0, 1], True),
        (MultiDiscrete((2, 3)), [True, False, True, True, False], [0, 2], False),
        (MultiDiscrete((2, 3)), [True, False, True, True, False], [1, 0], False),
    ],
)
def test_availability(space, mask, action, expected):
    mask = None if mask is None else jnp.asarray(mask)
    assert bool(wrappers.is_available(space, mask, jnp.asarray(action))) is expected
    mixed = Mixed((space, Box.of(0.0, 1.0, (2,))))
    masks = None if mask is None else (mask, None)
    found = wrappers.is_available(mixed, masks, (jnp.asarray(action), jnp.zeros(2)))
    assert bool(found) is expected


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wrappers.TimeLimit(Push(), 0), "max_steps is 0"),
        (lambda: wrappers.TimeLimit(Push(), "abc"), "max_steps is 'abc': it must be a whole"),
        (lambda: wrappers.ActionRepeat(Push(), 0), "num_repeats is 0"),
        (lambda: wrappers.FrameStack(Push(), 0), "num_frames is 0"),
        (lambda: wrappers.DiscretizeActions(Push(), 1), "num_bins is 1"),
        (lambda: wrappers.DiscretizeActions(Push(), 3, "split"), "layout is 'split'"),
        (lambda: wrappers.DiscretizeActions(Push(), 2.5), "num_bins is 2.5: it must be a whole"),
        (lambda: wrappers.DiscretizeActions(Push(), (3,)), "but an action has 2 entries: give one"),
        (lambda: wrappers.DiscretizeActions(Push(), (3, 1)), r"num_bins\[1\] is 1"),
        (
            lambda: wrappers.DiscretizeActions(Push(), 50_000, "joint"),
            r"50000 \* 50000 = 2500000000 actions, .*: use 'factored'",
        ),
        (lambda: wrappers.DiscretizeActions(plain()), "needs a Box"),
        (lambda: wrappers.MaskVelocity(Push(), ()), "at least one"),
        (lambda: wrappers.MaskVelocity(Push(), (2,)), "from 0 to 1"),
        (lambda: wrappers.MaskVelocity(Steps(), (0,)), "FlattenObservation"),
        (lambda: wrappers.ScaleObservation(Push(), jnp.ones(3)), "do not fit"),
        (lambda: wrappers.TimeLimit(Push(), 6, terminates=True), "itself truncates after 5 steps"),
        (lambda: wrappers.TimeAwareObservation(plain()), "needs a time limit"),
        (lambda: wrappers.TimeAwareObservation(wrappers.TimeLimit(Steps(), 5)), "Flatten"),
        (lambda: wrappers.RescaleActions(plain()), "needs a Box"),
        (lambda: wrappers.RescaleActions(Push(), 1.0, 1.0), "low is 1.0 and high is 1.0"),
    ],
)
def test_invalid_wrappers_are_rejected_before_compilation(make, message):
    with pytest.raises(ValueError, match=message):
        jaxrl.Training.create(jaxrl.agents.PPO(), make(), total_steps=512)
