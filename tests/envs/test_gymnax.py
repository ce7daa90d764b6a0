"""The gymnax adapter: every id, dynamics against Gymnasium, time limits, parameters."""

import functools
import subprocess
import sys
from urllib.error import URLError

import gymnax
import gymnax.environments.spaces as gymnax_spaces
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs import classic_control
from gymnax.utils import load_mnist
from helpers.probes import cases

import jaxrl_envs
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.types import Box, Discrete, Mixed, sample_action
from jaxrl_envs import gymnax as family
from jaxrl_envs import registry

KEY = jax.random.key(0)
OFFLINE = [i for i in registry.GYMNAX_IDS if i not in family.NEEDS_NETWORK]


# Every id -----------------------------------------------------------------------------------------


# Compiled without optimisation: half the time, same program.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def play(envs, key):
    """Take eight random steps; return the start state, the end state and the steps."""

    def act(carry, obs, key):
        draw = jax.vmap(lambda k: sample_action(envs.spec.action, k))
        return carry, draw(jax.random.split(key, envs.num_envs)), ()

    start = envs.reset(key)
    end, _, trajectory, _ = rollout(act, envs, start, (), (), key, 8)
    return start, end, trajectory.steps


def check_play(env):
    """Step copies with batched parameters; every parameter is an array leaf."""
    for leaf in jax.tree.leaves(env.params):
        assert isinstance(leaf, jax.Array)
        assert not leaf.weak_type
    params = jax.tree.map(lambda x: jnp.stack([x] * 3), env.params)
    start, end, steps = play(VectorEnv(env.replace(params=params), 3, batched=True), KEY)

    def kinds(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)

    raw_state, raw_obs = jax.eval_shape(env.reset, KEY)  # one copy, without auto-reset
    action = jax.eval_shape(lambda key: sample_action(env.spec.action, key), KEY)
    next_state, timestep = jax.eval_shape(env.step, KEY, raw_state, action)
    assert kinds((next_state, timestep.obs)) == kinds((raw_state, raw_obs))
    assert kinds(start) == kinds(end)
    expected = jax.tree.map(lambda x: ((8, 3, *x.shape), x.dtype, False), env.spec.observation)
    assert kinds(steps.obs) == kinds(steps.next_obs) == expected
    assert kinds(steps.reward) == ((8, 3), jnp.float32, False)
    assert steps.terminated.dtype == steps.truncated.dtype == jnp.bool_
    assert not (steps.terminated & steps.truncated).any()
    for leaf in jax.tree.leaves((start, end, steps)):
        assert np.isfinite(np.asarray(leaf)).all()


ONE_OF_EACH_KIND = ("CartPole-v1", "Breakout-MinAtar", "Catch-bsuite", "FourRooms-misc")


@pytest.mark.parametrize("name", cases(OFFLINE, *ONE_OF_EACH_KIND))
def test_every_id_can_be_made_and_stepped(name):
    check_play(jaxrl_envs.make(f"gymnax/{name}"))


def test_ids_match_gymnax():
    assert list(registry.GYMNAX_IDS) == list(gymnax.registered_envs) == family.names()
    listed = [i for i in jaxrl_envs.list_ids() if i.startswith("gymnax/")]
    assert listed == [f"gymnax/{name}" for name in gymnax.registered_envs]
    assert set(registry.GYMNAX_IDS) - set(OFFLINE) == {"MNISTBandit-bsuite"}


@pytest.fixture
def nothing_kept(monkeypatch):
    """Bypass the cache of gymnax objects."""
    monkeypatch.setattr(family, "_gymnax_object", family._gymnax_object.__wrapped__)


@pytest.mark.parametrize(
    "cause", [URLError("no route to host"), EOFError("Compressed file ended early")], ids=repr
)
def test_failed_download_is_reported(monkeypatch, nothing_kept, cause):
    def fail(*_):
        raise cause

    monkeypatch.setattr(load_mnist, "load_mnist", fail)
    with pytest.raises(
        RuntimeError, match="MNISTBandit-bsuite could not download its data"
    ) as error:
        jaxrl_envs.make("gymnax/MNISTBandit-bsuite")
    assert str(cause.args[0]) in str(error.value)


