"""TRPO and NPG: properties of each step, edge cases, and probe environments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import (
    BestActionByObservation,
    BestMixedAction,
    Counter,
    Endless,
    MaskedChoice,
    Recall,
)
from helpers.probes import KEY, cases, learned, mode, value
from jax.flatten_util import ravel_pytree

import jaxrl_envs
from jaxrl.agents import NPG, TRPO
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.agents.bases.natural_gradient import scale_to_radius
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.losses import mean, value_loss
from jaxrl.schedules import Linear
from jaxrl.types import Masked, Trajectory

FAST = TRPO(
    num_envs=32,
    num_steps=16,
    hidden_sizes=(16,),
    kl_radius=0.05,
    damping=1e-2,
    critic_learning_rate=1e-2,
    critic_epochs=5,
    critic_minibatches=4,
)
SMALL = {"num_envs": 8, "num_steps": 16, "hidden_sizes": (8,), "critic_minibatches": 2}


class Spied(TRPO):
    """Reports KL divergence and surrogate gain, recomputed on the whole batch.

    The surrogate is the mean of pi_new / pi_old A, with pi_old as recorded while acting.
    """

    def improve(self, actor, batch, clock):
        new, metrics = super().improve(actor, batch, clock)
        old_policy, new_policy = (self.policy(x, batch) for x in (actor, new))
        sample = batch.steps
        log_ratio = new_policy.log_prob(sample.action) - sample.log_prob
        gain = mean((jnp.exp(log_ratio) - 1.0) * sample.advantage)
        first_ratio = jnp.exp(old_policy.log_prob(sample.action) - sample.log_prob)
        return new, metrics | {
            "kl_outside": mean(old_policy.kl(new_policy)),
            "gain_outside": gain,
            "first_ratio_error": jnp.max(jnp.abs(first_ratio - 1.0)),
        }


def iterations(agent, env, num_iterations, **options):
    """Yields (parameters before, after, metrics) of each iteration; compiles once."""
    steps = agent.bind(env.spec).plan.steps_per_iteration
    training = Training.create(agent, env, total_steps=num_iterations * steps, **options)
    state = jax.jit(training.init)(KEY)
    iterate = jax.jit(training.iteration)
    for i in range(num_iterations):
        new, metrics = iterate(state, KEY, jnp.int32(i))
        report = {name: float(x.value) for name, x in metrics.updates.items()}
        yield state.agent.params, new.agent.params, report
        state = new


def bits(tree):
    return np.concatenate([np.asarray(x).reshape(-1).view(np.int32) for x in jax.tree.leaves(tree)])


# Properties of each step --------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.optimized
@pytest.mark.parametrize(
    ("env", "options"),
    [
        (BestMixedAction(), {}),
        (MaskedChoice(), {}),
        (Recall(), {"core": "gru", "core_size": 8}),
    ],
    ids=["mixed", "masked", "recurrent"],
)
def test_steps_improve_within_the_radius_or_are_rejected(env, options):
    """A large radius and two line-search tries, so that some steps are rejected."""
    agent = Spied(kl_radius=0.3, line_search_steps=2, damping=1e-3, **SMALL, **options)
    accepted = []
    for before, after, report in iterations(agent, env, 40):
        accepted.append(report["accepted"])
        assert report["first_ratio_error"] <= 1e-5  # same memory as while acting, also mid-episode
        if report["accepted"]:
            assert report["kl_outside"] <= 0.3 * (1 + 1e-5)
            assert report["gain_outside"] > 0
            np.testing.assert_allclose(report["kl"], report["kl_outside"], rtol=1e-3, atol=1e-6)
            gains = report["surrogate_gain"], report["gain_outside"]
            np.testing.assert_allclose(*gains, rtol=1e-3, atol=1e-5)
            assert (bits(after.actor) != bits(before.actor)).any()
        else:
            np.testing.assert_array_equal(bits(after.actor), bits(before.actor))
            assert report["line_search_tries"] == 2
            assert report["surrogate_gain"] == report["step_scale"] == 0
        assert (bits(after.critic) != bits(before.critic)).any()  # the critic learns
    assert 0 < sum(accepted) < 40


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("env", "options"),
    [
        (MaskedChoice(), {"damping": 0.0}),
        (BestMixedAction(), {"damping": 0.0}),
        (Recall(), {"core": "gru", "core_size": 8, "damping": 1e-3}),
    ],
    ids=["masked", "mixed", "recurrent"],
)
def test_natural_steps_reach_the_kl_radius(env, options):
    """NPG with a radius: the KL divergence equals the radius to second order. (The curvature of a
    recurrent policy spans so many orders of magnitude that undamped steps leave this regime.)"""
    agent = NPG(kl_radius=1e-4, cg_iterations=30, **SMALL, **options)
    found = np.array([r["kl"] for _, _, r in iterations(agent, env, 5)])
    assert (found <= 1.1e-4).all(), found
    assert (found >= (0.8e-4 if options["damping"] else 0.9e-4)).all(), found


def test_cartpole_steps_improve_within_the_radius_or_are_rejected():
    agent = Spied(**SMALL, cg_iterations=15)
    env = jaxrl_envs.make("gymnax/CartPole-v1")
    accepted = 0
    for before, after, report in iterations(agent, env, 40):
        accepted += report["accepted"]
        if report["accepted"]:
            assert 0 < report["kl_outside"] <= 0.01 * (1 + 1e-5)
            assert report["gain_outside"] > 0
        else:
            np.testing.assert_array_equal(bits(after.actor), bits(before.actor))
    assert accepted >= 30


def test_fixed_step_scale_is_the_learning_rate():
    agent = NPG(kl_radius=None, learning_rate=0.05, **SMALL)
    for *_, report in iterations(agent, MaskedChoice(), 2):
        np.testing.assert_allclose(report["step_scale"], 0.05, rtol=1e-6)


class CriticSpied(TRPO):
    """Reports the error of V(obs) as computed by `prepare`, before the critic update."""

    def update(self, state, batch, key, clock):
        new = super().update(state, batch, key, clock)
        sample = batch.steps
        before = value_loss(sample.value, sample.target)
        return new._replace(metrics=new.metrics | {"before": before})


@pytest.mark.thorough
def test_recurrent_critic_learns_with_the_rollout_memory():
    """With one epoch and one minibatch, the loss is the error of the rollout's values."""
    options = SMALL | {"num_steps": 7, "critic_minibatches": 1, "hidden_sizes": (4,)}
    agent = CriticSpied(critic_epochs=1, core="gru", core_size=8, **options)
    for *_, report in iterations(agent, Recall(), 4):
        np.testing.assert_allclose(report["value_loss"], report["before"], rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(("fisher", "stride"), [("empirical", 1), ("exact", 4)])
def test_fisher_matrices_lead_to_the_same_policy(fisher, stride):
    agent = FAST.replace(fisher=fisher, fisher_stride=stride)
    _, _, metrics = learned(agent, MaskedChoice(), 40)
    assert metrics.evaluation.returns.mean() >= 3.5


class Unmoved(TRPO):
    """Reports the standard deviation of the advantages that a step would use."""

    def improve(self, actor, batch, clock):
        return actor, {"advantage_std": jnp.std(batch.steps.advantage)}


@pytest.mark.parametrize("normalize", [True, False])
def test_advantages_are_standardised_only_on_request(normalize):
    agent = Unmoved(normalize_advantages=normalize, **SMALL)
    (_, _, report), *_ = iterations(agent, Counter(limit=9), 1)
    assert (abs(report["advantage_std"] - 1.0) < 1e-4) == normalize


def test_empirical_fisher_matrix_uses_the_actions_taken():
    """The direction solves (mean g g^T + damping I) x = b in NumPy, g the score of a row."""
    env = BestMixedAction()
    agent = TRPO(fisher="empirical", damping=0.5, cg_iterations=60, cg_tolerance=0.0, **SMALL).bind(
        env.spec
    )
    actor = jax.jit(agent.init)(KEY).params.actor
    obs = jax.random.normal(KEY, (128, 1))
    policy = agent.network.apply(actor, obs, method="policy")[0]
    action, zeros = policy.sample(KEY), jnp.zeros(128)
    sample = Sample(obs, action, policy.log_prob(action), zeros, zeros, zeros)
    flat, unravel = ravel_pytree(actor)

    def log_prob(flat):
        policy = agent.network.apply(unravel(flat), obs, method="policy")[0]
        return policy.log_prob(action)

    scores = np.asarray(jax.jit(jax.jacobian(log_prob))(flat), np.float64)
    b = np.random.default_rng(0).standard_normal(flat.size)
    matrix = scores.T @ scores / 128 + 0.5 * np.eye(flat.size)
    batch = Trajectory(sample, jnp.zeros(128, bool))
    found = jax.jit(agent.natural_gradient)(actor, unravel(jnp.float32(b)), batch)[0].x
    np.testing.assert_allclose(
        ravel_pytree(found)[0], np.linalg.solve(matrix, b), rtol=1e-3, atol=1e-3
    )


MASKED_MIXED = dataclasses.replace(
    BestMixedAction.spec,
    observation=Masked(
        BestMixedAction.spec.observation, (jax.ShapeDtypeStruct((2,), jnp.bool_), None, None)
    ),
)
"""Observations above 1 make action 1 of the first part unavailable."""


@pytest.mark.parametrize("case", cases(["masked and mixed", "recurrent"], "masked and mixed"))
def test_fisher_matrix_is_the_hessian_of_the_kl_divergence(case):
    """At the old policy, the agent's direction equals a dense float64 solve with the Hessian."""
    recurrent = case == "recurrent"
    options = {"core": "gru", "core_size": 3} if recurrent else {}
    agent = TRPO(
        damping=0.1, cg_iterations=80, cg_tolerance=0.0, **(SMALL | {"hidden_sizes": (4,)}),
        **options,
    ).bind(Recall().spec if recurrent else MASKED_MIXED)  # fmt: skip
    actor = jax.jit(agent.init)(KEY).params.actor
    actor = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(KEY, x.shape), actor)
    shape = (6, 4) if recurrent else (24,)
    obs = jax.random.normal(KEY, (*shape, *jax.tree.leaves(agent.spec.observation)[0].shape))
    carry, first = (), jnp.zeros(shape, bool)
    if recurrent:
        carry, first = agent.initial_carry(4), jax.random.bernoulli(KEY, 0.3, shape)
    else:
        mask = jnp.stack([jnp.ones(24, bool), obs[:, 0] <= 1.0], -1)
        obs = Masked(obs, (mask, None, None))
    zeros = jnp.zeros(shape)
    batch = Trajectory(Sample(obs, (), zeros, zeros, zeros, zeros), first, carry)
    old = jax.tree.map(jax.lax.stop_gradient, agent.policy(actor, batch))
    flat, unravel = ravel_pytree(actor)

    def kl(x):
        return mean(old.kl(agent.policy(unravel(x), batch)))

    curvature = np.asarray(jax.jit(jax.hessian(kl))(flat), np.float64)
    b = np.random.default_rng(0).standard_normal(flat.size)
    expected = np.linalg.solve(curvature + 0.1 * np.eye(flat.size), b)
    found = jax.jit(agent.natural_gradient)(actor, unravel(jnp.float32(b)), batch)[0].x
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ravel_pytree(found)[0], expected, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.thorough
def test_fisher_stride_takes_every_nth_row():
    """A stride of 2 gives the direction of a batch with only those rows: at step t, copies of the
    same parity as t, so that every copy is used."""
    env = BestMixedAction()
    whole = FAST.replace(num_envs=8, num_steps=4, fisher_stride=2).bind(env.spec)
    half = whole.replace(num_steps=2, fisher_stride=1)
    actor = jax.jit(whole.init)(KEY).params.actor
    policy = whole.network.apply(actor, jax.random.normal(KEY, (32, 1)), method="policy")[0]
    action = policy.sample(KEY)
    zeros = jnp.zeros(32)
    sample = Sample(
        jax.random.normal(KEY, (32, 1)), action, policy.log_prob(action), zeros, zeros, zeros
    )
    batch = Trajectory(sample, jnp.zeros(32, bool))
    gradient = jax.tree.map(jnp.ones_like, actor)
    chosen = [8 * t + n for t in range(4) for n in range(8) if (n - t) % 2 == 0]
    assert {row % 8 for row in chosen} == set(range(8))
    alone = jax.tree.map(lambda x: x[np.array(chosen)], batch)
    a = jax.jit(whole.natural_gradient)(actor, gradient, batch)[0].x
    b = jax.jit(half.natural_gradient)(actor, gradient, alone)[0].x
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3), a, b)


