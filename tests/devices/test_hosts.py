"""Runs of several processes: the same training, one writer, decisions and ends in common."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import run_in_process
from helpers.processes import environment, free_address, json_of, of_several

from jaxrl.cli import distributed
from jaxrl.runs.checkpoint_files import Checkpoints

COMMON = """
    import json, os, pathlib, signal, sys
    import jax, jax.numpy as jnp, numpy as np
    from helpers.agents.cross_entropy import CrossEntropy
    from helpers.agents.tiny import Tiny
    from helpers.environments import Counter
    from jaxrl.agents import PPO
    from jaxrl.devices import hosts
    from jaxrl.devices.placement import Placement
    from jaxrl.errors import InvalidValue, JaxrlError
    from jaxrl.runs.events import Evaluation, Resumed
    from jaxrl.runs.fit import fit

    tiny = Tiny()
    # One minibatch, because each device shuffles its own data.
    ppo = PPO(num_envs=4, num_steps=8, num_epochs=2, num_minibatches=1, hidden_sizes=(8,),
              adam_epsilon=1e-2)

    def run(agent, path, keys=None, **options):
        keys = jax.vmap(jax.random.key)(np.arange(3)) if keys is None else keys
        options = {"num_evaluations": 2, "num_eval_episodes": 2, "tensorboard": False} | options
        return fit(agent, Counter(limit=5), keys, total_steps=128, run_dir=path, **options)

    def flat(tree):
        leaves = [np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(tree)]
        return np.concatenate(leaves).tolist()

    def error(function, *arguments, **options):
        try:
            function(*arguments, **options)
        except JaxrlError as error:
            return str(error)
"""

CONNECTED = """
    address, number, this = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    path = pathlib.Path(sys.argv[4])
    jax.distributed.initialize(address, number, this)
"""

LOST = """
    found = {"there": [jax.device_count(), jax.local_device_count()]}

    # Messages of any length, and errors of one process.
    found["long"] = [len(x) for x in hosts.of_all("x" * (1000 + this))]
    def fail():
        raise InvalidValue("this fails")
    found["first"] = error(hosts.by_first, fail)
    found["second"] = error(hosts.everywhere, fail if this == 1 else lambda: 1)
    class Together(CrossEntropy):
        candidates = ()

    found["errors"] = [
        error(run, Together(), None, jax.random.key(0)),
        error(run, tiny, None, devices=1),
        error(run, tiny, path / "lost", jax.vmap(jax.random.key)(np.arange(3)), devices=3),
    ]

    # The bits of members, which are sent one by one.
    placement = Placement.of(3)
    tree = {
        "float": np.array([[-0.0, np.nan], [1.5, -np.inf], [1e-45, 2]], np.float32),
        "bool": np.array([True, False, True]),
        "byte": np.array([[1], [255], [3]], np.uint8),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "int": np.array([-1, 2**31 - 1, 0], np.int32),
        "key": jax.vmap(jax.random.key)(np.arange(3)),
    }
    back = placement.collect(placement.place(tree))
    if this == 0:
        back["key"], tree["key"] = map(jax.random.key_data, (back["key"], tree["key"]))
        found["bits"] = [
            np.asarray(back[k]).tobytes() == np.asarray(x).tobytes() for k, x in tree.items()
        ]

    # The death of one process ends the others.
    events = []
    def callback(event):
        events.extend([event] if isinstance(event, Evaluation) else [])
        if this == 1 and len(events) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    found["lost"] = error(
        run, tiny, path / "lost", callbacks=[callback], checkpoint_seconds=0.0, keep_best=True
    )
    found["returns"] = [x.returns.tolist() for x in events]
    print(json.dumps(found), flush=True)
    os._exit(0)
"""

ALONE = """
    path, found, events = pathlib.Path(sys.argv[1]), {}, []
    whole = run(tiny, path / "alone", callbacks=[events.append])
    found["returns"] = [x.returns.tolist() for x in whole.evaluations]
    resumed = run(tiny, path / "lost", resume=True, keep_best=True, callbacks=[events.append])
    found["agents"] = flat(whole.state.agent), flat(resumed.state.agent)
    found["notes"] = [list(x.notes) for x in events if isinstance(x, Resumed)]
    print(json.dumps(found))
