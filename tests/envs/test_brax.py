"""The brax adapter: dynamics, time limits, parameters as leaves, resets."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxrl
import jaxrl_envs
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.types import Box, EnvSpec, sample_action
from jaxrl_envs import registry
from jaxrl_envs.library import library_code

brax = pytest.importorskip("jaxrl_envs.brax", reason="needs the extra brax")

KEY = jax.random.key(0)
# Compiled without optimisation: a third of the time.
quick = {"compiler_options": {"xla_backend_optimization_level": 0}}


class Runner:
    """A counter as physics; its metrics are the reward, the sum of rewards and the position."""

    def reset(self, key):
        metrics = dict.fromkeys(("reward_run", "reward_total", "x_position"), jnp.float32(0.0))
        zero = jnp.float32(0.0)
        return brax.brax_envs.State(zero, jnp.zeros(1), zero, zero, metrics)

    def step(self, state, action):
        where = state.pipeline_state + 1.0
        total = state.metrics["reward_total"] + 0.5 * where
        state.metrics.update(reward_run=0.5 * where, reward_total=total, x_position=where)
        return state.replace(pipeline_state=where)


def test_reward_metrics_are_summed_over_an_episode():
    spec = EnvSpec(jax.ShapeDtypeStruct((1,), jnp.float32), Box.of(-1.0, 1.0, (1,)))
    env = brax.BraxEnv({}, Runner(), spec)
    state, _ = env.reset(KEY)
    for _ in range(3):
        state, timestep = env.step(KEY, state, jnp.zeros(1))
    total = 0.5 * (1 + 2 + 3)
    assert timestep.info == {"reward_run": total, "reward_total": total, "x_position": 3}


def test_ids_match_brax():
    assert set(registry.BRAX_IDS) == set(brax.brax_envs._envs)
    assert {f"brax/{name}" for name in registry.BRAX_IDS} <= set(jaxrl_envs.list_ids())


def test_adapts_brax_objects():
    """The default time limit is that of brax's trainers; it and the parameters can be changed."""
    made = jaxrl_envs.make("brax/reacher")
    with library_code():
        adapted = jaxrl_envs.adapt(brax.brax_envs.get_environment("reacher"))
    assert adapted.spec == made.spec
    assert adapted.spec.max_steps == 1000
    changed = jaxrl_envs.adapt(made.env.env, max_steps=50, mass_scale=2.0)
    assert (changed.spec.max_steps, changed.env.params["mass_scale"]) == (50, 2.0)
    assert jax.tree.structure(jaxrl_envs.adapt(made.env.env)) == jax.tree.structure(made)


def test_brax_wrappers_are_removed():
    """Action repeat and episode length are kept: rewards match step by step."""
    theirs = brax.brax_envs.create("fast", episode_length=5, action_repeat=2, auto_reset=False)
    ours = jaxrl_envs.adapt(brax.brax_envs.create("fast", episode_length=5, action_repeat=2))
    assert ours.spec.max_steps == 3
    with library_code():
        native = theirs.reset(KEY)
    state, _ = ours.reset(KEY)
    action, ends = jnp.ones(1), []
    for _ in range(3):
        with library_code():
            native = theirs.step(native, action)
        state, timestep = ours.step(KEY, state, action)
        assert timestep.reward == native.reward > 0
        assert (timestep.terminated | timestep.truncated) == (native.done > 0)
        ends.append(bool(timestep.truncated))
    assert ends == [False, False, True]
    another = brax.training.EvalWrapper(theirs)
    with pytest.raises(TypeError, match="EvalWrapper is a wrapper of brax: pass the environment"):
        jaxrl_envs.adapt(another)


def test_user_registered_environments_can_be_made(monkeypatch):
    """A second registration replaces the first; the class need not accept a backend."""

    class Slow(type(brax.brax_envs.get_environment("fast"))):
        def __init__(self, factor=1.0):
            super().__init__()
            self.factor = factor

    class Slower(Slow):
        pass

    for kind in (Slow, Slower):
        monkeypatch.setitem(brax.brax_envs._envs, "slow", kind)
        assert type(jaxrl_envs.make("brax/slow", factor=2.0).env.env) is kind
    assert jaxrl_envs.make("brax/slow", factor=2.0).env.env.factor == 2.0
    with pytest.raises(ValueError, match="brax/slow has no choice of backends"):
        jaxrl_envs.make("brax/slow", backend="spring")
    with pytest.raises(ValueError, match="'brax/slov': did you mean brax/slow"):
        jaxrl_envs.make("brax/slov")


