"""The planar arm, against rotation matrices, brute force and simulation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.probes import learned as trained
from helpers.simulation import play

from jaxrl.agents import PPO
from jaxrl.wrappers import DiscretizeActions
from jaxrl_envs import check, make
from jaxrl_envs.exact import arm

LENGTHS = np.array([1.2, 0.9, 0.5])
ARM = arm.make(LENGTHS)
LIMIT = np.pi / 4


def rotated(angles, lengths=LENGTHS):
    """The hand, one link after the other by products of rotation matrices."""
    frame, hand = np.eye(2), np.zeros(2)
    for angle, length in zip(angles, lengths, strict=True):
        frame = frame @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        hand = hand + frame @ [length, 0.0]
    return hand


@pytest.mark.parametrize("max_steps", [1, 3])
def test_satisfies_the_contract(max_steps):
    check(arm.make(max_steps=max_steps), num_steps=10)
    assert make("jaxrl/arm", max_degrees=30).spec.action.high == pytest.approx(np.pi / 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": [1.0, 0.0]}, r"lengths is \[1.0, 0.0\]: give a positive"),
        ({"lengths": 1.0}, "lengths is 1.0"),
        ({"max_degrees": 200.0}, "max_degrees is 200.0"),
        ({"max_steps": 0}, "max_steps is 0"),
    ],
)
def test_invalid_arms_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        arm.make(**change)


def test_hand_is_where_rotations_bring_it():
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (20, 3))
    found = jax.vmap(ARM.hand)(jnp.asarray(angles, jnp.float32))
    np.testing.assert_allclose(found, [rotated(a) for a in angles], atol=2e-6)
    # Two right angles: up along the second link, then back along the third.
    np.testing.assert_allclose(arm.make((2.0, 1.0, 0.5)).hand(np.pi / 2 * np.array([0.0, 1, 1])),
                               [1.5, 1.0], atol=1e-6)  # fmt: skip
    lengths = jnp.array([[1.0, 1.0, 1.0], [3.0, 2.0, 1.0]])  # a parameter, which vmap can batch
    stretched = jax.vmap(lambda x: ARM.replace(lengths=x).hand(jnp.zeros(3)))(lengths)
    np.testing.assert_allclose(stretched, [[3.0, 0.0], [6.0, 0.0]])


def test_every_target_can_be_reached_with_reward_0():
    """The best return is 0, for any number of steps."""
    targets = jax.vmap(lambda key: ARM.reset(key)[1])(jax.random.split(jax.random.key(0), 100))
    assert np.asarray(targets).std(0).min() > 0.3
    for target in targets:
        angles = arm.inverse(ARM, target)
        assert np.abs(angles).max() <= LIMIT + 1e-5
        np.testing.assert_allclose(rotated(angles), target, atol=1e-6)
        timestep = ARM.step(None, (target, 0), jnp.asarray(angles, jnp.float32))[1]
        assert -2e-6 < timestep.reward <= 0
        assert (timestep.terminated, timestep.truncated) == (False, True)


def test_inverse_bends_the_arm_as_little_as_possible():
    np.testing.assert_allclose(arm.inverse(ARM, LENGTHS.sum() * np.array([1.0, 0])), 0, atol=1e-3)
    rng = np.random.default_rng(1)
    for given in rng.uniform(-LIMIT, LIMIT, (10, 3)):
        found = arm.inverse(ARM, rotated(given))
        assert np.abs(found).max() <= np.abs(given).max() + 1e-9
    for given in rng.uniform(-2e-3, 2e-3, (10, 3)):  # almost stretched, and rounded
        turned = np.array([0.7, 0.0, 0.0]) + given
        found = arm.inverse(ARM, rotated(turned).astype(np.float32))
        np.testing.assert_allclose(rotated(found), rotated(turned), atol=1e-6)
    corner = np.full(3, LIMIT)  # the only way to reach this point
    np.testing.assert_allclose(arm.inverse(ARM, rotated(corner)), corner, atol=1e-4)
    for beyond in (rotated(corner * 1.01), [0.1, 0.0], [3.0, 0.0]):
        with pytest.raises(ValueError, match="out of reach"):
            arm.inverse(ARM, beyond)
    with pytest.raises(ValueError, match="2 joints"):
        arm.inverse(arm.make((1.0, 1.0)), [1.0, 0.0])


@pytest.mark.parametrize("num_bins", [2, 5])
def test_nearest_grid_point_is_the_best_joint_action(num_bins):
    env = DiscretizeActions(ARM, num_bins, "joint")
    (target, time), _ = env.reset(jax.random.key(num_bins))
    actions = jnp.arange(num_bins**3)
    rewards = jax.vmap(lambda a: env.step(None, (target, time), a)[1].reward)(actions)
    distance, angles = arm.nearest_on_grid(ARM, target, num_bins)
    assert distance == pytest.approx(-float(rewards.max()), abs=1e-6)
    grid = np.linspace(-LIMIT, LIMIT, num_bins)
    best = list(itertools.product(grid, repeat=3))[int(rewards.argmax())]
    np.testing.assert_allclose(angles, best, atol=1e-6)


def test_degree_steps_come_within_a_hundredth_of_the_target():
    """91 angles a joint are a degree apart; a half step of all moves the hand less than this."""
    targets = jax.vmap(lambda key: ARM.reset(key)[1])(jax.random.split(jax.random.key(2), 5))
    half_step = np.radians(0.5) * (LENGTHS * [1, 2, 3]).sum()
    for target in targets:
        assert 0 <= arm.nearest_on_grid(ARM, target, 91)[0] < min(half_step, 0.01)


def test_the_target_stays_until_the_time_limit():
    seen = play(arm.make(LENGTHS, max_steps=3), lambda key, obs: jnp.zeros(3), num_envs=5,
                num_steps=6)  # fmt: skip
    np.testing.assert_array_equal(seen.truncated[:, 0], [0, 0, 1, 0, 0, 1])
    assert not seen.terminated.any()
    np.testing.assert_array_equal(seen.obs[0], seen.next_obs[2])
    assert (seen.obs[3] != seen.obs[0]).any(-1).all()
    expected = -np.linalg.norm(seen.obs - [LENGTHS.sum(), 0.0], axis=-1)
    np.testing.assert_allclose(seen.reward, expected, atol=1e-5)


@pytest.mark.slow
def test_three_factors_learn_to_reach():
    """Between the nearest points of the grid, which nothing can beat, and random actions."""
    env = DiscretizeActions(arm.make(), 11)
    agent = PPO(num_envs=256, num_steps=1, num_epochs=8, learning_rate=1e-3, discount=0.0)
    untrained, found = (
        -float(trained(agent, env, iterations, num_eval_episodes=256)[2].evaluation.returns.mean())
        for iterations in (1, 200)
    )
    targets = jax.vmap(lambda key: env.reset(key)[1])(jax.random.split(jax.random.key(3), 256))
    best = np.mean([arm.nearest_on_grid(env.env, x, 11)[0] for x in targets])
    assert best < found < 0.25
    assert untrained > 2 * found
