"""A3C: equivalence with A2C, order and staleness of the workers' updates, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import BestActionByObservation, BestContinuousAction, Counter, Recall
from helpers.plans import equal
from helpers.probes import learned, mode

from jaxrl.agents import A2C, A3C
from jaxrl.agents.bases.learning import TrainState
from jaxrl.engine.acting import policy_of
from jaxrl.engine.rollout import rollout
from jaxrl.engine.training import Training
from jaxrl.types import Clock, Trajectory

KEY = jax.random.key(1)
SMALL = {"num_steps": 3, "hidden_sizes": (8,), "learning_rate": 0.05, "rmsprop_decay": 0.8}
ENV = Counter(lifetime=5, limit=7)
WORKERS = 3


def clock_at(iteration):
    return Clock(jnp.int32(iteration), jnp.int32(iteration), jnp.float32(0.0))


def part(trajectory, worker, size=2):
    """The rows of one worker's environments."""

    def take(x, axis):
        return x.take(jnp.arange(size) + size * worker, axis)

    return Trajectory(
        jax.tree.map(lambda x: take(x, 1), trajectory.steps),
        take(trajectory.first, 1),
        jax.tree.map(lambda x: take(x, 0), trajectory.carry),
    )


def flat(trajectory):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), trajectory)


def a_trajectory(agent, state, env=ENV):
    """A rollout of the exploring agent."""
    training = Training.create(agent, env, total_steps=1_000)
    start = training.init(KEY)

    def run(state):
        policy = policy_of(agent, state, start.stats, Clock.start(), explore=True)
        carry = agent.initial_carry(agent.num_envs)
        return rollout(policy, training.envs, start.envs, carry, carry, KEY, agent.num_steps)[2]

    return jax.jit(run)(state)


def perturbed(agent):
    """A state in which all copies differ, and its parameters."""
    state = agent.init(KEY)
    rng = np.random.default_rng(0)

    def moved_by_noise(x):
        return x + 0.3 * jnp.asarray(rng.standard_normal(x.shape), jnp.float32)

    moved = [jax.tree.map(moved_by_noise, state.params) for _ in range(WORKERS)]
    return state.replace(copies=jax.tree.map(lambda *x: jnp.stack(x), *moved)), moved


def learn(agent, then=None):
    """Targets and an update, as one program."""

    def one(state, trajectory, clock):
        prepared = agent.prepare(state, trajectory, clock)
        return agent.update(state, prepared if then is None else then(prepared), KEY, clock)

    return jax.jit(one)


def close(one, two):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), one, two)


def bound(kind=A3C, env=ENV, **options):
    if kind is A3C:
        options = {"num_workers": WORKERS, "num_envs": 2 * WORKERS} | options
    return kind(**(SMALL | options)).bind(env.spec)


# One worker is A2C --------------------------------------------------------------------------------


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("env", "options"),
    [
        (BestContinuousAction(), {"normalize_advantages": True, "num_envs": 16}),
        pytest.param(Recall(delay=3), {"core": "gru"}, marks=pytest.mark.thorough),
        pytest.param(ENV, {"staleness": 0}, marks=pytest.mark.thorough),
    ],
    ids=["box", "recurrent", "fresh"],
)
def test_one_worker_is_a2c_to_the_last_bit(env, options):
    """Parameters, optimiser, environments and metrics after 30 iterations of training."""

    def run(kind, **more):
        agent = kind(**(SMALL | {"num_envs": 4} | options | more))
        total = 30 * agent.num_envs * agent.num_steps
        training = Training.create(agent, env, total_steps=total)

        def all_of_it(key):
            return training.chunk(training.init(key), key, jnp.int32(0), jnp.int32(30))

        return jax.jit(all_of_it)(KEY)

    staleness = options.pop("staleness", 1)
    one, metrics, _ = run(A2C)
    two, measured, _ = run(A3C, num_workers=1, staleness=staleness)
    assert equal(one.agent.params, two.agent.params)
    assert equal(one.agent.optimizer, two.agent.optimizer)
    assert equal((one.envs, one.carry), (two.envs, two.carry))
    for name in ("policy_loss", "value_loss", "entropy"):
        assert equal(metrics.updates[name], measured.updates[name])
    start = Training.create(A2C(**(SMALL | {"num_envs": 4})), env, total_steps=12).init(KEY)
    if not options:
        assert not equal(start.agent.params, one.agent.params)


# Several workers ----------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("core", ["none", "gru"])
def test_refreshed_workers_make_successive_a2c_updates(core):
    """Staleness 0: update w is A2C's on the environments of worker w, from the parameters then."""
    options = {"core": core, "core_size": 4}
    agent, a2c = bound(staleness=0, **options), bound(A2C, num_envs=2, **options)
    state = agent.init(KEY)
    trajectory = a_trajectory(agent, state)
    wanted = TrainState(state.params, state.optimizer)
    step = learn(a2c, flat if core == "none" else None)
    for worker in range(WORKERS):
        wanted = step(wanted, part(trajectory, worker), Clock.start()).state
    new = learn(agent)(state, trajectory, Clock.start())
    close(wanted, TrainState(new.state.params, new.state.optimizer))
    for worker in range(WORKERS):  # and all act with the result
        close(new.state.params, jax.tree.map(lambda x, w=worker: x[w], new.state.copies))
    assert new.metrics["staleness"] == 0


