"""Devices that share the environments of one member: the same training, and nothing in silence."""

import textwrap

import pytest
from helpers.processes import json_of

COMMON = """
    import json, pathlib, sys
    import jax, jax.numpy as jnp, numpy as np
    import jaxrl, jaxrl_envs
    from helpers.environments import BestAction, Chain, Counter, Recall
    from helpers.agents.cross_entropy import CrossEntropy
    from jaxrl.agents import (
        A2C, CEM, COPDAC, DQN, IMPALA, NPG, PPO, PPOPenalty, PQN, REINFORCE, RPG, TRPO,
        CompatibleActorCritic, Evolution, FiniteDifference, FittedQActorCritic, NaturalActorCritic,
    )
    from jaxrl.devices.placement import SHARED
    from jaxrl.devices.shards import ENVS
    from jaxrl.engine.training import Training
    from jax.sharding import Mesh, PartitionSpec

    MESH = Mesh(np.asarray(jax.devices()), (ENVS,))

    def sharded(function, in_specs, out_specs):
        return jax.jit(
            jax.shard_map(function, mesh=MESH, in_specs=in_specs, out_specs=out_specs)
        )

    def farthest(one, two):
        "The largest difference, relative to the largest entry of each leaf."
        def of(x, y):
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                x, y = map(jax.random.key_data, (x, y))
            x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
            assert x.shape == y.shape and np.isfinite(x).all(), (x.shape, y.shape)
            return float(np.abs(x - y).max() / max(np.abs(x).max(), 1.0)) if x.size else 0.0
        return max(map(of, jax.tree.leaves(one), jax.tree.leaves(two)), default=0.0)
"""

