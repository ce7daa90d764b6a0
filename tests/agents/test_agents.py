"""The agent interface: small agents for each plan learn in the unchanged engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.agents.cross_entropy import CrossEntropy
from helpers.agents.fitted_q import FittedQ
from helpers.agents.masked import MaskedActorCritic
from helpers.agents.q_learning import QLearning
from helpers.agents.recurrent import RecurrentPolicyGradient
from helpers.agents.workers import Workers
from helpers.environments import BestActionByObservation, Chain, MaskedChoice, Recall

import jaxrl
from jaxrl.agent import Update
from jaxrl.engine.data import check_data
from jaxrl.engine.rollout import rollout
from jaxrl.engine.train import train
from jaxrl.engine.vector_env import VectorEnv
from jaxrl.types import Box, Discrete, EnvSpec, Mixed, MultiDiscrete, Transition, split_mask

KEY = jax.random.key(0)


def trained(agent, env, **options):
    """`train` as one program; without `jit`, each operation is compiled separately."""
    return jax.jit(lambda key: train(agent, env, key, **options))(KEY)


def final_return(metrics):
    return float(metrics.evaluation.returns[-1].mean())


def chain_values(discount, size=5):
    """Q* `[states, actions]` of the chain, by value iteration in NumPy (no time limit)."""
    q = np.zeros((size, 2))
    for _ in range(1000):
        for state in range(size - 1):
            for action in (0, 1):
                after = min(max(state + 2 * action - 1, 0), size - 1)
                q[state, action] = 1.0 if after == size - 1 else discount * q[after].max()
    return q


def all_chain_transitions(copies=3):
    """A data set with every state and action of the chain, `copies` times."""
    state, action = (x.reshape(-1) for x in np.meshgrid(np.arange(4), [0, 1], indexing="ij"))
    after = np.clip(state + 2 * action - 1, 0, 4)
    one_hot = np.eye(5, dtype=np.float32)
    data = Transition(
        obs=one_hot[state],
        action=action.astype(np.int32),
        reward=(after == 4).astype(np.float32),
        terminated=after == 4,
        truncated=np.zeros(8, bool),
        next_obs=one_hot[after],
    )
    return jax.tree.map(lambda x: jnp.concatenate([jnp.asarray(x)] * copies), data)


# Offline ------------------------------------------------------------------------------------------


def test_fitted_q_iteration_finds_the_exact_values():
    """k iterations on all transitions give the k-step optimal values; enough of them, Q*."""
    state, metrics = trained(
        FittedQ(discount=0.8), Chain(), total_steps=20, data=all_chain_transitions()
    )
    np.testing.assert_allclose(state.agent[:4], chain_values(0.8)[:4], rtol=1e-6)
    assert metrics.training.updates["change"].value[-1] == 0
    assert final_return(metrics) == 1.0
    assert np.isnan(metrics.training.episodes.returns.value).all()  # no training episodes
    one, _ = trained(FittedQ(discount=0.8), Chain(), total_steps=1, data=all_chain_transitions())
    np.testing.assert_array_equal(one.agent[:4], np.eye(4)[:, [3]] * [0.0, 1.0])


def test_fitted_q_iteration_converges_on_random_batches():
    state, _ = trained(
        FittedQ(discount=0.8, batch_size=16),
        Chain(),
        total_steps=200,
        data=all_chain_transitions(),
    )
    np.testing.assert_allclose(state.agent[:4], chain_values(0.8)[:4], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: {"reward": d.reward[:, None]},
            r"data.reward is float32\[8, 1\], but must be float32\[8\]",
        ),
        (lambda d: {"terminated": d.terminated[:, None]}, r"data.terminated is bool\[8, 1\]"),
        (lambda d: {"truncated": d.truncated[:4]}, r"data.truncated is bool\[4\]"),
        (lambda d: {"obs": d.obs[:, :2]}, r"data.obs is float32\[8, 2\]"),
        (lambda d: {"action": d.action + 1}, "data.action ranges from 1 to 2, .* from 0 to 1"),
        (lambda d: {"reward": jnp.float32(1.0)}, "not a Transition with leaves"),
    ],
    ids=["reward", "terminated", "truncated", "obs", "action", "no axis"],
)
def test_data_that_do_not_match_the_spec_are_rejected(change, message):
    data = all_chain_transitions(copies=1)
    with pytest.raises(ValueError, match=message):
        train(FittedQ(), Chain(), KEY, total_steps=1, data=data.replace(**change(data)))


def test_invalid_actions_are_rejected_in_every_space():
    box = Box.of(-1.0, 1.0, (2,))
    space = Mixed((Discrete(2), MultiDiscrete((3, 2)), box))
    spec = EnvSpec(jax.ShapeDtypeStruct((1,), jnp.float32), space, None)
    obs, flag = np.zeros((2, 1), np.float32), np.zeros(2, bool)

    def data(one=0, several=(0, 0), continuous=0.0):
        action = (
            np.array([0, one], np.int32),
            np.array([[0, 0], several], np.int32),
            np.array([[0.0, 0.0], [0.0, continuous]], np.float32),
        )
        return Transition(obs, action, np.zeros(2, np.float32), flag, flag, obs)

    check_data(spec, data(1, (2, 1), 3.0))  # the environment clips actions outside the box
    for wrong, message in (
        (data(one=-1), r"data.action\[0\] ranges from -1 to 0, .* from 0 to 1"),
        (data(several=(0, 2)), r"data.action\[1\]\[:, 1\] ranges from 0 to 2, .* from 0 to 1"),
        (data(continuous=np.nan), r"data.action\[2\] is not finite everywhere"),
    ):
        with pytest.raises(ValueError, match=message):
            check_data(spec, wrong)


def test_the_data_are_an_argument_not_a_constant():
    """Another data set of the same shape reuses the compiled program."""
    traces = []

    @jax.jit
    def run(data):
        traces.append(1)
        return train(FittedQ(), Chain(), KEY, total_steps=5, data=data)[0].agent

    data = all_chain_transitions()
    first = run(data)
    second = run(data.replace(reward=2 * data.reward))
    np.testing.assert_allclose(second, 2 * first, rtol=1e-6)
    assert len(traces) == 1


# Population ---------------------------------------------------------------------------------------


class SignedChoice(BestActionByObservation):
    """One step; a linear policy solves it."""


def test_cross_entropy_search_learns():
    _state, metrics = trained(
        CrossEntropy(episodes_per_candidate=4), SignedChoice(), total_steps=128 * 12
    )
    assert final_return(metrics) == 1.0
    assert metrics.training.updates["best"].value[-1] == 1.0
    assert metrics.training.episodes.count.sum() == 128 * 12


def test_each_candidate_plays_its_own_copies():
    """Copy n plays candidate n // episodes_per_candidate, as the returns in `update` show."""

    class Recorder(CrossEntropy):
        def update(self, state, batch, key, clock):
            return Update(state, {f"return_{i}": batch[i].mean() for i in range(3)})

        def init(self, key):
            state = super().init(key)
            weights = jnp.zeros((3, 2, 2)).at[1, 0].set(jnp.array([-1.0, 1.0]))  # sign of obs
            weights = weights.at[2, 0].set(jnp.array([1.0, -1.0]))  # the opposite
            return state.replace(candidates=weights.reshape(3, -1))

    agent = Recorder(population_size=3, episodes_per_candidate=50)
    _, metrics = trained(agent, SignedChoice(), total_steps=150, num_evaluations=0)
    means = {name: float(m.value[0]) for name, m in metrics.training.updates.items()}
    assert means["return_1"] == 1.0
    assert means["return_2"] == -1.0
    assert abs(means["return_0"]) < 0.6  # always action 0: random signs


