"""User-defined flax modules: one batch axis, trained parameters, batch statistics, errors."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import (
    BestAction,
    BestActionByObservation,
    BestContinuousAction,
    Counter,
    Picture,
    timestep,
)
from helpers.probes import KEY, cases, learned

from jaxrl.agents import (
    A2C,
    CQL,
    DDPG,
    DQN,
    IQL,
    NPG,
    PPO,
    PQN,
    REINFORCE,
    SAC,
    TD3,
    TD3BC,
    TRPO,
    FittedQ,
    OnlineQ,
    QSearch,
    Rainbow,
)
from jaxrl.agents.bases.actor_critic import ActorCriticAgent
from jaxrl.distributions import Categorical, DiagonalGaussian, MultiCategorical, Product
from jaxrl.engine import learners
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.networks.layers import MLP, dense
from jaxrl.networks.own_modules import OneBatchAxis
from jaxrl.networks.policies import Scorer
from jaxrl.replay.buffer import Replayed
from jaxrl.runs.dry_run import _parameters
from jaxrl.runs.fit import fit
from jaxrl.runs.load import load_policy
from jaxrl.types import Box, Clock, Discrete, EnvSpec, Masked, Trajectory, Transition
from jaxrl.xla import layout
from jaxrl.xla.flatten import Flattened, flatten

# One batch axis -----------------------------------------------------------------------------------


class Eyes(nn.Module):
    """Expects one batch axis, like most modules."""

    @nn.compact
    def __call__(self, obs):
        image, noise = obs["image"], obs["noise"]
        assert (image.ndim, noise.ndim) == (4, 1)
        x = image.reshape(image.shape[0], -1).astype(jnp.float32) / 255.0
        x = jnp.concatenate([x, noise[:, None]], axis=-1)
        return nn.relu(nn.GroupNorm(2)(dense(4, 1.0)(x)))


class Policy(nn.Module):
    """A policy network that expects one batch axis; its log_std has none."""

    @nn.compact
    def __call__(self, obs, mask):
        log_std = self.param("log_std", nn.initializers.zeros_init(), (1,))
        return DiagonalGaussian(dense(1, 0.01)(Eyes()(obs)), log_std)


class PictureBox(Picture):
    """`Picture` with a continuous action."""

    spec = EnvSpec(Picture.spec.observation, Box.of(-1.0, 1.0, (1,)), max_steps=1)

    def step(self, key, state, action):
        return state, timestep(state[1], action[0], True)


SMALL = {"num_envs": 4, "num_steps": 2}
MEMORY = SMALL | {"batch_size": 8, "capacity": 32, "warmup": 8, "hidden_sizes": (4,)}
DRAW = {"critic_minibatches": 1, "cg_iterations": 2}
IN_PICTURES = {
    "ppo": (PPO, SMALL, Picture),
    "ppo-recurrent": (PPO, SMALL | {"core": "gru"}, Picture),
    "a2c-shared-recurrent": (A2C, SMALL | {"core": "lstm", "shared_torso": True}, Picture),
    "ppo-policy": (PPO, SMALL | {"policy_network": Policy()}, PictureBox),
    "trpo": (TRPO, SMALL | DRAW, Picture),
    "trpo-recurrent": (TRPO, SMALL | DRAW | {"core": "gru"}, Picture),
    "npg-policy": (NPG, SMALL | DRAW | {"policy_network": Policy()}, PictureBox),
    "reinforce-policy": (REINFORCE, SMALL | {"policy_network": Policy()}, PictureBox),
    "dqn": (DQN, MEMORY, Picture),
    "rainbow": (Rainbow, MEMORY, Picture),
    "pqn": (PQN, SMALL | {"num_minibatches": 2, "hidden_sizes": (4,)}, Picture),
    "online-q": (OnlineQ, SMALL, Picture),
    "td3": (TD3, MEMORY, PictureBox),
    "sac": (SAC, MEMORY, PictureBox),
    "sac-discrete": (SAC, MEMORY, Picture),
    "q-search": (QSearch, MEMORY | {"num_candidates": 5}, PictureBox),
}


@pytest.mark.parametrize(
    "name", cases(IN_PICTURES, "ppo-recurrent", "reinforce-policy", "trpo", "rainbow", "td3", "pqn")
)
def test_modules_always_see_one_batch_axis(name):
    kind, options, env = IN_PICTURES[name]
    training = Training.create(kind(torso=Eyes(), **options), env(), total_steps=64)

    def everything(key):
        state, metrics = training.iteration(training.init(key), key, jnp.int32(0))
        return state, training.evaluate(state, key, jnp.int32(1)), metrics

    jax.eval_shape(everything, KEY)


class Grouped(nn.Module):
    """GroupNorm treats axis 0 as the batch and averages over the other axes but the last."""

    @nn.compact
    def __call__(self, x):
        return nn.GroupNorm(4)(dense(8, 1.0)(x))


@pytest.mark.parametrize("core", ["none", "gru"])
def test_values_are_independent_across_environments(core):
    """V(obs) and V(next_obs) on [T, N]: other inputs in environments 1 to 3; and row by row."""
    agent = ActorCriticAgent(torso=Grouped(), core=core, core_size=4).bind(Counter().spec)
    params = agent.init_params(KEY)
    rng = np.random.default_rng(0)
    obs, next_obs, others = rng.standard_normal((3, 6, 4, 2)).astype(np.float32)
    copy_0 = np.arange(4)[:, None] == 0

    @jax.jit
    def values(obs, next_obs):
        step = Transition(
            obs, jnp.zeros((6, 4)), jnp.zeros((6, 4)), jnp.zeros((6, 4), bool),
            jnp.arange(24).reshape(6, 4) % 3 == 0, next_obs,
        )  # fmt: skip
        return agent.values(
            params, Trajectory(step, jnp.zeros((6, 4), bool), agent.initial_carry(4))
        )

    found = values(obs, next_obs)
    changed = values(np.where(copy_0, obs, others), np.where(copy_0, next_obs, others))
    for a, b in zip(found, changed, strict=True):
        np.testing.assert_array_equal(a[:, 0], b[:, 0])
        assert (a[:, 1:] != b[:, 1:]).any()
    if core == "none":
        flat = agent.network.apply(params, obs.reshape(24, 2), method="value")[0]
        np.testing.assert_allclose(found[0], flat.reshape(6, 4), rtol=1e-5, atol=1e-6)


SPACES = {
    "masked": (lambda x, mask: Categorical(x[:, :3], mask), np.array([True, False, True])),
    "several": (lambda x, mask: MultiCategorical(x, (2, 4)), None),
    "box": (lambda x, mask: DiagonalGaussian(x[:, :2], jnp.array([0.1, -0.3])), None),
    "mixed": (
        lambda x, mask: Product((Categorical(x[:, :3]), DiagonalGaussian(x[:, 3:5], x[:, 4:]))),
        None,
    ),
}


class Rows(nn.Module):
    """Makes a distribution from the observation, without parameters."""

    of: str

    def __call__(self, obs, mask):
        assert obs.ndim == 2
        assert mask is None or mask.shape == (obs.shape[0], 3)
        return SPACES[self.of][0](obs, mask)


@pytest.mark.parametrize("name", SPACES)
def test_distributions_over_several_axes_match_single_rows(name):
    """Every method of a distribution over [T, N], against one row at a time."""
    _, mask = SPACES[name]
    x, y = np.random.default_rng(1).standard_normal((2, 2, 3, 6)).astype(np.float32)
    call, module = OneBatchAxis(((6,),)), Rows(name)

    def asked(x, y):
        masks = None if mask is None else jnp.broadcast_to(mask, (*x.shape[:-1], 3))
        p, q = (nn.apply(call, module)({}, jnp.asarray(obs), masks) for obs in (x, y))
        action = p.mode()
        direction = jax.tree.map(lambda a: 0.3 * a, q.parameters)
        return p.sample(KEY), (
            action, p.log_prob(action), p.entropy(), p.kl(q), p.parameters, p.fisher(direction),
        )  # fmt: skip

    sample, found = jax.jit(asked)(x, y)
    one = jax.jit(asked)
    rows = [[one(x[t, n][None], y[t, n][None])[1] for n in range(3)] for t in range(2)]
    expected = jax.tree.map(
        lambda *leaves: np.stack(leaves).reshape(2, 3, *leaves[0].shape[1:]),
        *(row for step in rows for row in step),
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, expected
    )
    assert jax.tree.map(jnp.shape, sample) == jax.tree.map(jnp.shape, found[0])


def test_a_scorer_calls_its_torso_on_rows():
    class Strict(nn.Module):
        @nn.compact
        def __call__(self, x):
            assert x.ndim == 2
            return dense(4, 1.0)(x)

    obs = jax.random.normal(KEY, (5, 2))
    scorer = Scorer(3, Strict())

    @jax.jit
    def logits(obs):
        params = scorer.init(KEY, obs)
        return scorer.apply(params, obs).logits, scorer.apply(params, obs[2:3]).logits

    all_rows, one = logits(obs)
    assert all_rows.shape == (5, 3)
    np.testing.assert_allclose(all_rows[2:3], one, rtol=1e-5)


# Trained parameters and carried statistics --------------------------------------------------------


class Normed(nn.Module):
    """Batch statistics of observations, a count of learning passes, and dropout."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        count = self.variable("count", "passes", lambda: jnp.int32(0))
        if train:
            count.value = count.value + 1
        return nn.Dropout(self.rate, deterministic=not train)(nn.relu(dense(8, 1.0)(x)))


