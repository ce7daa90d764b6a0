"""Policy-gradient estimators against their exact expectations.

Gradients come from the agents' own code, averaged over 4,096 batches; the expectations come from
linear solves (`jaxrl_envs.exact`). Negative tests show that wrong estimators are detected.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.gradients import (
    Identity,
    estimates,
    reinforce_gradient,
    surrogate_gradient,
    tabular_agent,
    tabular_features,
    tabular_params,
)
from helpers.simulation import agrees, play, slope, tabular

from jaxrl.agents import A2C, NPG, PPO, REINFORCE, TRPO, reinforce
from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.agents.bases.learning import Networks
from jaxrl.distributions import DiagonalGaussian
from jaxrl.networks.layers import MLP
from jaxrl.networks.policies import Scorer, SoftmaxLinear
from jaxrl.types import Clock, Trajectory
from jaxrl_envs.exact import garnet, gradients, lqr, values

KEY = jax.random.key(0)
BATCHES = 4096
HORIZON = 6
DISCOUNT = 0.7
"""Small enough that state weights matter: near 1 the two forms agree (cosine 0.99)."""
MDP = garnet.make(num_states=6, num_actions=3, termination=0.1, max_steps=HORIZON, seed=3)
LOGITS = np.random.default_rng(0).standard_normal((6, 3))
POLICY = values.softmax(LOGITS)
VALUE = values.policy_value(MDP, POLICY, DISCOUNT)
WHOLE = {"num_envs": 4, "num_steps": HORIZON, "whole_episodes": True, "discount": DISCOUNT}
OF_RETURN = gradients.finite_horizon_gradient(MDP, POLICY, DISCOUNT, HORIZON).reshape(-1)
"""The gradient of the expected discounted return."""
UNWEIGHTED = gradients.finite_horizon_gradient(
    MDP, POLICY, DISCOUNT, HORIZON, state_discount=1.0
).reshape(-1)
"""The expectation without discount^t: all steps of an episode have equal weight."""


def of_reinforce(options, value=VALUE):
    agent = tabular_agent(REINFORCE, MDP, **(WHOLE | options))
    return estimates(agent, MDP, tabular_params(LOGITS, value), reinforce_gradient, BATCHES)


# REINFORCE ----------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "truth", "other"),
    [
        ({"credit": "return", "baseline": "none"}, OF_RETURN, UNWEIGHTED),
        ({"credit": "return", "baseline": "optimal"}, OF_RETURN, UNWEIGHTED),
        ({"baseline": "constant", "discount_states": True}, OF_RETURN, UNWEIGHTED),
        ({"baseline": "none"}, UNWEIGHTED, OF_RETURN),
        ({"baseline": "time"}, UNWEIGHTED, OF_RETURN),
        ({"baseline": "learned"}, UNWEIGHTED, OF_RETURN),
    ],
    ids=["whole return", "optimal baseline", "constant", "to go", "by time", "learned"],
)
def test_reinforce_is_unbiased_for_every_baseline(options, truth, other):
    """And does not match the other weighting of states, although the two are close."""
    found = of_reinforce(options, value=VALUE + 0.3 * np.arange(6))
    assert agrees(found, truth)
    assert not agrees(found, other)
    assert np.abs(truth - other).max() < np.abs(truth).max()


@pytest.mark.thorough
def test_each_technique_reduces_the_variance():
    """Whole return > reward to go > time-dependent baseline > GAE, with uncentred rewards."""
    paid = MDP.replace(reward=MDP.reward + 2.0)
    value = values.policy_value(paid, POLICY, DISCOUNT)
    generalized = {"num_envs": 4, "num_steps": HORIZON, "discount": DISCOUNT, "gae_lambda": 0.9}
    weighted = {"discount_states": True}
    ideas = {
        "whole return": (REINFORCE, WHOLE | {"credit": "return", "baseline": "none"}),
        "weighted to go": (REINFORCE, WHOLE | weighted | {"baseline": "none"}),
        "to go": (REINFORCE, WHOLE | {"baseline": "none"}),
        "by time": (REINFORCE, WHOLE | {"baseline": "time"}),
        "GAE": (TRPO, generalized | {"normalize_advantages": False, "critic_minibatches": 1}),
    }
    variance = {}
    for name, (kind, options) in ideas.items():
        agent, params = tabular_agent(kind, paid, **options), tabular_params(LOGITS, value)
        gradient_of = reinforce_gradient if kind is REINFORCE else surrogate_gradient
        scale = 1 if kind is REINFORCE else HORIZON  # a mean over steps, not a sum
        found = scale * estimates(agent, paid, params, gradient_of, 1024)
        variance[name] = float(found.var(0).sum())
    assert variance["whole return"] > 1.2 * variance["weighted to go"], variance
    assert variance["to go"] > 1.2 * variance["by time"], variance
    assert variance["by time"] > variance["GAE"], variance


def test_baseline_that_includes_its_episode_is_biased(monkeypatch):
    """A mean that includes the episode's return shrinks the gradient by (N - 1) / N."""

    def mean_of_all(returns, counts, *, over_time):
        total = jnp.where(counts, returns, 0.0)
        return jnp.broadcast_to(
            jnp.sum(total, 1, keepdims=True) / jnp.sum(counts, 1, keepdims=True).clip(1),
            returns.shape,
        )

    monkeypatch.setattr(reinforce, "mean_of_others", mean_of_all)
    assert not agrees(of_reinforce({"baseline": "time"}), UNWEIGHTED)