def test_mnist_bandit_runs_once_data_is_available(monkeypatch, nothing_kept):
    images = np.arange(5 * 28 * 28).reshape(5, 28, 28).astype(np.int8)
    data = (images, np.arange(5, dtype=np.uint8))
    monkeypatch.setattr(load_mnist, "load_mnist", lambda: (data, data))
    check_play(jaxrl_envs.make("gymnax/MNISTBandit-bsuite"))


def test_other_errors_propagate_unchanged(monkeypatch):
    def fail(name):
        raise OSError("disk")

    monkeypatch.setattr(family, "_gymnax_object", fail)
    with pytest.raises(OSError, match="disk"):
        jaxrl_envs.make("gymnax/CartPole-v1")


# Construction -------------------------------------------------------------------------------------


def test_unknown_id_suggests_the_closest():
    with pytest.raises(ValueError, match=r"no environment 'gymnax/Cartpole-v0'.* gymnax/CartPole"):
        jaxrl_envs.make("gymnax/Cartpole-v0")
    with pytest.raises(ValueError, match="did you mean gymnax/CartPole-v1"):
        jaxrl_envs.make("CartPole-v1")
    with pytest.raises(ValueError, match="jaxrl list"):
        jaxrl_envs.make("???")


def test_unknown_parameter_error_lists_known_parameters():
    cartpole = jaxrl_envs.make("gymnax/CartPole-v1")
    for call in (lambda **p: jaxrl_envs.make("gymnax/CartPole-v1", **p), cartpole.with_params):
        with pytest.raises(ValueError, match=r"CartPole-v1 has no parameter 'lenght'.* length, "):
            call(lenght=0.7)


def test_equal_environments_have_equal_structure():
    def structure(env):
        return jax.tree.structure(env), jax.tree.map(lambda x: (x.shape, x.dtype), env.params)

    one = jaxrl_envs.make("gymnax/CartPole-v1")
    assert structure(one) == structure(jaxrl_envs.make("gymnax/CartPole-v1"))
    assert structure(one) == structure(jaxrl_envs.make("gymnax/CartPole-v1", length=2))  # an int
    assert structure(one) == structure(one.with_params(length=0.7))
    assert hash(one.spec) == hash(jaxrl_envs.make("gymnax/CartPole-v1").spec)
    assert structure(one) != structure(jaxrl_envs.make("gymnax/Acrobot-v1"))


def test_parameter_overrides_take_effect():
    """In `params`, and in the spec where it depends on them."""
    env = jaxrl_envs.make("gymnax/Pendulum-v1", max_torque=3.0, max_steps_in_episode=7)
    assert env.spec.action == Box.of(-3.0, 3.0, (1,))
    assert env.spec.max_steps == 7
    assert env.params.max_torque == 3.0


def test_spec_max_steps_follows_the_time_limit():
    """Evaluation relies on `spec.max_steps`: a longer episode would never finish."""
    env = jaxrl_envs.make("gymnax/CartPole-v1")
    assert env.spec.max_steps == 500
    assert env.with_params(length=1.0).spec.max_steps == 500
    assert env.with_params(max_steps_in_episode=900).spec.max_steps == 900
    assert env.with_params(max_steps_in_episode=jnp.array([3, 900])).spec.max_steps == 900

    @jax.jit
    def inside(env, limit):
        assert env.with_params(length=1.0).spec.max_steps == 500
        assert env.with_params(max_steps_in_episode=limit).spec.max_steps is None

        assert env.with_params(max_steps_in_episode=limit).spec.truncates == "anywhere"

    inside(env, 3)  # traced: known only at run time


def test_differing_time_limits_may_truncate_anywhere():
    env = jaxrl_envs.make("gymnax/CartPole-v1")
    assert env.spec.truncates == "at_max_steps"
    for limits, truncates in (([3, 900], "anywhere"), ([9, 9], "at_max_steps")):
        changed = env.with_params(max_steps_in_episode=jnp.array(limits))
        assert changed.spec.truncates == truncates