BATCH = 16
LEARNERS = {
    "dqn": DQN(double="two_networks", target_every=2, batch_size=BATCH, hidden_sizes=(4,)),
    "iqn": DQN(head="iqn", target_every=2, batch_size=BATCH, hidden_sizes=(4,)),
    "fitted-q": FittedQ(batch_size=BATCH, hidden_sizes=(4,)),
    "cql": CQL(batch_size=BATCH, hidden_sizes=(4,)),
    "iql": IQL(hidden_sizes=(4,)),
    "td3-bc": TD3BC(hidden_sizes=(4,)),
    "online-q": OnlineQ(hidden_sizes=(4,)),
    "ddpg": DDPG(hidden_sizes=(4,)),
    "td3": TD3(hidden_sizes=(4,)),
    "sac": SAC(hidden_sizes=(4,)),
    "sac-discrete": SAC(hidden_sizes=(4,)),
    "q-search": QSearch(hidden_sizes=(4,), num_candidates=4),
}


OFFLINE = "fitted-q", "cql", "iql", "td3-bc"


def bound(name, torso):
    box = name in ("ddpg", "td3", "td3-bc", "sac", "q-search")
    env = BestContinuousAction() if box else BestAction()
    return LEARNERS[name].replace(torso=torso).bind(env.spec), box