def test_step_scale_reaches_the_radius():
    """KL(s x) = s^2 x^T F x / 2; the scale is 0 if the curvature is not positive and finite."""
    curvature = jnp.array([2.0, 0.5, 0.0, -1.0, np.nan, np.inf])
    scale = scale_to_radius(0.01, curvature)
    np.testing.assert_allclose(scale, [0.1, 0.2, 0.0, 0.0, 0.0, 0.0], rtol=1e-6)


# Degenerate inputs --------------------------------------------------------------------------------


class Factor:
    """Multiplies advantages and value targets by `factor`: NaN poisons them, 0 leaves no gain.

    `first` multiplies those of a single step.
    """

    def prepare(self, state, trajectory, clock):
        batch = super().prepare(state, trajectory, clock)
        advantage, target = (
            (self.factor * x).at[0, 0].multiply(self.first)
            for x in (batch.steps.advantage, batch.steps.target)
        )
        return batch.replace(steps=batch.steps.replace(advantage=advantage, target=target))


class FactorTRPO(Factor, TRPO):
    factor: float = 1.0
    first: float = 1.0


class FactorNPG(Factor, NPG):
    factor: float = 1.0
    first: float = 1.0


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [FactorTRPO, FactorNPG])
def test_zero_or_non_finite_advantages_change_no_policy(kind):
    """One member of a vmap learns as it would alone; the others have zero or non-finite advantages,
    in all steps or in a single one."""

    def run(factor, first):
        agent = kind(factor=factor, first=first, **SMALL)
        training = Training.create(agent, Counter(limit=9), total_steps=3 * 128)
        state = training.init(KEY)
        after, *_ = training.chunk(state, KEY, jnp.int32(0), jnp.int32(3))
        return state.agent.params, after.agent.params

    cases = {"learning": (1, 1), "idle": (0, 1), "nan": (np.nan, 1), "inf": (np.inf, 1)}
    cases |= {"one nan": (1, np.nan), "one inf": (1, np.inf)}
    factors, firsts = jnp.asarray(list(cases.values()), jnp.float32).T
    before, after = jax.jit(jax.vmap(run))(factors, firsts)
    member = {name: jax.tree.map(lambda x, i=i: x[i], after) for i, name in enumerate(cases)}
    start = jax.tree.map(lambda x: x[0], before)
    np.testing.assert_array_equal(bits(member["nan"]), bits(start))  # the critic as well
    for name in ("idle", "inf", "one nan", "one inf"):
        np.testing.assert_array_equal(bits(member[name].actor), bits(start.actor), name)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(member[name])), name
    assert (bits(member["learning"].actor) != bits(start.actor)).any()
    alone = jax.jit(run)(jnp.float32(1.0), jnp.float32(1.0))[1]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-3),
        member["learning"],
        alone,
    )


