"""Learning from a teacher: losses against NumPy, held-out episodes, labels, probes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers.environments import (
    BestActionByObservation,
    BestContinuousAction,
    BestMixedAction,
    Counter,
    Recall,
)
from helpers.probes import cases, learned, mode
from jax.flatten_util import ravel_pytree

from jaxrl.agents import BehaviourCloning, DAgger
from jaxrl.engine.train import train
from jaxrl.errors import InvalidValue
from jaxrl.networks.layers import MLP
from jaxrl.networks.policies import MixturePolicy
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Box, Clock, Discrete, EnvSpec, Observed, Transition

KEY, CLOCK = jax.random.key(0), Clock.start()


def recorded(env, action, obs, episode=None):
    """Transitions of one step each."""
    num = len(obs)
    ends = jnp.ones(num, bool)
    return Transition(
        obs=obs, action=action, reward=jnp.zeros(num), terminated=ends, truncated=~ends,
        next_obs=obs, info={"episode": jnp.arange(num) if episode is None else episode},
    )  # fmt: skip


def signs(num=64):
    return jnp.where(jax.random.bernoulli(KEY, shape=(num, 1)), 1.0, -1.0)


def by_sign(obs):
    """The best action of `BestActionByObservation`."""
    return (obs[:, 0] > 0).astype(jnp.int32)


# Behaviour cloning --------------------------------------------------------------------------------


def test_the_loss_is_the_negative_log_likelihood():
    env = BestActionByObservation()
    agent = BehaviourCloning(held_out=0.0, optimizer="sgd", max_grad_norm=None).bind(env.spec)
    state, obs = agent.init(KEY), signs()
    data = recorded(env, by_sign(obs), obs)
    update = agent.update(state, data, KEY, CLOCK)
    logits = np.asarray(agent.policy(state.params, obs, ())[0].logits, np.float64)
    log_prob = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = -log_prob[np.arange(64), np.asarray(data.action)].mean()
    np.testing.assert_allclose(update.metrics["loss"].value, wanted, rtol=1e-6)

    def loss(params):
        return -agent.policy(params, obs, ())[0].log_prob(data.action).mean()

    step = ravel_pytree(update.state.params)[0] - ravel_pytree(state.params)[0]
    wanted = -agent.learning_rate * ravel_pytree(jax.grad(loss)(state.params))[0]
    np.testing.assert_allclose(step, wanted, atol=1e-7)


def test_held_out_episodes_are_not_learned_from_and_choose_the_parameters():
    env = BestActionByObservation()
    agent = BehaviourCloning(held_out=0.25, batch_size=64).bind(env.spec)
    obs, state = signs(1000), agent.init(KEY)
    data = recorded(env, by_sign(obs), obs)
    aside = np.asarray(agent.is_held_out(data))
    assert 0.24 < aside.mean() < 0.26
    rows = jax.tree.map(lambda x: x[aside], data)
    after = agent.update(state, rows, KEY, CLOCK).state
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    losses = -agent.policy(state.params, rows.obs, ())[0].log_prob(rows.action)
    np.testing.assert_allclose(after.held_out_loss, losses.sum(), rtol=1e-5)
    assert after.num_held_out == aside.sum()


def test_the_parameters_with_the_least_held_out_loss_are_deployed():
    agent = BehaviourCloning().bind(BestActionByObservation().spec)
    state = agent.init(KEY)
    for number, loss in enumerate([5.0, 3.0, 4.0, np.nan, None, 3.5]):
        params = jax.tree.map(lambda x, number=number: jnp.full_like(x, number), state.params)
        state = state.replace(
            params=params,
            held_out_loss=jnp.float32(0.0 if loss is None else 2 * loss),
            num_held_out=jnp.float32(0 if loss is None else 2),
        )
        state = agent.end_iteration(state, None, KEY, CLOCK).state
    assert {float(x) for x in ravel_pytree(state.best)[0]} == {1.0}
    assert state.best_loss == 3.0
    assert state.held_out_loss == state.num_held_out == 0.0


def test_without_held_out_rows_the_last_parameters_are_deployed():
    agent = BehaviourCloning(held_out=0.0).bind(BestActionByObservation().spec)
    state = agent.init(KEY)
    state = state.replace(params=jax.tree.map(lambda x: x + 1.0, state.params))
    new = agent.end_iteration(state, None, KEY, CLOCK).state
    jax.tree.map(np.testing.assert_array_equal, new.best, state.params)


TEACHERS = {
    "few": (BestActionByObservation(), by_sign, [[-1.0], [1.0]], [0, 1]),
    "box": (BestContinuousAction(), lambda obs: 0.5 * obs, [[-1.0], [1.0]], [[-0.5], [0.5]]),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_probe_cloning(name):
    env, teacher, questions, answers = TEACHERS[name]
    obs = signs(200)
    data = recorded(env, teacher(obs), obs)
    agent, state, _ = learned(BehaviourCloning(learning_rate=3e-3), env, 6, data=data)
    np.testing.assert_allclose(mode(agent, state, questions), answers, atol=0.05)


def test_probe_cloning_of_mixed_actions():
    env = BestMixedAction()
    obs = signs(200)
    pair = jnp.stack([by_sign(obs), jnp.full(200, 2)], axis=1)
    data = recorded(env, (by_sign(obs), 0.5 * obs, pair), obs)
    agent, state, _ = learned(BehaviourCloning(learning_rate=1e-2), env, 3, data=data)
    choice, position, pair = mode(agent, state, [[-1.0], [1.0]])
    assert choice.tolist() == [0, 1]
    np.testing.assert_allclose(position[:, 0], [-0.5, 0.5], atol=0.05)
    assert pair.tolist() == [[0, 2], [1, 2]]


def two_ways():
    """An expert that takes -0.5 or 0.5, whatever it sees."""
    obs = signs(400)
    action = jnp.where(jax.random.bernoulli(jax.random.key(1), 0.4, (400, 1)), 0.5, -0.5)
    return recorded(BestContinuousAction(), action, obs)


@pytest.mark.parametrize(("num_components", "wanted"), [(1, -0.1), (4, -0.5)])
def test_a_mixture_clones_one_of_two_ways(num_components, wanted):
    """The mean of both, which a single Gaussian learns, is neither."""
    agent = BehaviourCloning(num_components=num_components, learning_rate=3e-3, held_out=0.0)
    agent, state, _ = learned(agent, BestContinuousAction(), 10, data=two_ways())
    found = mode(agent, state, [[-1.0], [1.0]])
    np.testing.assert_allclose(found, [[wanted], [wanted]], atol=0.06)
    if num_components > 1:
        obs = jnp.ones((4000, 1))
        sample = agent.policy(state.agent.best, obs, ())[0].sample(KEY)
        np.testing.assert_allclose((sample > 0).mean(), 0.4, atol=0.05)
        np.testing.assert_allclose(jnp.abs(sample).mean(), 0.5, atol=0.05)


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        (Box.of(-3.0, 5.0, (2, 2)), [-2.0, 0.0, 2.0, 4.0]),
        (Box.of(-np.inf, np.inf, ()), [-0.75, -0.25, 0.25, 0.75]),
    ],
)
def test_the_gaussians_of_a_mixture_start_apart(box, wanted):
    """One in each quarter of each entry's range, or of [-1, 1] if it has no end."""
    spec = EnvSpec(BestContinuousAction().spec.observation, box)
    agent = BehaviourCloning(num_components=4).bind(spec)
    policy = agent.policy(agent.init(KEY).params, jnp.zeros((1, 1)), ())[0]
    means = np.sort(np.asarray(policy.mean)[0].reshape(4, -1), axis=0)
    np.testing.assert_allclose(means, np.repeat(np.array(wanted)[:, None], means.shape[1], 1))
    assert policy.log_prob(policy.mode()).shape == (1,)