def batches(num, box):
    rng = np.random.default_rng(3)
    for _ in range(num):
        obs, next_obs = rng.normal(2.0, 3.0, (2, BATCH, 1)).astype(np.float32)
        step = Transition(
            obs=jnp.asarray(obs),
            action=jnp.asarray(rng.uniform(-1, 1, (BATCH, 1)), jnp.float32)
            if box
            else jnp.asarray(rng.integers(0, 2, BATCH), jnp.int32),
            reward=jnp.asarray(rng.standard_normal(BATCH), jnp.float32),
            terminated=jnp.asarray(rng.random(BATCH) < 0.5),
            truncated=jnp.zeros(BATCH, bool),
            next_obs=jnp.asarray(next_obs),
        )
        yield obs, step


def updated(name, agent, box, num, key=KEY, update=None):
    """The state before and after `num` updates, and the observations of each update."""
    state, seen = jax.jit(agent.init)(KEY), []
    start, update = state, update or jax.jit(agent.update)
    for i, (obs, step) in enumerate(batches(num, box)):
        seen.append(obs)
        if name == "online-q":
            rows = Trajectory(step, jnp.zeros(BATCH, bool))
        else:
            rows = step if name in OFFLINE else Replayed.once(step)
        state = update(state, rows, key, Clock.start().replace(update=jnp.int32(i)))[0]
    return start, state, seen


