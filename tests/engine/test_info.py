"""Metrics from scalars in `Timestep.info` at the end of each episode."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from helpers.agents.idle import Idle
from helpers.environments import FLOAT, timestep

import jaxrl_envs
from jaxrl import wrappers
from jaxrl.analysis.curves import read_curves
from jaxrl.engine.evaluate import evaluate
from jaxrl.engine.train import train
from jaxrl.environment import scalars
from jaxrl.runs.directory import read_metrics
from jaxrl.runs.fit import fit
from jaxrl.types import Discrete, EnvSpec

KEY = jax.random.key(0)


class Told(struct.PyTreeNode):
    """Episodes of two or four steps; the long ones succeed. `success` is NaN before the end."""

    spec = EnvSpec(FLOAT, Discrete(2), max_steps=4)

    def reset(self, key):
        length = jnp.where(jax.random.bernoulli(key), 4, 2)
        return (length, jnp.int32(0)), jnp.zeros(1)

    def step(self, key, state, action):
        length, time = state[0], state[1] + 1
        over = time >= length
        info = {
            "success": jnp.where(over, (length == 4).astype(jnp.float32), jnp.nan),
            "age": time,
            "arm": {"over": over, "path": jnp.zeros(3)},
            "key": key,
        }
        return (length, time), timestep(jnp.zeros(1), 1.0, over).replace(info=info)


def test_scalars_of_the_last_step_are_averaged_over_episodes():
    _, metrics = jax.jit(
        lambda key: train(
            Idle(num_envs=8), Told(), key, total_steps=400, num_evaluations=1, num_eval_episodes=32
        )
    )(KEY)
    trained, played = metrics.training.episodes, metrics.evaluation
    assert set(trained.info) == set(played.info) == {"success", "age", "arm/over"}
    length = float(trained.lengths.value[0])
    assert 2 < length < 4
    np.testing.assert_allclose(trained.info["age"].value, length, rtol=1e-6)
    np.testing.assert_allclose(trained.info["success"].value, (length - 2) / 2, rtol=1e-5)
    assert trained.info["arm/over"].value == 1
    np.testing.assert_array_equal(played.info["age"], played.lengths)
    np.testing.assert_array_equal(played.info["success"], played.lengths == 4)
    assert set(np.unique(played.lengths)) == {2, 4}
    assert metrics.divergence.iteration == -1  # NaN in info does not count as divergence


def test_info_metrics_are_saved_and_can_be_plotted(tmp_path):
    keys, path = jax.random.split(KEY, 2), tmp_path / "run"
    result = fit(
        Idle(), Told(), keys, total_steps=100, num_evaluations=2, num_eval_episodes=4, run_dir=path
    )
    rows = list(read_metrics(path))
    assert len(rows) == 4
    for row in rows:
        assert row["info/age"] == row["length_mean"]
        assert row["info/success"] == (row["length_mean"] - 2) / 2
        assert row["training_info/age"] == row["training_length_mean"]
    (curve,) = read_curves([path], "info/success")
    told = [evaluation.info["success"] for evaluation in result.evaluations]
    np.testing.assert_array_equal(curve.values, told)


def test_action_repeat_reports_the_info_of_the_last_inner_step():
    def policy(carry, obs, key):
        return carry, jnp.zeros(obs.shape[0], jnp.int32), ()

    env = wrappers.ActionRepeat(Told(), 3)  # the long episodes end in the second repetition
    episodes = jax.jit(lambda key: evaluate(policy, env, key, num_episodes=16))(KEY)
    np.testing.assert_array_equal(episodes.info["age"], np.where(episodes.lengths == 2, 4, 2))
    np.testing.assert_array_equal(episodes.info["success"], episodes.lengths == 2)


def test_info_without_episode_scalars_gives_no_metrics():
    env = jaxrl_envs.make("gymnax/CartPole-v1")

    def info(key):
        return env.step(key, env.reset(key)[0], jnp.int32(0))[1].info

    assert jax.eval_shape(info, KEY) == {}  # gymnax's discount
    assert scalars(()) == {}
    assert set(scalars(jnp.float32(1.0))) == {"value"}
