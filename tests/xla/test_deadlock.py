"""The deadlock protection: when it applies, and that it works."""

import importlib.metadata
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.environments import Counter
from helpers.paths import TESTS

from jaxrl.agents import PPO
from jaxrl.engine.training import Training
from jaxrl.xla import deadlock

ENABLED = f"{deadlock.FLAG}=true"
DISABLED = f"{deadlock.FLAG}=false"


@pytest.fixture
def small_affected_host(monkeypatch):
    """Two threads, an affected jaxlib, no backend yet and an empty environment."""
    monkeypatch.setattr(deadlock, "_jaxlib_version", lambda: (0, 10, 2))
    monkeypatch.setattr(deadlock, "backend_has_started", lambda: False)
    monkeypatch.setattr(deadlock, "cores", lambda: 2)
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.delenv(deadlock.OPT_OUT, raising=False)
    monkeypatch.setenv("XLA_FLAGS", "")
    return monkeypatch


@pytest.mark.parametrize("flags", ["", "--xla_dump_to=dump", "  --a=1 --b=2 "])
def test_flag_is_appended_to_user_flags(small_affected_host, flags):
    small_affected_host.setenv("XLA_FLAGS", flags)
    deadlock.protect()
    assert os.environ["XLA_FLAGS"].split() == [*flags.split(), DISABLED]
    deadlock.protect()
    assert os.environ["XLA_FLAGS"].split() == [*flags.split(), DISABLED]


@pytest.mark.parametrize("setting", [ENABLED, f"--a=1 {ENABLED}", DISABLED, deadlock.FLAG])
def test_user_setting_is_kept(small_affected_host, setting):
    small_affected_host.setenv("XLA_FLAGS", setting)
    deadlock.protect()
    assert os.environ["XLA_FLAGS"] == setting


@pytest.mark.parametrize(("value", "acts"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_opt_out_disables_protection(small_affected_host, value, acts):
    small_affected_host.setenv(deadlock.OPT_OUT, value)
    deadlock.protect()
    assert (os.environ["XLA_FLAGS"] == DISABLED) == acts


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        (None, False),
        ((0, 9, 2), False),
        ((0, 10, 0), True),
        ((0, 10, 2), True),
        ((0, 11, 0), True),
        ((0, 11, 1), False),
        ((0, 11, 2), False),
        ((1, 0, 0), False),
    ],
)
def test_only_affected_versions_are_changed(small_affected_host, version, affected):
    assert deadlock.jaxlib_is_affected(version) == affected
    small_affected_host.setattr(deadlock, "_jaxlib_version", lambda: version)
    deadlock.protect()
    assert os.environ["XLA_FLAGS"] == (DISABLED if affected else "")


@pytest.mark.parametrize(
    ("cores", "nproc", "small"),
    [(2, None, True), (15, None, True), (16, None, False), (64, "2", True), (2, "16", False),
     (2, "many", True), (64, "", False)],
)  # fmt: skip
def test_only_hosts_with_few_threads_are_changed(small_affected_host, cores, nproc, small):
    small_affected_host.setattr(deadlock, "cores", lambda: cores)
    if nproc is not None:
        small_affected_host.setenv("NPROC", nproc)
    deadlock.protect()
    assert os.environ["XLA_FLAGS"] == (DISABLED if small else "")


def lapack_calls():
    """A traced program with LAPACK calls in a branch of a loop."""

    def factor(x):
        return jax.lax.cond(x[0, 0] > 0, jnp.linalg.cholesky, lambda x: jnp.linalg.qr(x)[0], x)

    def loop(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: factor(x), x)

    return jax.make_jaxpr(loop)(jnp.eye(2))


def test_lapack_calls_are_protected_before_the_backend_starts(small_affected_host):
    deadlock.protect_or_warn("Mine", jax.make_jaxpr(jnp.sin)(1.0))
    assert os.environ["XLA_FLAGS"] == ""
    deadlock.protect_or_warn("Mine", lapack_calls())
    assert os.environ["XLA_FLAGS"] == DISABLED


def test_late_protection_only_warns(small_affected_host):
    small_affected_host.setattr(deadlock, "backend_has_started", lambda: True)
    with pytest.warns(RuntimeWarning, match=r"Mine calls LAPACK \(cholesky, .*qr\).*set it before"):
        deadlock.protect_or_warn("Mine", lapack_calls())
    deadlock.protect()
    assert os.environ["XLA_FLAGS"] == ""


@pytest.mark.parametrize(
    "changes", [{"XLA_FLAGS": ENABLED}, {deadlock.OPT_OUT: "1"}, {"NPROC": "16"}]
)
def test_no_warning_when_unaffected_or_opted_out(small_affected_host, changes):
    small_affected_host.setattr(deadlock, "backend_has_started", lambda: True)
    for name, value in changes.items():
        small_affected_host.setenv(name, value)
    before = os.environ.get("XLA_FLAGS")
    deadlock.protect_or_warn("Mine", lapack_calls())
    assert os.environ.get("XLA_FLAGS") == before