@pytest.mark.parametrize(
    ("options", "env", "message"),
    [
        ({}, BestActionByObservation(), "num_components is 2, but the action space is Discrete"),
        (
            {"policy_network": MixturePolicy(MLP, BestContinuousAction().spec.action, 2)},
            BestContinuousAction(),
            "leave num_comp",
        ),
    ],
)
def test_mixtures_are_refused_by_name(options, env, message):
    with pytest.raises(InvalidValue, match=message):
        BehaviourCloning(num_components=2, **options).bind(env.spec)


# DAgger -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_mixture_acts_and_the_expert_labels_every_state(beta):
    agent = DAgger(expert=lambda obs: by_sign(obs) + 0, beta=beta).bind(
        BestActionByObservation().spec
    )
    state, raw = agent.init(KEY), signs(4000)
    obs = Observed(-raw, raw)  # the expert sees what the environment returned
    _, action, extras = agent.act(state, (), obs, KEY, CLOCK, explore=True)
    np.testing.assert_array_equal(extras["label"], by_sign(raw))
    own = agent.policy(state.params, -raw, ())[0].mode()
    differ = np.asarray(own != extras["label"])
    assert differ.any()
    share = np.mean(np.asarray(action == extras["label"])[differ])
    assert abs(share - beta) < 4 * np.sqrt(0.25 / differ.sum())
    greedy = agent.act(state, (), obs, KEY, CLOCK, explore=False)[1]
    np.testing.assert_array_equal(greedy, own)


