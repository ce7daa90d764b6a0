"""Properties of the engine for any agent."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers.agents.cross_entropy import CrossEntropy
from helpers.agents.fitted_q import FittedQ
from helpers.agents.q_learning import QLearning
from helpers.agents.recurrent import RecurrentPolicyGradient
from helpers.agents.tiny import Tiny
from helpers.environments import BestAction, Chain, Counter, Recall, timestep
from helpers.jaxprs import primitives
from helpers.plans import PLANS, equal, random_policy
from helpers.probes import cases
from scipy import stats

import jaxrl
import jaxrl_envs
from jaxrl.agent import Agent, OnPolicy, Replay, Update
from jaxrl.agents import PPO, REINFORCE, SAC, Rainbow
from jaxrl.engine.evaluate import play_episodes
from jaxrl.engine.rollout import rollout
from jaxrl.engine.sweep import sweep
from jaxrl.engine.train import chunk_stops, train
from jaxrl.engine.training import Training
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.minibatches import permutation
from jaxrl.runs.fit import fit
from jaxrl.runs.programs import memory_of
from jaxrl.types import Discrete, EnvSpec, Transition, static
from jaxrl_envs.exact import rock_paper_scissors

KEY = jax.random.key(0)
SOURCE = Path(jaxrl.__file__).parent


# Rollout ------------------------------------------------------------------------------------------


def test_rollout_matches_a_reference_loop():
    """Compares the scan with a loop over environments and steps, across episode ends."""
    env, num_envs, num_steps = Counter(lifetime=7, limit=4), 3, 11
    envs = VectorEnv(env, num_envs)
    state, _, trajectory, episodes = rollout(
        random_policy, envs, envs.reset(KEY), (), (), KEY, num_steps
    )
    state, trajectory = jax.device_get((state, trajectory))  # NumPy arrays are indexed quickly
    steps = trajectory.steps
    for n in range(num_envs):
        clock = 0.0
        for t in range(num_steps):
            assert trajectory.first[t, n] == (clock == 0)
            assert steps.obs[t, n, 1] == clock
            clock += 1
            assert steps.reward[t, n] == clock
            np.testing.assert_array_equal(
                steps.next_obs[t, n], [steps.obs[t, n, 0], clock]
            )  # from the old episode, even at its end
            assert not steps.terminated[t, n]
            assert steps.truncated[t, n] == (clock == 4)
            clock = 0.0 if clock == 4 else clock
        assert state.obs[n, 1] == clock
        assert state.episode_length[n] == clock
        assert state.episode_return[n] == clock * (clock + 1) / 2
    assert episodes.count == num_envs * 2  # the unfinished third episodes do not count
    assert episodes.returns.value == 1 + 2 + 3 + 4
    assert episodes.lengths.value == 4


def test_return_is_nan_without_a_finished_episode():
    envs = VectorEnv(Counter(), 2)
    *_, episodes = rollout(random_policy, envs, envs.reset(KEY), (), (), KEY, 3)
    assert episodes.count == 0
    assert np.isnan(episodes.returns.value)


def test_recurrent_carry_is_reset_at_episode_starts():
    """A policy that counts its steps in the carry agrees with the environment's clock."""

    def policy(carry, obs, key):
        return carry + 1.0, jnp.zeros(obs.shape[0], jnp.int32), carry

    envs = VectorEnv(Counter(limit=3), 4)
    zeros = jnp.zeros(4)
    _, last, trajectory, _ = rollout(policy, envs, envs.reset(KEY), zeros + 9, zeros, KEY, 8)
    np.testing.assert_array_equal(trajectory.steps.extras, trajectory.steps.obs[..., 1])
    np.testing.assert_array_equal(trajectory.carry, zeros + 9)  # the initial carry
    np.testing.assert_array_equal(last, np.full(4, 8 % 3))


def test_rollout_of_one_environment_and_one_step():
    envs = VectorEnv(Counter(limit=1), 1)
    _, _, trajectory, episodes = rollout(random_policy, envs, envs.reset(KEY), (), (), KEY, 1)
    assert trajectory.steps.reward.shape == (1, 1)
    assert trajectory.steps.truncated.all()
    assert episodes.count == 1


class Tenth(FittedQ):
    """Reports the metric 0.1 in every update."""

    def update(self, state, batch, key, clock):
        return Update(state, {"tenth": 0.1})


@pytest.mark.optimized
def test_metrics_of_many_iterations_are_accurate():
    """A plain float32 sum of 200,000 terms of 0.1 has a relative error of 1e-3."""
    obs, flag = jnp.zeros((1, 5)), jnp.zeros(1, bool)
    data = Transition(obs, jnp.zeros(1, jnp.int32), jnp.zeros(1), flag, flag, obs)
    _, metrics = jax.jit(
        lambda key: train(Tenth(), Chain(), key, total_steps=200_000, num_evaluations=0, data=data)
    )(KEY)
    np.testing.assert_allclose(metrics.training.updates["tenth"].value, [0.1], rtol=1e-6)


class Either(struct.PyTreeNode):
    """Episodes of one or ten steps, equally likely; each step pays 10, so the mean return is 55."""

    spec = EnvSpec(jax.ShapeDtypeStruct((1,), jnp.float32), Discrete(2), max_steps=10)

    def reset(self, key):
        left = jnp.where(jax.random.bernoulli(key), 10, 1)
        return left, left.astype(jnp.float32)[None]

    def step(self, key, state, action):
        left = state - 1
        return left, timestep(left.astype(jnp.float32)[None], 10.0, left == 0)