# Actor-critic -------------------------------------------------------------------------------------


PLAIN = {
    TRPO: {"critic_minibatches": 1},
    PPO: {"entropy_coefficient": 0.0},
    A2C: {"entropy_coefficient": 0.0},
}


def loss_gradient(agent, params, batch):
    """The negative gradient of the loss at the start of an update, policy part only."""
    return jax.tree.map(
        jnp.negative, jax.grad(lambda p: agent.loss(p, None, batch, Clock.start())[0])(params)
    )["params"]["actor"]


def actor_critic(kind, gae_lambda, **options):
    plain = {"num_envs": 4, "num_steps": 10, "discount": DISCOUNT, "normalize_advantages": False}
    more = PLAIN[kind]
    return tabular_agent(kind, MDP, gae_lambda=gae_lambda, **plain, **more, **options)


STATES = values.rollout_states(MDP, POLICY, 10).mean(0)
ACTOR_CRITIC = gradients.policy_gradient(MDP, POLICY, DISCOUNT, STATES).reshape(-1)
"""The infinite-horizon advantages over the states that a rollout with restarts visits."""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "gradient_of", "gae_lambda"),
    [
        (TRPO, surrogate_gradient, 0.9),
        (TRPO, surrogate_gradient, 0.0),
        (TRPO, surrogate_gradient, 1.0),
        (PPO, loss_gradient, 0.5),
        (A2C, loss_gradient, 1.0),
    ],
    ids=["TRPO", "one-step", "Monte Carlo", "PPO", "A2C"],
)
def test_gae_gradient_is_unbiased_with_exact_values(kind, gradient_of, gae_lambda):
    agent = actor_critic(kind, gae_lambda)
    found = estimates(agent, MDP, tabular_params(LOGITS, VALUE), gradient_of, BATCHES)
    assert agrees(found, ACTOR_CRITIC)
    assert not agrees(found, OF_RETURN / HORIZON)


def test_wrong_values_bias_the_gae_gradient_below_lambda_one():
    wrong = VALUE + np.array([1.0, -1.0, 0.5, 2.0, 0.0, -2.0])
    agent = actor_critic(TRPO, 0.0)
    found = estimates(agent, MDP, tabular_params(LOGITS, wrong), surrogate_gradient, BATCHES)
    assert not agrees(found, ACTOR_CRITIC)
    advantage = values.gae_advantage(MDP, POLICY, DISCOUNT, 0.0, wrong)
    centred = advantage - (POLICY * advantage).sum(-1, keepdims=True)
    assert agrees(found, (STATES[:, None] * POLICY * centred).reshape(-1))


