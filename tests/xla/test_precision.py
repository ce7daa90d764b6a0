"""`jax_enable_x64` changes neither programs nor results."""

import re
import subprocess
import sys

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers.agents.cross_entropy import CrossEntropy
from helpers.environments import (
    BestContinuousAction,
    BestMixedAction,
    Chain,
    Counter,
    MaskedChoice,
    Picture,
    Recall,
)
from helpers.plans import boxes, walk
from helpers.probes import cases
from helpers.processes import environment

import jaxrl
import jaxrl_envs
from jaxrl import agents
from jaxrl.networks.torsos import CNN
from jaxrl.types import Box, Discrete, EnvSpec

KEY = jax.random.key(0)
SMALL = {"hidden_sizes": (4,)}
ON_POLICY = {"num_envs": 4, "num_steps": 8, **SMALL}
REPLAY = {"num_envs": 2, "num_steps": 2, "capacity": 32, "batch_size": 4, "warmup": 8, **SMALL}
NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}


def cartpole():
    return jaxrl_envs.make("gymnax/CartPole-v1")


def pendulum():
    return jaxrl_envs.make("gymnax/Pendulum-v1")


def leftwards(obs):
    """An expert on `Chain`."""
    return jnp.zeros(obs.shape[0], jnp.int32)


AGENTS = {
    "ppo": (agents.PPO(**ON_POLICY), cartpole, NORMALIZED),
    "ppo, recurrent": (agents.PPO(**ON_POLICY, core="lstm", num_minibatches=2), Recall, {}),
    "ppo, mixed": (agents.PPO(**ON_POLICY), BestMixedAction, {}),
    "ppo, masked": (agents.PPO(**ON_POLICY), MaskedChoice, {"reset_policy": "pool"}),
    "ppo, pixels": (
        agents.PPO(num_envs=2, num_steps=4, torso=CNN(((4, 3, 1),), 8)),
        lambda: jaxrl_envs.make("gymnax/Breakout-MinAtar"),
        {},
    ),
    "ppo, adaptive": (agents.PPO(**ON_POLICY, desired_kl=0.01), cartpole, {}),
    "ppo_penalty": (agents.PPOPenalty(**ON_POLICY, kl_reduction="max"), BestMixedAction, {}),
    "a2c": (agents.A2C(**ON_POLICY), cartpole, {}),
    "a3c": (agents.A3C(num_workers=2, **ON_POLICY), cartpole, {}),
    "impala": (agents.IMPALA(**ON_POLICY, lag=2), cartpole, {}),
    "online_actor_critic": (
        agents.OnlineActorCritic(num_envs=2, lambda_actor=0.9, lambda_critic=0.9, **SMALL),
        cartpole,
        {},
    ),
    "offpac": (agents.OffPAC(num_envs=2, lambda_actor=0.9, **SMALL), cartpole, {}),
    "copdac": (agents.COPDAC(**ON_POLICY, critic_fit="regression"), pendulum, NORMALIZED),
    "compatible_actor_critic": (agents.CompatibleActorCritic(**ON_POLICY), BestMixedAction, {}),
    "natural_actor_critic": (
        agents.NaturalActorCritic(num_envs=2, num_steps=5, **SMALL),
        lambda: Counter(limit=5),
        {},
    ),
    "finite_difference": (
        agents.FiniteDifference(population_size=4, **SMALL),
        lambda: Counter(limit=5),
        {},
    ),
    "hill_climbing": (
        agents.HillClimbing(population_size=4, **SMALL),
        lambda: Counter(limit=5),
        {"normalize_observations": True},
    ),
    "cem": (
        agents.CEM(population_size=4, num_elites=2, candidates_at_once=2, core="gru", **SMALL),
        lambda: Counter(limit=5),
        {},
    ),
    "evolution": (
        agents.Evolution(population_size=4, learning_rate=0.1, **SMALL),
        lambda: Counter(limit=5),
        {},
    ),
    "evolution, adaptive": (
        agents.Evolution(population_size=4, strategy="CMA_ES", **SMALL),
        lambda: Counter(limit=5),
        {},
    ),
    "shac": (agents.SHAC(**ON_POLICY), pendulum, NORMALIZED),
    "trpo": (agents.TRPO(**ON_POLICY), pendulum, NORMALIZED),
    "npg": (agents.NPG(**ON_POLICY), cartpole, {}),
    "reinforce": (agents.REINFORCE(**ON_POLICY), cartpole, {}),
    "rpg": (agents.RPG(**ON_POLICY), cartpole, {}),
    "fitted_q_actor_critic": (agents.FittedQActorCritic(**ON_POLICY), pendulum, {}),
    "pqn": (agents.PQN(**ON_POLICY), cartpole, {}),
    "dqn": (agents.DQN(**REPLAY), Picture, {}),
    "rainbow": (agents.Rainbow(**REPLAY), cartpole, {}),
    "online_q": (agents.OnlineQ(**SMALL), Chain, {}),
    "fitted_q": (agents.FittedQ(num_updates=2, batch_size=8, **SMALL), Chain, {"data": walk}),
    "cql": (agents.CQL(num_updates=2, batch_size=8, **SMALL), Chain, {"data": walk}),
    "iql": (agents.IQL(num_updates=2, batch_size=8, **SMALL), Chain, {"data": walk}),
    "td3_bc": (
        agents.TD3BC(num_updates=2, batch_size=8, **SMALL),
        BestContinuousAction,
        {"data": boxes, "normalize_observations": True},
    ),
    "behaviour_cloning": (
        agents.BehaviourCloning(num_updates=2, batch_size=8, held_out=0.0, **SMALL),
        Chain,
        {"data": walk},
    ),
    "dagger": (
        agents.DAgger(
            num_envs=2,
            num_steps=2,
            num_updates=2,
            batch_size=8,
            capacity=64,
            expert=leftwards,
            **SMALL,
        ),
        Chain,
        {},
    ),
    "ddpg": (agents.DDPG(**REPLAY), pendulum, {}),
    "td3": (agents.TD3(**REPLAY), pendulum, {}),
    "sac": (agents.SAC(**REPLAY), pendulum, NORMALIZED),
    "q_search": (agents.QSearch(**REPLAY), pendulum, {}),
    "population": (CrossEntropy(population_size=8), Recall, {}),
}


