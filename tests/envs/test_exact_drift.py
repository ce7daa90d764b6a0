"""The drifting corridor: exact costs against simulation, and the expert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
import jaxrl_envs
from jaxrl.errors import InvalidValue
from jaxrl_envs.exact import drift

KEY = jax.random.key(0)
ENV = drift.make(gust=0.1, width=3, horizon=12)


def cost(act, env=ENV, num=4000):
    """Mean cost of episodes, and its standard error."""

    def policy(carry, obs, key):
        return carry, act(obs), ()

    found = jaxrl.evaluate(policy, env, KEY, num_episodes=num).returns
    return -float(found.mean()), float(found.std()) / np.sqrt(num)


@pytest.mark.parametrize("moves", [(0,) * 7, (2, 2, 2, 0, -2, -2, -2), (1, 0, -1, 2, -2, 1, 0)])
def test_the_cost_without_seeing_the_wind_is_exact(moves):
    actions = jnp.array([drift.MOVES.index(move) for move in moves])
    found, error = cost(lambda obs: actions[jnp.argmax(obs[:, :-1], axis=-1)])
    assert abs(found - ENV.blind_cost(np.array(moves))) < 4 * error


def test_the_expert_has_no_cost():
    assert cost(ENV.expert, num=500)[0] == 0.0


def test_the_expert_finds_back_from_everywhere():
    for offset in range(-3, 4):
        state = jnp.int32(offset), jnp.int32(0), jnp.int32(0)
        distances = []
        for _ in range(3):
            obs = ENV._observed(*state[:2])
            state, _ = ENV.step(KEY, state, ENV.expert(obs[None])[0])
            distances.append(abs(int(state[0])))
        assert distances == [max(abs(offset) - i, 0) for i in (1, 2, 3)]


def test_off_the_middle_the_floor_drifts():
    state = jnp.int32(1), jnp.int32(0), jnp.int32(0)
    (offset, *_), timestep = ENV.step(KEY, state, jnp.int32(0))
    assert (int(offset), float(timestep.reward)) == (2, -1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gust": 1.5}, "gust is 1.5: it must be a probability"),
        ({"width": 1}, "width is 1 and horizon 32"),
        ({"horizon": 0}, "width is 4 and horizon 0"),
    ],
)
def test_invalid_parameters_are_rejected(options, message):
    with pytest.raises(InvalidValue, match=message):
        jaxrl_envs.make("jaxrl/drift", **options)


def test_the_horizon_truncates():
    found = jaxrl.evaluate(lambda c, obs, k: (c, ENV.expert(obs), ()), ENV, KEY, num_episodes=2)
    assert found.lengths.tolist() == [12, 12]