def test_action_values_at_a_geometric_time_are_unbiased():
    """With P(T = t) proportional to discount^t, the mean of grad log pi(a | s_T) Q(s_T, a) is the
    exact gradient of the discounted return. With T = 0 it is not."""
    endless = garnet.make(num_states=6, num_actions=3, termination=0.1, seed=3)
    exact = gradients.policy_gradient(endless, POLICY, DISCOUNT).reshape(-1)
    q = values.action_value(endless, POLICY, DISCOUNT)
    played = play(endless, tabular(POLICY), num_envs=BATCHES, num_steps=40)
    time = np.random.default_rng(0).geometric(1.0 - DISCOUNT, BATCHES) - 1

    def scores(time):
        time, copy = np.minimum(time, 39), np.arange(BATCHES)  # discount^40 is below 1e-6
        state = played.obs[time, copy].argmax(-1)
        action, alive = played.action[time, copy], played.alive[time, copy]
        score = np.zeros((BATCHES, 6, 3))
        score[copy, state] = -POLICY[state]
        score[copy, state, action] += 1.0
        paid = alive * q[state, action] / (1.0 - DISCOUNT)
        return (paid[:, None, None] * score).reshape(BATCHES, -1)

    assert agrees(scores(time), exact)
    assert not agrees(scores(0 * time), exact)


def test_truncation_treated_as_termination_is_detected():
    class Mistaken(TRPO):
        def prepare(self, state, trajectory, clock):
            steps = trajectory.steps
            steps = steps.replace(terminated=steps.terminated | steps.truncated)
            return super().prepare(state, trajectory.replace(steps=steps), clock)

    agent = tabular_agent(
        Mistaken, MDP, num_envs=4, num_steps=10, discount=DISCOUNT, gae_lambda=0.9,
        normalize_advantages=False, critic_minibatches=1,
    )  # fmt: skip
    found = estimates(agent, MDP, tabular_params(LOGITS, VALUE), surrogate_gradient, BATCHES)
    assert not agrees(found, ACTOR_CRITIC)


# A linear-quadratic problem -----------------------------------------------------------------------

REGULATOR = lqr.make(max_steps=8, start_std=0.5)
GAIN, LOG_STD = np.array([[1.0, 1.5]]), np.array([-0.7])


class LinearGaussian(nn.Module):
    """u ~ N(-K x, exp(log_std)^2)."""

    @nn.compact
    def __call__(self, x, mask=None):
        gain = self.param("gain", nn.initializers.zeros_init(), (1, 2))
        log_std = self.param("log_std", nn.initializers.zeros_init(), (1,))
        mean = -x @ gain.T
        return DiagonalGaussian(mean, jnp.broadcast_to(log_std, mean.shape))


class Squares(nn.Module):
    """x1^2, x1 x2, x2^2: a quadratic value is linear in them."""

    @nn.compact
    def __call__(self, x):
        return jnp.stack([x[..., 0] ** 2, x[..., 0] * x[..., 1], x[..., 1] ** 2], axis=-1)


def linear_gaussian(kind, discount, **options):
    """An agent with a linear-Gaussian policy and the exact quadratic value, and its parameters."""
    value = lqr.policy_value(REGULATOR, GAIN, LOG_STD, discount)
    kernel = -np.array([value.P[0, 0], 2 * value.P[0, 1], value.P[1, 1]])
    critic = {"kernel": jnp.asarray(kernel, jnp.float32)[:, None], "bias": jnp.full(1, -value.c)}
    actor = {"gain": jnp.asarray(GAIN, jnp.float32), "log_std": jnp.asarray(LOG_STD, jnp.float32)}
    params = Networks({"params": {"actor": actor}}, {"params": {"critic_head": critic}})
    agent = kind(
        policy_network=LinearGaussian(), torso=Squares(), discount=discount,
        **({"num_envs": 4} | options),
    )  # fmt: skip
    return agent.bind(REGULATOR.spec), params