def test_whole_episode_rollout_counts_one_episode_per_environment():
    """The mean return is not biased towards short episodes.

    It would be if short episodes that begin late counted while the rollout cuts off long ones.
    Every iteration starts afresh: episodes continued from the previous iteration are long.
    """
    agent = REINFORCE(num_envs=256, num_steps=10, whole_episodes=True, hidden_sizes=(4,))
    _, metrics = jax.jit(
        lambda key: train(agent, Either(), key, total_steps=4 * 2560, num_evaluations=0)
    )(KEY)
    (count,), (value,) = metrics.training.episodes.count, metrics.training.episodes.returns.value
    assert count == 4 * 256
    assert abs(value - 55) < 5 * 45 / np.sqrt(count)
    np.testing.assert_allclose(metrics.training.episodes.lengths.value, value / 10, rtol=1e-5)


# Auto-reset ---------------------------------------------------------------------------------------


def starts_of(envs, num_steps, key=KEY):
    _, _, trajectory, _ = rollout(random_policy, envs, envs.reset(key), (), (), key, num_steps)
    return np.asarray(trajectory.steps.obs[..., 0])[np.asarray(trajectory.first)]


def test_fresh_starts_are_all_different():
    starts = starts_of(VectorEnv(Counter(limit=2), 16), 32)
    assert len(np.unique(starts)) == starts.size == 16 * 16


@pytest.mark.parametrize("reset_policy", ["fresh", "pool"])
def test_starts_follow_the_start_distribution(reset_policy):
    """A Kolmogorov-Smirnov test against the uniform distribution, at a level of about 1e-4."""
    envs = VectorEnv(Counter(limit=1), 64, reset_policy, pool_size=2048)
    starts = np.sort(np.unique(starts_of(envs, 256)))
    assert starts.size > 1500
    distance = np.abs(starts - (np.arange(starts.size) + 0.5) / starts.size).max()
    assert distance < 2.3 / np.sqrt(starts.size)


def test_reset_pool_is_redrawn_for_each_rollout():
    envs = VectorEnv(Counter(limit=1), 8, "pool", pool_size=32)
    first, second = starts_of(envs, 40, jax.random.key(1)), starts_of(envs, 40, jax.random.key(2))
    assert 16 <= len(np.unique(first[8:])) <= 32
    assert not set(first) & set(second)


def test_each_environment_keeps_its_parameters():
    """Parameters with a leading environment axis, under both reset policies."""
    for reset_policy in ("fresh", "pool"):
        env = Counter(bonus=jnp.arange(4.0) * 10, limit=2)
        envs = VectorEnv(env, 4, reset_policy, batched=True)
        envs.check()
        _, _, trajectory, _ = rollout(random_policy, envs, envs.reset(KEY), (), (), KEY, 4)
        expected = np.array([1, 2, 1, 2])[:, None] + np.arange(4) * 10
        np.testing.assert_array_equal(trajectory.steps.reward, expected)


# Shuffle ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_rows", [1, 6, 40, 64, 91, 97, 512, 3300, 8192])
def test_a_shuffle_is_a_permutation(num_rows):
    order = np.asarray(permutation(KEY, num_rows))
    np.testing.assert_array_equal(np.sort(order), np.arange(num_rows))
    again = np.asarray(permutation(jax.random.key(1), num_rows))
    assert order.size < 3 or not np.array_equal(order, again)


def test_shuffle_moves_rows_to_all_quarters_equally():
    num_rows, num_keys = 2048, 400
    orders = jax.vmap(lambda key: permutation(key, num_rows))(jax.random.split(KEY, num_keys))
    quarter = np.argsort(np.asarray(orders), axis=1) // (num_rows // 4)
    share = np.stack([(quarter == q).mean(axis=0) for q in range(4)])
    error = np.sqrt(0.25 * 0.75 / num_keys)
    assert np.abs(share - 0.25).max() < 5 * error  # 8192 shares: 5 sigma