def program(name):
    """The jaxpr of training: initialisation, iterations and evaluations."""
    agent, make_env, options = AGENTS[name]
    env = make_env()
    options = {k: x() if callable(x) else x for k, x in options.items()}

    def train(key):
        return jaxrl.train(agent, env, key, total_steps=64, num_eval_episodes=2, **options)

    return re.sub("0x[0-9a-f]+", "", str(jax.make_jaxpr(train)(KEY)))


def test_every_algorithm_is_covered():
    assert {type(agent) for agent, _, _ in AGENTS.values()} >= {
        getattr(agents, name) for name in agents.__all__
    }


@pytest.mark.parametrize("name", cases(AGENTS, "ppo", "dqn", "fitted_q", "population"))
def test_x64_does_not_change_the_training_program(name):
    with jax.enable_x64(True):
        wide = program(name)
    assert not re.search(r"\b[fiu]64\b", wide)
    assert wide == program(name)


def outcome(agent, env, **options):
    """Shapes and dtypes of what training returns."""
    return jax.eval_shape(
        lambda agent, env: jaxrl.train(agent, env, KEY, total_steps=64, **options), agent, env
    )


def test_float64_parameters_become_float32():
    agent, expected = agents.PPO(**ON_POLICY), outcome(agents.PPO(**ON_POLICY), Counter())
    with jax.enable_x64(True):
        assert outcome(agent, Counter()) == expected  # leaves that are traced as float64
        agent = agent.replace(learning_rate=jnp.float64(1e-3), discount=np.float64(0.9))
        env = cartpole().with_params(length=jnp.float64(0.7))
        assert outcome(agent, env) == outcome(agents.PPO(**ON_POLICY), cartpole())
        grid = jaxrl.sweep(agent, learning_rate=[1e-3, 1e-4], entropy_coefficient=jnp.ones(2))
        assert {x.dtype for x in jax.tree.leaves(grid)} == {jnp.dtype(jnp.float32)}
        assert {x.shape for x in jax.tree.leaves(grid)} == {(4,)}


def test_float64_offline_data_become_float32():
    agent, _, _ = AGENTS["fitted_q"]
    data = jax.tree.map(np.asarray, walk())  # NumPy arrays, as read from a file
    expected = outcome(agent, Chain(), data=data)
    with jax.enable_x64(True):
        wide = data.replace(obs=data.obs.astype(np.float64), reward=jnp.float64(data.reward))
        assert outcome(agent, Chain(), data=wide) == expected


def test_library_objects_are_adapted_in_32_bits():
    def widths(env):
        leaves = jax.tree.leaves((env, env.spec.observation))
        return {jnp.dtype(x.dtype).itemsize for x in leaves} - {1}

    with jax.enable_x64(True):
        given = gymnax.make("Pendulum-v1")[0]
        assert widths(jaxrl_envs.adapt(given)) == widths(jaxrl_envs.make(given)) == {4}


