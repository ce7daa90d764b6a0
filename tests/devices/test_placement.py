"""Members spread over devices: the same results, no padding, and resume on other devices."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.commands import run_in_process
from helpers.environments import Counter
from helpers.processes import json_of

from jaxrl.agents import DQN, PPO
from jaxrl.devices import hosts
from jaxrl.devices.placement import Placement
from jaxrl.engine import split
from jaxrl.engine.training import Training
from jaxrl.errors import InvalidValue


@pytest.mark.parametrize(
    ("members", "there", "asked", "used", "each", "text"),
    [
        (1, 4, None, 1, 1, "1 of 4 (one member stays on one device)"),
        (16, 2, None, 2, 8, "all 2, 8 members each"),
        (5, 2, None, 2, 3, "all 2, at most 3 members each"),
        (5, 4, None, 3, 2, "3 of 4, at most 2 members each"),  # a fourth would hold only padding
        (3, 8, None, 3, 1, "3 of 8, 1 member each"),
        (6, 4, 2, 2, 3, "2 of 4, 3 members each"),
        (6, 4, 1, 1, 6, "1 of 4 (as requested)"),
        (7, 1, None, 1, 7, "1"),
    ],
)
def test_placement_uses_the_fewest_devices_without_slowdown(
    members, there, asked, used, each, text, monkeypatch
):
    monkeypatch.setattr(jax, "devices", lambda: list(range(there)))
    placement = Placement.of(members, asked)
    assert (len(placement.devices), placement.members_each) == (used, each)
    assert 0 <= placement.num_padded - members < each
    assert str(placement) == text


@pytest.mark.parametrize(
    ("members", "processes", "each", "shares", "text"),
    [
        (1, 2, 1, 2, "all 2, 32 environments each"),
        (1, 2, 2, 4, "all 4, 16 environments each"),
        (3, 2, 2, 1, "all 4, at most 1 member each"),
        (3, 2, 4, 2, "all 8, 32 environments of at most 1 member each"),
    ],
)
def test_processes_share_a_single_member(members, processes, each, shares, text, monkeypatch):
    """Each process has the same number of devices, and no member is trained twice for nothing."""
    there = [SimpleNamespace(process_index=i) for i in range(processes) for _ in range(each)]
    monkeypatch.setattr(jax, "devices", lambda: there)
    monkeypatch.setattr(hosts, "count", lambda: processes)
    placement = Placement.of(members)
    assert len(there) // placement.member_devices == shares
    placement = placement.shared_by(shares, 64, "")
    assert str(placement) == text
    assert placement.num_padded == (1 if members == 1 else placement.member_devices)


@pytest.mark.parametrize(
    ("num_envs", "num_steps", "available", "shares"),
    [
        (2048, 32, 2, 2),
        (2048, 32, 8, 2),  # 16,384 rows in each of the four minibatches
        (2048, 31, 2, 1),
        (4096, 64, 8, 8),
        (2049, 128, 4, 3),  # neither two nor four devices divide the environments
        (64, 128, 2, 1),
    ],
)
def test_cores_share_large_updates_without_a_request(num_envs, num_steps, available, shares):
    """Each gets 8,192 rows of an update at least; other plans and GPUs wait for a request."""
    env, total_steps = Counter(limit=5), num_envs * num_steps
    ppo = PPO(num_envs=num_envs, num_steps=num_steps)
    training = Training.create(ppo, env, total_steps=total_steps)
    assert split.shards(training, 1, available, None)[0] == shares
    assert split.shards(training, 2, 2 * available, None)[0] == shares
    assert split.shards(training, available, available, None)[0] == 1
    dqn = DQN(num_envs=num_envs, batch_size=num_envs, capacity=2 * num_envs, warmup=num_envs)
    training = Training.create(dqn, env, total_steps=total_steps)
    assert split.shards(training, 1, available, None)[0] == 1


def test_more_devices_than_available_are_rejected(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="cpu")] * 2)
    with pytest.raises(InvalidValue, match=r"devices is 3, but there are 2 devices: .*_DEVICES=3"):
        Placement.of(8, 3)


SCRIPT = """
    import json, pathlib, sys
    import jax, numpy as np
    from helpers.agents.tiny import Tiny
    from helpers.environments import Counter
    from jaxrl.agents import PPO
    from jaxrl.runs.directory import read_metrics
    from jaxrl.runs.events import Evaluation, Resumed
    from jaxrl.runs.fit import fit

    ppo = PPO(num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2, hidden_sizes=(8,))
    tiny = Tiny()  # where the agent does not matter
    keys = jax.vmap(jax.random.key)(np.arange(5))
    path = pathlib.Path(sys.argv[1])
    found = {"there": len(jax.devices())}

    def run(agent, name=None, keys=keys, **options):
        options = {"num_evaluations": 2, "num_eval_episodes": 2, "tensorboard": False} | options
        run_dir = None if name is None else path / name
        return fit(agent, Counter(limit=5), keys, total_steps=128, run_dir=run_dir, **options)

    def flat(state):
        rows = [np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(state)]
        return np.concatenate(rows, axis=1)

    def differs(one, two):
        assert one.shape == two.shape, (one.shape, two.shape)
        return float(np.abs(one - two).max())

    events = []
    spread = run(ppo, "spread", callbacks=[events.append])
    alone = run(ppo, devices=1)
    found["devices"] = [spread.compiled.devices, alone.compiled.devices]
    found["members"] = {x.shape[0] for x in jax.tree.leaves(spread.state)} == {5}
    found["events"] = [list(e.returns.shape) for e in events if isinstance(e, Evaluation)]
    found["rows"] = [(r["step"], r["seed"]) for r in read_metrics(path / "spread")]
    found["one device"] = differs(flat(spread.state.agent), flat(alone.state.agent))
    found["seeds differ"] = bool((np.diff(flat(spread.state.agent), axis=0) != 0).any(1).all())

    def stop(event):
        return "enough" if isinstance(event, Evaluation) else None

    whole = flat(run(tiny).state)
    found["again"] = differs(whole, flat(run(tiny).state))
    for before, after in ((None, None), (None, 1), (1, None)):
        name = f"from {before} to {after}"
        run(tiny, name, callbacks=[stop], devices=before)
        events.clear()
        resumed = run(tiny, name, resume=True, devices=after, callbacks=[events.append])
        notes = [note for e in events if isinstance(e, Resumed) for note in e.notes]
        found[name] = [differs(whole, flat(resumed.state)), notes]

    points = [{"learning_rate": 1e-3}, {"learning_rate": 3e-3}]
    recurrent = ppo.replace(core="gru", core_size=4)  # evaluation ignores part of its state
    swept, whole = (run(recurrent, keys=keys[:2], points=points, devices=n) for n in (None, 1))
    found["sweep"] = [swept.compiled.devices, differs(flat(swept.state), flat(whole.state))]
    first, second = np.split(flat(swept.state.agent), 2)
    found["points differ"] = differs(first, second)
    print(json.dumps(found))
