"""Replay: sampled rows are real transitions, with the right probabilities."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers.agents.q_learning import QLearning
from helpers.environments import timestep
from scipy import stats

from jaxrl.agent import Replay
from jaxrl.agents import DQN
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.replay.buffer import ReplayBuffer
from jaxrl.replay.sum_tree import WIDTH, SumTree
from jaxrl.runs.members import Members
from jaxrl.runs.programs import Programs
from jaxrl.schedules import Linear
from jaxrl.trees import num_bytes
from jaxrl.types import Discrete, EnvSpec, Transition, static
from jaxrl.wrappers import TimeLimit

KEY = jax.random.key(0)


class History:
    """Random experience of N copies; observations (copy, episode, age) identify their origin."""

    def __init__(
        self, num_envs, num_steps, iterations, seed=0, p_terminated=0.1, p_cut=0.1, limit=None
    ):
        rng = np.random.default_rng(seed)
        total = num_steps * iterations
        self.obs = np.zeros((total + 1, num_envs, 3), np.int16)
        self.next_obs = np.zeros((total, num_envs, 3), np.int16)
        self.reward = rng.standard_normal((total, num_envs)).astype(np.float32)
        self.action = rng.integers(0, 5, (total, num_envs)).astype(np.int32)
        self.terminated = rng.random((total, num_envs)) < p_terminated
        self.truncated = rng.random((total, num_envs)) < p_cut  # sometimes both
        self.when = {}
        for n in range(num_envs):
            episode, age = 0, 0
            for t in range(total + 1):
                self.obs[t, n] = n, episode, age
                self.when[n, episode, age] = t
                if t == total:
                    break
                age += 1
                self.next_obs[t, n] = n, episode, age
                if limit is not None:  # truncate at the limit and never before
                    self.truncated[t, n] = age == limit
                if self.terminated[t, n] or self.truncated[t, n]:
                    episode, age = episode + 1, 0

    def of_iteration(self, i, num_steps):
        part = slice(i * num_steps, (i + 1) * num_steps)
        names = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
        steps = Transition(*(jnp.asarray(getattr(self, name)[part]) for name in names))
        return steps, jnp.asarray(self.obs[(i + 1) * num_steps])

    def ahead(self, t, n, n_step, discount):
        """(reward, steps, terminated, truncated, next observation) from step t, by a loop."""
        total, weight = 0.0, 1.0
        for k in range(n_step):
            total += weight * self.reward[t + k, n]
            weight *= discount
            if self.terminated[t + k, n] or self.truncated[t + k, n]:
                break
        terminated = self.terminated[t + k, n]
        truncated = self.truncated[t + k, n] and not terminated
        end = self.obs[t, n] if terminated else self.next_obs[t + k, n]
        return total, k + 1, terminated, truncated, end


def spec(max_steps=None, truncates="anywhere"):
    observation = jax.ShapeDtypeStruct((3,), jnp.int16)
    return EnvSpec(observation, Discrete(5), max_steps, truncates=truncates)


ANYTHING = spec()


def like():
    obs, flag = jnp.zeros(3, jnp.int16), jnp.bool_(False)
    return Transition(obs, jnp.int32(0), jnp.float32(0), flag, flag, obs)


PLANS = {
    "one copy": Replay(1, 1, 1, batch_size=64, capacity=30),
    "several": Replay(3, 4, 1, batch_size=64, capacity=50),
    "capacity that divides": Replay(2, 4, 1, batch_size=64, capacity=48),
    "one iteration": Replay(4, 5, 1, batch_size=64, capacity=20),
    "three steps": Replay(3, 4, 1, batch_size=64, capacity=50, n_step=3),
    "more than a rollout": Replay(2, 1, 1, batch_size=64, capacity=40, n_step=5),
    "prioritised": Replay(3, 4, 1, batch_size=64, capacity=50, prioritized=True),
    "fewer slots than steps to see": Replay(
        1, 4, 1, batch_size=64, capacity=8, n_step=6, prioritized=True
    ),
    "prioritised, three steps": Replay(
        2, 1, 1, batch_size=64, capacity=40, n_step=3, prioritized=True
    ),
}


def every_row_happened(plan, spec, **options):
    """Samples after every write, over several turns of the ring, and compares with the history."""
    iterations = 4 * -(-plan.capacity // plan.steps_per_iteration)
    history = History(plan.num_envs, plan.num_steps, iterations, **options)
    ring = ReplayBuffer.of(plan, spec)
    memory = ring.init(like())
    add, sample = jax.jit(ring.add), jax.jit(ring.sample)
    seen = set()
    for i in range(iterations):
        memory = add(memory, *history.of_iteration(i, plan.num_steps), jnp.int32(i))
        written = (i + 1) * plan.num_steps
        if not ring.is_ready(jnp.int32(i + 1)):
            assert written < plan.n_step
            continue
        rows = sample(memory, jax.random.fold_in(KEY, i), jnp.int32(i + 1), jnp.float32(0.9))
        rows = jax.tree.map(np.asarray, rows)
        assert rows.valid.all()
        oldest = max(0, written - ring.num_kept)
        for b in range(plan.batch_size):
            n = rows.obs[b, 0]
            t = history.when[tuple(rows.obs[b].tolist())]
            assert oldest <= t <= written - plan.n_step
            reward, steps, terminated, truncated, end = history.ahead(t, n, plan.n_step, 0.9)
            np.testing.assert_allclose(rows.reward[b], reward, rtol=1e-5, atol=1e-5)
            assert rows.action[b] == history.action[t, n]
            assert (rows.num_steps[b], rows.terminated[b], rows.truncated[b]) == (
                steps, terminated, truncated,
            )  # fmt: skip
            np.testing.assert_array_equal(rows.next_obs[b], end)
            if i == iterations - 1:
                seen.add((t, n))
    assert rows.obs.dtype == np.int16
    assert len(seen) >= min(10, (ring.num_kept - plan.n_step + 1) * plan.num_envs)
    assert ring.num_kept * plan.num_envs >= plan.capacity


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_sampled_rows_match_the_history(plan):
    """Up to half of the steps are truncated before the limit; rows have the final observation."""
    every_row_happened(plan, spec(max_steps=1000), p_cut=0.5 if plan.n_step == 1 else 0.2)


@pytest.mark.parametrize("limit", [2, 7])
def test_time_limit_bounds_the_stored_final_observations(limit):
    """Without terminations, truncations are as frequent as possible; none is dropped."""
    plan = PLANS["several"]
    every_row_happened(plan, spec(limit, "at_max_steps"), p_terminated=0.0, limit=limit)
    ring = ReplayBuffer.of(plan, spec(limit, "at_max_steps"))
    final_obs = jax.eval_shape(ring.init, like()).final_obs
    rooms, copies, _ = final_obs.shape
    assert copies == 3
    assert rooms <= -(-ring.num_slots // limit) + 1


def test_final_observations_need_minimal_space_without_truncation():
    plan = PLANS["several"]
    every_row_happened(plan, spec(None, "at_max_steps"), p_cut=0.0)
    ring = ReplayBuffer.of(plan, spec(None, "at_max_steps"))
    assert jax.eval_shape(ring.init, like()).final_obs.shape == (plan.num_steps, 3, 3)


def filled(plan, iterations=None, spec=ANYTHING, **options):
    iterations = iterations or 2 * -(-plan.capacity // plan.steps_per_iteration) + 1
    history = History(plan.num_envs, plan.num_steps, iterations, **options)
    ring = ReplayBuffer.of(plan, spec)
    memory, add = ring.init(like()), jax.jit(ring.add)
    for i in range(iterations):
        memory = add(memory, *history.of_iteration(i, plan.num_steps), jnp.int32(i))
    return ring, memory, jnp.int32(iterations), history


def test_uniform_draws_are_uniform():
    """All drawable steps, and no others, are equally likely: chi-square test on 1e5 draws."""
    plan = Replay(3, 4, 1, batch_size=100_000, capacity=100_000, n_step=3)
    ring, memory, iterations, history = filled(plan, iterations=10)
    rows = ring.sample(memory, KEY, iterations, 0.9)
    times = np.array([history.when[tuple(x)] for x in np.asarray(rows.obs).tolist()])
    counts = np.bincount(3 * times + np.asarray(rows.obs)[:, 0], minlength=3 * 38)
    assert counts.size == 3 * 38  # the last 2 of 40 steps lack three steps ahead
    assert stats.chisquare(counts).pvalue > 1e-3
    assert (rows.relative_probability == 1).all()


def test_prioritised_draws_have_the_stated_probabilities():
    """Chi-square test on 1e5 draws in batches of 50, as in training."""
    plan = Replay(3, 4, 1, batch_size=50, capacity=70, n_step=2, prioritized=True)
    ring, memory, iterations, _ = filled(plan)
    rng = np.random.default_rng(0)
    for i in range(8):
        rows = ring.sample(memory, jax.random.key(i), iterations, 0.9)
        priorities = jnp.asarray(rng.exponential(size=50) * (rng.random(50) < 0.8), jnp.float32)
        memory = ring.prioritize(memory, rows, priorities)
    leaves = np.asarray(memory.priorities.levels[0], np.float64)
    drawable = (ring.num_kept - 1) * 3
    assert (leaves > 0).sum() <= drawable

    @jax.jit
    @jax.vmap
    def draw(key):
        rows = ring.sample(memory, key, iterations, 0.9)
        return rows.index, rows.relative_probability

    index, probability = map(np.asarray, draw(jax.random.split(KEY, 2000)))
    counts = np.bincount(index.ravel(), minlength=leaves.size)
    assert (counts[leaves == 0] == 0).all()
    some = leaves > 0
    expected = leaves[some] / leaves.sum() * counts.sum()
    assert stats.chisquare(counts[some], expected).pvalue > 1e-3
    assert stats.chisquare(counts[some], np.full(some.sum(), counts.sum() / some.sum())).pvalue == 0
    stated = leaves[index] / leaves.sum() * drawable
    np.testing.assert_allclose(probability, stated, rtol=1e-4)


def test_zero_priorities_give_invalid_but_finite_rows():
    plan = Replay(3, 4, 1, batch_size=16, capacity=70, prioritized=True)
    ring, memory, iterations, _ = filled(plan)
    nothing = memory.replace(priorities=jax.tree.map(jnp.zeros_like, memory.priorities))
    rows = ring.sample(nothing, KEY, iterations, 0.9)
    assert not rows.valid.any()
    assert np.isfinite(rows.relative_probability).all()
    after = ring.prioritize(nothing, rows, jnp.ones(16))
    assert after.priorities.total == 0


def test_only_new_steps_get_the_top_priority():
    plan = Replay(2, 1, 1, batch_size=8, capacity=12, n_step=2, prioritized=True)
    ring, memory, iterations, _ = filled(plan, iterations=5)
    assert set(np.unique(memory.priorities.levels[0])) == {0.0, 1.0}
    rows = ring.sample(memory, KEY, iterations, 0.9)
    memory = ring.prioritize(memory, rows, jnp.full(8, 7.0))
    assert memory.top_priority == 7.0
    before = memory.priorities.levels[0]
    longer = History(2, 1, 6)
    after = ring.add(memory, *longer.of_iteration(5, 1), iterations).priorities.levels[0]
    changed = np.flatnonzero(np.asarray(before != after))
    np.testing.assert_array_equal(changed, [2 * 4, 2 * 4 + 1])  # slot 4 now has two steps ahead
    np.testing.assert_array_equal(after[changed], 7.0)
    worthless = ring.prioritize(memory, rows, jnp.full(8, jnp.nan))
    assert (worthless.priorities[rows.index] == 0).all()


def test_rows_without_their_final_observation_are_invalid():
    """If an environment truncates more often than declared, older truncated rows become invalid.

    If it declares nothing, none is lost.
    """
    plan = Replay(2, 4, 1, batch_size=512, capacity=320)
    honest, memory, iterations, _ = filled(plan, 40, spec(16), p_cut=0.5)
    assert not honest.can_drop
    assert honest.sample(memory, KEY, iterations, 0.9).valid.all()
    declared = spec(16, "at_max_steps")
    ring, memory, iterations, history = filled(plan, 40, declared, p_cut=0.5)
    assert ring.can_drop
    rows = jax.tree.map(np.asarray, ring.sample(memory, KEY, iterations, 0.9))
    assert 0 < rows.valid.sum() < 512
    assert rows.valid[~rows.truncated].all()
    for b in np.flatnonzero(rows.truncated & rows.valid):
        t = history.when[tuple(rows.obs[b].tolist())]
        np.testing.assert_array_equal(rows.next_obs[b], history.next_obs[t, rows.obs[b, 0]])


class Cut(struct.PyTreeNode):
    """Two states. In the good one, the episode ends with a reward of 5. In the other, half of the
    steps stay there, and half lead to the good one and are truncated."""

    spec: EnvSpec = static(default=EnvSpec(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2)))

    def reset(self, key):
        good = jax.random.bernoulli(key)
        return good, jax.nn.one_hot(good.astype(int), 2)

    def step(self, key, state, action):
        cut = jax.random.bernoulli(key) & ~state
        return state | cut, timestep(
            jax.nn.one_hot((state | cut).astype(int), 2), 5.0 * state, state, cut
        )


def test_unreached_time_limit_does_not_change_values():
    """Truncated states keep their value inside TimeLimit(1000): V = P V' + r, solved exactly."""
    discount = 0.9
    goes_on = np.array([[0.5, 0.5], [0.0, 0.0]])  # truncation does not end the return
    truth = np.linalg.solve(np.eye(2) - discount * goes_on, [0.0, 5.0])
    agent = DQN(
        num_envs=8, num_steps=4, num_updates=4, batch_size=32, capacity=2000, warmup=100,
        hidden_sizes=(16,), discount=discount, learning_rate=Linear(3e-2, 1e-3),
        target_every=20,
    )  # fmt: skip

    @jax.jit
    def learned(env):
        state, metrics = train(agent, env, KEY, total_steps=8000, num_evaluations=0)
        bound = agent.bind(env.spec)
        return bound.q_values(state.agent.params, jnp.eye(2)), metrics.training.updates

    q, metrics = learned(TimeLimit(Cut(), 1000))
    np.testing.assert_allclose(q, np.broadcast_to(truth[:, None], (2, 2)), atol=0.15)
    assert "dropped" not in metrics


