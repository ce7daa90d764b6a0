"""The actor-critic whose critic f(s, a) is fitted to samples of Q, against exact values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import (
    BestActionByObservation,
    BestContinuousAction,
    BestMixedAction,
    Endless,
    MaskedChoice,
)
from helpers.geometric import (
    DISCOUNT,
    EXACT,
    KEY,
    LOGITS,
    MDP,
    POLICY,
    STATES,
    Q,
    batch_gradients,
    endless,
    expected,
    experience,
    paid,
    params_of,
    visits,
)
from helpers.gradients import tabular_agent, tabular_params
from helpers.probes import learned, mode
from helpers.simulation import agrees

from jaxrl.agents import RPG, FittedQActorCritic
from jaxrl.agents.bases.random_horizon import Visit
from jaxrl.agents.fitted_q_actor_critic import sampled_mean
from jaxrl.distributions import Categorical, DiagonalGaussian
from jaxrl.types import Clock, Trajectory
from jaxrl_envs.exact import gradients, lqr, values

UNIFORM = {"fitted_actions": "uniform"}
ERROR = np.random.default_rng(4).standard_normal((6, 3))


def gradients_of(f, mdp_of=endless, **options):
    agent, trajectory = experience(mdp_of, FittedQActorCritic, **options)
    return batch_gradients(agent, params_of(f), trajectory)


# The gradient -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="policy"),
        pytest.param(UNIFORM, id="uniform", marks=pytest.mark.thorough),
    ],
)
def test_exact_f_gives_the_exact_gradient(options):
    """Whichever actions f is fitted to; and errors of f bias it as far as they depend on a."""
    assert agrees(gradients_of(Q, **options), EXACT)
    assert agrees(gradients_of(Q + 5.0 * ERROR[:, :1], **options), EXACT)
    wrong = gradients_of(Q + ERROR, **options)
    assert agrees(wrong, expected(Q + ERROR))
    assert not agrees(wrong, EXACT)


def test_bias_grows_with_the_error_of_f():
    """In proportion to it, for the same samples."""
    exact, small, large = (gradients_of(Q + c * ERROR).mean(0) for c in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(large - exact, 2.0 * (small - exact), rtol=1e-3, atol=1e-4)
    assert np.abs(large - exact).max() > 0.5 * np.abs(EXACT).max()


@pytest.mark.thorough
def test_f_has_less_variance_than_roll_outs():
    """Compared with y minus the exact state value."""
    value = values.policy_value(paid(), POLICY, DISCOUNT)
    agent, trajectory = experience(paid, RPG)
    rolled = batch_gradients(agent, tabular_params(LOGITS, value), trajectory)
    q = values.action_value(paid(), POLICY, DISCOUNT)
    fitted = gradients_of(q, paid)
    exact = gradients.policy_gradient(paid(), POLICY, DISCOUNT).reshape(-1)
    assert agrees(fitted, exact)
    assert agrees(rolled, exact)
    assert 3.0 * fitted.var(0).sum() < rolled.var(0).sum()


def every_pair():
    """A batch with each state and action once, `[1, 18]`."""
    state, action = np.repeat(np.arange(6), 3), np.tile(np.arange(3), 6)
    obs, action, zeros = jnp.eye(6)[state][None], jnp.asarray(action)[None], jnp.zeros((1, 18))
    cut = jnp.asarray(state % 2 == 0)[None]
    visit = Visit(
        obs, (action + 1) % 3, action, zeros, zeros, zeros == 0.0, cut, jnp.roll(obs, 1, axis=-1)
    )
    return Trajectory(visit, zeros == 0.0), state, action[0]


def test_advantages_and_targets_come_from_f():
    agent = tabular_agent(FittedQActorCritic, MDP, discount=DISCOUNT)
    batch, state, action = every_pair()
    found = agent.evaluate(params_of(Q), batch, KEY).steps
    advantage = values.advantage(MDP, POLICY, DISCOUNT)[state, action]
    np.testing.assert_allclose(found.advantage[0], advantage, rtol=1e-4, atol=1e-5)
    following = (POLICY * Q).sum(-1)[np.asarray(batch.steps.next_obs)[0].argmax(-1)]
    beyond = np.where(batch.steps.cut[0], DISCOUNT * following, 0.0)
    np.testing.assert_allclose(found.target[0], beyond, rtol=1e-4, atol=1e-5)


def test_sampled_means_agree_with_exact_ones():
    """Over few actions with the sum, in a box with the moments of a Gaussian."""
    keys = jax.random.split(KEY, 2048)
    policy = Categorical(jnp.asarray(LOGITS, jnp.float32))

    def of_table(action):
        return jnp.take_along_axis(jnp.asarray(Q, jnp.float32), action[:, None], -1)[:, 0]

    found = jax.jit(jax.vmap(lambda k: sampled_mean(of_table, policy, k, 4)))(keys)
    assert agrees(found, (POLICY * Q).sum(-1))
    location, log_std = jnp.array([[0.5], [-2.0]]), jnp.array([[0.0], [0.5]])
    gaussian = DiagonalGaussian(location, log_std)

    def square(action):
        return jnp.sum(jnp.square(action), axis=-1)

    found = jax.jit(jax.vmap(lambda k: sampled_mean(square, gaussian, k, 4)))(keys)
    assert agrees(found, np.asarray(location**2 + jnp.exp(2.0 * log_std))[:, 0])


# The regression -----------------------------------------------------------------------------------


def test_uniform_actions_keep_the_states_and_are_unbiased_for_q():
    """Only the action at the first stop is uniform; the roll-out goes on with the policy."""
    visit, state = visits(*experience(endless, FittedQActorCritic, **UNIFORM))
    assert agrees(np.stack([visit.valid & (state == s) for s in range(6)], -1), STATES)
    for s, a in np.ndindex(6, 3):
        here = visit.valid & (state == s)
        assert agrees(visit.action[here] == a, 1 / 3)
        assert agrees(visit.policy_action[here] == a, POLICY[s, a])
        assert agrees(visit.target[here & (visit.action == a)], Q[s, a])


def test_f_is_the_regression_of_y_on_states_and_actions():
    """With one parameter for each: the mean of y; the action is the one taken."""
    agent, trajectory = experience(endless, FittedQActorCritic, **UNIFORM)
    visit, state = visits(agent, trajectory)
    agent = agent.replace(critic_learning_rate=0.05, critic_epochs=500)
    batch = agent.prepare(None, trajectory, Clock.start())
    critic = params_of(np.zeros((6, 3))).critic
    fit = jax.jit(lambda c: agent.fit_critic(c, agent.init_critic(c), batch, KEY, Clock.start())[0])
    out = fit(critic)["params"]["out_0"]
    means = [
        [visit.target[visit.valid & (state == s) & (visit.action == a)].mean() for a in range(3)]
        for s in range(6)
    ]
    np.testing.assert_allclose(out["kernel"] + out["bias"][None], means, atol=0.02)


# Probes -------------------------------------------------------------------------------------------

FAST = {
    "num_envs": 64, "num_steps": 8, "hidden_sizes": (16,), "learning_rate": 2e-2,
    "critic_learning_rate": 1e-2, "discount": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, pytest.param(UNIFORM, marks=pytest.mark.thorough)])
def test_probe_action_by_observation(options):
    env = BestActionByObservation()
    agent, state, _ = learned(FittedQActorCritic(**FAST | options), env, 60)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{}, UNIFORM])
def test_probe_continuous_action(options):
    slow = {"learning_rate": 1e-2, "critic_epochs": 30}  # f first, while the actions vary
    agent = FittedQActorCritic(**FAST | slow | options)
    agent, state, _ = learned(agent, BestContinuousAction(), 300)
    found = np.asarray(mode(agent, state, [[-1.0], [1.0]]))[:, 0]
    np.testing.assert_allclose(found, [-0.5, 0.5], atol=0.2)


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{}, UNIFORM])
def test_probe_masks(options):
    _, _, metrics = learned(FittedQActorCritic(**FAST | options), MaskedChoice(), 100)
    assert metrics.evaluation.returns.mean() >= 3.5


@pytest.mark.thorough
def test_probe_truncation_is_not_termination():
    """One endless state truncated every 5 steps: Q is 1 / (1 - 0.8) = 5."""
    agent = FittedQActorCritic(**FAST | {"discount": 0.8, "num_steps": 10})
    agent, state, _ = learned(agent, Endless(limit=5), 150)
    found = agent.action_values(state.agent.params.critic, jnp.ones((1, 1)))
    np.testing.assert_allclose(found, 5.0, atol=0.7)


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "spec", "message"),
    [
        ({}, BestMixedAction().spec, "needs discrete actions or a Box"),
        (UNIFORM, lqr.make().spec, "needs a Box with finite bounds"),
        (UNIFORM | {"num_pairs": 2}, MDP.spec, "num_pairs is 2: with fitted_actions='uniform'"),
        ({"core": "gru"}, MDP.spec, "core is 'gru': FittedQActorCritic learns from single states"),
    ],
)
def test_invalid_options_are_rejected(options, spec, message):
    with pytest.raises(ValueError, match=message):
        FittedQActorCritic(**options).bind(spec)


def test_only_a_policy_is_evaluated_by_sampling():
    """With uniform actions, exploring is not the policy."""
    assert FittedQActorCritic().eval_modes == ("greedy", "sample")
    assert FittedQActorCritic(**UNIFORM).eval_modes == ("greedy",)
