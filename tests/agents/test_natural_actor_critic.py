"""Episodic natural actor-critic: its regression against NumPy, exact advantages, and probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import BestActionByObservation, BestContinuousAction, MaskedChoice
from helpers.gradients import estimates, tabular_agent, tabular_params
from helpers.probes import learned, mode
from helpers.simulation import agrees

from jaxrl.agents import NPG, NaturalActorCritic
from jaxrl.agents.bases.learning import TrainState
from jaxrl.engine.rollout import rollout
from jaxrl.engine.train import train
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.errors import InvalidValue
from jaxrl.types import Clock
from jaxrl_envs.exact import garnet, values

KEY = jax.random.key(0)
DISCOUNT, HORIZON = 0.8, 12
MDP = garnet.make(num_states=4, num_actions=3, termination=0.7, max_steps=HORIZON, seed=3)
LOGITS = np.random.default_rng(0).standard_normal((4, 3))
POLICY = values.softmax(LOGITS)
ADVANTAGE = values.advantage(MDP, POLICY, DISCOUNT)
EXACT = {
    "damping": 0.0,
    "kl_radius": None,
    "cg_tolerance": 0.0,
    "cg_iterations": 12,
    "discount": DISCOUNT,
    "num_steps": HORIZON,
}


def tabular_nac(**options):
    return tabular_agent(NaturalActorCritic, MDP, **(EXACT | options))


def weights(agent, params, batch):
    return agent.natural_gradient(params, batch).x


def scores(obs, action):
    """grad log pi(a | s) by the table of logits, `[..., S * A]`."""
    state = np.argmax(obs, axis=-1)
    chosen = np.eye(3)[action] - POLICY[state]
    table = np.eye(4)[state][..., :, None] * chosen[..., None, :]
    return table.reshape(*table.shape[:-2], 12)


# The regression -----------------------------------------------------------------------------------


def test_the_weights_solve_the_regression():
    """With an intercept, one row for each episode, steps weighted by discount^t."""
    agent = tabular_nac(num_envs=40)
    params = tabular_params(LOGITS, np.zeros(4))
    envs, state = VectorEnv(MDP, 40), TrainState(params.actor, ())

    def policy(carry, obs, key):
        return agent.act(state, carry, obs, key, Clock.start(), explore=True)

    @jax.jit
    def run(start, key):
        _, _, trajectory, _ = rollout(policy, envs, envs.reset(start), (), (), key, HORIZON)
        batch = agent.prepare(state, trajectory, Clock.start())
        return weights(agent, params.actor, batch), trajectory.steps

    found, steps = jax.tree.map(np.asarray, run(*jax.random.split(KEY)))
    done = steps.terminated | steps.truncated
    psi, returns = np.zeros((40, 12)), np.zeros(40)
    for n in range(40):
        for t in range(HORIZON):
            psi[n] += DISCOUNT**t * scores(steps.obs[t, n], steps.action[t, n])
            returns[n] += DISCOUNT**t * steps.reward[t, n]
            if done[t, n]:
                break
    with_intercept = np.concatenate([psi, np.ones((40, 1))], axis=1)
    solution = np.linalg.lstsq(with_intercept, returns, rcond=1e-8)[0]
    w = found["params"]["actor"]["theta"]
    intercept = (returns - psi @ w).mean()
    np.testing.assert_allclose(psi @ w + intercept, with_intercept @ solution, atol=2e-4)
    # The fit is not exact, so that another regression would differ.
    assert np.abs(with_intercept @ solution - returns).max() > 0.01


def compatible(w):
    """The compatible function of weights `[B, S * A]`: sum_b w(s, b) (1{a = b} - pi(b | s))."""
    table = np.asarray(w).reshape(-1, 4, 3)
    return table - (POLICY * table).sum(-1, keepdims=True)


def test_the_compatible_function_is_the_exact_advantage():
    """With tables any advantage is compatible, and the returns of episodes have no other slope."""
    agent, params = tabular_nac(num_envs=512), tabular_params(LOGITS, np.zeros(4))
    found = compatible(estimates(agent, MDP, params, weights, 64))
    assert agrees(found, ADVANTAGE)


def test_step_by_step_regression_is_npg_with_the_empirical_fisher_matrix():
    """Kakade (2001): F^-1 g are the weights of the compatible function fitted to advantages."""
    options = {"num_envs": 16, "num_steps": HORIZON, "discount": DISCOUNT, "critic_minibatches": 1}
    exact = {"damping": 0.0, "cg_tolerance": 0.0, "cg_iterations": 12, "fisher": "empirical"}
    agent = tabular_agent(NPG, MDP, **options, **exact, normalize_advantages=False)

    def direction_and_data(agent, params, batch):
        _, gradient = agent.surrogate_and_gradient(params.actor, batch)
        solution, _ = agent.natural_gradient(params.actor, gradient, batch)
        sample = batch.steps
        return {"w": solution.x, "x": (sample.obs, sample.action, sample.advantage)}

    found = estimates(agent, MDP, tabular_params(LOGITS, np.zeros(4)), direction_and_data, 1)[0]
    w, rest = found[:12], found[12:]
    rows = 16 * HORIZON
    obs, action, advantage = np.split(rest, [4 * rows, 5 * rows])
    psi = scores(obs.reshape(rows, 4), action.astype(int))
    wanted = np.linalg.lstsq(psi, advantage, rcond=1e-8)[0]
    np.testing.assert_allclose(psi @ w, psi @ wanted, atol=2e-4)


# Steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discount", [DISCOUNT, 1e-30])  # whose square is 0 in float32
def test_a_radius_scales_the_step_to_a_divergence_of_episodes(discount):
    """KL(old || new) of whole episodes, by their likelihood ratios, although scores are weighted.

    E[log p_old - log p_new] = E[r - 1 - log r] with r = p_new / p_old, which has less variance.
    """
    agent = tabular_nac(num_envs=4096, kl_radius=0.01, discount=discount)
    params = tabular_params(LOGITS, np.zeros(4))

    def divergence(agent, params, batch):
        state = TrainState(params, agent.init(KEY).optimizer)
        new = agent.update(state, batch, KEY, Clock.start()).state.params
        counts = batch.steps.counts.astype(jnp.float32)
        change = agent.log_prob(new, batch, counts) - agent.log_prob(params, batch, counts)
        return jnp.mean(jnp.expm1(change) - change)

    (found,) = estimates(agent, MDP, params, divergence, 1)
    np.testing.assert_allclose(found, 0.01, rtol=0.1)


def test_a_step_is_the_learning_rate_times_the_weights():
    agent = tabular_nac(num_envs=16, learning_rate=0.5)
    params = tabular_params(LOGITS, np.zeros(4))

    def difference(agent, params, batch):
        state = TrainState(params, agent.init(KEY).optimizer)
        new = agent.update(state, batch, KEY, Clock.start()).state.params
        step = jax.tree.map(lambda x, y: 2.0 * (x - y), new, params)
        return jax.tree.map(lambda x, y: x - y, step, weights(agent, params, batch))

    np.testing.assert_allclose(estimates(agent, MDP, params, difference, 1), 0, atol=1e-4)


# Probes and errors --------------------------------------------------------------------------------


def test_probe_action_by_observation():
    env = BestActionByObservation()
    agent = NaturalActorCritic(num_envs=64, num_steps=1, hidden_sizes=(8,))
    agent, state, _ = learned(agent, env, 20)
    assert mode(agent, state, [[-1.0], [1.0]]).tolist() == [0, 1]


@pytest.mark.thorough
def test_probe_continuous_action():
    env = BestContinuousAction()
    agent = NaturalActorCritic(num_envs=128, num_steps=1, hidden_sizes=(16,))
    agent, state, _ = learned(agent, env, 100)
    found = mode(agent, state, [[-1.0], [1.0]])
    assert found[0, 0] < found[1, 0] - 0.5


@pytest.mark.thorough
def test_masked_actions_are_never_chosen():
    env = MaskedChoice()
    agent = NaturalActorCritic(num_envs=16, num_steps=env.spec.max_steps or 1)
    _, metrics = train(agent, env, KEY, total_steps=16 * 20, num_evaluations=1)
    assert np.isfinite(metrics.training.updates["episode_return"].value).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 5}, "num_steps is 5, but whole episodes need"),
        ({"num_envs": 1}, "num_envs is 1, but a regression needs several episodes"),
        ({"core": "gru"}, "core is 'gru': NaturalActorCritic has a policy without memory"),
        ({"shared_torso": True}, "shared_torso is True: NaturalActorCritic has"),
    ],
)
def test_invalid_combinations_are_rejected(options, message):
    agent = NaturalActorCritic(**({"num_steps": HORIZON} | options))
    with pytest.raises(InvalidValue, match=message):
        agent.bind(MDP.spec)