@pytest.mark.parametrize("order", ["fixed", pytest.param("random", marks=pytest.mark.thorough)])
def test_stale_gradients_reach_the_shared_parameters_in_turn(order):
    """Algorithm S3 as a loop: the gradient at the copy, a step of the shared parameters with shared
    statistics in float64, and the copy of the result."""
    agent = bound(order=order, max_grad_norm=None, rmsprop_epsilon=0.1)
    a2c = bound(A2C, num_envs=2)
    state, copies = perturbed(agent)
    trajectory = a_trajectory(agent, state)
    new = learn(agent)(state, trajectory, Clock.start()).state

    @jax.jit
    def gradient_of(params, trajectory):
        batch = flat(a2c.prepare(TrainState(params, ()), trajectory, Clock.start()))
        return jax.grad(lambda params: a2c.loss(params, None, batch, Clock.start())[0])(params)

    shared = jax.tree.map(np.float64, state.params)
    square = jax.tree.map(np.ones_like, shared)
    turns = [int(x) for x in jax.random.permutation(KEY, WORKERS)]
    assert turns != sorted(turns)
    for worker in turns if order == "random" else sorted(turns):
        gradient = gradient_of(copies[worker], part(trajectory, worker))
        square = jax.tree.map(lambda m, g: 0.8 * m + 0.2 * np.float64(g) ** 2, square, gradient)
        shared = jax.tree.map(
            lambda x, g, m: x - 0.05 * np.float64(g) / np.sqrt(m + 0.1), shared, gradient, square
        )
        close(shared, jax.tree.map(lambda x, w=worker: x[w], new.copies))
    close(shared, new.params)


def test_each_worker_acts_with_its_copy():
    """The logged probabilities are those of the worker's own parameters; those to deploy are of the
    shared ones."""
    agent = bound()
    state, copies = perturbed(agent)
    trajectory = a_trajectory(agent, state)
    assert trajectory.steps.action.any()
    found = trajectory.steps.extras["log_prob"]
    for worker in range(WORKERS):
        rows = part(trajectory, worker).steps
        policy, _ = agent.network.apply(copies[worker], rows.obs, method="policy")
        wanted = policy.log_prob(rows.action)
        np.testing.assert_allclose(found[:, 2 * worker : 2 * worker + 2], wanted, rtol=1e-4)
        shared, _ = agent.network.apply(state.params, rows.obs, method="policy")
        assert np.abs(wanted - shared.log_prob(rows.action)).max() > 1e-2
    obs = trajectory.steps.obs[0, :5]  # any number of environments
    _, action, extras = agent.act(state, (), obs, KEY, Clock.start(), explore=False)
    policy, _ = agent.network.apply(state.params, obs, method="policy")
    np.testing.assert_allclose(extras["log_prob"], policy.log_prob(action), rtol=1e-5)


def test_staleness_is_the_number_of_updates_since_the_copy():
    """W - 1 in the paper's order after the first round; with copies kept for s iterations, ages
    repeat every s: W - 1, 2 W - 1, ..., s W - 1."""

    def ages(**options):
        agent = bound(**options)
        state = agent.init(KEY)
        trajectory, update, found = a_trajectory(agent, state), learn(agent), []
        for iteration in range(7):
            state, metrics, _ = update(state, trajectory, clock_at(iteration))
            found.append(float(metrics["staleness"]))
        return found

    np.testing.assert_allclose(ages(), [1] + [2] * 6)
    np.testing.assert_allclose(ages(staleness=3), [1, 4, 7, 2, 5, 8, 2])
    np.testing.assert_allclose(ages(order="random"), [1] + [2] * 6)  # the mean of any two orders


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 0}, "num_workers is 0"),
        ({"num_workers": 4, "num_envs": 6}, "num_workers is 4, which does not divide num_envs = 6"),
        ({"staleness": -1}, "staleness is -1"),
        ({"order": "alphabetical"}, "order is 'alphabetical'"),
        (
            {"num_envs": 4, "num_workers": 4, "num_steps": 1, "normalize_advantages": True},
            "num_workers is 4: standardising one step",
        ),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        A3C(**options).bind(Counter().spec)


def test_devices_cannot_share_its_environments():
    with pytest.raises(ValueError, match="A3C keeps the environments of a member together"):
        bound().check_shards(2)


@pytest.mark.thorough
@pytest.mark.parametrize("staleness", [0, 1, 4])
def test_probe_action_by_observation(staleness):
    agent = A3C(
        num_envs=32, num_workers=8, num_steps=8, learning_rate=1e-2, hidden_sizes=(16,),
        staleness=staleness,
    )  # fmt: skip
    agent, state, _ = learned(agent, BestActionByObservation(), 60)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])