SAME = """
    def compare(agent, env, iterations, **options):
        steps = iterations * agent.bind(env.spec).plan.steps_per_iteration
        training = Training.create(agent, env, total_steps=steps, num_eval_episodes=4, **options)

        def run(training, key):
            state = training.init(key)
            zero, number = jnp.int32(0), jnp.int32(training.num_iterations)
            state, metrics, _ = training.chunk(state, key, zero, number)
            return state, metrics, training.evaluate(state, key, number)

        of_envs = PartitionSpec(ENVS)
        specs = (training.specs(SHARED, of_envs), SHARED, of_envs)
        key = jax.random.key(3)
        one = jax.jit(run)(training, key)
        several = sharded(run, (SHARED, SHARED), specs)(training, key)
        return {
            "agent": farthest(one[0].agent, several[0].agent),
            "envs": farthest(one[0].envs, several[0].envs),
            "carry": farthest(one[0].carry, several[0].carry),
            "stats": farthest(one[0].stats, several[0].stats),
            "episodes": farthest(one[1].episodes, several[1].episodes),
            "evaluation": farthest(one[2], several[2]),
        }

    cart, sizes = jaxrl_envs.make("gymnax/CartPole-v1"), {"num_envs": 8, "hidden_sizes": (8,)}
    rollouts = sizes | {"num_steps": 9, "optimizer": "sgd"}
    whole = sizes | {"num_steps": 6, "num_minibatches": 1, "num_epochs": 2, "adam_epsilon": 1e-2}
    episodes = sizes | {"num_steps": 10, "whole_episodes": True, "optimizer": "sgd"}
    ends = Counter(lifetime=5, limit=10)
    natural = sizes | {"num_steps": 16, "critic_minibatches": 1, "critic_epochs": 2}
    pqn = sizes | {"num_steps": 6, "num_minibatches": 1, "noisy": True, "optimizer": "sgd",
                   "epsilon_power": 3.0}
    pendulum = jaxrl_envs.make("gymnax/Pendulum-v1")
    kept = {"std_from": "features", "initial_log_std": -1.0, "noise_every": 4}
    both = {"normalize_observations": True, "normalize_rewards": True}
    cases = {
        "ppo": (PPO(**whole), cart, 3, both),
        "ppo of a box": (PPO(**whole), pendulum, 3, {}),
        "ppo with kept noise": (PPO(**whole, **kept, normalize_over="rollout"), pendulum, 3, {}),
        "ppo between bounds": (PPO(**whole, box_policy="beta"), pendulum, 3, {}),
        "impala": (IMPALA(**rollouts, lag=2), cart, 3, {}),
        "recurrent ppo": (PPO(**whole, core="gru"), cart, 3, {}),
        "ppo at an adaptive rate": (PPO(**whole, desired_kl=1e-3), cart, 3, {}),
        "ppo with a penalty": (PPOPenalty(**whole, kl_reduction="max"), cart, 3, both),
        "a2c from a pool": (A2C(**sizes, num_steps=12), Counter(lifetime=5), 3,
                            {"reset_policy": "pool"}),
        "trpo": (TRPO(**natural), cart, 2, {}),
        "noisy pqn": (PQN(**pqn), cart, 3, {}),
        "npg, empirical": (NPG(**natural, fisher="empirical"), cart, 2, {}),
        "reinforce, standardised": (
            REINFORCE(**rollouts, standardize="advantages"), cart, 3, {}),
        "reinforce by time": (
            REINFORCE(**episodes, baseline="time", standardize="returns"), ends, 3, {}),
        "reinforce, optimal": (
            REINFORCE(**episodes, baseline="optimal", credit="return"), ends, 3, {}),
        "population": (
            CEM(population_size=12, num_elites=2, candidates_at_once=6, episodes_per_candidate=2,
                hidden_sizes=(4,), max_episode_steps=50, common_random_numbers=True),
            cart, 3, {"normalize_observations": True}),
        "evolution": (
            Evolution(population_size=8, learning_rate=0.1, hidden_sizes=(4,), core="gru",
                core_size=3, max_episode_steps=20), cart, 3, {}),
        "finite differences": (
            FiniteDifference(population_size=6, hidden_sizes=(4,), max_episode_steps=20), cart, 3,
            {}),
        "natural actor-critic": (
            NaturalActorCritic(**sizes, num_steps=10, discount=0.9, damping=1.0), ends, 3, {}),
        "rpg": (RPG(**rollouts, discount=0.6, num_pairs=2), ends, 3, {}),
        "fitted q actor-critic": (
            FittedQActorCritic(**rollouts, discount=0.6, fitted_actions="uniform"), ends, 3, {}),
        "copdac": (
            COPDAC(**rollouts, learning_rate=1e-2), pendulum, 3, both),
        "compatible actor-critic, regression": (
            CompatibleActorCritic(**rollouts, critic_fit="regression", cg_iterations=4), cart, 2,
            {}),
    }
    agent, env, iterations, options = cases[sys.argv[1]]
    print(json.dumps(compare(agent, env, iterations, **options)))
"""


def script(code):
    """The code after what all scripts share."""
    return textwrap.dedent(COMMON) + textwrap.dedent(code)


SOMETIMES = (
    "recurrent ppo",
    "reinforce, optimal",
    "reinforce, standardised",
    "noisy pqn",
    "ppo of a box",
    "ppo with kept noise",
    "ppo between bounds",
    "impala",
    "ppo at an adaptive rate",
    "ppo with a penalty",
    "a2c from a pool",
    "npg, empirical",
    "reinforce by time",
    "rpg",
    "fitted q actor-critic",
    "finite differences",
    "evolution",
    "natural actor-critic",
    "copdac",
    "compatible actor-critic, regression",
)


@pytest.mark.parametrize(
    "case",
    [
        "ppo",
        "trpo",
        "population",
        *(pytest.param(case, marks=pytest.mark.thorough) for case in SOMETIMES),
    ],
)
def test_training_on_two_devices_matches_one(case, tmp_path):
    """Several iterations from initialisation to evaluation, with one minibatch."""
    found = json_of(script(SAME), case, devices=2, cache=tmp_path)
    assert found["agent"] < 2e-5, found
    assert max(found.values()) < 2e-4, found


