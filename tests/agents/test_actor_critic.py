"""Actor-critic base classes: acting, values at episode ends, values in blocks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers.environments import Chain

from jaxrl.agents import PPO
from jaxrl.agents.bases.actor_critic import ActorCriticAgent
from jaxrl.engine.training import Training
from jaxrl.estimators import gae
from jaxrl.types import Box, Clock, Discrete, EnvSpec, Masked, Trajectory, Transition
from jaxrl.xla import blocks, layout
from jaxrl.xla.blocks import map_blocks

KEY = jax.random.key(0)
CORES = ["none", "gru", "lstm"]
SPEC = EnvSpec(
    Masked(
        {"a": jax.ShapeDtypeStruct((3,), jnp.float32), "b": jax.ShapeDtypeStruct((), jnp.int32)},
        jax.ShapeDtypeStruct((4,), jnp.bool_),
    ),
    Discrete(4),
)


class State(struct.PyTreeNode):
    params: dict


def build(core="none", shared=False, **options):
    """An agent and fully random parameters (an initialisation would have zero biases)."""
    options = {"hidden_sizes": (8,), "core_size": 5} | options
    agent = ActorCriticAgent(core=core, shared_torso=shared, **options).bind(SPEC)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(0.7 * rng.standard_normal(x.shape), x.dtype),
        jax.eval_shape(agent.init_params, KEY),
    )
    return agent, params


def observations(*leading, seed=1):
    rng = np.random.default_rng(seed)
    mask = rng.random((*leading, 4)) < 0.5
    mask[..., 2] = True
    return Masked(
        {
            "a": jnp.asarray(rng.standard_normal((*leading, 3)), jnp.float32),
            "b": jnp.asarray(rng.integers(0, 3, leading), jnp.int32),
        },
        jnp.asarray(mask),
    )


def carry_of(agent, num_envs, seed=2):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), agent.initial_carry(num_envs)
    )


def trajectory_of(agent, num_steps, num_envs, ends=0.3):
    """Terminations and truncations: at the last step, in consecutive steps and both at once."""
    rng = np.random.default_rng(3)
    terminated, truncated = (rng.random((2, num_steps, num_envs)) < ends / 2).copy()
    terminated[:, 0], truncated[:, 0] = False, False  # a copy without an episode end
    terminated[-1, :4], truncated[-1, :4] = [False, True, False, True], [False, False, True, True]
    terminated[2, 3], truncated[2, 3] = True, True
    truncated[3:5, 2], terminated[3:5, 2] = True, False
    done = terminated | truncated
    obs, elsewhere = (
        observations(num_steps + 1, num_envs),
        observations(num_steps, num_envs, seed=4),
    )

    def next_leaf(following, end):
        shape = done.shape + (1,) * (following.ndim - 2)
        return jnp.where(done.reshape(shape), end, following)

    next_obs = jax.tree.map(next_leaf, jax.tree.map(lambda x: x[1:], obs), elsewhere)
    steps = Transition(
        obs=jax.tree.map(lambda x: x[:-1], obs),
        action=jnp.zeros(done.shape, jnp.int32),
        reward=jnp.asarray(rng.standard_normal(done.shape), jnp.float32),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        next_obs=next_obs,
        extras={"log_prob": jnp.zeros(done.shape)},
    )
    first = np.concatenate([rng.random((1, num_envs)) < 0.5, done[:-1]])
    return Trajectory(steps, jnp.asarray(first), carry_of(agent, num_envs))


def slow_values(agent, params, trajectory):
    """V(obs) and V(next_obs), one copy and step at a time, evaluating every next observation.

    The critic's memory carries over from obs to next_obs and is reset where an episode begins.
    """
    steps, first = trajectory.steps, trajectory.first
    values, next_values = np.zeros(first.shape), np.zeros(first.shape)

    @jax.jit
    def look(obs, carry):
        one = jax.tree.map(lambda x: x[None, None], obs)
        carry = jax.tree.map(lambda x: x[None], carry)
        value, after = agent.network.apply(
            params, one, carry, jnp.zeros((1, 1), bool), method="value"
        )
        return value[0, 0], jax.tree.map(lambda x: x[0, 0], after)

    def at(tree, *index):
        return jax.tree.map(lambda x: x[index], tree)

    for n in range(first.shape[1]):
        carry = at(trajectory.carry, n)
        for t in range(first.shape[0]):
            if first[t, n]:
                carry = jax.tree.map(jnp.zeros_like, carry)
            values[t, n], after = look(at(steps.obs, t, n), carry)
            if agent.core != "none":  # a separate critic returns only its own carry
                carry = after if agent.shared_torso else (carry[0], after)
            if not steps.terminated[t, n]:
                next_values[t, n], _ = look(at(steps.next_obs, t, n), carry)
    return values, next_values


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("shared", [False, True])
def test_values_equal_a_step_by_step_reference(core, shared):
    """With truncations and terminations, mid-rollout and at its end; a core keeps its memory."""
    agent, params = build(core, shared)
    trajectory = trajectory_of(agent, num_steps=8, num_envs=5)
    values, next_values = jax.jit(agent.values)(params, trajectory)
    slow, slow_next = slow_values(agent, params, trajectory)
    np.testing.assert_allclose(values, slow, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(next_values, slow_next, rtol=1e-4, atol=1e-5)
    assert values.dtype == next_values.dtype == jnp.float32
    truncated = np.asarray(trajectory.steps.truncated & ~trajectory.steps.terminated)
    wrong = np.asarray(values)[1:][truncated[:-1]]  # V of the next episode's start
    assert np.abs(wrong - slow_next[:-1][truncated[:-1]]).min() > 1e-3


@pytest.mark.parametrize("core", ["none", "gru"])
def test_only_needed_next_observations_are_read(core):
    """Those after a termination may be NaN; mid-episode, the following `obs` is used."""
    agent, params = build(core)
    trajectory = trajectory_of(agent, num_steps=8, num_envs=5)
    steps = trajectory.steps
    needed = np.array(steps.truncated & ~steps.terminated)
    needed[-1] |= ~np.asarray(steps.terminated[-1])
    numbers = jnp.where(needed[..., None], steps.next_obs.obs["a"], jnp.nan)
    poisoned = steps.next_obs._replace(obs=steps.next_obs.obs | {"a": numbers})
    run = jax.jit(agent.values)
    other = trajectory.replace(steps=steps.replace(next_obs=poisoned))
    for x, y in zip(run(params, other), run(params, trajectory), strict=True):
        np.testing.assert_array_equal(x, y)


def test_values_under_vmap_keep_the_cond():
    """Under two nested vmaps, the `cond` remains and each lane has the values it has alone."""
    agent, params = build()
    trajectory = trajectory_of(agent, num_steps=8, num_envs=5)
    nowhere = jnp.zeros((8, 5), jnp.bool_)
    uncut = trajectory.replace(steps=trajectory.steps.replace(truncated=nowhere))
    lanes = jax.tree.map(lambda x, y: jnp.stack([x, y])[None], trajectory, uncut)
    values = jax.vmap(jax.vmap(functools.partial(agent.values, params)))
    assert "cond[" in str(jax.make_jaxpr(values)(lanes))
    together = jax.jit(values)(lanes)
    for lane, alone in enumerate([trajectory, uncut]):
        for x, y in zip(together, jax.jit(agent.values)(params, alone), strict=True):
            np.testing.assert_allclose(x[0, lane], y, rtol=1e-5, atol=1e-6)


def test_advantages_bootstrap_from_reference_values():
    agent, params = build(discount=0.9, gae_lambda=0.8)
    trajectory = trajectory_of(agent, num_steps=8, num_envs=5)
    steps = trajectory.steps
    sample = jax.jit(agent.prepare)(State(params), trajectory, Clock.start()).steps
    values, next_values = (jnp.float32(x) for x in slow_values(agent, params, trajectory))
    advantages = gae(steps.reward, values, next_values, steps.terminated, steps.truncated, 0.9, 0.8)
    np.testing.assert_allclose(sample.advantage, advantages, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sample.value, values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sample.target, advantages + values, rtol=1e-4, atol=1e-5)


# Blocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("core", ["none", "lstm"])
def test_values_in_blocks_equal_values_at_once(core, monkeypatch):
    """16,800 rows in blocks of 3 of the 24 steps; some blocks have truncations and some do not."""
    monkeypatch.setattr(layout, "is_cpu", lambda: True)  # accelerators use no blocks
    agent, params = build(core)
    trajectory = trajectory_of(agent, num_steps=24, num_envs=700, ends=0.0)
    assert 0 < trajectory.steps.truncated.any(axis=1).reshape(8, 3).any(axis=1).sum() < 8
    blocked = jax.jit(lambda p, x: agent.values(p, x))
    block = "<3x700x8x" if core == "none" else "<1x2100x8x"  # hidden layer, three steps
    assert block in blocked.lower(params, trajectory).as_text()
    in_blocks = blocked(params, trajectory)
    monkeypatch.setattr(blocks, "ROWS_OF_A_BLOCK", 10**9)
    at_once = jax.jit(lambda p, x: agent.values(p, x))(params, trajectory)
    for x, y in zip(in_blocks, at_once, strict=True):
        assert x.shape == (24, 700)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("num_steps", "num_envs", "block"),
    [
        (16, 1024, 16),  # 16,384 rows: one block
        (24, 700, 3),  # the fewest steps that divide 24 and make 2048 rows
        (32, 2048, 1),
        (4, 100_000, 1),
        (17, 1024, 17),  # 17 is prime: no smaller block has 2048 rows
        (100_000, 1, 2500),
    ],
)
@pytest.mark.parametrize("is_cpu", [True, False])
def test_blocks_are_whole_steps_in_order(num_steps, num_envs, block, is_cpu, monkeypatch):
    monkeypatch.setattr(layout, "is_cpu", lambda: is_cpu)
    seen = []

    def f(xs):
        a, b = xs
        seen.append(a.shape[:2])
        return a[..., 0] + b

    x = jnp.arange(num_steps * num_envs, dtype=jnp.float32).reshape(num_steps, num_envs)
    y = map_blocks(f, (x[..., None], 2 * x))
    np.testing.assert_array_equal(y, 3 * x)
    assert set(seen) == {(block if is_cpu else num_steps, num_envs)}


# Acting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("shared", [False, True])
def test_greedy_actions_are_modes_for_any_number_of_environments(core, shared):
    """Each row equals the result for that environment alone, regardless of the key."""
    agent, params = build(core, shared)
    obs, carry = observations(33), carry_of(agent, 33)

    @jax.jit
    def act(obs, carry, key):
        return agent.act(State(params), carry, obs, key, Clock.start(), explore=False)

    many = act(obs, carry, KEY)
    for rows in (slice(0, 1), slice(7, 12)):
        few = act(*jax.tree.map(lambda x: x[rows], (obs, carry)), jax.random.key(9))  # noqa: B023
        for x, y in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
            np.testing.assert_allclose(x, y[rows], rtol=1e-5, atol=1e-6)

    network, first = agent.network, jnp.zeros((1, 33), bool)
    one_step = jax.tree.map(lambda x: x[None], obs)
    policy, _, carries = jax.jit(network.apply)(params, one_step, carry, first)
    after, action, extras = many
    np.testing.assert_array_equal(action, policy.mode()[0])
    assert np.take_along_axis(np.asarray(obs.action_mask), np.asarray(action)[:, None], 1).all()
    log_prob = policy.log_prob(policy.mode())[0]
    np.testing.assert_allclose(extras["log_prob"], log_prob, rtol=1e-5)
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(carries), strict=True):
        np.testing.assert_allclose(x, y[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("core", CORES)
def test_acting_step_by_step_matches_the_unroll(core):
    """Otherwise the first importance ratio would not be 1."""
    agent, params = build(core)
    trajectory = trajectory_of(agent, num_steps=8, num_envs=5)
    obs, first = trajectory.steps.obs, trajectory.first

    @jax.jit
    def act(obs, carry, key):
        return agent.act(State(params), carry, obs, key, Clock.start(), explore=True)

    carry, actions, log_probs = trajectory.carry, [], []
    for t in range(8):
        carry = jax.tree.map(lambda x: jnp.where(first[t][:, None], 0.0, x), carry)  # noqa: B023
        here = jax.tree.map(lambda x: x[t], obs)  # noqa: B023
        carry, action, extras = act(here, carry, jax.random.fold_in(KEY, t))
        actions.append(action)
        log_probs.append(extras["log_prob"])
        assert np.take_along_axis(
            np.asarray(here.action_mask), np.asarray(action)[:, None], 1
        ).all()
    actions = jnp.stack(actions)
    policy, _, _ = jax.jit(agent.network.apply)(params, obs, trajectory.carry, first)
    np.testing.assert_allclose(policy.log_prob(actions), jnp.stack(log_probs), rtol=1e-4, atol=1e-5)
    assert len(np.unique(actions)) > 1


def test_exploring_samples_the_policy():
    """Frequencies in one state match the probabilities; another key gives other actions."""
    agent, params = build()
    num = 4000
    obs = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), observations(seed=5))
    state, clock = State(params), Clock.start()
    act = jax.jit(lambda key: agent.act(state, (), obs, key, clock, explore=True))
    _, action, extras = act(KEY)
    log_prob = extras["log_prob"]
    share = np.bincount(action, minlength=4) / num
    expected = np.array([np.exp(log_prob[action == a][:1]).sum() for a in range(4)])
    np.testing.assert_allclose(share, expected, atol=5 * 0.5 / np.sqrt(num))
    assert (share > 0).sum() > 1
    assert not np.array_equal(action, act(jax.random.key(1))[1])


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_actions_have_the_shape_of_their_space(num_envs, explore):
    """No axis of size 1 is dropped, for one environment or for a box with one entry."""
    obs = jax.ShapeDtypeStruct((2,), jnp.float32)
    for space, shape in ((Discrete(3), ()), *((Box.of(-1, 1, s), s) for s in [(1,), (4, 1)])):
        agent = ActorCriticAgent().bind(EnvSpec(obs, space))

        def act(agent, num_envs=num_envs):
            state = State(agent.init_params(KEY))
            obs = jnp.zeros((num_envs, 2))
            return agent.act(state, (), obs, KEY, Clock.start(), explore=explore)

        _, action, extras = jax.eval_shape(act, agent)
        assert action.shape == (num_envs, *shape)
        assert extras["log_prob"].shape == (num_envs,)


# The network --------------------------------------------------------------------------------------


class Torso(nn.Module):
    """A user-defined torso."""

    @nn.compact
    def __call__(self, obs):
        return nn.tanh(nn.Dense(6, name="mine")(obs["a"]))


@pytest.mark.parametrize("shared", [False, True])
def test_custom_torso_is_used_by_each_network(shared):
    """One module object, but separate parameters for actor and critic unless they share it."""
    agent = ActorCriticAgent(torso=Torso(), shared_torso=shared, hidden_sizes=()).bind(SPEC)
    params = jax.jit(agent.init_params)(KEY)["params"]
    torsos = [params[name]["mine"]["kernel"] for name in params if name.endswith("torso")]
    assert [x.shape for x in torsos] == [(3, 6)] * (1 if shared else 2)
    assert shared or not np.array_equal(*torsos)
    again = ActorCriticAgent(torso=Torso(), shared_torso=shared, hidden_sizes=()).bind(SPEC)
    assert jax.tree.structure(agent) == jax.tree.structure(again)  # compiled once


def test_unbound_agent_raises():
    with pytest.raises(ValueError, match=r"ActorCriticAgent has no environment: call bind"):
        _ = ActorCriticAgent().network


def test_explained_variance_is_of_the_whole_batch_before_updates():
    """Once per iteration, against NumPy on the prepared batch; minibatches would differ."""
    reports = []

    class Spy(PPO):
        def report(self, state, batch, clock):
            jax.debug.callback(lambda *x: reports.append(x), batch.steps.value, batch.steps.target)
            return super().report(state, batch, clock)

    agent = Spy(num_envs=4, num_steps=8, num_epochs=2, num_minibatches=4)
    spied = Training.create(agent, Chain(), total_steps=32)
    run = jax.jit(lambda t, key: t.chunk(t.init(key), key, jnp.int32(0), jnp.int32(1))[1])
    shown = run(spied, KEY).updates["explained_variance"]
    jax.effects_barrier()
    ((values, targets),) = reports
    assert values.shape == (8, 4)
    expected = 1.0 - np.var(targets - values) / np.var(targets)
    np.testing.assert_allclose(shown.value, expected, rtol=1e-4)
    assert shown.count == 1.0