"""


def test_members_on_three_devices_match_one_device(tmp_path):
    """Five seeds, two on a device: the sixth slot is padding and is never reported."""
    found = json_of(SCRIPT, tmp_path, devices=3, cache=tmp_path / "cache")
    assert found["there"] == 3
    assert found["devices"] == ["all 3, at most 2 members each", "1 of 3 (as requested)"]
    assert found["members"]
    assert found["events"] == [[5, 2], [5, 2]]
    assert found["rows"] == [[step, seed] for step in (64, 128) for seed in range(5)]
    assert found["one device"] < 1e-5
    assert found["seeds differ"]
    # The same devices give the same bits, also after a resume.
    assert found["again"] == 0
    assert found["from None to None"] == [0, []]
    # A run resumes on another number of devices, and a note says that rounding may differ.
    for name, note in (
        ("from None to 1", "3 before, 1 now"),
        ("from 1 to None", "1 before, 3 now"),
    ):
        difference, notes = found[name]
        assert difference < 1e-4
        assert notes == [f"devices: {note}: results may differ in rounding"]
    # Two points of a sweep with two seeds each, on two devices.
    devices, difference = found["sweep"]
    assert devices == "2 of 3, 2 members each"
    assert difference < 1e-5
    assert np.isfinite(found["points differ"])
    assert found["points differ"] > 1e-4


def test_a_request_for_devices_does_not_outlive_the_machine(tmp_path, monkeypatch):
    """Neither a sweep of single members nor loading a run needs the devices that were requested."""
    monkeypatch.chdir(tmp_path)
    words = "sweep helpers.agents.tiny:Tiny helpers.environments:Counter --grid num_envs=2,4"
    rest = "--devices 3 --total-steps 32 --num-eval-episodes 2 --sweep-dir swept --no-tensorboard"
    status, _, err = run_in_process(*words.split(), *rest.split(), "--num-evaluations", 1)
    assert status == 0, err
    (config, _) = sorted(tmp_path.glob("swept/*/config.json"))
    content = json.loads(config.read_text()) | {"devices": 3}
    config.write_text(json.dumps(content))
    status, _, err = run_in_process("evaluate", str(config.parent), "--episodes", "2")
    assert status == 0, err
