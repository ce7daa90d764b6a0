"""A separate package defines an agent, an environment and a network with public names only."""

import json
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from helpers.commands import run_in_process
from helpers.sources import imports

import jaxrl

SOURCE = {
    "agent.py": '''
        """A policy gradient with one-step advantages."""

        from typing import Literal

        import jax
        import jax.numpy as jnp
        import jaxrl
        import optax
        from flax import struct
        from jaxrl import losses, networks, optimizers
        from jaxrl.hyper import hyper

        Kind = Literal["plain", "advantage"]


        class State(struct.PyTreeNode):
            params: dict
            optimizer: optax.OptState


        class Mine(jaxrl.Agent):
            """One-step actor-critic on whole batches."""

            discount: float = 0.9
            learning_rate: jaxrl.types.Scalar = hyper(1e-2, low=0.0, doc="Adam's step size.")
            num_envs: int = hyper(4, static=True, doc="Copies of the environment.")
            kind: Kind = hyper("advantage", static=True, doc="What multiplies the score.")
            weight: jaxrl.types.Scalar = 0.5
            """Of the value's loss."""

            @property
            def plan(self):
                return jaxrl.OnPolicy(self.num_envs, num_steps=8)

            @property
            def network(self):
                spec = self.bound_spec
                return networks.ActorCritic(
                    lambda: networks.default_torso(spec, (8,), "tanh"), spec.action
                )

            def init(self, key):
                params = self.network.init(key, self.bound_spec.dummy_observation(1))
                return State(params, self.optimizer(jaxrl.Clock.start()).init(params))

            def optimizer(self, clock):
                return optimizers.adam(self.learning_rate, clock)

            def act(self, state, carry, obs, key, clock, *, explore):
                policy, _ = self.network.apply(state.params, obs, method="policy")
                return carry, policy.sample(key) if explore else policy.mode(), ()

            def update(self, state, batch, key, clock):
                steps = batch.steps

                def loss(params):
                    policy, value, _ = self.network.apply(params, steps.obs)
                    _, after, _ = self.network.apply(params, steps.next_obs)
                    after = jnp.where(steps.terminated, 0.0, jax.lax.stop_gradient(after))
                    target = steps.reward + self.discount * after
                    score = target if self.kind == "plain" else target - value
                    score = jax.lax.stop_gradient(score)
                    actor = -losses.mean(policy.log_prob(steps.action) * score)
                    return actor + self.weight * losses.value_loss(value, target), None

                params, optimizer, value, _ = optimizers.descend(
                    self.optimizer(clock), loss, state.params, state.optimizer
                )
                return jaxrl.Update(State(params, optimizer), {"loss": value})
        ''',
    "walk.py": '''
        """Right pays, left does not."""

        import jax.numpy as jnp
        import jax
        import jaxrl
        from flax import struct


        class Walk(struct.PyTreeNode):
            pay: float = 1.0

            @property
            def spec(self):
                obs = jax.ShapeDtypeStruct((1,), jnp.float32)
                return jaxrl.EnvSpec(obs, jaxrl.Discrete(2), max_steps=5)

            def reset(self, key):
                return jnp.int32(0), jnp.zeros(1)

            def step(self, key, state, action):
                state = state + 1
                reward = self.pay * action.astype(jnp.float32)
                end = state >= 5
                obs = jnp.zeros(1) + state
                return state, jaxrl.Timestep(obs, reward, jnp.bool_(False), end)
        ''',
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").touch()
    for name, text in SOURCE.items():
        (folder / "mine" / name).write_text(textwrap.dedent(text))
    return folder


def test_package_imports_only_public_names():
    """Only `jaxrl` and the modules in its `__all__`."""
    for text in SOURCE.values():
        for name in imports(textwrap.dedent(text)):
            if name.partition(".")[0] == "jaxrl" and name != "jaxrl":
                assert name.split(".")[1] in jaxrl.__all__, name
                assert "._" not in name


def test_package_trains_by_train_fit_and_the_command(package, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(package)
    monkeypatch.chdir(package)
    from mine.agent import Mine  # type: ignore[import-not-found]
    from mine.walk import Walk  # type: ignore[import-not-found]

    key, sizes = jax.random.key(0), {"total_steps": 2_048, "num_eval_episodes": 4}
    agent = Mine(learning_rate=0.05)
    _, metrics = jaxrl.train(agent, Walk(), key, num_evaluations=1, **sizes)
    returns = np.asarray(metrics.evaluation.returns)
    np.testing.assert_array_equal(returns, 5.0)  # it learned to go right
    result = jaxrl.fit(agent, Walk(), key, num_evaluations=1, **sizes)
    np.testing.assert_array_equal(result.evaluations[-1].returns, returns)
    words = ["mine.agent:Mine", "mine.walk:Walk", "--total-steps", 2048, "--num-evaluations", 1]
    words += ["--num-eval-episodes", 4, "--learning-rate", 0.05, "--no-tensorboard"]
    status, out, err = run_in_process("train", *words, "--run-dir", tmp_path / "run")
    assert status == 0, err
    assert any(line.startswith("final return 5.0") for line in out)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["algorithm"], config["environment"]) == ("mine.agent:Mine", "mine.walk:Walk")
    assert config["hyper_parameters"]["learning_rate"] == 0.05
    assert jaxrl.load_policy(tmp_path / "run")(np.zeros(1, np.float32)) == 1
    # The command finds modules of the current directory by itself.
    monkeypatch.setattr(sys, "path", [x for x in sys.path if x != str(package)])
    for name in [x for x in sys.modules if x.partition(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)
    status, out, err = run_in_process("resume", tmp_path / "run", "--total-steps", 4096)
    assert status == 0, err
    assert any(line.startswith("final return 5.0 after 4,096 steps") for line in out)


def test_flags_match_the_agent_fields(package):
    run = subprocess.run(
        [sys.executable, "-m", "jaxrl", "train", "mine.agent:Mine", "--help"],
        cwd=package, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    text = " ".join(run.stdout.split())
    assert "hyper-parameters of mine.agent:Mine: One-step actor-critic on whole batches." in text
    assert "--learning-rate FLOAT Adam's step size" in text
    assert "--weight FLOAT Of the value's loss (default: 0.5)" in text
    assert "--kind {plain,advantage} What multiplies the score (default: advantage)" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.at_all:Agent", "no module 'nowhere.at_all' is found from here"),
        ("mine.agent:State", "mine.agent:State is not an agent: give a subclass of jaxrl.Agent"),
        ("mine.agent:Missing", "mine.agent:Missing is not an agent"),
    ],
)
def test_non_agents_are_rejected_in_one_line(package, monkeypatch, name, message):
    monkeypatch.syspath_prepend(package)
    status, _, err = run_in_process("train", name, "gymnax/CartPole-v1")
    assert status == 2
    assert len(err) == 1
    assert message in err[0]