def test_state_dtypes_do_not_depend_on_the_action_dtype():
    """This bandit's state stores the last action; uint8 actions must not change its dtype."""
    env = jaxrl_envs.make("gymnax/BernoulliBandit-misc")
    state, _ = jax.eval_shape(env.reset, KEY)
    for dtype in (jnp.int32, jnp.uint8):
        action = jax.ShapeDtypeStruct((), dtype)
        next_state, _ = jax.eval_shape(env.step, KEY, state, action)
        assert jax.tree.map(lambda x: x.dtype, next_state) == jax.tree.map(lambda x: x.dtype, state)


def test_environment_can_be_made_inside_jit(nothing_kept, monkeypatch):
    """gymnax objects hold arrays, none of which may be a leaked tracer."""
    kept = {}
    make = family._gymnax_object
    monkeypatch.setattr(
        family, "_gymnax_object", lambda name: kept.get(name) or kept.setdefault(name, make(name))
    )

    def start(key):
        return jaxrl_envs.make("gymnax/DeepSea-bsuite").reset(key)

    start_inside, _ = jax.jit(start)(KEY)
    state, _ = jaxrl_envs.make("gymnax/DeepSea-bsuite").reset(KEY)
    assert state.action_mapping.any()
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), state, start_inside))


def test_action_space_conversion():
    nested = gymnax_spaces.Tuple(
        [gymnax_spaces.Discrete(3), gymnax_spaces.Box(jnp.array([-1.0, -2.0]), 2.0, (2,))]
    )
    box = Box.of([-1.0, -2.0], 2.0, (2,))
    assert family._space(nested, "this") == Mixed((Discrete(3), box))
    with pytest.raises(TypeError, match="this has the action space"):
        family._space(gymnax_spaces.Dict({}), "this")