@pytest.mark.thorough
def test_zero_radius_leaves_the_policy_unchanged():
    agent = TRPO(kl_radius=Linear(0.05, 0.0, 0.5), **SMALL)
    *_, (before, after, report) = iterations(agent, MaskedChoice(), 3)
    np.testing.assert_array_equal(bits(before.actor), bits(after.actor))
    assert all(np.isfinite(x) for x in report.values())


@pytest.mark.thorough
@pytest.mark.parametrize("agent", [TRPO(**SMALL), NPG(**SMALL)], ids=["trpo", "npg"])
def test_singular_fisher_matrix_gives_finite_steps(agent):
    """Undamped, it is always singular: a constant added to all softmax logits changes nothing."""
    agent = agent.replace(damping=0.0, cg_iterations=40)
    for env in (MaskedChoice(), BestMixedAction()):
        for _, after, report in iterations(agent, env, 12):
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
            assert report["kl"] <= 1.05 * agent.kl_radius
            assert report["cg_residual"] < 1.0


# Probes -------------------------------------------------------------------------------------------


def names(agent):
    return [field.name for field in dataclasses.fields(agent)]


LEARNERS = {
    "trpo": FAST,
    "npg": NPG(**{n: getattr(FAST, n) for n in names(NPG) if hasattr(FAST, n)}),
}