def test_undeclared_truncations_show_in_a_metric():
    """The environment declares truncation only by the time limit but truncates half its steps."""
    lies = dataclasses.replace(Cut().spec, truncates="at_max_steps")
    agent = QLearning(capacity=400, warmup=32)
    _, metrics = jax.jit(lambda env: train(agent, env, KEY, total_steps=1600, num_evaluations=0))(
        TimeLimit(Cut(lies), 1000)
    )
    assert metrics.training.updates["dropped"].value > 0.1


@pytest.mark.parametrize("max_steps", [100, None])
def test_memory_is_capacity_times_the_bytes_of_a_step(max_steps):
    """Each observation is stored once, in its own dtype; within 10%."""
    image = jax.ShapeDtypeStruct((10, 10, 4), jnp.uint8)
    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    one = Transition(
        image, jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32),
        flag, flag, image,
    )  # fmt: skip
    plan = Replay(8, 4, 1, batch_size=32, capacity=100_000, prioritized=True)
    ring = ReplayBuffer.of(plan, EnvSpec(image, Discrete(3), max_steps, truncates="at_max_steps"))
    memory = jax.eval_shape(ring.init, one)
    bytes_of_a_step = 400 + 4 + 4 + 2
    np.testing.assert_allclose(num_bytes(memory), 100_000 * bytes_of_a_step, rtol=0.1)