@pytest.mark.parametrize("module", ["jaxrl_envs", "jaxrl_envs.registry"])
def test_listing_ids_imports_neither_jax_nor_gymnax(module):
    program = (
        f"import sys, {module} as m\n"
        "assert 'gymnax/CartPole-v1' in m.list_ids()\n"
        "heavy = {'jax', 'gymnax', 'numpy', 'flax'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Dynamics, against gymnasium ----------------------------------------------------------------------


def states(name, values):
    """The environment, and its states for `values[N, fields]`, gymnasium's state vectors."""
    env = jaxrl_envs.make(f"gymnax/{name}")
    num = len(values)
    state, _ = jax.vmap(env.reset)(jax.random.split(KEY, num))
    columns = jnp.asarray(values, jnp.float32).T
    return env, state.replace(**dict(zip(FIELDS[name], columns, strict=True)))


def oracle(name, state, action):
    """One step of gymnasium from the same state: (obs, reward, terminated)."""
    env = ORACLES[name]()
    env.state = np.array([getattr(state, field) for field in FIELDS[name]], np.float64)
    if name == "CartPole-v1":
        env.steps_beyond_terminated = None
    action = np.asarray(action) if np.ndim(action) else int(action)
    obs, reward, terminated, _, _ = env.step(action)
    return obs, float(reward), terminated


FIELDS = {
    "CartPole-v1": ("x", "x_dot", "theta", "theta_dot"),
    "Pendulum-v1": ("theta", "theta_dot"),
    "MountainCar-v0": ("position", "velocity"),
    "MountainCarContinuous-v0": ("position", "velocity"),
    "Acrobot-v1": ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
}
ORACLES = {
    "CartPole-v1": classic_control.CartPoleEnv,
    "Pendulum-v1": classic_control.PendulumEnv,
    "MountainCar-v0": classic_control.MountainCarEnv,
    "MountainCarContinuous-v0": classic_control.Continuous_MountainCarEnv,
    "Acrobot-v1": classic_control.AcrobotEnv,
}
# Ranges of the random states. They reach the limits of angle, track and speed, the walls and the
# goal, so that some steps end an episode or hit a bound.
REACH = {
    "CartPole-v1": ([-2.4, -3, -0.209, -3], [2.4, 3, 0.209, 3]),
    "Pendulum-v1": ([-7, -8], [7, 8]),
    "MountainCar-v0": ([-1.2, -0.07], [0.5, 0.07]),
    "MountainCarContinuous-v0": ([-1.2, -0.07], [0.45, 0.07]),
    "Acrobot-v1": ([-3.1, -3.1, -12, -28], [3.1, 3.1, 12, 28]),
}


@pytest.mark.parametrize("name", FIELDS)
def test_single_steps_match_gymnasium(name):
    """One step from random states with random actions; the first 16 are near the lower bounds.

    Rewards agree in all five environments: on the last step CartPole pays 1 and Acrobot 0.
    """
    num = 256
    low, high = (np.array(x, np.float64) for x in REACH[name])
    share = np.random.default_rng(0).uniform(size=(num, len(low)))
    share[:16] *= 0.02
    env, state = states(name, low + share * (high - low))
    keys = jax.random.split(KEY, num)
    action = jax.vmap(lambda k: sample_action(env.spec.action, k))(keys)
    _, ours = jax.jit(jax.vmap(env.step))(keys, state, action)

    expected = [
        oracle(name, jax.tree.map(lambda x: np.asarray(x)[i], state), np.asarray(action)[i])  # noqa: B023
        for i in range(num)
    ]
    obs, reward, terminated = (np.array(x) for x in zip(*expected, strict=True))
    if name == "MountainCarContinuous-v0":
        # Known difference: gymnasium zeroes the velocity at the left wall. gymnax keeps it there
        # and zeroes it for a car that moves left beyond the goal, which no episode reaches.
        wall = (obs[:, 0] <= -1.2) & (np.asarray(ours.obs[:, 1]) < 0)
        assert wall.sum() > 3
        assert (obs[wall, 1] == 0).all()
        obs[wall, 1] = np.asarray(ours.obs)[wall, 1]
    np.testing.assert_array_equal(ours.terminated, terminated)
    # Acrobot reaches 28 rad/s, and its four stages of 0.2 s amplify float32 rounding.
    tolerance = 5e-4 if name == "Acrobot-v1" else 2e-5
    np.testing.assert_allclose(ours.obs, obs, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ours.reward, reward, rtol=2e-5, atol=2e-5)
    assert not ours.truncated.any()
    assert terminated.any() == (name != "Pendulum-v1")  # both outcomes are compared
    assert not terminated.all()


@pytest.mark.parametrize("name", FIELDS)
def test_trajectories_match_gymnasium(name):
    """Both run from the same start for 60 steps or until the episode ends.

    float32 errors accumulate, most of all in Acrobot, which is chaotic.
    """
    env = jaxrl_envs.make(f"gymnax/{name}")
    start, _ = env.reset(jax.random.key(3))
    actions = jax.vmap(lambda k: sample_action(env.spec.action, k))(jax.random.split(KEY, 60))

    @jax.jit
    def run(start):
        def one_step(state, action):
            return env.step(KEY, state, action)

        return jax.lax.scan(one_step, start, actions)[1]

    ours = run(start)
    theirs = ORACLES[name]()
    theirs.reset(seed=0)
    theirs.state = np.array([getattr(start, field) for field in FIELDS[name]], np.float64)
    for t, action in enumerate(np.asarray(actions)):
        obs, reward, terminated, _, _ = theirs.step(action if action.ndim else int(action))
        np.testing.assert_allclose(ours.obs[t], obs, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(ours.reward[t], reward, rtol=1e-3, atol=1e-3)
        assert bool(ours.terminated[t]) == terminated
        if terminated:
            break
    assert t > 9
    assert terminated == (name == "CartPole-v1")  # random actions end no other episode


def test_start_distribution_matches_gymnasium():
    """The uniform start distributions have the same bounds and the same mean."""
    for name, low, high in (
        ("CartPole-v1", -0.05, 0.05),
        ("MountainCar-v0", [-0.6, 0], [-0.4, 0]),
        ("MountainCarContinuous-v0", [-0.6, 0], [-0.4, 0]),
    ):
        env = jaxrl_envs.make(f"gymnax/{name}")
        obs = np.asarray(jax.vmap(env.reset)(jax.random.split(KEY, 1000))[1])
        low, high = (np.broadcast_to(np.float32(x), obs.shape[1:]) for x in (low, high))
        assert (obs >= low).all()
        assert (obs <= high).all()
        width = high - low
        np.testing.assert_allclose(obs.min(0), low, atol=0.02 * width.max())
        np.testing.assert_allclose(obs.max(0), high, atol=0.02 * width.max())
        np.testing.assert_allclose(obs.mean(0), (low + high) / 2, atol=0.05 * width.max())


def to_the_right(carry, obs, key):
    return carry, jnp.ones(len(obs), jnp.int32), ()


def test_pole_lengths_can_be_vmapped():
    """From one state, each copy matches a gymnasium pole of the same length."""
    lengths = jnp.array([0.25, 0.5, 1.0, 2.0])
    env, state = states("CartPole-v1", [[0.0, 0.1, 0.05, -0.2]] * 4)

    @jax.jit
    def push(lengths, state):
        batch = jax.vmap(lambda length: env.with_params(length=length))(lengths)
        envs = VectorEnv(batch, 4, batched=True)
        start = envs.reset(KEY).replace(state=state)
        return rollout(to_the_right, envs, start, (), (), KEY, 1)[2].steps.next_obs[0]

    ours = push(lengths, state)
    for i, length in enumerate(lengths):
        theirs = classic_control.CartPoleEnv()
        theirs.length = float(length)
        theirs.state = np.array([0.0, 0.1, 0.05, -0.2])
        np.testing.assert_allclose(ours[i], theirs.step(1)[0], rtol=1e-5, atol=1e-6)
    assert len(np.unique(ours[:, 3])) == 4


# Time limits --------------------------------------------------------------------------------------


def test_truncation_keeps_the_true_next_obs():
    env = jaxrl_envs.make("gymnax/CartPole-v1", max_steps_in_episode=3)
    envs = VectorEnv(env, 2)

    @jax.jit
    def run(key):
        start = envs.reset(key)
        end, _, trajectory, episodes = rollout(to_the_right, envs, start, (), (), key, 4)
        raw = [start.state]
        for _ in range(3):
            raw.append(jax.vmap(env.step)(jax.random.split(key, 2), raw[-1], jnp.array([1, 1]))[0])
        return end, trajectory, episodes, raw

    end, trajectory, episodes, raw = run(KEY)
    steps = trajectory.steps
    assert not steps.terminated.any()
    np.testing.assert_array_equal(steps.truncated, [[t == 2] * 2 for t in range(4)])
    np.testing.assert_array_equal(trajectory.first, [[t in (0, 3)] * 2 for t in range(4)])
    for t in range(3):
        real = np.stack([getattr(raw[t + 1], field) for field in FIELDS["CartPole-v1"]], axis=-1)
        np.testing.assert_allclose(steps.next_obs[t], real, rtol=1e-6)
    assert (np.abs(steps.next_obs[2][:, 1]) > 0.5).all()  # fast after three pushes,
    assert (np.abs(steps.obs[3]) <= 0.05).all()  # near rest after the reset
    np.testing.assert_array_equal(end.state.time, [1, 1])
    assert (episodes.count, episodes.lengths.value) == (2, 3)


def test_termination_wins_over_the_time_limit():
    env, state = states("CartPole-v1", [[2.399, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    state = state.replace(time=jnp.full(2, 499))
    _, timestep = jax.vmap(env.step)(jax.random.split(KEY, 2), state, jnp.array([1, 1]))
    np.testing.assert_array_equal(timestep.terminated, [True, False])
    np.testing.assert_array_equal(timestep.truncated, [False, True])


def test_deep_sea_terminates_at_its_time_limit():
    """DeepSea reaches its last row exactly at the time limit, so it never truncates."""
    env = jaxrl_envs.make("gymnax/DeepSea-bsuite")

    def one_step(state, key):
        return env.step(key, state, jnp.int32(0))

    start, _ = env.reset(KEY)
    _, timesteps = jax.jit(lambda s: jax.lax.scan(one_step, s, jax.random.split(KEY, 8)))(start)
    np.testing.assert_array_equal(timesteps.terminated, [False] * 7 + [True])
    assert not timesteps.truncated.any()
