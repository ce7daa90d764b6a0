"""Devices that share the environments of one member, each with a replay buffer for its own."""

import numpy as np
import pytest
from devices.test_shards import script
from helpers.processes import json_of

UPDATES = """
    from jaxrl.agents import DQN, SAC, Rainbow
    from jaxrl.replay.buffer import Replayed
    from jaxrl.types import Clock, Transition
    from jaxrl.xla.threefry import fast, of_rows

    def rows_of(env, number=12):
        "Rows of random transitions, some invalid, with unequal probabilities."
        spec, rng = env.spec, np.random.default_rng(0)
        shape = (number, *spec.observation.shape)
        obs, next_obs = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))
        if hasattr(spec.action, "num"):
            action = jnp.asarray(rng.integers(0, spec.action.num, number))
        else:
            action = jnp.asarray(rng.uniform(-1, 1, (number, *spec.action.shape)), jnp.float32)
        terminated = jnp.asarray(rng.uniform(size=number) < 0.3)
        steps = Transition(obs, action, jnp.asarray(rng.normal(size=number), jnp.float32),
                           terminated, ~terminated, next_obs)
        rows = Replayed.once(steps)
        return rows.replace(
            relative_probability=jnp.asarray(rng.uniform(0.1, 3, number), jnp.float32),
            valid=jnp.arange(number) % 5 != 1,
        )

    def compare(agent, env):
        agent, rows = agent.bind(env.spec), rows_of(env)
        key = fast(jax.random.key(2))
        state = agent.init(key)
        clock = Clock.start()
        of_envs = PartitionSpec(ENVS)

        def update(state, rows, key):
            new = agent.update(state, agent.prepare(state, rows, clock), of_rows(key), clock)
            return new.state, new.metrics, () if new.priorities is None else new.priorities

        one = jax.jit(update)(state, rows, key)
        several = sharded(update, (SHARED, of_envs, SHARED), (SHARED, SHARED, of_envs))(
            state, rows, key)
        moved = farthest(state, one[0])
        return [moved, *map(farthest, one, several)]

    small = {"hidden_sizes": (8,), "batch_size": 12, "capacity": 64, "learning_rate": 0.1}
    cart, box = (jaxrl_envs.make(f"gymnax/{name}") for name in ("CartPole-v1", "Pendulum-v1"))
    found = {
        "dqn with priorities": compare(DQN(**small, prioritized=True, optimizer="sgd"), cart),
        "sac": compare(SAC(**small, optimizer="sgd"), box),
    }
    if sys.argv[1] == "all":
        found["rainbow"] = compare(Rainbow(**small, optimizer="sgd"), cart)
    print(json.dumps(found))
"""


@pytest.mark.parametrize("which", ["some", pytest.param("all", marks=pytest.mark.thorough)])
def test_an_update_from_rows_on_three_devices_matches_one(which, tmp_path):
    """Weights are relative to the largest of all devices, and noise is that of each row."""
    found = json_of(script(UPDATES), which, devices=3, cache=tmp_path)
    for name, (moved, *differences) in found.items():
        assert moved > 1e-4, name
        assert max(differences) < 2e-6, (name, differences)


RUNS = """
    import dataclasses, shutil
    from jaxrl.agents import DQN
    from jaxrl.devices.shards import as_different
    from jaxrl.replay.saved import fitted
    from jaxrl.runs.checkpoint_files import _arrays
    from jaxrl.runs.events import Evaluation, Resumed
    from jaxrl.runs.fit import fit

    path = pathlib.Path(sys.argv[1])
    fields = dict(num_envs=4, num_steps=3, batch_size=4, capacity=60, warmup=36, num_updates=2,
                  hidden_sizes=(4,), prioritized=True, n_step=2)
    agent = DQN(**fields)

    class Limited(Counter):
        @property
        def spec(self):
            return dataclasses.replace(super().spec, truncates="at_max_steps")

    def run(name=None, devices=2, total_steps=120, **options):
        options = {"num_evaluations": 2, "num_eval_episodes": 2, "tensorboard": False} | options
        return fit(agent, Limited(limit=5), jax.random.key(0), devices=devices,
                   run_dir=None if name is None else path / name, total_steps=total_steps,
                   **options)

    def of(state):
        return {f"buffer.{k}" if k else k: x for k, x in _arrays(state.buffer).items()}

    found = {}
    # Before the first update all devices have stored what one device stores.
    one, two = (run(devices=n, total_steps=24).state for n in (1, 2))
    again = fitted(of(two), of(one))
    found["names"] = sorted(again)
    found["layouts differ"] = of(one).keys() != of(two).keys()
    found["stored"] = max(farthest(of(one)[k], again[k]) for k in again)
    found["and back"] = max(farthest(of(two)[k], fitted(again, of(two))[k]) for k in of(two))

    class Watched(DQN):
        def update(self, state, rows, key, clock):
            indices = jax.lax.all_gather(as_different(rows.index), ENVS)
            same = {"same": jnp.all(indices == indices[:1])}
            return super().update(state, rows, key, clock)._replace(metrics=same)

    training = Training.create(Watched(**fields), Limited(limit=5), total_steps=120)

    def watched(training, key):
        state, zero = training.init(key), jnp.int32(0)
        return training.chunk(state, key, zero, jnp.int32(training.num_iterations))[1].updates

    same = sharded(watched, (SHARED, SHARED), SHARED)(training, jax.random.key(0))["same"]
    found["updates with the same rows"] = [float(same.count), float(same.total)]

    first = run()
    found["devices"] = first.compiled.devices
    found["learned"] = farthest(first.state.agent.params, two.agent.params)
    stop = lambda event: "enough" if isinstance(event, Evaluation) else None
    events = []
    for devices in (1, 2):
        run(f"of {devices}", devices=devices, callbacks=[stop])
    for before, after in ((2, 2), (2, 1), (1, 2)):
        name = f"{before} to {after}"
        shutil.copytree(path / f"of {before}", path / name)
        events.clear()
        resumed = run(name, resume=True, devices=after, callbacks=[events.append])
        notes = [note for e in events if isinstance(e, Resumed) for note in e.notes]
        part = (lambda x: x.state) if after == before else (lambda x: x.state.agent)
        found[name] = [farthest(part(first), part(resumed)), notes]
    print(json.dumps(found))
"""


def test_replay_runs_on_two_devices(tmp_path):
    found = json_of(script(RUNS), tmp_path, devices=2, cache=tmp_path / "cache")
    # A buffer of two devices holds what that of one would, and converts to it and back.
    assert "buffer.final_obs" in found["names"]
    assert "buffer.priorities.levels.0" in found["names"]
    assert found["layouts differ"]
    assert found["stored"] < 1e-6
    assert found["and back"] == 0
    # Each device draws rows of its own: 8 of 10 iterations have 2 updates.
    count, same = found["updates with the same rows"]
    assert count == 2 * 8 * 2
    assert same < 4
    # The same devices give the same bits, also after a resume.
    assert found["devices"] == "all 2, 2 environments each"
    assert found["learned"] > 1e-6
    assert found["2 to 2"] == [0, []]
    # A run goes on with another number of devices, which sample other rows.
    for name, then in (("2 to 1", "2 before, 1 now"), ("1 to 2", "1 before, 2 now")):
        difference, notes = found[name]
        assert np.isfinite(difference)
        assert notes == [f"devices: {then}: results may differ in rounding and in sampled rows"]