def found_in(tree, collection):
    """The leaves of a collection anywhere in the tree, by path."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    leaves = {}
    for path, leaf in flat:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if f".{collection}." in f".{name}":
            leaves[name] = np.asarray(leaf)
    return leaves


@pytest.mark.parametrize("name", cases(LEARNERS, "dqn", "td3"))
def test_batch_statistics_match_numpy_and_parameters_learn(name):
    """After k learning passes: s <- 0.9 s + 0.1 (mean or variance of the batch); counts are k."""
    agent, box = bound(name, Normed())
    start, state, seen = updated(name, agent, box, 3)
    mean, var, history = 0.0, 1.0, [(0.0, 1.0)]
    for obs in seen:
        mean, var = 0.9 * mean + 0.1 * obs.mean(), 0.9 * var + 0.1 * obs.var()
        history.append((mean, var))

    def passes(leaf_name):
        if "target" in leaf_name:
            last = {"dqn": 2, "iqn": 2, "fitted-q": 0, "cql": 0, "td3": 2, "td3-bc": 2}
            return last.get(name, 3)  # at the last target update
        return 3

    delayed = name in ("td3", "td3-bc")

    statistics = found_in(state, "batch_stats")
    assert statistics
    for leaf_name, leaf in statistics.items():
        k = passes(leaf_name)
        if delayed and "actor" in leaf_name:  # only the second pass updated the actor
            expected = 0.1 * seen[1].mean(), 0.9 + 0.1 * seen[1].var()
        else:
            expected = history[k]
        np.testing.assert_allclose(
            leaf, [expected[leaf_name.endswith("var")]], rtol=1e-4, err_msg=leaf_name
        )
    for leaf_name, leaf in found_in(state, "count").items():
        is_actor = delayed and "actor" in leaf_name
        assert leaf == (1 if is_actor else passes(leaf_name)), leaf_name
    optimizers = {k: v for k, v in vars(state).items() if "optimizer" in k}
    assert optimizers
    assert not found_in(optimizers, "batch_stats")
    assert not found_in(optimizers, "count")
    moved = jax.tree.map(
        lambda a, b: (a != b).any(), found_in(start, "params"), found_in(state, "params")
    )
    assert any(moved.values())
    assert jax.tree.structure(start) == jax.tree.structure(state)


class Uncounted(Normed):
    """Has only floats, which are kept as one vector on a CPU."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.relu(dense(8, 1.0)(x))


@pytest.mark.parametrize("name", cases(["vector", "with a count"], "vector"))
def test_pqn_carries_statistics_from_pass_to_pass(name, monkeypatch):
    """Learning from one repeated rollout; a count would lose digits in a vector of floats."""
    monkeypatch.setattr(layout, "is_cpu", lambda: True)
    torso, kept = (Uncounted(), Flattened) if name == "vector" else (Normed(), dict)
    kinds, batches = set(), []

    def spy(state, fields):
        carried = flatten(state, fields)
        kinds.add(type(carried.params))
        return carried

    monkeypatch.setattr(learners, "flatten", spy)

    class Spy(PQN):
        def update(self, state, batch, key, clock):
            jax.debug.callback(
                lambda x: batches.append(np.asarray(x)), batch.steps.obs, ordered=True
            )
            return super().update(state, batch, key, clock)

    agent = Spy(num_envs=4, num_steps=4, num_minibatches=2, hidden_sizes=(4,), torso=torso)
    training = Training.create(agent, Counter(limit=5), total_steps=32)

    @jax.jit
    def run(key):
        state = training.init(key)
        return state, training.chunk(state, key, jnp.int32(0), jnp.int32(2))[0]

    start, state = run(KEY)
    jax.effects_barrier()
    assert jax.tree.structure(start) == jax.tree.structure(state)
    assert kinds == {kept}
    assert len(batches) == 8
    mean, var = np.zeros(2), np.ones(2)
    for obs in batches:
        mean, var = 0.9 * mean + 0.1 * obs.mean(0), 0.9 * var + 0.1 * obs.var(0)
    for leaf_name, leaf in found_in(state.agent, "batch_stats").items():
        expected = var if leaf_name.endswith("var") else mean
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, err_msg=leaf_name)
    assert all(leaf == 8 for leaf in found_in(state.agent, "count").values())