@pytest.mark.parametrize(
    ("kind", "gradient_of", "gae_lambda"),
    [
        (TRPO, surrogate_gradient, 0.8),
        (TRPO, surrogate_gradient, 0.0),
        (TRPO, surrogate_gradient, 1.0),
        (PPO, loss_gradient, 0.5),
        (A2C, loss_gradient, 1.0),
    ],
    ids=["TRPO", "one-step", "Monte Carlo", "PPO", "A2C"],
)
def test_linear_gaussian_gradient_is_unbiased(kind, gradient_of, gae_lambda):
    """With the exact quadratic value; the gradient of another discount does not match."""
    more = PLAIN[kind]
    agent, params = linear_gaussian(
        kind, 0.9, num_steps=12, gae_lambda=gae_lambda, normalize_advantages=False, **more
    )
    found = estimates(agent, REGULATOR, params, gradient_of, BATCHES)
    of_gain, of_std = lqr.policy_gradient(REGULATOR, GAIN, LOG_STD, 0.9, num_steps=12)
    assert agrees(found, np.concatenate([of_gain.reshape(-1), of_std]))
    of_gain, of_std = lqr.policy_gradient(REGULATOR, GAIN, LOG_STD, 0.7, num_steps=12)
    assert not agrees(found, np.concatenate([of_gain.reshape(-1), of_std]))


def expected_return(theta, discount):
    """Expected return of a regulator episode with gain `theta[:2]` and log_std `theta[2]`.

    Propagates the moments E[x x'] step by step in float64."""
    A, B, Q, R, noise, start = (np.asarray(x, np.float64) for x in jax.tree.leaves(REGULATOR))
    K, variance = theta[None, :2], np.exp(2.0 * theta[2:])
    moment, total = start**2 * np.eye(2), 0.0
    for t in range(REGULATOR.spec.max_steps):
        cost = np.trace((Q + K.T @ R @ K) @ moment) + (R * variance).sum()
        total -= discount**t * cost
        moment = (A - B @ K) @ moment @ (A - B @ K).T + noise**2 * np.eye(2) + variance * (B @ B.T)
    return total


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        {"credit": "return", "baseline": "none", "num_envs": 64},
        {"credit": "return", "baseline": "constant", "num_envs": 64},
        {"baseline": "time", "discount_states": True},
        {"baseline": "learned", "discount_states": True},
    ],
    ids=["whole return", "constant", "to go, by time", "to go, learned"],
)
def test_reinforce_ascends_the_return_of_a_regulator(options):
    """Against central differences of the exact expected return."""
    agent, params = linear_gaussian(REINFORCE, 0.8, num_steps=8, whole_episodes=True, **options)
    found = estimates(agent, REGULATOR, params, reinforce_gradient, BATCHES)
    theta = np.concatenate([GAIN.reshape(-1), LOG_STD])
    assert agrees(found, slope(lambda x: expected_return(x, 0.8), theta))
    assert not agrees(found, slope(lambda x: expected_return(x, 1.0), theta))


# Other policies, and invariance to the reward scale -----------------------------------------------


def test_shared_features_follow_the_chain_rule():
    """A softmax-linear policy on 4 features: the tabular gradient mapped through the features."""
    phi = np.random.default_rng(1).standard_normal((6, 3, 4))
    theta = np.random.default_rng(2).standard_normal(4)
    policy = values.softmax(phi @ theta)
    network = SoftmaxLinear(
        lambda obs: jnp.einsum("...s,sak->...ak", obs, jnp.asarray(phi, jnp.float32))
    )
    agent = REINFORCE(
        policy_network=network, **WHOLE, credit="return", baseline="constant"
    ).bind(MDP.spec)  # fmt: skip
    params = agent.init(KEY).params
    params.actor["params"]["actor"]["theta"] = jnp.asarray(theta, jnp.float32)
    found = estimates(agent, MDP, params, reinforce_gradient, BATCHES)
    exact = gradients.finite_horizon_gradient(MDP, policy, DISCOUNT, HORIZON)
    assert agrees(found, gradients.through(exact, phi))


