"""PPO with a learning rate that adapts to the KL divergence: the rule, updates and runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import Counter
from helpers.plans import equal
from helpers.probes import KEY

from jaxrl.agents import PPO, PPOPenalty
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.agents.bases.kl_control import adapted_rate
from jaxrl.engine.sweep import sweep
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.runs.events import Evaluation
from jaxrl.runs.fit import fit
from jaxrl.schedules import Linear
from jaxrl.types import Clock, Trajectory

SMALL = {"num_envs": 4, "num_steps": 8, "hidden_sizes": (8,)}


def rule(rate, kl, desired):
    """rsl_rl's, in Python."""
    if kl > desired * 2.0:
        return max(1e-5, rate / 1.5)
    if 0.0 < kl < desired / 2.0:
        return min(1e-2, rate * 1.5)
    return rate


def test_the_rate_follows_the_rule():
    rng = np.random.default_rng(0)
    rates, expected = [1e-3], [1e-3]
    for kl in [*0.01 * 4.0 ** rng.uniform(-2, 2, 40), 0.0, *[1.0] * 20, *[1e-4] * 20]:
        rates.append(float(adapted_rate(jnp.float32(rates[-1]), jnp.float32(kl), 0.01)))
        expected.append(rule(expected[-1], kl, 0.01))
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert min(rates) == pytest.approx(1e-5)
    assert max(rates) == pytest.approx(1e-2)
    assert adapted_rate(1e-3, jnp.nan, 0.01) == jnp.float32(1e-3)


def clock_at(update):
    return Clock(jnp.int32(0), jnp.int32(update), jnp.float32(0.0))


AGENT = PPO(**SMALL, optimizer="sgd", max_grad_norm=None, learning_rate=1e-3, target_kl=1e9)


@pytest.fixture(scope="module")
def one_update():
    """A compiled update of a moved policy: desired_kl, target_kl and update to what it needs."""
    bound = AGENT.replace(desired_kl=1.0).bind(Counter().spec)
    state = jax.jit(bound.init)(KEY)
    keys = jax.random.split(KEY, 4)
    sample = Sample(
        obs=jax.random.normal(keys[0], (8, 2)),
        action=jax.random.randint(keys[1], (8,), 0, 3),
        log_prob=-1.1 + 0.3 * jax.random.normal(keys[2], (8,)),
        value=jnp.zeros(8),
        advantage=jax.random.normal(keys[3], (8,)),
        target=jnp.ones(8),
    )
    batch = Trajectory(sample, jnp.zeros(8, bool))
    policy, *_ = bound.network.apply(state.params, sample.obs)
    log_p = np.asarray(jax.nn.log_softmax(policy.logits), np.float64)
    log_ratio = log_p[np.arange(8), np.asarray(sample.action)] - np.asarray(sample.log_prob)
    kl = (np.exp(log_ratio) - 1 - log_ratio).mean()
    gradient = jax.jit(jax.grad(lambda p: bound.loss(p, state, batch, clock_at(0))[0]))(
        state.params
    )
    compiled = jax.jit(lambda agent, clock: agent.update(state, batch, KEY, clock))

    def run(update, *, desired_kl, target_kl=1e9):
        agent = bound.replace(desired_kl=desired_kl, target_kl=target_kl)
        return compiled(agent, clock_at(update))

    return run, state, kl, gradient


@pytest.mark.parametrize(
    ("update", "share", "rate"),
    [(1, 0.4, 1e-3 / 1.5), (1, 3.0, 1.5e-3), (1, 1.0, 1e-3), (0, 0.4, 1e-3), (16, 3.0, 1e-3)],
    ids=["too far", "too near", "right", "first update", "first of the next iteration"],
)
def test_a_step_is_taken_at_the_adapted_rate(one_update, update, share, rate):
    """The divergence before the step decides; in an iteration's first update it says nothing."""
    run, state, kl, gradient = one_update
    new = run(update, desired_kl=share * kl)
    np.testing.assert_allclose(new.state.learning_rate, rate, rtol=1e-6)
    np.testing.assert_allclose(new.metrics["learning_rate"].value, rate, rtol=1e-6)
    for old, moved, g in zip(
        *map(jax.tree.leaves, (state.params, new.state.params, gradient)), strict=True
    ):
        np.testing.assert_allclose(moved, old - rate * g, atol=1e-7)


def test_a_step_beyond_target_kl_slows_the_next_ones(one_update):
    run, state, kl, _ = one_update
    new = run(1, desired_kl=kl / 4, target_kl=kl / 2).state
    assert new.stopped
    assert equal(new.params, state.params)
    np.testing.assert_allclose(new.learning_rate, 1e-3 / 1.5, rtol=1e-6)


@pytest.mark.thorough
def test_rates_of_a_sweep_go_their_own_ways():
    """A divergence that every step exceeds lowers the rate to its limit, a huge one raises it."""
    grid = sweep(PPO(**SMALL), desired_kl=[1e-20, 1e3], learning_rate=[1e-4, 1e-3])

    def run(agent):
        state, metrics = train(agent, Counter(), KEY, total_steps=96, num_evaluations=3,
                               num_eval_episodes=1)  # fmt: skip
        return state.agent.learning_rate, metrics.training.updates["learning_rate"].value

    last, means = jax.jit(jax.vmap(run))(grid)
    np.testing.assert_allclose(last, [1e-5, 1e-5, 1e-2, 1e-2], rtol=1e-6)
    assert ((means[:, 0] > 1.1e-5) & (means[:, 0] < 0.9e-2)).all()
    np.testing.assert_allclose(means[:, -1], last, rtol=1e-6)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (Linear(1e-3), "learning_rate is Linear.* and desired_kl is set: both would change"),
        (0.05, "learning_rate is 0.05: with desired_kl, it must be .* at most 0.01"),
        (jnp.array([1e-3, 1e-6]), "with desired_kl, it must be finite, at least 1e-05"),
    ],
)
def test_rates_that_cannot_adapt_are_rejected(rate, message):
    with pytest.raises(ValueError, match=message):
        Training.create(PPO(desired_kl=0.01, learning_rate=rate), Counter(), total_steps=512)
    Training.create(PPO(learning_rate=rate), Counter(), total_steps=512)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "agent", [PPO(**SMALL, desired_kl=0.01), PPOPenalty(**SMALL)], ids=["rate", "coefficient"]
)
def test_what_adapts_is_resumed_to_the_same_bits(tmp_path, agent):
    options = {"total_steps": 192, "num_evaluations": 3, "num_eval_episodes": 2}
    options |= {"tensorboard": False}

    def run(name, **more):
        return fit(agent, Counter(limit=5), KEY, run_dir=tmp_path / name, **options, **more).state

    def stop(event):
        return "enough" if isinstance(event, Evaluation) else None

    run("stopped", callbacks=[stop])
    resumed, whole = run("stopped", resume=True), run("whole")
    assert equal(resumed.agent, whole.agent)