# Replay -------------------------------------------------------------------------------------------


def test_replayed_q_learning_finds_the_exact_values():
    """Tabular and deterministic, so the fixed point is Q*; truncation is not termination."""
    state, metrics = trained(QLearning(discount=0.8), Chain(), total_steps=32 * 600)
    np.testing.assert_allclose(state.agent[:4], chain_values(0.8)[:4], atol=2e-3)
    assert final_return(metrics) == 1.0


def test_no_update_before_the_warmup():
    def errors(warmup):
        _, metrics = trained(QLearning(warmup=warmup), Chain(), total_steps=320, num_evaluations=10)
        return np.asarray(metrics.training.updates["error"].count)

    np.testing.assert_array_equal(errors(128), [0, 0, 0] + [8] * 7)
    np.testing.assert_array_equal(errors(1), [8] * 10)


# Masks, and updates within an episode -------------------------------------------------------------


def test_a_masked_actor_critic_learns_and_never_takes_a_forbidden_action():
    agent, env = MaskedActorCritic(), MaskedChoice()
    _state, metrics = trained(agent, env, total_steps=64 * 600, num_evaluations=3)
    returns = metrics.training.episodes.returns.value
    assert (returns >= 0).all()  # one forbidden action costs 100
    assert final_return(metrics) == 4.0
    assert metrics.training.episodes.lengths.value[0] == 4  # updates happen inside the episode