"""


def script(*parts):
    return "".join((COMMON, *parts))


def last_line(result):
    status, out, err = result
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


def test_two_processes_train_like_one(tmp_path):
    """Three seeds on two devices, one of them with a repetition, until a process is killed."""
    cache = tmp_path / "cache"
    first, second = of_several(script(CONNECTED, LOST), tmp_path, processes=2, cache=cache)
    found = last_line(first)
    assert second[0] == -signal.SIGKILL, second[2]
    assert found["there"] == [2, 1]
    assert found["long"] == [1000, 1001]
    assert found["first"] == "this fails"
    assert found["second"] == "this fails (process 1)"
    alone, few, odd = found["errors"]
    assert alone.startswith("devices is 2: Together.candidates names no field")
    assert few.startswith("devices is 1, but there are 2 processes, which share them evenly")
    assert odd.startswith("devices is 3, but there are 2 devices")
    assert found["bits"] == [True] * 6
    run = tmp_path / "lost"
    assert found["lost"] == (
        "another process of this run has ended; resume with: "
        f"fit(..., run_dir={str(run)!r}, resume=True)"
    )
    saved = [x.name for x in (run / "checkpoints").iterdir()]
    assert "64" in saved
    assert "128" not in saved
    assert not (run / "summary.json").exists()
    # A single process trains the same, and goes on with what two have saved.
    alone = json_of(script(ALONE), tmp_path, devices=1, cache=cache)
    assert np.array_equal(found["returns"], alone["returns"])
    np.testing.assert_allclose(*alone["agents"], atol=1e-6)
    assert alone["notes"] == [["devices: 2 before, 1 now: results may differ in rounding"]]
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    seeds = [(row["step"], row["seed"]) for row in rows]
    assert seeds == [(step, seed) for step in (64, 128) for seed in range(3)]


TO_THE_BITS = """
    events, found = [], {}
    def stop(event):
        return "enough" if this == 1 and isinstance(event, Evaluation) else None
    stopped = run(tiny, path / "stopped", callbacks=[stop], keep_best=True)
    found["stopped"] = [stopped.stopped, stopped.env_steps, stopped.compiled.devices]
    resumed = run(tiny, path / "stopped", resume=True, keep_best=True, callbacks=[events.append])
    whole = run(tiny, path / "whole")
    of_one, of_other = (flat(hosts.whole(x.state)) for x in (whole, resumed))
    found["again"] = of_one == of_other
    found["notes"] = [list(x.notes) for x in events if isinstance(x, Resumed)]
    found["taken"] = error(run, tiny, path / "whole")
    shared = run(ppo, path / "shared", jax.random.key(0), num_evaluations=1)
    found["devices"] = shared.compiled.devices
    found["shared"] = flat(hosts.whole(shared.state.agent))
    print(json.dumps(found), flush=True)
"""

BY_ONE = """
    shared = run(ppo, None, jax.random.key(0), num_evaluations=1)
    print(json.dumps(flat(shared.state.agent)))