def test_an_update_learns_the_labels_not_the_actions():
    env = BestActionByObservation()
    agent = DAgger(expert=by_sign).bind(env.spec)
    state, obs = agent.init(KEY), signs()
    label = by_sign(obs)
    rows = Replayed.once(recorded(env, 1 - label, obs))
    rows = rows.replace(obs=Observed(obs, obs), extras={"label": label})
    update = agent.update(state, rows, KEY, CLOCK)
    wanted = -agent.policy(state.params, obs, ())[0].log_prob(label).mean()
    np.testing.assert_allclose(update.metrics["loss"], wanted, rtol=1e-6)
    assert update.metrics["mistakes"] == np.mean(
        np.asarray(agent.policy(state.params, obs, ())[0].mode() != label)
    )
    after = -agent.policy(update.state.params, obs, ())[0].log_prob(label).mean()
    assert after < wanted


@pytest.mark.parametrize("name", cases(TEACHERS, "few"))
def test_probe_dagger(name):
    env, teacher, questions, answers = TEACHERS[name]
    agent = DAgger(expert=teacher, learning_rate=1e-2)
    agent, state, _ = learned(agent, env, 30, normalize_observations=True)
    clock = CLOCK
    stats = state.stats
    obs = jnp.asarray(questions)
    seen = Observed(stats.normalize_obs(obs), obs)
    found = agent.act(state.agent, (), seen, KEY, clock, explore=False)[1]
    np.testing.assert_allclose(found, answers, atol=0.05)


class Remembering(struct.PyTreeNode):
    """An expert on `Recall`: it keeps the cue in its recurrent state."""

    def initial_carry(self, num_envs):
        return jnp.zeros(num_envs)

    def act(self, obs, carry):
        cue = jnp.where(obs[:, 0] != 0, obs[:, 0], carry)
        return (cue > 0).astype(jnp.int32), cue


class Watched(DAgger):
    """Reports the mean reward of an episode."""

    def update(self, state, rows, key, clock):
        new = super().update(state, rows, key, clock)
        return new._replace(metrics={"reward": rows.reward.sum() / rows.terminated.sum()})


def test_the_expert_has_a_memory_of_its_own():
    """It would earn nothing on average if its recurrent state were not kept and reset."""
    agent = Watched(expert=Remembering(), beta=1.0, num_envs=16, num_steps=16, batch_size=256)
    _, _, metrics = learned(agent, Recall(), 8)
    assert float(metrics.training.updates["reward"].value[-1]) > 0.99


class Other:
    """A policy for another number of actions."""

    spec = dataclasses.replace(Counter().spec, action=Discrete(5))

    def __call__(self, obs):
        return by_sign(obs)


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (DAgger(), "expert is None: give a function"),
        (DAgger(expert=3), "expert is a int: give a function"),
        (DAgger(expert=lambda obs: obs), r"the expert gives float32\[2, 2\] for 2 observations"),
        (DAgger(expert=by_sign, n_step=3), "n_step is 3, but labels are of single steps"),
        (DAgger(expert=Other()), r"the expert's actions are Discrete\(num=5\)"),
        (DAgger(expert=lambda obs: obs["image"]), "the expert cannot act on observations"),
        (DAgger(expert=by_sign, core="gru"), "core is 'gru', but DAgger learns from single"),
    ],
)
def test_an_expert_that_does_not_fit_is_rejected(agent, message):
    with pytest.raises(InvalidValue, match=message):
        train(agent, Counter(), KEY, total_steps=10)


def test_data_without_episodes_is_rejected_only_where_they_are_needed():
    env, obs = BestActionByObservation(), signs(8)
    data = recorded(env, by_sign(obs), obs).replace(info={})
    with pytest.raises(InvalidValue, match="the data does not say to which episode"):
        train(BehaviourCloning(), env, KEY, total_steps=10, data=data)
    train(BehaviourCloning(held_out=0.0), env, KEY, total_steps=10, data=data)