def test_dry_run_counts_only_trained_parameters():
    agent, _ = bound("online-q", Normed())
    hidden, out = 8 * 4 + 4, 4 * 2 + 2
    assert _parameters(jax.eval_shape(agent.init, KEY)) == 2 + (1 * 8 + 8) + hidden + out


class Frozen(nn.Module):
    """Normalises with the initial statistics in every mode."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(x)
        return nn.Dropout(0.5, deterministic=True)(dense(8, 1.0)(x))


@pytest.mark.parametrize("name", cases(LEARNERS, "dqn"))
def test_frozen_statistics_do_not_change(name):
    agent, box = bound(name, Frozen())
    start, state, _ = updated(name, agent, box, 2)
    before, after = found_in(start, "batch_stats"), found_in(state, "batch_stats")
    assert before.keys() == after.keys()
    assert before
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_acting_ignores_the_batch_and_dropout():
    """An action depends only on its observation; a learning pass depends on the update's key."""
    agent, box = bound("dqn", Normed(rate=0.5))
    agent = agent.replace(double="none")
    update = jax.jit(agent.update)
    _, state, _ = updated("dqn", agent, box, 2, update=update)
    _, other, _ = updated("dqn", agent, box, 2, key=jax.random.key(1), update=update)
    differ = jax.tree.map(
        lambda a, b: (a != b).any(), state.params["params"], other.params["params"]
    )
    assert all(jax.tree.leaves(differ))  # dropout is the only randomness in these updates
    obs = jax.random.normal(KEY, (5, 1))
    q_values = jax.jit(agent.q_values)
    q = q_values(state.params, obs)
    np.testing.assert_array_equal(q, q_values(state.params, obs))
    for n in range(5):
        alone = q_values(state.params, obs[n : n + 1])[0]
        np.testing.assert_allclose(q[n], alone, rtol=1e-5, atol=1e-6)
    # The formula in evaluation mode:
    variables = state.params
    norm, layer = (variables["params"]["torso"][k] for k in ("BatchNorm_0", "Dense_0"))
    s = variables["batch_stats"]["torso"]["BatchNorm_0"]
    x = (obs - s["mean"][None]) / np.sqrt(s["var"] + 1e-5)[None] * norm["scale"][None]
    x = np.maximum((x + norm["bias"][None]) @ layer["kernel"] + layer["bias"][None], 0.0)
    for name in ("actions_hidden", "actions_out"):
        layer = variables["params"][name]
        x = x @ layer["kernel"] + layer["bias"][None]
        x = np.maximum(x, 0.0) if name == "actions_hidden" else x
    np.testing.assert_allclose(q, x, rtol=1e-4, atol=1e-5)


