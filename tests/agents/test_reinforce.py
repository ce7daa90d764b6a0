"""REINFORCE: probe environments in every mode, and properties of its parts.

The expectation of its gradient is tested in `test_policy_gradients.py`.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import (
    BestActionByObservation,
    BestMixedAction,
    Endless,
    MaskedChoice,
    Recall,
)
from helpers.gradients import (
    estimates,
    reinforce_gradient,
    tabular_agent,
    tabular_params,
)
from helpers.probes import KEY, learned, mode, value

from jaxrl import wrappers
from jaxrl.agents import REINFORCE
from jaxrl.engine.rollout import rollout
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.types import Clock
from jaxrl_envs.exact import garnet

FAST = REINFORCE(
    num_envs=64, num_steps=16, hidden_sizes=(16,), learning_rate=2e-2, critic_learning_rate=1e-2
)
WHOLE = {"whole_episodes": True, "num_steps": 20}


@pytest.mark.parametrize(
    "options",
    [
        {},
        WHOLE | {"baseline": "optimal", "credit": "return"},
        *(
            pytest.param(options, marks=pytest.mark.thorough)
            for options in (
                {"standardize": "advantages"},
                WHOLE | {"baseline": "none"},
                WHOLE | {"baseline": "constant", "standardize": "advantages"},
                WHOLE | {"baseline": "time", "standardize": "returns"},
                WHOLE | {"discount_states": True},
            )
        ),
    ],
    ids=lambda options: options.get("baseline", "learned"),
)
def test_probe_action_by_observation(options):
    agent, state, _ = learned(FAST.replace(**options), BestActionByObservation(), 40)
    np.testing.assert_array_equal(mode(agent, state, [[-1.0], [1.0]]), [0, 1])


@pytest.mark.thorough
def test_probe_masks():
    _, _, metrics = learned(FAST, MaskedChoice(), 60)
    assert metrics.evaluation.returns.mean() >= 3.5


@pytest.mark.thorough
def test_probe_mixed_action():
    agent, state, _ = learned(FAST, BestMixedAction(), 200)
    choice, position, pair = mode(agent, state, [[-1.0], [1.0]])
    np.testing.assert_array_equal(choice, [0, 1])
    np.testing.assert_allclose(position[:, 0], [-0.5, 0.5], atol=0.2)
    np.testing.assert_array_equal(pair, [[0, 2], [1, 2]])


@pytest.mark.thorough
def test_probe_memory():
    _, _, metrics = learned(FAST.replace(core="gru", core_size=16), Recall(delay=3), 150)
    assert metrics.evaluation.returns.mean() == 1.0


def test_probe_truncation_is_not_termination():
    """One endless state truncated every 5 steps: the value is 1 / (1 - 0.8) = 5."""
    agent, state, _ = learned(FAST.replace(discount=0.8), Endless(limit=5), 100)
    np.testing.assert_allclose(value(agent, state, [[1.0]]), [5.0], atol=0.1)


@pytest.mark.thorough
def test_entropy_bonus_keeps_the_policy_random():
    env = BestActionByObservation()
    entropies = [
        learned(FAST.replace(entropy_coefficient=c), env, 40)[2]
        .training.updates["entropy"]
        .value[-1]
        for c in (0.0, 100.0)
    ]
    assert entropies[0] < 0.5 < 0.65 < entropies[1]


def whole_batch(agent, env):
    """A prepared batch of a fresh agent: one iteration's rollout from fresh starts."""
    agent = agent.bind(env.spec)
    envs = VectorEnv(env, agent.num_envs)

    @jax.jit
    def run(key):
        state = agent.init(key)

        def policy(carry, obs, key):
            return agent.act(state, carry, obs, key, Clock.start(), explore=True)

        _, _, trajectory, _ = rollout(policy, envs, envs.reset(key), (), (), key, agent.num_steps)
        return state, agent.prepare(state, trajectory, Clock.start())

    return agent, *run(KEY)