def test_scorer_uses_one_network_for_all_actions():
    """Actions that look alike get equal logits; masks apply."""
    module = Scorer(num_actions=3)
    obs = jax.random.normal(KEY, (5, 2))
    params = module.init(KEY, obs)
    mask = jnp.array([True, False, True])
    logits = module.apply(params, obs).logits
    masked = module.apply(params, obs, jnp.broadcast_to(mask, (5, 3)))
    assert logits.shape == (5, 3)
    assert (masked.log_prob(jnp.full(5, 1)) < -1e20).all()
    own = Scorer(3, MLP((4,))).init(KEY, obs)["params"]["torso"]["Dense_0"]["kernel"]
    assert own.shape == (2 + 3, 4)
    first = params["params"]["MLP_0"]["Dense_0"]["kernel"]
    assert first.shape == (2 + 3, 64)  # the action enters the network beside the observation
    same = first.at[3].set(first[2])  # actions 0 and 1 look alike
    params["params"]["MLP_0"]["Dense_0"]["kernel"] = same
    logits = module.apply(params, obs).logits
    np.testing.assert_allclose(logits[:, 0], logits[:, 1], rtol=1e-5, atol=1e-6)
    assert np.abs(logits[:, 0] - logits[:, 2]).min() > 1e-6


@pytest.mark.thorough
@pytest.mark.parametrize("standardize", ["returns", "advantages"])
def test_standardised_gradients_are_invariant_to_the_reward_scale(standardize):
    """Rewards -1 / +1 and +4 / +5 in episodes of equal length: equal gradients, if standardised."""
    mdp = garnet.make(num_states=6, num_actions=3, max_steps=HORIZON, seed=3)
    scaled = mdp.replace(reward=0.5 * mdp.reward + 4.5)
    baseline = "none" if standardize == "returns" else "time"

    def gradient(env, standardize):
        options = {"credit": "return", "baseline": baseline, "standardize": standardize}
        agent = tabular_agent(REINFORCE, env, **(WHOLE | {"discount": 1.0} | options))
        return estimates(agent, env, tabular_params(LOGITS, VALUE), reinforce_gradient, 4)

    np.testing.assert_allclose(
        gradient(mdp, standardize), gradient(scaled, standardize), rtol=1e-3, atol=1e-3
    )
    if standardize == "returns":
        plain = gradient(mdp, "none"), gradient(scaled, "none")
        assert np.abs(plain[0] - plain[1]).max() > 0.1 * np.abs(plain[0]).max()


# Exact trust regions ------------------------------------------------------------------------------


def test_performance_difference_lemma_and_trust_region_bound():
    """For steps along the exact natural gradient; a tiny step has a bound above the old value."""
    direction = gradients.natural_gradient(MDP, POLICY, DISCOUNT)
    for step in (1e-3, 1e-2, 0.1, 1.0):
        new = values.softmax(LOGITS + step * direction)
        gain = values.objective(MDP, new, DISCOUNT) - values.objective(MDP, POLICY, DISCOUNT)
        lemma = gradients.performance_difference(MDP, new, POLICY, DISCOUNT)
        np.testing.assert_allclose(lemma, gain, rtol=1e-9, atol=1e-12)
        for kl in (False, True):
            bound = gradients.trust_region_bound(MDP, new, POLICY, DISCOUNT, kl=kl)
            assert bound <= values.objective(MDP, new, DISCOUNT) + 1e-12
    tiny = values.softmax(LOGITS + 1e-3 * direction)
    assert gradients.trust_region_bound(MDP, tiny, POLICY, DISCOUNT) > values.objective(
        MDP, POLICY, DISCOUNT
    )


def test_trpo_direction_is_the_exact_natural_gradient():
    """CG with the Fisher product on all states and actions, against w(s) A(s, a) / w(s)."""
    agent = actor_critic(TRPO, 1.0, damping=0.0, cg_iterations=60, cg_tolerance=1e-7)
    states = np.repeat(np.arange(6), 3)
    actions = np.tile(np.arange(3), 6)
    advantage = values.advantage(MDP, POLICY, DISCOUNT)
    params = tabular_params(LOGITS, VALUE)
    obs = jnp.eye(6)[states]
    # Each pair once, weighted by its probability: the mean over rows is the expectation.
    weight = jnp.asarray(18 * POLICY[states, actions] / 6, jnp.float32)
    log_prob = jnp.log(jnp.asarray(POLICY[states, actions], jnp.float32))
    zeros = jnp.zeros(18)
    sample = Sample(
        obs, jnp.asarray(actions), log_prob,
        zeros, jnp.asarray(advantage[states, actions], jnp.float32) * weight, zeros,
    )  # fmt: skip
    batch = Trajectory(sample, jnp.zeros(18, bool))
    actor = params.actor
    agent = agent.replace(num_envs=18, num_steps=1)
    gradient = jax.grad(agent.surrogate)(actor, batch)
    solution, _ = agent.natural_gradient(actor, gradient, batch)
    found = np.asarray(solution.x["params"]["actor"]["theta"]).reshape(6, 3)
    centred = advantage - advantage.mean(-1, keepdims=True)
    np.testing.assert_allclose(found - found.mean(-1, keepdims=True), centred, rtol=2e-2, atol=2e-3)