NORMED = {
    "dqn": (
        DQN(num_envs=8, num_steps=4, num_updates=8, batch_size=64, capacity=2048, warmup=64,
            hidden_sizes=(16,), learning_rate=3e-3, target_every=16, epsilon=0.5),
        BestActionByObservation(), 1.0,
    ),
    "td3": (
        TD3(num_envs=16, num_steps=2, num_updates=16, batch_size=64, capacity=2048, warmup=64,
            hidden_sizes=(16,), learning_rate=3e-3, critic_learning_rate=3e-3, tau=0.05),
        BestContinuousAction(), 0.0,
    ),
    "sac": (
        SAC(num_envs=16, num_steps=2, num_updates=16, batch_size=64, capacity=2048, warmup=64,
            hidden_sizes=(16,), learning_rate=3e-3, critic_learning_rate=3e-3, tau=0.05,
            temperature=0.01, learn_temperature=False),
        BestContinuousAction(), 0.0,
    ),
}  # fmt: skip


@pytest.mark.thorough
def test_statistics_are_kept_in_checkpoints(tmp_path):
    """For two seeds; a loaded policy equals the trained one in every collection."""
    agent, env, _ = NORMED["dqn"]
    agent, keys = agent.replace(torso=Normed()), jax.random.split(KEY, 2)
    result = fit(agent, env, keys, total_steps=640, num_eval_episodes=2, tensorboard=False,
                 run_dir=tmp_path / "run")  # fmt: skip
    for member in range(2):
        policy = load_policy(tmp_path / "run", member, agent=agent, env=env)
        ours = jax.tree.map(lambda x: x[member], result.state.agent)  # noqa: B023
        jax.tree.map(np.testing.assert_array_equal, policy.state, ours)
        statistics = found_in(policy.state, "batch_stats")
        assert all(np.isfinite(x).all() and x.any() for x in statistics.values())
        assert statistics


@pytest.mark.thorough
@pytest.mark.parametrize("name", NORMED)
def test_probes_are_solved_with_batch_norm_and_dropout(name):
    agent, env, best = NORMED[name]
    _, _, metrics = learned(agent.replace(torso=Normed(rate=0.05)), env, 60)
    assert metrics.evaluation.returns.mean() > best - 0.05


# Errors -------------------------------------------------------------------------------------------


class Batch(nn.Module):
    """BatchNorm whose mode does not depend on training."""

    average: bool | None = None

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=self.average)(x)


class Drop(nn.Module):
    deterministic: bool | None = None
    stream: str = "dropout"

    @nn.compact
    def __call__(self, x):
        layer = nn.Dropout(0.5, rng_collection=self.stream, deterministic=self.deterministic)
        return layer(dense(3, 1.0)(x))


class Elsewhere(nn.Module):
    """Draws from an unavailable random stream, in training only."""

    @nn.compact
    def __call__(self, x, train):
        layer = nn.Dropout(0.5, rng_collection="elsewhere", deterministic=not train)
        return layer(dense(3, 1.0)(x))