LARGEST = """
    import optax
    from jaxrl.losses import largest
    from jaxrl.optimizers import descend

    def step(w, x):
        transform = optax.sgd(1.0)
        loss = lambda w: (largest(x @ w), None)
        new, _, value, _ = descend(transform, loss, w, transform.init(w))
        return value, new - w

    rows = [[2.0, 0.0, 1.0], [1.0, 0.0, 7.0], [-9.0, 0.0, 0.0], [0.0, 2.0, 5.0]]
    over_data = (SHARED, PartitionSpec(ENVS))
    value, change = sharded(step, over_data, SHARED)(jnp.array([1.0, 1.0, 0.0]), jnp.array(rows))
    print(json.dumps([float(value), change.tolist()]))
"""


def test_the_largest_of_all_shards_and_its_gradient(tmp_path):
    """Rows 0 and 3 on different devices are both the largest, and share the gradient."""
    value, change = json_of(script(LARGEST), devices=2, cache=tmp_path)
    assert value == 2.0
    assert change == [-1.0, -1.0, -3.0]


WITHOUT_SHARDS = """
    def branches(x):
        zeros = jnp.zeros(3)
        both = jnp.stack([x, 2 * x])
        total, parts = jax.lax.scan(lambda c, y: (c + y * x, c), zeros, both, reverse=True)
        count, _ = jax.lax.while_loop(
            lambda loop: loop[1] < 3, lambda loop: (loop[0] + x, loop[1] + 1), (zeros, 0)
        )
        either = jax.lax.cond(jnp.sum(x) > 4, lambda: x, lambda: zeros)
        return total, parts, count, either, jax.nn.relu(x - 1), jnp.arange(3), jax.jit(jnp.sin)(x)

    from jaxrl.devices.as_data import as_data

    x = jnp.arange(12.0).reshape(4, 3)
    of_envs = PartitionSpec(ENVS)
    several = sharded(lambda x: as_data(jax.vmap(branches))(x), of_envs, of_envs)(x)
    found = {"environments": farthest(jax.vmap(branches)(x), several)}

    from jaxrl.devices.deferred import with_local_metrics
    from jaxrl.devices.shards import differs, mean_over_shards
    from jaxrl.losses import mean, standardize

    def metrics(x):
        first, second = mean(x), mean(jnp.square(x), x > 2)
        sums = {"linear": 2 * first - second / 4 + 1, "again": mean_over_shards(-first)}
        others = {"ratio": first / second, "product": first * second, "root": jnp.sqrt(second)}
        return first, sums | others | {"data": first * x[0, 0]}

    def both(x):
        equal, (_, local) = metrics(x)[1], with_local_metrics(metrics)(x)
        found["local"] = [name for name, value in local.items() if differs(value)]
        return jax.tree.map(mean_over_shards, (equal, local))

    found["metrics"] = farthest(*sharded(both, of_envs, SHARED)(x))

    # Also of data far from 0, of constant data, and of a shard without any that counts.
    where = (x < 5) & (x != 2)
    for name, y in {"spread": x - 1e3, "constant": jnp.full_like(x, 0.1)}.items():
        for mask in (None, where):
            kept = jnp.ones_like(where) if mask is None else where
            one = jnp.where(kept, standardize(y, mask), 0)
            several = sharded(standardize, (of_envs, of_envs if mask is not None else None),
                              of_envs)(y, mask)
            found[f"{name} {mask is None}"] = farthest(one, jnp.where(kept, several, 0))
    print(json.dumps(found))
"""


def test_environments_and_means_need_not_know_of_shards(tmp_path):
    """JAX refuses loops that start from zeros and branches that return zeros otherwise."""
    found = json_of(script(WITHOUT_SHARDS), devices=2, cache=tmp_path)
    # What is linear in means is left to a later exchange; all other metrics keep their values.
    assert found.pop("local") == ["again", "data", "linear"]
    assert found.pop("metrics") < 1e-6
    assert found.pop("constant True") == found.pop("constant False") == 0
    assert found.pop("environments") < 1e-6
    assert max(found.values()) < 1e-4, found