@pytest.mark.parametrize(
    ("max_steps", "truncates", "prioritized", "expected"),
    [
        (None, "at_max_steps", False, 30),
        (None, "at_max_steps", True, 34.1),
        (200, "at_max_steps", False, 30.1),
        (4, "at_max_steps", False, 34),
        (200, "anywhere", False, 42),
        (None, "anywhere", True, 46.1),
    ],
)
def test_small_observations_take_the_documented_memory(max_steps, truncates, prioritized, expected):
    """Four floats take 26 bytes per step, and priorities 4.1. If only the time limit truncates, add
    4 to locate final observations, and those; otherwise, a second observation per step."""
    obs, flag = jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((), jnp.bool_)
    number = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    plan = Replay(8, 1, 1, batch_size=32, capacity=1_000_000, prioritized=prioritized)
    ring = ReplayBuffer.of(plan, EnvSpec(obs, Discrete(3), max_steps, truncates=truncates))
    memory = jax.eval_shape(ring.init, Transition(obs, *number, flag, flag, obs))
    np.testing.assert_allclose(num_bytes(memory) / 1_000_000, expected, rtol=2e-3)


class Film(struct.PyTreeNode):
    """Uniform images of 400 bytes, 100 per episode."""

    spec: EnvSpec = static(
        default=EnvSpec(jax.ShapeDtypeStruct((10, 10, 4), jnp.uint8), Discrete(3), max_steps=100)
    )

    def reset(self, key):
        return jnp.int32(0), jnp.zeros((10, 10, 4), jnp.uint8)

    def step(self, key, state, action):
        image = jnp.full((10, 10, 4), state + 1).astype(jnp.uint8)
        return state + 1, timestep(image, action, False, state + 1 >= 100)