@pytest.mark.parametrize("shape", [(16, 4), (128, 4), (61, 8), (128, 16)])
def test_shuffled_minibatches_are_hypergeometric(shape):
    """The number of rows of a kind in a minibatch has hypergeometric moments.

    One round or a narrow grid changes the variance, two rounds the fourth moment: it is 3.9 for
    the rows of even environments.
    """
    (num_steps, num_envs), num_keys = shape, 4000
    num_rows, part = num_steps * num_envs, num_steps * num_envs // 4
    orders = jax.jit(jax.vmap(lambda key: permutation(key, num_rows)))(
        jax.random.split(KEY, num_keys)
    )
    step, env = np.divmod(np.arange(num_rows), num_envs)
    for kind in (env == 0, env % 2 == 0, step < num_steps // 4, step < 2, step % 2 == 0):
        count = kind[np.asarray(orders)[:, :part]].sum(axis=1)
        mean, variance, excess = stats.hypergeom(num_rows, kind.sum(), part).stats("mvk")
        assert abs(count.mean() / mean - 1) < 0.05
        assert abs(count.var() / variance - 1) < 0.12  # 5 sigma
        assert abs(stats.kurtosis(count) - excess) < 0.4  # 5 sigma


def test_no_sort_in_the_minibatch_loop_of_a_large_batch():
    agent = PPO(num_envs=16, num_steps=16)
    jaxpr = jax.make_jaxpr(lambda k: train(agent, Counter(), k, total_steps=512))(KEY)
    assert "sort" not in primitives(jaxpr.jaxpr)


class Collector(Agent):
    """Records the rows that each update saw, as `[epoch, minibatch, rows]` of clock readings."""

    layout: str = static(default="flat")
    num_minibatches: int = static(default=4)

    @property
    def plan(self):
        return OnPolicy(12, 10, 2, self.num_minibatches, self.layout)

    def init(self, key):
        return jnp.full((2 * self.num_minibatches, 120 // self.num_minibatches), -1.0)

    def initial_carry(self, num_envs):
        return jnp.arange(num_envs) if self.layout == "env" else ()

    def act(self, state, carry, obs, key, clock, *, explore):
        num = obs.shape[0]
        return carry, jnp.zeros(num, jnp.int32), {"copy": jnp.arange(num)}

    def update(self, state, batch, key, clock):
        if self.layout == "env":
            assert batch.first.shape == (10, 12 // self.num_minibatches)
            aligned = (batch.env_index == batch.carry[None]).all()
        else:
            aligned = (batch.env_index == batch.steps.extras["copy"]).all()
        row = batch.steps.obs[..., 1] * 12 + batch.env_index  # time * N + copy
        seen = state.at[clock.update % state.shape[0]].set(row.reshape(-1))
        return Update(seen, {"aligned": aligned})


@pytest.mark.parametrize("num_minibatches", [1, 2, 4, 12])
@pytest.mark.parametrize("layout", ["flat", "env"])
def test_every_row_is_seen_once_an_epoch(layout, num_minibatches):
    agent = Collector(layout=layout, num_minibatches=num_minibatches)
    state, metrics = train(agent, Counter(), KEY, total_steps=120, num_evaluations=0)
    seen = np.asarray(state.agent).reshape(2, 120)
    for epoch in seen:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(120))
    assert num_minibatches == 1 or not np.array_equal(seen[0], seen[1])
    assert metrics.training.updates["aligned"].value[0] == 1
    assert metrics.training.updates["aligned"].count[0] == 2 * num_minibatches


class Onlooker(Agent):
    """Compares the observations it learns from with those it acted on."""

    replays: bool = static(default=False)

    @property
    def plan(self):
        return Replay(4, 8, 1, batch_size=16, capacity=32) if self.replays else OnPolicy(4, 8)

    def init(self, key):
        return jnp.zeros(())

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.zeros(obs.shape[0], jnp.int32), {"seen": obs}

    def update(self, state, batch, key, clock):
        steps = batch if self.replays else batch.steps
        start, same_start = steps.obs[..., 0], steps.next_obs[..., 0]
        metrics = {
            "obs": jnp.abs(steps.obs - steps.extras["seen"]).max(),
            "next_obs": jnp.abs(same_start - start).max(),
            "spread": jnp.abs(start).max(),
        }
        return Update(state, metrics)


@pytest.mark.parametrize("replays", [False, True])
def test_acting_and_learning_use_the_same_observation_scale(replays):
    """For normalised obs and next_obs; the replay buffer holds only the current iteration."""
    _, metrics = train(
        Onlooker(replays), Counter(limit=3), KEY, total_steps=160, num_evaluations=5,
        num_eval_episodes=1, normalize_observations=True,
    )  # fmt: skip
    updates = metrics.training.updates
    np.testing.assert_allclose(updates["obs"].value, 0.0, atol=1e-5)
    np.testing.assert_allclose(updates["next_obs"].value, 0.0, atol=1e-5)
    assert (updates["spread"].value[1:] > 1.0).all()  # starts are in [0, 1) before scaling


# Evaluation ---------------------------------------------------------------------------------------


def test_evaluation_plays_one_episode_per_environment():
    """Episodes of different lengths count once each; the mean is over episodes, not steps."""

    class Uneven(Counter):
        def step(self, key, state, action):
            state, timestep = super().step(key, state, action)
            length = 1 + jnp.floor(state[0] * 50)  # 1 to 50, depending on the start
            return state, timestep.replace(reward=jnp.float32(1.0), terminated=state[1] >= length)

    def policy(carry, obs, key):
        return carry, jnp.zeros(obs.shape[0], jnp.int32), ()

    envs = VectorEnv(Uneven(), 33)
    played = play_episodes(policy, envs, (), KEY, 100)
    starts = envs.reset(jaxrl.types.stream(KEY, jaxrl.types.Stream.EVALUATE)).obs[:, 0]
    np.testing.assert_array_equal(played.lengths, 1 + np.floor(np.asarray(starts) * 50))
    np.testing.assert_array_equal(played.returns, played.lengths)
    assert played.finished.all()


def test_episodes_beyond_the_step_limit_are_unfinished():
    played = jaxrl.evaluate(random_policy, Counter(limit=100), KEY, num_episodes=3, max_steps=50)
    assert not played.finished.any()
    np.testing.assert_array_equal(played.lengths, [50, 50, 50])
    assert jaxrl.evaluate(random_policy, Counter(limit=100), KEY, num_episodes=3).finished.all()


def test_evaluate_takes_the_initial_carry_from_the_policy():
    agent, env = RecurrentPolicyGradient(num_envs=2, num_steps=4, size=3), Recall()
    training = Training.create(agent, env, total_steps=8)
    policy = training.policy(jax.eval_shape(training.init, KEY))
    assert policy.initial_carry(5).shape == (5, 3)
    policy = training.policy(jax.jit(training.init)(KEY))
    found = jaxrl.evaluate(policy, env, KEY, num_episodes=5)
    carry = training.agent.initial_carry(5)
    assert equal(found, jaxrl.evaluate(policy, env, KEY, num_episodes=5, initial_carry=carry))


def test_evaluate_reports_a_missing_initial_carry():
    def counting(carry, obs, key):
        return carry["steps"] + 1, jnp.zeros(obs.shape[0], jnp.int32), ()

    def forgetful(carry, obs, key):
        return jnp.zeros((obs.shape[0], 2)), jnp.zeros(obs.shape[0], jnp.int32), ()

    with pytest.raises(TypeError) as caught:
        jaxrl.evaluate(counting, Counter(), KEY, num_episodes=2)
    remedy = "for a recurrent policy, pass initial_carry=agent.initial_carry(num_episodes)"
    assert caught.value.__notes__[-1].endswith(f"without a recurrent state: {remedy}.")
    with pytest.raises(ValueError, match=r"^initial_carry does not fit the policy"):
        jaxrl.evaluate(forgetful, Counter(), KEY, num_episodes=2)
    with pytest.raises(ValueError, match=r"is float32\[2, 2\], .* float32\[3, 2\]$"):
        jaxrl.evaluate(forgetful, Counter(), KEY, num_episodes=2, initial_carry=jnp.zeros((3, 2)))


def test_too_many_evaluation_episodes_are_rejected(monkeypatch):
    monkeypatch.setattr("jaxrl.devices.machine.memory", lambda: 2**30)
    with pytest.raises(
        ValueError, match=r"^num_episodes is 2000000000: that many copies of the env"
    ):
        jaxrl.evaluate(random_policy, Counter(), KEY, num_episodes=2 * 10**9)


class Poser(Agent):
    """Takes action 1 when exploring and 0 in evaluation."""

    plan = OnPolicy(2, 2)

    def init(self, key):
        return jnp.zeros(())

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.full(obs.shape[0], int(explore)), ()

    def update(self, state, batch, key, clock):
        return Update(state, {})


MIXED = np.array([0.32, 0.34, 0.34])


@pytest.mark.parametrize("eval_mode", ["greedy", "sample"])
def test_mixed_policy_return_matches_the_exact_value(eval_mode):
    """The greedy policy loses every round but the first; the sampled one almost breaks even."""
    env = rock_paper_scissors.make()
    training = Training.create(
        PPO(hidden_sizes=(2,)), env, total_steps=1, num_eval_episodes=4096, eval_mode=eval_mode
    )
    state = jax.jit(training.init)(KEY)
    params = jax.tree.map(  # logits that do not depend on the observation
        lambda x: jnp.log(jnp.asarray(MIXED, jnp.float32)) if x.shape == (3,) else 0.0 * x,
        state.agent.params,
    )
    state = state.replace(agent=state.agent.replace(params=params))
    returns = np.asarray(jax.jit(training.evaluate)(state, KEY, 0).returns, np.float64)
    played = MIXED if eval_mode == "sample" else np.array([0.0, 1.0, 0.0])
    truth = rock_paper_scissors.expected_return(env, played)
    assert truth == pytest.approx({"greedy": -9.0, "sample": -0.006}[eval_mode], abs=1e-3)
    assert abs(returns.mean() - truth) < 4 * returns.std() / 64


def test_eval_mode_must_be_supported_by_the_agent():
    for agent, modes in ((PPO(), ("greedy", "sample")), (Rainbow(), ("greedy",))):
        assert agent.eval_modes == modes
        assert Training.create(agent, BestAction(), total_steps=1).options.eval_mode == "greedy"
    for agent, mode in ((Rainbow(), "sample"), (PPO(), "mode")):
        with pytest.raises(ValueError, match=f"eval_mode is '{mode}': .*use 'greedy'"):
            Training.create(agent, BestAction(), total_steps=1, eval_mode=mode)


def test_evaluation_does_not_explore():
    _, metrics = train(Poser(), BestAction(), KEY, total_steps=4, num_eval_episodes=2)
    np.testing.assert_array_equal(metrics.training.episodes.returns.value, [1.0])
    np.testing.assert_array_equal(metrics.evaluation.returns, [[-1.0, -1.0]])


# The clock, keys and traces -----------------------------------------------------------------------


class Ticker(Agent):
    """Runs a callback in every third update, and reports the clock."""

    @property
    def plan(self):
        return OnPolicy(2, 2, num_epochs=2, num_minibatches=2)

    def init(self, key):
        return jnp.zeros(())

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.zeros(obs.shape[0], jnp.int32), ()

    def update(self, state, batch, key, clock):
        def third(state):
            jax.debug.callback(lambda _: CALLS.append(1), state)
            return state + 1.0

        state = jax.lax.cond(clock.update % 3 == 0, third, lambda s: s, state)
        return Update(state, {"fraction": clock.fraction, "iteration": clock.iteration})


CALLS: list[int] = []


def test_every_third_update_stays_a_branch_under_vmap():
    """A batched clock would turn the branch into a select: 40 calls instead of 14 per lane."""
    CALLS.clear()
    keys = jax.random.split(KEY, 3)

    def run(key):
        return train(
            Ticker(), Counter(limit=5), key, total_steps=40, num_evaluations=5, num_eval_episodes=1
        )

    state, metrics = jax.jit(jax.vmap(run))(keys)
    jax.effects_barrier()
    np.testing.assert_array_equal(state.agent, [14.0] * 3)  # updates 0, 3, ..., 39
    assert len(CALLS) == 3 * 14
    fractions = metrics.training.updates["fraction"].value[0]
    np.testing.assert_allclose(fractions, [0.05, 0.25, 0.45, 0.65, 0.85], rtol=1e-6)
    np.testing.assert_array_equal(metrics.iterations[0], [2, 4, 6, 8, 10])


def test_seeds_change_parameters_and_starts():
    agent = PPO(num_envs=4, num_steps=8, num_epochs=1)
    training = Training.create(agent, Counter(limit=4), total_steps=64)
    init = jax.jit(training.init)
    one, two = (init(jax.random.key(i)) for i in range(2))
    for a, b in zip(
        jax.tree.leaves(one.agent.params), jax.tree.leaves(two.agent.params), strict=True
    ):
        assert a.ndim == 1 or not np.array_equal(a, b)  # biases start at zero
    assert not set(np.asarray(one.envs.obs[:, 0])) & set(np.asarray(two.envs.obs[:, 0]))
    assert equal(one, init(jax.random.key(0)))


def test_no_key_is_used_twice():
    """JAX's key-reuse checker, applied to whole programs."""
    agent = PPO(num_envs=4, num_steps=8, hidden_sizes=(4,))
    with jax.debug_key_reuse(True):
        jax.jit(lambda k: train(agent, Counter(limit=5), k, total_steps=64)[0].agent)(KEY)
        jax.jit(lambda k: train(QLearning(), Chain(), k, total_steps=64)[0].agent)(KEY)


SEEN: list[tuple] = []


def see(kind, key):
    """Records the words of a key, or of each key in a batch, at run time."""

    def note(words):
        SEEN.extend((kind, *row) for row in np.asarray(words).reshape(-1, 2).tolist())

    jax.debug.callback(note, jax.random.key_data(key))


class KeyCounter(Counter):
    def reset(self, key):
        see("reset", key)
        return super().reset(key)

    def step(self, key, state, action):
        see("step", key)
        return super().step(key, state, action)


class KeyPPO(PPO):
    def act(self, state, carry, obs, key, clock, *, explore):
        see("act", key)
        return super().act(state, carry, obs, key, clock, explore=explore)

    def update(self, state, batch, key, clock):
        see("update", key)
        return super().update(state, batch, key, clock)


class KeyQLearning(QLearning):
    def update(self, state, batch, key, clock):
        see("update", key)
        return super().update(state, batch, key, clock)


KEY_PPO = KeyPPO(num_envs=4, num_steps=8, hidden_sizes=(8,))


@pytest.mark.parametrize(
    ("agent", "reset_policy"),
    [
        (KEY_PPO, "fresh"),
        pytest.param(KEY_PPO, "pool", marks=pytest.mark.thorough),
        pytest.param(KeyQLearning(warmup=1), "fresh", marks=pytest.mark.thorough),
        pytest.param(KeyQLearning(warmup=1), "pool", marks=pytest.mark.thorough),
    ],
)
def test_key_streams_are_independent(agent, reset_policy):
    """All keys of resets, steps, actions and updates in a run with evaluations are distinct."""
    SEEN.clear()
    total = agent.bind(KeyCounter(limit=8).spec).plan.steps_per_iteration * 5
    train(
        agent, KeyCounter(limit=8), KEY, total_steps=total, num_evaluations=3,
        num_eval_episodes=3, reset_policy=reset_policy,
    )  # fmt: skip
    jax.effects_barrier()
    keys = [words for _, *words in SEEN]
    assert {kind for kind, *_ in SEEN} >= {"reset", "step", "update"}
    assert len(keys) > 300
    assert len(set(map(tuple, keys))) == len(keys)


@pytest.mark.parametrize(
    "agent", [KEY_PPO, pytest.param(KeyQLearning(warmup=1), marks=pytest.mark.thorough)]
)
def test_two_seeds_share_no_key(agent):
    """In acting, stepping, resetting, updating and evaluation."""
    training = Training.create(agent, KeyCounter(limit=4), total_steps=256, num_eval_episodes=2)
    state, two = jax.jit(training.init)(KEY), jnp.int32(2)
    kinds = {"iteration": {"reset", "step", "update"}, "evaluate": {"reset", "step"}}
    for name, expected in kinds.items():
        run = jax.jit(getattr(training, name))
        seeds = []
        for seed in (1, 2):
            SEEN.clear()
            jax.block_until_ready(run(state, jax.random.key(seed), two))
            jax.effects_barrier()
            seeds.append(set(SEEN))
        for kind in {kind for kind, *_ in SEEN} | expected:
            words = [{tuple(w) for k, *w in seen if k == kind} for seen in seeds]
            assert all(words), (name, kind)
            assert not words[0] & words[1], (name, kind)


class Drawer(Agent):
    """Records the replay-buffer slots of its last batch."""

    plan = Replay(4, 8, 1, batch_size=16, capacity=32)

    def init(self, key):
        return jnp.zeros(16, jnp.int32)

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.zeros(obs.shape[0], jnp.int32), ()

    def update(self, state, batch, key, clock):
        return Update(batch.index, {})


@pytest.mark.parametrize("agent", [Collector(), Drawer()])
def test_seeds_draw_different_minibatches(agent):
    """When shuffling a rollout, and when sampling from a replay buffer."""
    training = Training.create(agent, Counter(), total_steps=1200)
    state, run = jax.jit(training.init)(KEY), jax.jit(training.iteration)
    one, two = (run(state, jax.random.key(seed), jnp.int32(0))[0].agent for seed in (1, 2))
    assert (one != two).mean() > 0.5


def test_long_evaluation_reuses_no_key():
    """Rollouts repeat until the last episode ends: here there are four."""

    def policy(carry, obs, key):
        see("act", key)
        return random_policy(carry, obs, key)

    SEEN.clear()
    play_episodes(policy, VectorEnv(KeyCounter(limit=100), 2), (), KEY)
    jax.effects_barrier()
    keys = [tuple(words) for _, *words in SEEN]
    assert len(keys) > 3 * 100
    assert len(set(keys)) == len(keys)


def test_programs_are_traced_once_for_all_lengths_and_values():
    traces = []

    class Traced(PPO):
        def update(self, state, batch, key, clock):
            traces.append(1)
            return super().update(state, batch, key, clock)

    agent = Traced(num_envs=4, num_steps=8, num_epochs=1, hidden_sizes=(8,))
    fit(agent, Counter(), KEY, total_steps=640, num_evaluations=5, num_eval_episodes=2)
    once = len(traces)  # for the shapes of the metrics, and for the program
    traces.clear()
    fit(agent, Counter(), KEY, total_steps=32, num_evaluations=1, num_eval_episodes=2)
    assert len(traces) == once <= 3

    traces.clear()
    seeds = jax.vmap(lambda a, k: train(a, Counter(), k, total_steps=64), (None, 0))
    run = jax.jit(jax.vmap(seeds, (0, None))).trace  # finds a former trace as a call would
    for rate in (1e-3, 1e-2):  # 4 x 4 hyper-parameters x 4 seeds, twice: one trace
        rates = [rate, 2 * rate, 3 * rate, 4 * rate]
        grid = sweep(agent, learning_rate=rates, clip_epsilon=[0.1, 0.2, 0.3, 0.4])
        _, metrics = run(grid, jax.random.split(KEY, 4)).out_info
        assert metrics.evaluation.returns.shape[:2] == (16, 4)
    assert len(traces) <= once


def test_memory_is_independent_of_training_length():
    """A program's inputs, outputs and temporaries, and the output shapes of PPO."""

    def run(agent, total_steps):
        return lambda k: train(agent, Counter(), k, total_steps=total_steps, num_evaluations=3)

    def memory(total_steps):
        return memory_of(jax.jit(run(Poser(), total_steps)).lower(KEY).compile())

    def shapes(total_steps):
        out = jax.eval_shape(run(PPO(num_envs=4, num_steps=8), total_steps), KEY)
        return jax.tree.map(lambda x: (x.shape, x.dtype), out)

    assert memory(128) == memory(12_800_000)
    assert shapes(128) == shapes(12_800_000)


def test_chunks_are_even_and_end_at_the_last_iteration():
    assert chunk_stops(10, 4) == [2, 5, 7, 10]
    assert chunk_stops(3, 20) == [1, 2, 3]
    assert chunk_stops(1, 1) == [1]


# train and fit ------------------------------------------------------------------------------------


@pytest.mark.optimized
@pytest.mark.parametrize("name", cases(PLANS, "on-policy, normalised, seeds"))
def test_fit_equals_train_bit_for_bit(name):
    check_that_fit_equals_train(*PLANS[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "env"),
    [
        (Rainbow(num_steps=4, batch_size=8, capacity=64, warmup=16), "gymnax/CartPole-v1"),
        (
            SAC(num_envs=2, num_updates=2, batch_size=8, capacity=64, warmup=16),
            "gymnax/Pendulum-v1",
        ),
    ],
    ids=["Rainbow", "SAC"],
)
@pytest.mark.parametrize("seeds", [None, 3])
def test_fit_equals_train_off_policy(agent, env, seeds):
    """With priorities, noise and a learned temperature."""
    check_that_fit_equals_train(agent, jaxrl_envs.make(env), {}, seeds, iterations=40)


def check_that_fit_equals_train(agent, env, options, seeds, iterations=7):
    options = {k: v() if callable(v) else v for k, v in options.items()}
    steps = agent.bind(env.spec).plan.steps_per_iteration * iterations
    options |= {"total_steps": steps, "num_evaluations": 3, "num_eval_episodes": 4}
    data = options.pop("data", None)

    def run(agent, env, data, key):
        return train(agent, env, key, data=data, **options)

    key = KEY if seeds is None else jax.random.split(KEY, seeds)
    run = run if seeds is None else jax.vmap(run, (None, None, None, 0))
    # passed as arguments, so that XLA does not fold the agent and the environment as constants
    state, metrics = jax.jit(run)(agent, env, data, key)
    result = fit(agent, env, key, data=data, **options)
    assert equal(state, result.state)
    for i, evaluation in enumerate(result.evaluations):
        returns = np.asarray(metrics.evaluation.returns)
        returns = returns[None] if seeds is None else returns
        np.testing.assert_array_equal(evaluation.returns, returns[:, i])


def test_environment_parameters_may_be_batched():
    """Training averages the bonuses 0, 1, 2 and 3; evaluation has another bonus and time limit."""
    _, metrics = train(
        Tiny(), Counter(bonus=jnp.arange(4.0), limit=2), KEY, total_steps=32, num_evaluations=1,
        batched_env=True, eval_env=Counter(bonus=10.0, limit=3),
    )  # fmt: skip
    episodes = metrics.training.episodes.returns
    np.testing.assert_allclose(episodes.value, [1 + 2 + 2 * 1.5])
    np.testing.assert_array_equal(metrics.evaluation.returns, 1 + 2 + 3 + 3 * 10.0)


class IntegerCounter(Counter):
    """An integer clock that starts at 1000."""

    spec = EnvSpec(jax.ShapeDtypeStruct((2,), jnp.int32), Discrete(3), max_steps=4)
    limit: int = static(default=4)

    def reset(self, key):
        state, obs = super().reset(key)
        return state, obs.astype(jnp.int32) + 1000

    def step(self, key, state, action):
        state, timestep = super().step(key, state, action)
        return state, timestep.replace(obs=timestep.obs.astype(jnp.int32) + 1000)


def test_integers_are_normalised():
    """The clock shows 1000 to 1003 equally often when the agent acts."""
    state, _ = train(
        Tiny(), IntegerCounter(), KEY, total_steps=64, num_evaluations=0,
        normalize_observations=True,
    )  # fmt: skip
    (moments,) = state.stats.obs
    np.testing.assert_allclose(moments.mean, [1000, 1001.5], rtol=1e-6)
    np.testing.assert_allclose(moments.variance, [0, np.var([0, 1, 2, 3])], rtol=1e-4, atol=1e-4)


def test_every_float_hyper_parameter_can_be_swept():
    """Lane i changes only hyper-parameter i; in one program, every lane gets another result."""
    base = PPO(num_envs=8, num_steps=16, target_kl=0.5, desired_kl=0.05).bind(Chain().spec)
    others = {
        "discount": 0.5, "gae_lambda": 0.3, "learning_rate": 1e-3, "clip_epsilon": 1e-3,
        "entropy_coefficient": 0.2, "value_coefficient": 1.0, "max_grad_norm": 1e-3,
        "adam_epsilon": 1e-2, "target_kl": 1e-9, "desired_kl": 1e-6,
    }  # fmt: skip
    leaves = {f.name for f in dataclasses.fields(base) if f.metadata.get("pytree_node", True)}
    assert leaves == set(others)
    lanes = [base, *(base.replace(**{name: value}) for name, value in others.items())]
    stacked = jax.tree.map(lambda *x: jnp.stack([jnp.float32(v) for v in x]), *lanes)
    run = jax.jit(
        jax.vmap(lambda a: train(a, Chain(), KEY, total_steps=2560, num_evaluations=0)[0].agent)
    )
    params = run(stacked).params
    flat = np.stack(
        [np.concatenate([x[i].ravel() for x in jax.tree.leaves(params)]) for i in range(len(lanes))]
    )
    assert np.isfinite(flat).all()
    for name, lane in zip(others, flat[1:], strict=True):
        assert not np.array_equal(lane, flat[0]), name


def test_sweep_is_the_cartesian_product():
    grid = sweep(PPO(), learning_rate=[1.0, 2.0], clip_epsilon=[0.1, 0.2, 0.3])
    np.testing.assert_array_equal(grid.learning_rate, [1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(grid.clip_epsilon, [0.1, 0.2, 0.3] * 2)
    assert grid.discount.shape == (6,)
    lengths = sweep(Counter(), bonus=[1.0, 2.0])
    np.testing.assert_array_equal(lengths.bonus, [1, 2])


def test_environment_parameters_can_be_vmapped():
    envs = sweep(Counter(limit=4), bonus=[0.0, 100.0])
    run = jax.vmap(lambda e: train(Tiny(), e, KEY, total_steps=64, num_evaluations=1)[1])
    returns = jax.jit(run)(envs).evaluation.returns.mean(-1)[:, 0]
    np.testing.assert_array_equal(returns, [10.0, 410.0])


# Bad input ----------------------------------------------------------------------------------------

MANY_UPDATES = "total_steps is 2147483648, which takes 536870912 iterations of 4 updates"
MANY_ITERATIONS = "total_steps is 8589934592, which takes 2147483648 iterations of 1 updates"


class Flags(BestAction):
    """Its observation has only booleans."""

    spec = EnvSpec(jax.ShapeDtypeStruct((2,), jnp.bool_), Discrete(2), max_steps=1)

    def draw(self, key):
        return jax.random.bernoulli(key, shape=(2,))


class WeakCounter(Counter):
    """Its initial state is a Python number."""

    def reset(self, key):
        return 0.0, super().reset(key)[1]


BAD = [
    (dict(agent=PPO(num_envs=3, num_steps=5)), "num_minibatches is 4, which does not divide"),
    (dict(agent=PPO(num_envs=3, core="gru")), "which does not divide num_envs = 3"),
    (dict(agent=PPO(num_envs=0)), "num_envs is 0"),
    (dict(agent=PPO(num_epochs=0)), "num_epochs is 0"),
    (dict(agent=PPO(learning_rate=float("nan"))), "learning_rate is nan"),
    (dict(agent=PPO(learning_rate=-1.0)), "learning_rate is -1.0"),
    (dict(agent=PPO(discount=1.5)), "discount is 1.5"),
    (dict(agent=PPO(clip_epsilon=0.0)), "clip_epsilon is 0.0"),
    (dict(agent=PPO(hidden_sizes=())), "hidden_sizes"),
    (dict(agent=PPO(activation="tanhh")), "activation is 'tanhh'"),
    (dict(agent=PPO(core="rnn")), "core is 'rnn'"),
    (dict(total_steps=0), "total_steps is 0"),
    (dict(total_steps="10"), "total_steps is '10': it must be a number"),
    (dict(total_steps=float("nan")), "total_steps is nan: it must be a number"),
    (dict(agent=PPO(num_envs=4, num_steps=1, num_epochs=1, normalize_advantages=False),
          total_steps=2**31), MANY_UPDATES),
    (dict(agent=Poser(), total_steps=2**33), MANY_ITERATIONS),
    (dict(num_evaluations=-1), "num_evaluations is -1"),
    (dict(num_eval_episodes=0), "num_eval_episodes is 0"),
    (dict(normalize_rewards="no"), "normalize_rewards is 'no': it must be True or False"),
    (dict(num_eval_episodes=2.5), "num_eval_episodes is 2.5: it must be a whole number"),
    (dict(reset_policy="cached"), "reset_policy is 'cached'"),
    (dict(reset_policy="pool", pool_size=2), "pool_size is 2"),
    (dict(data=1), "leave data out"),
    (dict(agent=FittedQ(), env=Chain()), "pass data="),
    (dict(agent=QLearning(capacity=4), env=Chain()), "capacity is 4"),
    (dict(agent=QLearning(warmup=10**6), env=Chain()), "warmup is 1000000"),
    (dict(agent=QLearning(capacity=50, warmup=1), env=Chain()), "batch_size is 64"),
    (dict(agent=CrossEntropy(), normalize_rewards=True), "normalize_rewards needs"),
    (dict(eval_env=Chain()), "the observation of eval_env is float32[5], that of env float32[2]"),
    (dict(eval_env=Chain()), "of eval_env is Discrete(num=2), that of env Discrete(num=3)"),
    (dict(eval_env=WeakCounter()), "eval_env, WeakCounter, violates the environment contract"),
    (dict(env=Flags(), normalize_observations=True), "in the observation, which has only bool"),
    (dict(batched_env=True), "pass eval_env"),
    (dict(batched_env=True, env=Counter(jnp.zeros(3)), eval_env=Counter()), "leaves of shape"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "message"), BAD, ids=[m for _, m in BAD])
def test_invalid_arguments_are_reported_before_compilation(bad, message):
    arguments = {"agent": PPO(), "env": Counter(), "total_steps": 1000} | bad
    agent, env = arguments.pop("agent"), arguments.pop("env")
    with pytest.raises(ValueError, match=re.escape(message)):
        train(agent, env, KEY, **arguments)


class Careless(Counter):
    """Its rewards are integers, and its observations are smaller than its spec says."""

    def step(self, key, state, action):
        state, timestep = super().step(key, state, action)
        return state, timestep.replace(reward=jnp.int32(1), obs=timestep.obs[:1])


def test_all_contract_violations_are_reported():
    message = (
        "Careless violates the environment contract (jaxrl_envs.check finds more):\n"
        "- the observation of step is float32[1], that of reset float32[2]\n"
        "- reward is int32[], but must be float32[]"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        train(PPO(), Careless(), KEY, total_steps=1000)


def test_legacy_keys_are_rejected():
    for run in (train, fit):
        with pytest.raises(TypeError, match=r"make a typed key, with jax\.random\.key"):
            run(PPO(), Counter(), jax.random.PRNGKey(0), total_steps=100)


def test_recurrent_agents_reject_the_flat_layout():
    class Torn(RecurrentPolicyGradient):
        @property
        def plan(self):
            return OnPolicy(4, 8, num_minibatches=2, layout="flat")

    with pytest.raises(ValueError, match="a recurrent agent needs 'env'"):
        train(Torn(), Recall(), KEY, total_steps=32)


def test_replay_agents_learn_beyond_int32_steps():
    """The warm-up is counted in iterations: steps would overflow int32 after 2**31."""
    training = Training.create(QLearning(), Chain(), total_steps=2**32)
    state = jax.jit(training.init)(KEY)
    _, metrics = jax.jit(training.iteration)(state, KEY, jnp.int32(2**26 + 5))
    assert metrics.updates["error"].count == 8


def test_update_count_reaches_the_int32_limit():
    training = Training.create(Poser(), BestAction(), total_steps=4 * (2**31 - 1))
    assert training.clock(training.num_iterations).update == 2**31 - 1


def test_sweep_rejects_invalid_fields():
    with pytest.raises(ValueError, match="num_steps is static"):
        sweep(PPO(), num_steps=[1, 2])
    with pytest.raises(ValueError, match="no field 'lr'"):
        sweep(PPO(), lr=[1.0])
    with pytest.raises(ValueError, match="no values"):
        sweep(PPO(), learning_rate=[])


def test_the_library_prints_nothing(capsys):
    fit(Tiny(), Counter(limit=5), KEY, total_steps=32, num_eval_episodes=1)
    jax.eval_shape(lambda key: train(PPO(), Counter(), key, total_steps=1), KEY)
    assert capsys.readouterr() == ("", "")