class Growing(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("seen", "sum", lambda: jnp.int32(0))
        if train:
            seen.value = seen.value + 0.5
        return dense(3, 1.0)(x)


class OneForAll(nn.Module):
    @nn.compact
    def __call__(self, obs, mask):
        return Categorical(self.param("logits", nn.initializers.zeros_init(), (3,)), None)


def mean_over_rows(x):
    return jnp.mean(x, axis=0)


@pytest.mark.parametrize("kind", [PPO, A2C, TRPO, NPG, REINFORCE])
def test_on_policy_agents_reject_modules_that_change_the_policy(kind):
    for torso, message in (
        (Batch(True), "torso Batch has batch_stats besides its params. An on-policy agent needs"),
        (Batch(), "torso Batch has a layer without a mode: .*use_running_average.* An on-policy"),
        (Drop(False), "torso Drop draws random numbers in acting. An on-policy .* nn.LayerNorm"),
        (Normed(), f"torso Normed needs the argument `train`, which {kind.__name__} does not"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(torso=torso).bind(Counter().spec)
    kind(torso=Drop(True)).bind(Counter().spec)
    with pytest.raises(ValueError, match="policy_network Normalised has batch_stats beside"):
        kind(policy_network=Normalised()).bind(Counter().spec)


class OtherName(nn.Module):
    """BatchNorm with a training keyword that no agent sets."""

    @nn.compact
    def __call__(self, x, training=False):
        return nn.BatchNorm(use_running_average=not training)(x)


class Normalised(nn.Module):
    """A policy of three actions with batch statistics."""

    @nn.compact
    def __call__(self, obs, mask):
        return Categorical(dense(3, 1.0)(nn.BatchNorm(use_running_average=True)(obs)), mask)


@pytest.mark.parametrize(
    ("agent", "error", "message"),
    [
        (DQN(torso=Batch(False)), ValueError, "torso Batch changes its variables in acting. Give"),
        (DQN(torso=Batch()), ValueError, "has a layer without a mode: .* Give its __call__ a key"),
        (PQN(torso=Drop(False)), ValueError, "torso Drop draws random numbers in acting. Give its"),
        (PQN(torso=Elsewhere()), ValueError, "in learning other than of the stream 'dropout'"),
        (DQN(torso=Growing()), ValueError, "changes the shape or dtype of seen in learning: from"),
        (DQN(torso=OtherName()), ValueError, "because its keyword training is never set"),
        (DQN(torso=MLP), TypeError, "torso is <class .*MLP'>: it must be an instance of flax"),
        (PPO(torso=lambda: MLP()), TypeError, "torso is <function .*: it must be an instance of f"),
        (
            DQN(torso=nn.Sequential([mean_over_rows])), ValueError,
            r"Sequential maps 3 observations to \(2,\): a torso's features must be \[B, F\]",
        ),
        (
            PPO(policy_network=OneForAll()), ValueError,
            r"policy_network OneForAll maps 3 observations to a distribution over \(\): it must",
        ),
        (
            PPO(policy_network=nn.Sequential([lambda obs, mask: obs])), TypeError,
            "policy_network Sequential returns an array: it must return a distribution",
        ),
    ],
)  # fmt: skip
def test_unsuitable_modules_are_rejected_by_name(agent, error, message):
    with pytest.raises(error, match=message):
        agent.bind(Counter().spec)


def test_masks_reach_user_defined_policies():
    spec = EnvSpec(
        Masked(jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((3,), jnp.bool_)),
        Discrete(3),
    )
    agent = PPO(policy_network=Scorer(3)).bind(spec)
    obs = Masked(jnp.ones((2, 5, 4)), jnp.arange(30).reshape(2, 5, 3) % 3 != 1)

    @jax.jit
    def log_prob(action):
        params = agent.init_params(KEY)
        return agent.network.apply(params, obs, method="policy")[0].log_prob(action)

    assert (log_prob(jnp.ones((2, 5), jnp.int32)) < -1e20).all()


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ((), r"spec.observation is \(\), but a network needs an array: .* jnp.ones\(1\)"),
        ({"x": jnp.zeros(2, jnp.complex64)}, "spec.observation.x is complex64, but networks take"),
    ],
)
@pytest.mark.parametrize("torso", [None, MLP()])
def test_unreadable_observations_are_rejected(observation, message, torso):
    agent = DQN(torso=torso)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(agent.bind(EnvSpec(observation, Discrete(2))).init, jax.random.key(0))


@pytest.mark.parametrize(
    "agent",
    [
        PPO(num_envs=2, num_steps=2, num_minibatches=1),
        PQN(num_envs=2, num_steps=2, num_minibatches=1),
        DQN(num_envs=2, batch_size=4, warmup=4, capacity=16),
    ],
    ids=lambda agent: type(agent).__name__,
)
def test_empty_observation_leaves_are_accepted(agent):
    """For example, a list of objects that is empty in this environment."""

    class Empty(BestAction):
        spec = EnvSpec({"seen": jnp.zeros(1), "none": jnp.zeros((0, 3))}, Discrete(2))

        def draw(self, key):
            return {"seen": jnp.zeros(1), "none": jnp.zeros((0, 3))}

    run = functools.partial(train, total_steps=16, normalize_observations=True)
    jax.eval_shape(lambda key: run(agent, Empty(), key), KEY)