@pytest.mark.parametrize("name", cases(LEARNERS, "trpo"))
def test_probe_action_by_observation(name):
    agent, state, metrics = learned(LEARNERS[name], BestActionByObservation(), 30)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])
    assert metrics.training.updates["cg_residual"].value < 1.0


def test_npg_is_stable_for_a_near_deterministic_policy():
    """There the KL divergence of a step is pure rounding error and may be negative."""
    env = BestActionByObservation()
    agent = NPG(**{n: getattr(FAST, n) for n in names(NPG) if hasattr(FAST, n)})
    steps = 30 * agent.bind(env.spec).plan.steps_per_iteration
    state, metrics = jax.jit(
        jax.vmap(lambda key: train(agent, env, key, total_steps=steps, num_evaluations=1))
    )(jax.random.split(KEY, 16))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.agent.params))
    np.testing.assert_array_equal(metrics.evaluation.returns, 1.0)
    assert np.abs(metrics.training.updates["kl"].value).max() <= FAST.kl_radius


@pytest.mark.thorough
def test_probe_mixed_action():
    agent, state, _ = learned(FAST.replace(num_envs=64), BestMixedAction(), 100)
    choice, position, pair = mode(agent, state, [[-1.0], [1.0]])
    np.testing.assert_array_equal(choice, [0, 1])
    np.testing.assert_allclose(position[:, 0], [-0.5, 0.5], atol=0.15)
    np.testing.assert_array_equal(pair, [[0, 2], [1, 2]])