def test_natural_steps_are_invariant_to_the_feature_basis():
    """Undamped NPG, solved to convergence: phi and phi B give the same change of the policy; the
    vanilla gradient does not."""
    rng = np.random.default_rng(5)
    phi = rng.standard_normal((6, 3, 4))
    basis = rng.standard_normal((4, 4)) + 2.0 * np.eye(4)
    rows = np.arange(6).repeat(3)
    obs, action = jnp.eye(6)[rows], jnp.asarray(np.tile(np.arange(3), 6))
    advantage, zeros = jnp.asarray(rng.standard_normal(18), jnp.float32), jnp.zeros(18)

    def steps(features, theta):
        """The change of the logits by NPG and by the gradient."""

        def table(obs):
            return jnp.einsum("...s,sak->...ak", obs, jnp.asarray(features, jnp.float32))

        agent = NPG(
            policy_network=SoftmaxLinear(table), torso=Identity(), num_envs=18, num_steps=1,
            damping=0.0, cg_iterations=30, cg_tolerance=1e-7, kl_radius=None, learning_rate=0.1,
            critic_minibatches=1,
        ).bind(MDP.spec)  # fmt: skip
        actor = {"params": {"actor": {"theta": jnp.asarray(theta, jnp.float32)}}}
        policy = agent.network.apply(actor, obs, method="policy")[0]
        sample = Sample(obs, action, policy.log_prob(action), zeros, advantage, zeros)
        batch = Trajectory(sample, jnp.zeros(18, bool))
        new, _ = jax.jit(agent.improve)(actor, batch, Clock.start())
        plain = jax.grad(agent.surrogate)(actor, batch)
        moves = (
            np.asarray(new["params"]["actor"]["theta"]) - theta,
            plain["params"]["actor"]["theta"],
        )
        return [features @ np.asarray(move, np.float64) for move in moves]

    theta = rng.standard_normal(4)
    natural, vanilla = steps(phi, theta)
    other_natural, other_vanilla = steps(phi @ basis, np.linalg.solve(basis, theta))
    scale = np.abs(natural).max()
    np.testing.assert_allclose(natural, other_natural, rtol=1e-2, atol=1e-2 * scale)
    assert np.abs(vanilla - other_vanilla).max() > 0.3 * np.abs(vanilla).max()


def test_tabular_features_are_one_hot_over_states_and_actions():
    phi = tabular_features(3, 2)(jnp.eye(3))
    assert phi.shape == (3, 2, 6)
    np.testing.assert_array_equal(phi.reshape(6, 6), np.eye(6))


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"credit": "return"}, "credit='return' needs whole episodes"),
        ({"baseline": "optimal", "whole_episodes": True}, "set credit='return'"),
        ({"baseline": "best"}, "baseline is 'best': use one of none, constant"),
        ({"baseline": "time", "num_envs": 1, "num_steps": 6, "whole_episodes": True}, "at least 2"),
        ({"whole_episodes": True, "num_steps": 5}, "num_steps is 5, but whole episodes need"),
        (
            {"credit": "return", "discount_states": True, "whole_episodes": True, "num_steps": 6},
            "already discounted from the start of the episode",
        ),
        ({"shared_torso": True}, "shared_torso is True: REINFORCE"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"policy_network": Scorer(3), "core": "gru"}, "policy_network is the whole policy"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        REINFORCE(**options).bind(MDP.spec)