def test_custom_wrappers_have_no_physics_parameters():
    """A wrapper exposes the inner system, but a change would not reach the inner environment."""

    class Mine(brax.brax_envs.Wrapper):
        pass

    with library_code():
        wrapped = Mine(brax.brax_envs.get_environment("reacher"))
    assert jaxrl_envs.adapt(wrapped).spec.action == Box.of(-1.0, 1.0, (2,))
    with pytest.raises(ValueError, match="Mine has no physics, so no parameter 'mass_scale'"):
        jaxrl_envs.adapt(wrapped, mass_scale=2.0)


@pytest.mark.thorough
@pytest.mark.parametrize("backend", brax.BACKENDS)
@pytest.mark.parametrize("name", ["inverted_pendulum", "reacher"])
def test_two_environments_train_on_each_backend(name, backend):
    env = jaxrl_envs.make(f"brax/{name}", backend=backend, max_steps=6)
    agent = jaxrl.agents.PPO(num_envs=4, num_steps=8, num_epochs=1, hidden_sizes=(8,))

    def train(key):
        return jaxrl.train(agent, env, key, total_steps=64, num_evaluations=0)

    state, metrics = jax.jit(train, **quick)(KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.agent))
    assert metrics.training.episodes.count.sum() >= 8  # 16 steps per copy, truncated after 6
    assert metrics.training.episodes.lengths.value[-1] <= 6


