"""Runs work under `jax.transfer_guard`."""

import jax
import pytest
from helpers.agents.idle import Idle
from helpers.environments import Counter
from helpers.plans import PLANS, equal, walk
from helpers.probes import cases

import jaxrl
import jaxrl_envs
from jaxrl.runs.load import load_policy

KEY = jax.random.key(0)


def test_fit_load_and_evaluate_under_the_guard(tmp_path):
    obs = jax.numpy.zeros(2)
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jax.numpy.asarray(0.5)
        env = jaxrl_envs.make("gymnax/Pendulum-v1", g=5.0)
        jaxrl.fit(Idle(), Counter(limit=3), KEY, total_steps=20, run_dir=tmp_path / "run",
                  num_eval_episodes=2)  # fmt: skip
        policy = load_policy(tmp_path / "run", agent=Idle(), env=Counter(limit=3))
        action, played = policy(obs), policy.evaluate(KEY, num_episodes=2)
    assert action == 0
    assert (played.returns == 6).all()  # 1 + 2 + 3
    assert env.params.g == 5.0


@pytest.mark.parametrize(
    "name", cases(["on-policy", "replay", "offline, seeds", "population, seeds"])
)
def test_every_plan_trains_under_the_guard(name):
    agent, env, options, seeds = PLANS[name]
    key = KEY if seeds is None else jax.random.split(KEY, seeds)
    options = {**options, "total_steps": 1, "num_evaluations": 1, "num_eval_episodes": 2}
    if name.startswith("offline"):
        options["data"] = walk()
    expected = jaxrl.fit(agent, env, key, **options)
    with jax.transfer_guard("disallow"):
        found = jaxrl.fit(agent, env, key, **options)
    assert equal(found.state, expected.state)