RUNS = """
    import shutil
    from helpers.agents.tiny import Tiny
    from jaxrl.agent import Update
    from jaxrl.errors import JaxrlError
    from jaxrl.runs.events import Evaluation, Resumed
    from jaxrl.runs.fit import fit

    agent = PPO(num_envs=6, num_steps=8, num_epochs=1, num_minibatches=2, hidden_sizes=(8,))
    path, events = pathlib.Path(sys.argv[1]), []
    found = {"there": len(jax.devices())}

    def run(name=None, devices=3, agent=agent, **options):
        options = {"num_evaluations": 2, "num_eval_episodes": 3, "tensorboard": False} | options
        run_dir = None if name is None else path / name
        return fit(agent, Counter(limit=5), jax.random.key(0), total_steps=192, run_dir=run_dir,
                   devices=devices, **options)

    def error(**arguments):
        try:
            run(**arguments)
        except JaxrlError as error:
            return str(error)

    first = run("shared", callbacks=[events.append])
    found["devices"] = first.compiled.devices
    found["shapes"] = [list(first.state.envs.obs.shape), list(first.state.envs.first.shape)]
    found["events"] = [list(e.returns.shape) for e in events if isinstance(e, Evaluation)]
    found["again"] = farthest(first.state, run().state)
    stop = lambda event: "enough" if isinstance(event, Evaluation) else None
    run("stopped", callbacks=[stop])
    for after in (3, 1):
        shutil.copytree(path / "stopped", path / f"to {after}")
        events.clear()
        resumed = run(f"to {after}", resume=True, devices=after, callbacks=[events.append])
        notes = [note for e in events if isinstance(e, Resumed) for note in e.notes]
        found[f"to {after}"] = [farthest(first.state, resumed.state), notes]

    class Local(PPO):
        def update(self, state, batch, key, clock):
            new = super().update(state, batch, key, clock)
            moved = jax.tree.map(lambda x: x + jnp.mean(batch.steps.target), new.state.params)
            return Update(new.state.replace(params=moved), new.metrics)

    sizes = {"num_steps": 8, "hidden_sizes": (8,)}
    class Sum(PPO):
        def loss(self, params, state, batch, clock):
            loss, metrics = super().loss(params, state, batch, clock)
            return loss + jnp.mean(batch.steps.value), metrics

    found["errors"] = [
        error(agent=Sum(num_envs=6, num_minibatches=1, **sizes)),
        error(agent=PPO(num_envs=4, num_minibatches=1, **sizes)),
        error(agent=PPO(num_envs=6, num_minibatches=3, **sizes)),
        error(agent=TRPO(num_envs=6, critic_minibatches=48, **sizes)),
        error(agent=Local(num_envs=6, num_minibatches=1, **sizes)),
    ]

    def placed(agent, **options):
        training = Training.create(agent, Counter(limit=5), total_steps=1)
        specs = training.specs(SHARED, PartitionSpec(ENVS))
        try:
            jax.eval_shape(jax.shard_map(Training.init, mesh=MESH, in_specs=(SHARED, SHARED),
                                         out_specs=specs, **options), training, jax.random.key(0))
        except JaxrlError as error:
            return str(error)

    class Together(CrossEntropy):
        candidates = ()

    found["placed"] = [placed(agent, check_vma=False), placed(Together(population_size=6))]
    one_key = fit(agent, Counter(limit=5), jax.random.split(jax.random.key(0), 1), total_steps=192,
                  devices=3, num_evaluations=2, num_eval_episodes=2)
    found["one key"] = [one_key.compiled.devices, list(one_key.state.envs.obs.shape)]
    found["chosen"] = run(agent=Tiny(), devices=None).compiled.devices
    print(json.dumps(found))
"""