class Flat(nn.Module):
    """A torso without parameters, negligible next to the buffer."""

    @nn.compact
    def __call__(self, obs):
        return obs.reshape(*obs.shape[:-3], -1) / 255.0


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("num_seeds", "prioritized", "truncates"),
    [
        (1, False, "anywhere"),
        pytest.param(3, True, "at_max_steps", marks=pytest.mark.thorough),
        pytest.param(3, True, "anywhere", marks=pytest.mark.thorough),
    ],
)
def test_compiled_training_holds_the_buffer_once(num_seeds, prioritized, truncates):
    """Measures the program that `fit` calls: its arguments are the capacity times the bytes per
    step within 10%, results alias them, and temporaries are small.

    With images; for small observations, the overhead per step exceeds 10%. If any step may be
    truncated, a second image per step is stored.
    """
    agent = DQN(
        num_envs=4, num_steps=2, num_updates=2, batch_size=8, capacity=20_000, warmup=100,
        hidden_sizes=(4,), torso=Flat(), prioritized=prioritized,
    )  # fmt: skip
    env = Film(dataclasses.replace(Film().spec, truncates=truncates))
    training = Training.create(agent, env, total_steps=1000, num_eval_episodes=1)
    key = KEY if num_seeds == 1 else jax.random.split(KEY, num_seeds)
    members = Members.of(training, key)
    state = jax.eval_shape(members.vmap(Training.init, 0), training, key)
    found = Programs(members).chunk.memory_analysis()
    images = 2 if truncates == "anywhere" else 1
    memory = num_seeds * 20_000 * (400 * images + 4 + 4 + 2)
    rest = num_bytes(state.replace(buffer=()))
    assert rest < 0.01 * memory
    np.testing.assert_allclose(found.argument_size_in_bytes, memory + rest, rtol=0.1)
    assert found.alias_size_in_bytes >= num_bytes(state.buffer)
    assert found.output_size_in_bytes - found.alias_size_in_bytes < 0.01 * memory
    assert found.temp_size_in_bytes < 0.1 * memory