def test_flag_files_are_not_modified(small_affected_host):
    """XLA treats a value without a leading dash as a file name."""
    small_affected_host.setenv("XLA_FLAGS", "flags.txt")
    with pytest.warns(RuntimeWarning, match=r"add it to the file flags\.txt"):
        deadlock.protect_or_warn("Mine", lapack_calls())
    assert os.environ["XLA_FLAGS"] == "flags.txt"


def test_sequential_initialisation_gives_the_same_numbers(small_affected_host):
    def orthogonal(key):
        return jnp.linalg.qr(jax.random.normal(key, (5, 3)))[0]

    keys = jax.random.split(jax.random.key(0), 4)
    in_turn = jax.vmap(deadlock.one_by_one(orthogonal))
    np.testing.assert_array_equal(in_turn(keys), jnp.stack([orthogonal(key) for key in keys]))
    assert "while" in str(jax.make_jaxpr(in_turn)(keys)) or "scan" in str(
        jax.make_jaxpr(in_turn)(keys)
    )
    small_affected_host.setattr(deadlock, "_jaxlib_version", lambda: (0, 11, 2))
    assert deadlock.one_by_one(orthogonal) is orthogonal


class Factored(Counter):
    """Its step calls LAPACK."""

    def step(self, key, state, action):
        state, timestep = super().step(key, state, action)
        q, _ = jnp.linalg.qr(jnp.eye(2) + timestep.reward)
        return state, timestep.replace(reward=timestep.reward + 0.0 * q[0, 0])


def test_training_warns_when_protection_is_too_late(small_affected_host):
    small_affected_host.setattr(deadlock, "backend_has_started", lambda: True)
    with pytest.warns(RuntimeWarning, match="Factored calls LAPACK"):
        Training.create(PPO(), Factored(), total_steps=512)
    small_affected_host.setenv(deadlock.OPT_OUT, "1")
    Training.create(PPO(), Factored(), total_steps=512)  # warnings are errors here


def test_the_version_of_jaxlib_is_read(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.2.dev20260101+abc")
    assert deadlock._jaxlib_version() == (0, 10, 2)

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert deadlock._jaxlib_version() is None


# In subprocesses ----------------------------------------------------------------------------------


def environment(**changes):
    """This process's environment without the variables that importing jaxrl may set or read."""
    kept = {
        k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC", deadlock.OPT_OUT)
    }
    return {**kept, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]), **changes}


def python(code, *arguments, **changes):
    """Run code in a subprocess, with a timeout of two minutes."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, env=environment(**changes), capture_output=True, text=True, timeout=120
    )


IMPORT = """
import importlib.metadata, os, sys
real = importlib.metadata.version
importlib.metadata.version = lambda name: "0.10.2" if name == "jaxlib" else real(name)
import jaxrl_envs
env = jaxrl_envs.make(sys.argv[1])
from jaxrl.xla import deadlock
print(os.environ.get("XLA_FLAGS"), deadlock.backend_has_started())
"""


def test_environments_that_call_lapack_are_protected_before_jax_starts():
    """Known environments without LAPACK are not slowed down; import paths may call it."""
    assert python(IMPORT, "gymnax/CartPole-v1", NPROC="2").stdout.startswith("None")
    own = python(IMPORT, "helpers.environments:Chain", NPROC="2")
    assert own.stdout == f"{DISABLED} False\n", own.stderr
    assert python(IMPORT, "helpers.environments:Chain", NPROC="64").stdout.startswith("None")


def test_brax_is_protected():
    code = "import os, jaxrl_envs.brax\nprint(os.environ.get('XLA_FLAGS'))"
    pretend = IMPORT.partition("import jaxrl_envs")[0]
    assert python(pretend + code, NPROC="2").stdout == f"{DISABLED}\n"


TRAIN = """
import sys
import jaxrl, jax
from helpers.environments import Chain
from jaxrl.agents import PPO

agent = PPO(num_envs=4, num_steps=8, num_epochs=1, num_minibatches=1)

@jax.jit
@jax.vmap
def program(seed):
    key = jax.random.key(seed)
    return jaxrl.train(agent, Chain(), key, total_steps=32, num_evaluations=0)[0].agent.params

for i in range(int(sys.argv[1])):
    jax.block_until_ready(program(jax.numpy.arange(8) + i))
print("done")
"""


@pytest.mark.skipif(
    not deadlock.jaxlib_is_affected(deadlock._jaxlib_version()),
    reason="this version of jaxlib does not deadlock",
)
def test_eight_seeds_train_in_ten_processes_without_a_deadlock(tmp_path):
    """PPO vmapped over 8 seeds on two threads; initialisation uses QR decompositions.

    With batched decompositions the first call hangs (6 of 6 processes). The outputs matter: if the
    program also returns the optimiser state, XLA schedules it so that it seldom hangs.
    """
    settings = {
        "NPROC": "2",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),  # only the first process compiles
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def train(_):
        run = python(TRAIN, "20", **settings)  # raises if it hangs
        assert run.stdout == "done\n", run.stderr

    train(0)
    pool = ThreadPoolExecutor(2)
    try:
        list(pool.map(train, range(9)))
    finally:
        pool.shutdown(cancel_futures=True)