def test_runs_on_three_devices(tmp_path):
    found = json_of(script(RUNS), tmp_path, devices=3, cache=tmp_path / "cache")
    # All environments are reported, once.
    assert found["there"] == 3
    assert found["devices"] == "all 3, 2 environments each"
    assert found["shapes"] == [[6, 2], [6]]
    assert found["events"] == [[1, 3], [1, 3]]
    # The same devices give the same bits, also after a resume; another number another rounding.
    assert found["again"] == 0
    assert found["to 3"] == [0, []]
    difference, notes = found["to 1"]
    assert 0 < difference < 1
    assert notes == ["devices: 3 before, 1 now: results may differ in rounding"]
    # Numbers that do not divide are rejected, and so is an agent whose state would differ.
    loss, environments, minibatches, critic, local = found["errors"]
    assert loss.startswith("a loss would be of the data of one device")
    assert environments == (
        "devices is 3: num_envs is 4, which 3 devices do not divide. Use devices=2"
    )
    assert minibatches.startswith("devices is 3: num_minibatches is 3, which does not divide num_")
    assert critic.startswith("devices is 3: critic_minibatches is 48, which does not divide the 16")
    assert "would differ between devices" in local
    assert "jaxrl.losses.mean" in local
    # A program that places training itself is told, too.
    untracked, population = found["placed"]
    assert "check_vma is False: leave it True" in untracked
    assert population.startswith("Together.candidates names no field")
    # Keys `[1]`, and two evaluation episodes on three devices.
    assert found["one key"] == ["all 3, 2 environments each", [1, 6, 2]]
    # One member stays on one device without a request.
    stays = "one member stays on one device unless devices are requested"
    assert found["chosen"] == f"1 of 3 ({stays})"


BOTH_AXES = """
    from jaxrl.runs.events import Evaluation
    from jaxrl.runs.fit import fit

    path = pathlib.Path(sys.argv[1])
    keys = jax.random.split(jax.random.key(0), 2)
    small = {"num_envs": 6, "num_steps": 4, "hidden_sizes": (4,)}
    replay = {"num_updates": 2, "batch_size": 4, "capacity": 96, "warmup": 24}
    agents = {
        "ppo": PPO(**small, num_epochs=1, num_minibatches=1),
        "dqn": DQN(**small, **replay, prioritized=True, n_step=2),
        "population": CrossEntropy(population_size=6, num_elites=2),
    }
    agent, found = agents[sys.argv[2]], {}

    def run(devices, name=None, **options):
        run_dir = None if name is None else path / name
        return fit(agent, Counter(limit=5), keys, total_steps=96, num_evaluations=2,
                   num_eval_episodes=2, devices=devices, run_dir=run_dir, tensorboard=False,
                   **options)

    one, four = run(1), run(4)
    run(4, "run", callbacks=[lambda e: "enough" if isinstance(e, Evaluation) else None])
    resumed = run(4, "run", resume=True)
    print(json.dumps({
        "devices": four.compiled.devices,
        "agent": farthest(one.state.agent, four.state.agent),
        "envs": farthest(one.state.envs, four.state.envs),
        "evaluation": farthest(*([e.returns for e in x.evaluations] for x in (one, four))),
        "seeds": farthest(*(jax.tree.map(lambda x: x[i], four.state.agent) for i in (0, 1))),
        "resumed": farthest(four.state, resumed.state),
    }))
"""


@pytest.mark.parametrize(
    "which", ["ppo", *(pytest.param(x, marks=pytest.mark.thorough) for x in ("dqn", "population"))]
)
def test_two_devices_for_each_of_two_members(which, tmp_path):
    """A mesh of two axes: nothing is communicated between members."""
    found = json_of(script(BOTH_AXES), tmp_path, which, devices=4, cache=tmp_path / "cache")
    share = "6 environments" if which == "population" else "3 environments"
    assert found.pop("devices") == f"all 4, {share} of 1 member each"
    assert found.pop("resumed") == 0
    assert found.pop("seeds") > 1e-4
    if which == "dqn":  # each device draws its part of a batch from its own rows
        assert found["envs"] == 0
        return
    assert max(found.values()) < 1e-5, found