@pytest.mark.thorough
def test_steps_match_brax():
    """From the same start, with the same actions."""
    env = jaxrl_envs.make("brax/reacher")
    theirs = env.env.env
    actions = jax.random.uniform(KEY, (5, 2), minval=-1.0)

    @functools.partial(jax.jit, **quick)
    def ours(key):
        def one(state, action):
            state, timestep = env.step(KEY, state, action)
            return state, (timestep.obs, timestep.reward, timestep.terminated)

        return jax.lax.scan(one, env.reset(key)[0], actions)[1]

    @functools.partial(jax.jit, **quick)
    def brax_alone(key):
        states = [theirs.reset(key)]
        for action in actions:
            states.append(theirs.step(states[-1], action))
        return tuple(
            jnp.stack([jnp.asarray(x) for x in xs])
            for xs in zip(*((s.obs, s.reward, s.done > 0) for s in states[1:]), strict=True)
        )

    with library_code():
        expected = brax_alone(KEY)
    for x, y in zip(ours(KEY), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def pendulum():
    return jaxrl_envs.make("brax/inverted_pendulum", max_steps=20)


def random_steps(env, num_envs, num_steps, policy="pool", action=None, batched=False):
    envs = VectorEnv(env, num_envs, policy, batched=batched)

    def act(carry, obs, key):
        draw = jax.vmap(lambda k: sample_action(envs.spec.action, k))
        chosen = draw(jax.random.split(key, num_envs))
        return carry, chosen if action is None else jnp.full_like(chosen, action), ()

    @functools.partial(jax.jit, **quick)
    def run(envs, key):
        return rollout(act, envs, envs.reset(key), (), (), key, num_steps)[2]

    return jax.device_get(run(envs, KEY))


@pytest.mark.thorough
def test_a_fall_terminates_and_the_time_limit_truncates(pendulum):
    """brax marks a fallen pendulum as `time_out`, although it is a termination."""
    assert (pendulum.spec.max_steps, pendulum.spec.truncates) == (20, "at_max_steps")
    assert pendulum.spec.action == Box.of(-1.0, 1.0, (1,))
    steps = random_steps(pendulum, 8, 60, action=1.0).steps  # pushed over
    assert steps.terminated.any()
    fallen = np.abs(steps.next_obs[..., 1]) > 0.2
    np.testing.assert_array_equal(steps.terminated, fallen)
    still = random_steps(pendulum, 8, 60, action=0.0).steps  # stands for a while
    assert still.truncated.sum() >= 8
    assert not (still.truncated & still.terminated).any()
    assert (still.truncated[19] | still.terminated[:20].any(axis=0)).all()


@pytest.mark.thorough
@pytest.mark.parametrize("policy", ["pool", "fresh"])
def test_restarts_follow_the_start_distribution(pendulum, policy):
    """Kolmogorov-Smirnov against fresh resets, for each entry of the observation."""
    assert pendulum.spec.reset_policy == "pool"
    short = pendulum.replace(max_steps=2)
    trajectory = random_steps(short, 64, 64, policy)
    starts = trajectory.steps.obs[trajectory.first][64:]  # all but the first are auto-resets
    assert len(starts) > 1500
    fresh = jax.jit(jax.vmap(lambda key: pendulum.reset(key)[1]), **quick)(
        jax.random.split(KEY, 4000)
    )
    unique = np.unique(starts, axis=0)
    assert len(unique) > (40 if policy == "pool" else 1500)  # one cached start would be 1
    for entry in range(4):
        assert stats.kstest(unique[:, entry], np.asarray(fresh)[:, entry]).pvalue > 1e-4


@pytest.mark.thorough
def test_mass_scale_can_be_vmapped(pendulum):
    """A larger mass moves less under the same force, and scale 1 changes nothing.

    Only the order is compared: twice the mass would halve the first step of a free cart exactly
    only with a massless pole.
    """

    def speed(scale):
        env = pendulum.with_params(mass_scale=scale)
        state, _ = env.reset(KEY)
        return env.step(KEY, state, jnp.ones(1))[1].obs[2]

    speeds = jax.jit(jax.vmap(speed), **quick)(jnp.array([0.5, 1.0, 2.0]))
    assert speeds[0] > speeds[1] > speeds[2] > 0

    def plain_speed(key):
        return pendulum.step(key, pendulum.reset(key)[0], jnp.ones(1))[1].obs[2]

    plain = jax.jit(plain_speed, **quick)(KEY)
    np.testing.assert_allclose(speeds[1], plain, rtol=1e-5)

    scales = jnp.array([0.5, 1.0, 2.0])
    envs = jax.vmap(lambda s: pendulum.with_params(mass_scale=s))(scales)
    first = random_steps(envs, 3, 1, action=1.0, batched=True).steps.next_obs[0, :, 2]
    assert first[0] > first[1] > first[2]


@pytest.mark.thorough
def test_gravity_and_whole_fields_can_be_changed(pendulum):
    """A weightless pole never falls without a force."""
    weightless = pendulum.with_params(gravity_scale=0.0)
    assert not random_steps(
        weightless.replace(max_steps=60), 4, 60, action=0.0
    ).steps.terminated.any()
    system = pendulum.env.env.sys
    masses = pendulum.with_params(**{"link.inertia.mass": 2 * system.link.inertia.mass})
    changed = masses.env._physics().sys
    np.testing.assert_allclose(changed.link.inertia.mass, 2 * system.link.inertia.mass)


@pytest.mark.thorough
def test_swimmer_moves_in_its_fluid():
    """brax's fluid code calls `jnp.clip` with argument names that jax has removed."""
    env = jaxrl_envs.make("brax/swimmer")

    @jax.jit
    def play(key):
        state, obs = env.reset(key)
        return obs, env.step(key, state, jnp.array([1.0, -1.0]))[1].obs

    before, after = play(jax.random.key(0))
    assert np.isfinite(after).all()
    assert not np.allclose(before, after)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("inverted_pendulum", {"backend": "bullet"}, "backend is 'bullet': use generalized"),
        ("swimmer", {"backend": "spring"}, "cannot use the backend 'spring'"),
        ("inverted_pendulum", {"mass": 2.0}, "no field 'mass': use mass_scale"),
        ("inverted_pendulum", {"mass_scale": "big"}, "give a number"),
        ("inverted_pendulum", {"link.inertia.mass": 1.0}, "must have the shape"),
        ("fast", {"mass_scale": 1.0}, "has no physics"),
    ],
)
def test_invalid_parameters_are_rejected(name, params, message):
    with pytest.raises(ValueError, match=message):
        jaxrl_envs.make(f"brax/{name}", **params)


def test_constructor_arguments_reach_brax():
    env = jaxrl_envs.make("brax/hopper", backend="spring", terminate_when_unhealthy=False)
    assert env.env.env._terminate_when_unhealthy is False


@pytest.mark.thorough
def test_environment_satisfies_the_contract(pendulum):
    jaxrl_envs.check(pendulum, num_steps=30)


def test_missing_brax_is_reported():
    program = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "brax" else find(name, *a)
import jaxrl_envs
jaxrl_envs.make("brax/ant")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "brax/ant needs brax: pip install 'jaxrl[brax]'" in done.stderr
