"""Training on environments that step outside JAX."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.commands import run_in_process
from helpers.hosted import SEEN, Counting, Remembers, SteppedFromHost

import jaxrl
import jaxrl_envs
from jaxrl.agents import CEM, DQN, PPO, SAC
from jaxrl.engine.checked_vector import EnvironmentFault
from jaxrl.runs.events import Resumed
from jaxrl.wrappers import MaskVelocity

KEY = jax.random.key(3)
SMALL = {"hidden_sizes": (16,), "num_envs": 4}
AGENTS = {
    "ppo": (PPO(num_steps=16, **SMALL), "gymnax/CartPole-v1"),
    "recurrent ppo": (
        PPO(num_steps=16, num_minibatches=2, core="gru", core_size=8, **SMALL),
        "gymnax/CartPole-v1",
    ),
    "dqn": (
        DQN(num_steps=2, num_updates=2, batch_size=8, capacity=256, warmup=16, **SMALL),
        "gymnax/CartPole-v1",
    ),
    "sac": (
        SAC(num_steps=2, num_updates=2, batch_size=8, capacity=256, warmup=16, **SMALL),
        "gymnax/Pendulum-v1",
    ),
}


@pytest.mark.parametrize(
    ("name", "normalized"),
    [
        ("ppo", False),
        ("dqn", True),
        ("recurrent ppo", False),
        pytest.param("ppo", True, marks=pytest.mark.thorough),
        pytest.param("recurrent ppo", True, marks=pytest.mark.thorough),
        pytest.param("dqn", False, marks=pytest.mark.thorough),
        pytest.param("sac", False, marks=pytest.mark.thorough),
        pytest.param("sac", True, marks=pytest.mark.thorough),
    ],
)
def test_the_host_engine_learns_what_the_compiled_engine_learns(name, normalized):
    """The same environment, keys and agent, stepped from Python and by a compiled rollout."""
    agent, env_id = AGENTS[name]
    env = jaxrl_envs.make(env_id, max_steps_in_episode=20)
    options = {
        "total_steps": 8 * agent.plan.steps_per_iteration,
        "num_evaluations": 1,
        "num_eval_episodes": 2,
        "normalize_observations": normalized,
        "normalize_rewards": normalized,
    }
    host = SteppedFromHost(env, KEY, agent.plan.num_steps)
    compiled = jaxrl.fit(agent, env, KEY, **options).state
    hosted = jaxrl.fit(agent, host, KEY, **options).state
    for x, y in zip(
        *map(jax.tree.leaves, ((compiled.agent, compiled.stats), (hosted.agent, hosted.stats))),
        strict=True,
    ):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            continue
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


# Actors -------------------------------------------------------------------------------------------

COUNTING = PPO(hidden_sizes=(8,), num_envs=4, num_steps=5, num_minibatches=2, num_epochs=1)


def fit(agent=COUNTING, env=None, key=KEY, iterations=4, **options):
    options = {"num_evaluations": 1, "num_eval_episodes": 3, **options}
    env = env or Counting()
    steps = iterations * agent.bind(env.spec).plan.steps_per_iteration
    return jaxrl.fit(agent, env, key, total_steps=steps, **options)


def leaves(state):
    return [np.asarray(x) for x in jax.tree.leaves((state.agent, state.stats))]


def assert_equal(x, y, index=None):
    for a, b in zip(leaves(x), leaves(y), strict=True):
        np.testing.assert_array_equal(a if index is None else a[index], b)


@pytest.mark.parametrize("actors", [1, 2])
def test_the_learner_gets_every_step_with_its_true_successor(actors):
    SEEN.clear()
    agent = Remembers(**{f: getattr(COUNTING, f) for f in ("num_envs", "num_steps")})
    fit(agent.replace(hidden_sizes=(8,)), actors=actors)
    jax.effects_barrier()
    steps = [seen.steps for seen in SEEN]
    obs = np.concatenate([x.obs for x in steps])[..., 0]
    after = np.concatenate([x.next_obs for x in steps])[..., 0]
    terminated, truncated = (
        np.concatenate([getattr(x, name) for x in steps]) for name in ("terminated", "truncated")
    )
    first = np.concatenate([x.first for x in SEEN])
    at = np.arange(len(obs))[:, None]
    np.testing.assert_array_equal(obs, np.broadcast_to(at % 3, obs.shape))
    np.testing.assert_array_equal(after, obs + 1)  # also where the episode ends
    np.testing.assert_array_equal(first, obs == 0)
    np.testing.assert_array_equal(terminated, (obs == 2) & (at // 3 % 2 == 0))
    np.testing.assert_array_equal(truncated, (obs == 2) & (at // 3 % 2 == 1))
    np.testing.assert_array_equal(SEEN[0].env_index[0], np.arange(4))


def test_episodes_count_once_they_end():
    result = fit(iterations=6)  # 30 steps: ten episodes of each copy
    training = result.evaluations[0].training
    assert training["training_episodes"] == 40
    assert training["training_return_mean"] == 3
    np.testing.assert_array_equal(result.evaluations[0].returns, [[3, 3, 3]])


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize("actors", [1, 2])
def test_threads_do_not_change_a_run(actors, lag):
    options = {"actors": actors, "actor_lag": lag, "iterations": 7}
    assert_equal(fit(**options).state, fit(**options).state)


def test_a_lag_is_the_age_of_the_policy():
    """The environment does not depend on the actions, so that log-probabilities tell policies."""

    def log_probs(learning_rate, lag):
        SEEN.clear()
        agent = Remembers(num_envs=4, num_steps=5, num_minibatches=2, hidden_sizes=(8,))
        fit(agent.replace(learning_rate=learning_rate), actor_lag=lag)
        jax.effects_barrier()
        return [np.asarray(seen.steps.extras["log_prob"]) for seen in SEEN]

    def same(x, y):
        return [bool((a == b).all()) for a, b in zip(x, y, strict=True)]

    first = log_probs(0.0, 0)  # of the initial policy
    assert same(log_probs(0.1, 0), first) == [True, False, False, False]
    assert same(log_probs(0.1, 1), first) == [True, True, False, False]
    assert same(log_probs(0.1, 2), first) == [True, True, True, False]


def test_seeds_are_trained_side_by_side_as_alone():
    keys = jax.random.split(KEY, 3)
    together = fit(key=keys).state
    for index, key in enumerate(keys):
        alone = fit(key=key).state
        for x, y in zip(leaves(together), leaves(alone), strict=True):
            np.testing.assert_allclose(x[index], y, rtol=1e-5, atol=1e-6)


def test_transfers_are_allowed_in_all_threads():
    before = fit().state
    with_guard = jax.config.jax_transfer_guard
    jax.config.update("jax_transfer_guard", "disallow")
    try:
        after = fit().state
    finally:
        jax.config.update("jax_transfer_guard", with_guard)
    assert_equal(before, after)


def test_copies_have_different_seeds():
    env = Counting()
    fit(env=env, key=jax.random.split(KEY, 2), actors=2)
    seeds = np.concatenate([vector.seeds for vector in env.vectors])
    assert len(seeds) == len(np.unique(seeds)) == 2 * 4 + 2 * 3  # training and evaluation
    assert (seeds >= 0).all()


def test_points_of_a_sweep_learn_by_their_own_values():
    points = [{"learning_rate": 1e-3}, {"learning_rate": 0.1}]
    swept = fit(points=points).state
    for index, point in enumerate(points):
        alone = fit(COUNTING.replace(**point)).state
        for x, y in zip(leaves(swept), leaves(alone), strict=True):
            np.testing.assert_allclose(x[index], y, rtol=1e-4, atol=1e-5)


# Faults -------------------------------------------------------------------------------------------


def at_step(number, action):
    """A fault in a step of training, which has four copies."""
    return lambda vector, step: action(step) if vector.steps == number and vector.n == 4 else None


def raise_error(step):
    raise ZeroDivisionError("the simulator broke")


def leave(step):
    raise SystemExit(3)


FAULTS = {
    "raises": (raise_error, r"ZeroDivisionError: the simulator broke \(.*py, line \d+\).*resume"),
    "exits": (leave, "SystemExit: 3"),
    "nan": (lambda s: s._replace(obs=s.obs * np.nan), r"NaN in copies \[0, 1, 2, 3\]"),
    "reward": (lambda s: s._replace(reward=s.reward * np.inf), "reward of NaN or inf"),
    "shape": (lambda s: s._replace(next_obs=s.next_obs[:, :1]), r"float32\[4, 1\]"),
    "dtype": (lambda s: s._replace(obs=s.obs.astype(np.float64)), "float64"),
    "structure": (lambda s: s._replace(obs=(s.obs,)), "another structure"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_the_run_by_name_after_a_checkpoint(name, tmp_path):
    action, message = FAULTS[name]
    env = Counting(fail=at_step(12, action))
    with pytest.raises(EnvironmentFault, match=f"counting.*{message}") as caught:
        fit(env=env, run_dir=tmp_path / "run")
    if name == "raises":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert all(vector.closed for vector in env.vectors)
    assert not actor_threads()
    resumed = fit(env=Counting(), run_dir=tmp_path / "run", resume=True)
    assert resumed.env_steps == 80
    assert sorted(int(p.name) for p in (tmp_path / "run/checkpoints").glob("[0-9]*"))[0] == 40


def actor_threads():
    return [x for x in threading.enumerate() if x.name.startswith("jaxrl-actor")]


def test_an_environment_that_hangs_ends_the_run_in_time():
    released = threading.Event()
    env = Counting(fail=at_step(7, lambda step: released.wait(60) and None))
    with pytest.raises(EnvironmentFault, match=r"has not returned for 0\.5 s"):
        fit(env=env, env_timeout=0.5)
    released.set()
    for thread in actor_threads():
        thread.join(10)
    assert not actor_threads()


def test_a_fault_in_an_evaluation_also_ends_the_run_after_a_checkpoint(tmp_path):
    def fail(vector, step):
        return raise_error(step) if vector.n == 3 else None  # the copies for evaluations

    with pytest.raises(EnvironmentFault, match="the simulator broke"):
        fit(env=Counting(fail=fail), run_dir=tmp_path / "run")
    assert [p.name for p in (tmp_path / "run/checkpoints").glob("[0-9]*")] == ["80"]
    assert not actor_threads()


@pytest.mark.parametrize("num", [4, 3], ids=["training", "evaluation"])
def test_an_environment_that_hangs_in_reset_ends_the_run_in_time(num):
    released = threading.Event()
    env = Counting()
    start = env.vector

    def vector(num_envs):
        found = start(num_envs)
        if num_envs == num:
            found.reset = lambda seeds=None: released.wait(60)
        return found

    env.vector = vector
    with pytest.raises(EnvironmentFault, match="has not returned"):
        fit(env=env, env_timeout=0.2)
    released.set()
    for thread in actor_threads():
        thread.join(10)


def test_an_environment_that_cannot_start_says_so():
    env = Counting()
    env.vector = raise_error
    with pytest.raises(EnvironmentFault, match=r"counting could not be started.*broke"):
        fit(env=env)


# Resume -------------------------------------------------------------------------------------------


def test_a_run_resumes_and_says_that_episodes_start_anew(tmp_path):
    events = []
    fit(run_dir=tmp_path / "run", iterations=3)
    options = {"run_dir": tmp_path / "run", "resume": True, "callbacks": [events.append]}
    result = fit(iterations=6, **options)
    (resumed,) = [event for event in events if isinstance(event, Resumed)]
    assert resumed.steps == 60
    assert any("new episodes start" in note for note in resumed.notes)
    assert result.env_steps == 120


@pytest.mark.thorough
def test_the_command_sweeps_and_shows_what_it_would_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "ppo gymnasium/CartPole-v1 --no-preset --num-envs 4 --num-steps 16 --total-steps 128"
    words = [*words.split(), "--num-evaluations", "1", "--num-eval-episodes", "4"]
    status, out, err = run_in_process(
        "sweep", *words, "--grid", "learning_rate=1e-3,1e-4", "--sweep-dir", "sweep"
    )
    assert status == 0, err
    assert any("2 points of learning_rate" in line for line in out)
    status, out, err = run_in_process("train", *words, "--dry-run")
    assert status == 0, err
    assert any(line.startswith("memory") and "acting" in line for line in out)


# Errors before anything is compiled ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actors": 3}, "actors is 3, which does not divide num_envs = 4"),
        ({"actor_lag": -1}, "actor_lag is -1"),
        ({"devices": 2}, "one device learns"),
        ({"batched_env": True, "eval_env": Counting()}, "batched_env"),
        ({"agent": CEM()}, "CEM plays whole episodes"),
        ({"agent": DQN(num_envs=4, epsilon_power=7.0), "actors": 2}, "epsilon_power.*one actor"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


def test_only_host_environments_have_actors():
    env = jaxrl_envs.make("gymnax/CartPole-v1")
    with pytest.raises(ValueError, match="actors is 2, but only environments that step outside"):
        fit(env=env, actors=2)


@pytest.mark.parametrize(
    "use",
    [
        lambda env: jaxrl.train(COUNTING, env, KEY, total_steps=40),
        lambda env: jaxrl.record_episodes(lambda *x: x, env, KEY, num_episodes=2),
        lambda env: jaxrl.fit(COUNTING, MaskVelocity(env, (0,)), KEY, total_steps=40),
    ],
)
def test_programs_cannot_contain_them(use):
    with pytest.raises(TypeError, match="steps outside jax"):
        use(Counting())


# jaxrl_envs.check ---------------------------------------------------------------------------------


def without_seeds(vector, step):
    vector.count[:] = np.random.default_rng().integers(0, 2, vector.n)


def test_check_accepts_what_keeps_the_contract():
    jaxrl_envs.check(Counting())
    jaxrl_envs.check(jaxrl_envs.make("gymnasium/Acrobot-v1"), num_steps=20)


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (lambda v, s: s._replace(next_obs=s.next_obs * np.nan), "NaN in copies"),
        (lambda v, s: s._replace(obs=s.obs + 1), "obs differs from next_obs"),
        (lambda v, s: s._replace(truncated=s.terminated | s.truncated), "terminated and truncated"),
        (lambda v, s: s._replace(terminated=s.terminated * 1.0), "terminated of float64"),
        (lambda v, s: s._replace(terminated=s.terminated & False), "continued after spec.max"),
        (without_seeds, "two different results"),
        (lambda v, s: raise_error(s), "the simulator broke"),
        (lambda v, s: s._replace(reward=s.reward[:1]), r"reward of float32\[1\]"),
    ],
)
def test_check_names_what_is_wrong(fail, message):
    with pytest.raises(jaxrl_envs.ConformanceError, match=message):
        jaxrl_envs.check(Counting(fail=fail))