# Sum tree -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_leaves", [1, WIDTH, WIDTH + 1, 5000, WIDTH**2 + 1])
def test_sum_tree_holds_the_sums_of_its_leaves(num_leaves):
    rng = np.random.default_rng(num_leaves)
    tree, truth = SumTree.zeros(num_leaves), np.zeros(num_leaves)
    for _ in range(5):
        index = rng.choice(num_leaves, min(num_leaves, 40), replace=False)
        value = rng.exponential(size=index.size).astype(np.float32)
        tree, truth[index] = tree.set(jnp.asarray(index), jnp.asarray(value)), value
        for level in tree.levels:
            assert level.size % WIDTH == 0
            np.testing.assert_allclose(level.sum(), truth.sum(), rtol=1e-5)
        np.testing.assert_array_equal(tree[jnp.arange(num_leaves)], truth.astype(np.float32))
    drawn = np.asarray(tree.sample(KEY, 64))
    assert (truth[drawn] > 0).all()
    for past in (tree.levels[0].size, tree.levels[0].size + 1000, 10**8):
        after = tree.set(jnp.array([past]), jnp.array([1.0]))
        jax.tree.map(np.testing.assert_array_equal, after.levels, tree.levels)


def test_leaves_of_very_different_mass_are_drawn():
    """Half of the mass on one leaf, half on thousands of others."""
    tree = SumTree.zeros(5000).set(jnp.arange(5000), jnp.full(5000, 1e-3).at[77].set(5.0))
    drawn = np.asarray(tree.sample(KEY, 100_000))
    assert abs((drawn == 77).mean() - 5 / 9.999) < 1e-3
    assert np.unique(drawn).size == 5000


@pytest.mark.slow
def test_sums_do_not_drift_in_ten_million_updates():
    """1e7 priorities set in batches: the root is the sum of the leaves, and draws follow them."""
    tree = SumTree.zeros(100_000)
    batch, rounds = 500, 20_000

    @functools.partial(jax.jit, donate_argnums=0)
    def run(tree, key):
        def one(tree, key):
            where, what, size = jax.random.split(key, 3)
            index = jax.random.randint(where, (batch,), 0, 100_000)
            value = jax.random.exponential(what, (batch,)) * 10.0 ** jax.random.randint(
                size, (batch,), -4, 5
            )
            return tree.set(index, value), None

        return jax.lax.scan(one, tree, jax.random.split(key, rounds))[0]

    tree = run(tree, KEY)
    leaves = np.asarray(tree.levels[0], np.float64)
    np.testing.assert_allclose(tree.total, leaves.sum(), rtol=1e-5)
    drawn = np.concatenate([np.asarray(tree.sample(k, 1000)) for k in jax.random.split(KEY, 100)])
    parts = np.array_split(leaves, 20)
    bounds = np.cumsum([0] + [len(part) for part in parts])
    counts = np.histogram(drawn, bounds)[0]
    expected = np.array([part.sum() for part in parts]) / leaves.sum() * drawn.size
    assert stats.chisquare(counts, expected).pvalue > 1e-3