"""


@pytest.mark.thorough
def test_what_one_process_decides_holds_for_all(tmp_path):
    """A callback of the second process stops both; they go on to the bits of a whole run."""
    cache = tmp_path / "cache"
    results = of_several(script(CONNECTED, TO_THE_BITS), tmp_path, processes=2, cache=cache)
    found, second = map(last_line, results)
    assert found == second
    assert found["stopped"] == ["enough", 3 * 64, "all 2, at most 2 members each"]
    assert found["again"]
    assert found["notes"] == [[]]
    assert "is not empty" in found["taken"]
    assert json.loads((tmp_path / "whole" / "summary.json").read_text())["env_steps"] == 3 * 128
    alone = json_of(script(BY_ONE), devices=1, cache=cache)
    # The environments of a single seed.
    assert found["devices"] == "all 2, 2 environments each"
    np.testing.assert_allclose(alone, found["shared"], atol=1e-4)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--process-id 1", "--process-id is for several processes: add --distributed"),
        (
            "--distributed --process-id 1",
            "--distributed with --process-id also needs --coordinator and --num-processes",
        ),
        (
            "--distributed --coordinator h:1 --num-processes 2 --process-id 2",
            "--process-id is 2: processes are numbered from 0 to 1",
        ),
        ("--distributed --coordinator h", "'h' is no address: write HOST:PORT"),
        ("--distributed --dry-run", "--dry-run is for a single process"),
    ],
)
def test_flags_that_cannot_work_are_named(words, text):
    status, _, err = run_in_process("train", "ppo", "gymnax/CartPole-v1", *words.split())
    assert status == 2
    assert text in err[0]


ENDS = """#!{python}
import os, signal, socket, sys, time
parent = socket.socket(fileno=int(os.environ["JAXRL_PARENT"]))
parent.sendall(b"resume with: jaxrl resume x")
if sys.argv[-1] == "waits":
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()
os.kill(os.getpid(), int(sys.argv[-1]))
"""


@pytest.mark.parametrize(
    ("how", "status", "by"),
    [
        (signal.SIGABRT, 1, "JAX, probably because another process of this run has ended"),
        (signal.SIGKILL, 137, "SIGKILL"),
        ("waits", 143, "SIGTERM"),  # which is passed on
    ],
)
def test_an_aborted_process_says_how_to_go_on(how, status, by, tmp_path, monkeypatch, capsys):
    child = tmp_path / "child"
    child.write_text(ENDS.format(python=sys.executable))
    child.chmod(0o755)
    monkeypatch.setattr(distributed.sys, "executable", str(child))
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert distributed.supervise([str(how if how == "waits" else int(how))]) == status
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == (
        f"jaxrl: error: this process was ended by {by}; resume with: jaxrl resume x\n"
    )


RUN = (
    "helpers.agents.tiny:Tiny helpers.environments:Counter --num-eval-episodes 2 "
    "--num-evaluations 4 --no-tensorboard --seeds 4 --total-steps 12800000 --checkpoint-seconds 0"
)


@pytest.mark.thorough
@pytest.mark.timeout(900)  # seven launches of four processes
def test_four_processes_are_killed_five_times_and_resumed(tmp_path):
    """Each time all end by themselves, and the run ends with the bits of one that was not killed.

    A member of each process; the last resume has two processes of two devices, for the same bits.
    """
    rng, cache = random.Random(0), tmp_path / "cache"
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for status, _, err in commands(f"train {RUN} --run-dir {whole}", cache=cache):
        assert status == 0, err
    command = f"train {RUN} --run-dir {killed}"
    for _ in range(5):
        victim, then = rng.randrange(4), rng.uniform(0.0, 2.0)
        results = commands(command, cache=cache, victim=victim, after=then)
        statuses = [status for status, _, _ in results]
        assert statuses[victim] == 128 + signal.SIGKILL, results[victim]
        for i, (status, _, err) in enumerate(results):
            if i != victim:
                assert status == 1, err
                assert "another process of this run has ended; resume with: jaxrl resume" in err
        command = f"resume {killed}"
    for status, _, err in commands(command, cache=cache, processes=2, devices=2):
        assert status == 0, err
    first, second = (newest_checkpoint(path) for path in (killed, whole))
    assert first["leaves"] == second["leaves"]  # with checksums


def newest_checkpoint(path):
    checkpoints = Checkpoints(path / "checkpoints")
    return checkpoints.record(checkpoints.steps()[0])


def commands(command, *, cache, processes=4, devices=1, victim=None, after=0.0):
    """Runs the command in several processes, and kills one a while after training begins."""
    words = [sys.executable, "-m", "jaxrl", *command.split(), "--distributed"]
    connection = f"--coordinator {free_address()} --num-processes {processes} --process-id".split()
    started = [
        subprocess.Popen(
            [*words, *connection, str(i)],
            env=environment(devices, cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]  # fmt: skip
    out = []
    try:
        if victim is not None:
            while "training on devices" not in (line := started[0].stdout.readline()):
                out.append(line)
                assert line, started[0].communicate()
            time.sleep(after)
            child = Path(f"/proc/{started[victim].pid}/task/{started[victim].pid}/children")
            os.kill(int(child.read_text().split()[0]), signal.SIGKILL)
        said = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(started, said, strict=True)]