def test_loss_sees_the_mask_used_for_acting():
    """The loss sees the mask under which the action was chosen."""
    agent = MaskedActorCritic().bind(MaskedChoice().spec)
    state = agent.init(KEY)
    envs = VectorEnv(MaskedChoice(), 16)

    def policy(carry, obs, key):
        return agent.act(state, carry, obs, key, None, explore=True)

    _, _, trajectory, _ = rollout(policy, envs, envs.reset(KEY), (), (), KEY, 50)
    features, mask = split_mask(trajectory.steps.obs)
    taken = jnp.take_along_axis(mask, trajectory.steps.action[..., None], axis=-1)
    assert taken.all()
    assert (mask.sum(-1) == 2).all()

    # With zero parameters, each allowed action has probability 1/2: the gradient of log pi is
    # +-1/2 of the features at an allowed action, and 0 at a forbidden one.
    new = agent.update(state, trajectory, KEY, None).state
    steps = jax.tree.map(np.asarray, trajectory.steps)
    probability = np.where(mask, 0.5, 0.0)
    score = (np.arange(mask.shape[-1]) == steps.action[..., None]) - probability
    pull = (
        np.einsum("tn,tnf,tna->fa", steps.reward, np.asarray(features), score) / mask[..., 0].size
    )
    np.testing.assert_allclose(new.policy, agent.learning_rate * pull, rtol=1e-4, atol=1e-6)


# Memory -------------------------------------------------------------------------------------------


def test_recurrent_policy_gradient_solves_recall():
    agent = RecurrentPolicyGradient()
    _, metrics = trained(agent, Recall(delay=3), total_steps=32 * 16 * 80)
    assert final_return(metrics) == 1.0


def test_recall_is_unsolvable_without_memory():
    """The same agent fails when its carry is reset at every step."""

    class Forgetful(RecurrentPolicyGradient):
        def act(self, state, carry, obs, key, clock, *, explore):
            _, action, extras = super().act(
                state, jnp.zeros_like(carry), obs, key, clock, explore=explore
            )
            return carry, action, extras

    _, metrics = trained(Forgetful(), Recall(delay=3), total_steps=32 * 16 * 40)
    assert final_return(metrics) < 0.6


def test_unrolled_logits_equal_those_of_acting():
    """Logits of the unrolled trajectory equal those computed while acting."""
    agent = RecurrentPolicyGradient(num_envs=8, num_steps=12).bind(Recall().spec)
    state = agent.init(KEY)
    envs = VectorEnv(Recall(), 8)

    def policy(carry, obs, key):
        first = jnp.zeros((1, 8), bool)
        carry, policy = agent.network.apply(state.params, carry, obs[None], first)
        return carry, policy.sample(key)[0], policy.logits[0]

    carry = agent.initial_carry(8)
    _, _, trajectory, _ = rollout(policy, envs, envs.reset(KEY), carry, carry, KEY, 12)
    _, unrolled = agent.network.apply(
        state.params, trajectory.carry, trajectory.steps.obs, trajectory.first
    )
    np.testing.assert_allclose(unrolled.logits, trajectory.steps.extras, atol=1e-6)


# Workers ------------------------------------------------------------------------------------------


def test_workers_with_stale_parameters_learn():
    state, metrics = trained(
        Workers(), BestActionByObservation(), total_steps=128 * 60, num_evaluations=4
    )
    assert final_return(metrics) == 1.0
    assert (metrics.training.updates["staleness"].value > 0).all()  # the copies are stale
    assert state.agent.own.shape[0] == 4


# Size and public names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "agent", [CrossEntropy, FittedQ, MaskedActorCritic, QLearning, RecurrentPolicyGradient, Workers]
)
def test_example_agents_have_under_100_lines(agent):
    import inspect

    lines = inspect.getsource(inspect.getmodule(agent)).splitlines()
    assert len(lines) < 100


def test_public_names():
    """The main agents and functions are public, and every name in `__all__` resolves."""
    for name in jaxrl.__all__:
        getattr(jaxrl, name)
    wanted = {"PPO", "TRPO", "NPG", "REINFORCE", "A2C", "DQN", "SAC"}
    assert wanted <= set(jaxrl.agents.__all__)
    assert {"train", "fit", "evaluate", "sweep"} <= set(jaxrl.__all__)