@pytest.mark.thorough
def test_probe_memory():
    agent = FAST.replace(core="gru", core_size=16)
    _, _, metrics = learned(agent, Recall(delay=3), 100)
    assert metrics.evaluation.returns.mean() == 1.0


def test_probe_truncation_is_not_termination():
    """One endless state truncated every 5 steps: the value is 1 / (1 - 0.8) = 5."""
    agent, state, _ = learned(FAST.replace(discount=0.8), Endless(limit=5), 100)
    np.testing.assert_allclose(value(agent, state, [[1.0]]), [5.0], atol=0.1)


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TRPO, {"shared_torso": True}, "shared_torso is True: TRPO .* Leave it False, or use PPO"),
        (NPG, {"shared_torso": True}, "shared_torso is True: NPG "),
        (TRPO, {"kl_radius": 0.0}, "kl_radius is 0.0: it must be finite, above 0"),
        (TRPO, {"kl_radius": np.nan}, "kl_radius is nan"),
        (NPG, {"kl_radius": -1.0}, "kl_radius is -1.0"),
        (TRPO, {"damping": -1.0}, "damping is -1.0"),
        (TRPO, {"line_search_shrink": 1.5}, "line_search_shrink is 1.5"),
        (TRPO, {"line_search_steps": 0}, "line_search_steps is 0"),
        (TRPO, {"cg_iterations": 0}, "cg_iterations is 0"),
        (TRPO, {"fisher": "exakt"}, "fisher is 'exakt': use 'exact' or 'empirical'"),
        (TRPO, {"critic_minibatches": 3}, "critic_minibatches is 3, which does not divide"),
        (TRPO, {"fisher_stride": 10**6}, "fisher_stride is 1000000, more than"),
        (TRPO, {"core": "gru", "critic_minibatches": 3}, "does not divide num_envs = 8"),
        (TRPO, {"num_envs": 1, "num_steps": 1}, "normalize_advantages standardises over"),
        (NPG, {"num_envs": 1, "num_steps": 1}, "normalize_advantages standardises over"),
    ],
)
def test_invalid_options_are_rejected(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options).bind(Counter().spec)