def test_only_the_first_episode_of_a_copy_counts():
    """Episodes of 5 steps in a rollout of 12: later steps affect neither policy nor critic."""
    agent = REINFORCE(
        num_envs=4, num_steps=12, whole_episodes=True, critic_epochs=1, hidden_sizes=(4,)
    )
    agent, state, batch = whole_batch(agent, Endless(limit=5))
    counts = np.broadcast_to(np.arange(12)[:, None] < 5, (12, 4))
    np.testing.assert_array_equal(batch.steps.sample.valid, counts)
    np.testing.assert_array_equal(batch.steps.weight, 12.0 * counts)
    sample = batch.steps.sample
    poisoned = sample.replace(
        target=jnp.where(counts, sample.target, 1e3),
        advantage=jnp.where(counts, sample.advantage, 1e3),
    )
    update = jax.jit(agent.update)
    clean = update(state, batch, KEY, Clock.start())[0].params
    other = batch.replace(steps=batch.steps.replace(sample=poisoned))
    jax.tree.map(
        np.testing.assert_array_equal, clean, update(state, other, KEY, Clock.start())[0].params
    )


@pytest.mark.parametrize("standardize", ["returns", "advantages"])
def test_equal_returns_standardise_to_zero(standardize):
    """Every step pays 0.3: the standardised value is 0, not amplified rounding error."""
    agent = REINFORCE(
        num_envs=8, num_steps=7, whole_episodes=True, credit="return", baseline="none",
        standardize=standardize, discount=1.0,
    )  # fmt: skip
    env = wrappers.ScaleReward(Endless(limit=7), 0.3)
    _, _, batch = whole_batch(agent, env)
    np.testing.assert_array_equal(batch.steps.sample.advantage, 0.0)


@pytest.mark.thorough
def test_constant_and_optimal_baselines_reduce_the_variance():
    """Total variance of the gradient over 64 episodes with rewards far from 0."""
    mdp = garnet.make(num_states=6, num_actions=3, max_steps=4, seed=3)
    mdp = mdp.replace(reward=mdp.reward + 2.0)
    logits = np.random.default_rng(0).standard_normal((6, 3))
    variance = {}
    for baseline in ("none", "constant", "optimal"):
        agent = tabular_agent(
            REINFORCE, mdp, num_envs=64, num_steps=4, whole_episodes=True, discount=0.9,
            credit="return", baseline=baseline,
        )  # fmt: skip
        params = tabular_params(logits, np.zeros(6))
        variance[baseline] = estimates(agent, mdp, params, reinforce_gradient, 1024).var(0).sum()
    assert variance["none"] > 3.0 * variance["constant"], variance
    assert variance["constant"] > 0.95 * variance["optimal"], variance


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "none"}, "baseline='none' needs whole episodes: set whole_episodes"),
        ({"baseline": "constant"}, "baseline='constant' needs whole episodes"),
        ({"credit": "return"}, "credit='return' needs whole episodes"),
        (
            {"whole_episodes": True, "credit": "return", "baseline": "optimal",
             "standardize": "advantages"},
            "standardize='advantages' needs the baseline before",
        ),
    ],
)  # fmt: skip
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        REINFORCE(**options).bind(Endless(limit=5).spec)


@pytest.mark.parametrize("longest", [1, 5])
def test_standardising_equal_samples_is_rejected(longest):
    """Rejects exactly the options under which one copy's samples are equal for any rewards."""
    rng = np.random.default_rng(0)
    for credit, baseline, standardize, num_envs in itertools.product(
        ("return", "reward_to_go"), ("none", "learned"), ("returns", "advantages"), (1, 2)
    ):
        agent = REINFORCE(
            num_envs=num_envs, num_steps=longest, whole_episodes=True, credit=credit,
            baseline=baseline, standardize=standardize,
        )  # fmt: skip
        rewards, values = rng.standard_normal((2, longest, num_envs))
        returns = np.cumsum(rewards[::-1], axis=0)[::-1]
        returns = (
            returns if credit == "reward_to_go" else np.broadcast_to(returns[:1], values.shape)
        )
        learned = baseline == "learned" and standardize == "advantages"
        says_nothing = np.ptp(returns - (values if learned else 0.0)) == 0.0
        if says_nothing:
            with pytest.raises(ValueError, match=r"standardize='.*' with num_envs=1 standardises"):
                agent.bind(Endless(limit=longest).spec)
        else:
            agent.bind(Endless(limit=longest).spec)
    one_step = REINFORCE(num_envs=1, num_steps=1, standardize="advantages")
    with pytest.raises(ValueError, match="num_envs=1 standardises a single step, which always"):
        one_step.bind(Endless(limit=longest).spec)