class Careless(struct.PyTreeNode):
    """Names no dtypes, like most environments, so that `jax_enable_x64` decides."""

    spec = EnvSpec(jax.ShapeDtypeStruct((2,), jnp.float32), Box.of(-1.0, 1.0, (1,)), max_steps=3)

    def reset(self, key):
        return (jnp.zeros(2), jnp.zeros((), int)), jnp.zeros(2)

    def step(self, key, state, action):
        position, time = state
        position = position + jax.random.normal(key, (2,)) * action
        ends = time >= 2
        return (position, time + 1), jaxrl.Timestep(
            position, position.sum(), jnp.zeros((), bool), ends
        )


class Wide(Careless):
    """Declares float64 observations."""

    spec = EnvSpec(jax.ShapeDtypeStruct((2,), np.float64), Discrete(2))


def test_environments_need_not_specify_dtypes():
    with jax.enable_x64(True):
        jaxrl_envs.check(Careless())
        found = outcome(agents.SAC(**REPLAY), Careless())
    assert found == outcome(agents.SAC(**REPLAY), Careless())


@pytest.mark.parametrize("on", [True, False])
def test_float64_observation_specs_are_rejected(on):
    message = r"float32\[2\], spec.observation float64\[2\] \(jaxrl computes in 32 bits\)"
    with jax.enable_x64(on), pytest.raises(ValueError, match=message):
        outcome(agents.PPO(**ON_POLICY), Wide())


SWITCHED_ON = """
import sys
import jax, jax.numpy as jnp, numpy as np
import jaxrl
from jaxrl.agents import PPO
from jaxrl.runs.fit import fit
from jaxrl.runs.load import load_policy
from helpers.plans import PLANS, equal
from helpers.environments import Counter

assert jnp.ones(1).dtype == jnp.float64
KEY, run_dir = jax.random.key(0), sys.argv[1]
PLANS["on-policy"] = PPO(num_envs=2, num_steps=4, num_epochs=1, hidden_sizes=(4,)), Counter(), {}, 0

def trained(plan, iterations=1):
    agent, env, options, _ = PLANS[plan]
    options = {k: x() for k, x in options.items()}
    steps = iterations * agent.bind(env.spec).plan.steps_per_iteration
    def run(key):
        return jaxrl.train(agent, env, key, total_steps=steps, num_evaluations=0, **options)
    return jax.device_get(jax.jit(run)(KEY)[0])

def follow(iterations):
    return fit(*PLANS["on-policy"][:2], KEY, total_steps=8 * iterations, num_eval_episodes=2,
               num_evaluations=1, run_dir=run_dir, resume=iterations > 1, tensorboard=False).state

def played():
    policy = load_policy(run_dir, agent=PLANS["on-policy"][0], env=Counter())
    obs = np.random.default_rng(0).normal(size=(50, 2))
    return policy(obs), policy.evaluate(KEY, num_episodes=3)

others = sys.argv[2:]
wide = [trained(plan) for plan in others]
if not others:
    follow(1)
    wide = follow(2), played()
for x in jax.tree.leaves(wide):
    assert x.dtype in ("float32", "int32", "uint32", "bool"), x.dtype

jax.config.update("jax_enable_x64", False)
assert jax.tree.leaves(wide)
narrow = [trained(plan) for plan in others] if others else (trained("on-policy", 2), played())
assert equal(wide, narrow)
"""


@pytest.mark.parametrize(
    "others",
    [
        (),
        # Tests above compare the programs for an agent of each plan.
        pytest.param(("replay", "offline, seeds", "population, seeds"), marks=pytest.mark.thorough),
    ],
    ids=["on-policy", "others"],
)
def test_x64_process_trains_to_identical_bits(tmp_path, others):
    """A run is saved, resumed, loaded and evaluated; agents of other plans are trained."""
    run = subprocess.run(
        [sys.executable, "-c", SWITCHED_ON, str(tmp_path / "run"), *others],
        env=environment(1, tmp_path / "cache") | {"JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr


PLANS = "ppo", "rainbow", "fitted_q", "cross_entropy"


@pytest.mark.parametrize("name", cases([*PLANS, "trpo", "td3"], *PLANS))
def test_strict_dtype_promotion_changes_nothing(name):
    """Same programs for one agent of each plan and for those that sum integers."""
    if name == "cross_entropy":
        agent, env, options = CrossEntropy(), Counter(limit=3), {}
    else:
        agent, make, options = AGENTS[name]
        with jax.numpy_dtype_promotion("strict"):
            env = make()
    if "data" in options:
        options = options | {"data": options["data"]()}

    def program():
        return str(jax.make_jaxpr(lambda key: jaxrl.train(agent, env, key, **options))(KEY))

    options = {"total_steps": 1, "num_evaluations": 1, "num_eval_episodes": 2, **options}
    expected = program()
    with jax.numpy_dtype_promotion("strict"):
        found = program()
    assert re.sub(r"0x[0-9a-f]+", "", found) == re.sub(r"0x[0-9a-f]+", "", expected)
