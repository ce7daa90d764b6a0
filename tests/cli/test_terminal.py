"""Standard output that fails during a run, signals, and machines without a home directory."""

import errno
import io
import os
import signal
import subprocess
import sys

import jax
import pytest
from helpers import quick
from helpers.agents.idle import Idle
from helpers.commands import run_in_process
from helpers.environments import Counter

from jaxrl.cli import listing, terminal
from jaxrl.runs.checkpoint_files import Checkpoints
from jaxrl.runs.directory import read_metrics
from jaxrl.runs.events import Progress
from jaxrl.runs.fit import fit
from jaxrl.runs.interrupt import Interrupted, deferred_signals

TINY = ["--no-preset", "--num-envs", "2", "--num-steps", "8", "--num-evaluations", "2",
        "--num-eval-episodes", "2", "--total-steps", "64", "--no-tensorboard"]  # fmt: skip


class Failing(io.StringIO):
    """A stream whose writes fail after some number of lines."""

    def __init__(self, error, after=0):
        super().__init__()
        self.error, self.after = error, after

    def write(self, text):
        if self.getvalue().count("\n") >= self.after:
            raise self.error
        return super().write(text)


ERRORS = {
    "its reader left": BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "its disk is full": OSError(errno.ENOSPC, "No space left on device"),
    "its terminal is closed": OSError(errno.EIO, "Input/output error"),
    "it was closed": ValueError("I/O operation on closed file."),
}


@pytest.mark.parametrize("name", ERRORS)
def test_output_that_fails_is_dropped_and_reported_once(monkeypatch, name):
    error = ERRORS[name]
    stream, err = Failing(error, after=1), io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", err)
    with terminal.ignoring_stdout_errors():
        for line in ("one", "two", "three"):
            print(line, flush=True)
    assert sys.stdout is stream
    assert stream.getvalue() == "one\n"
    why = getattr(error, "strerror", None) or error
    expected = f"jaxrl: standard output is gone ({why}): the run continues without it\n"
    assert err.getvalue() == expected
    monkeypatch.setattr(sys, "stderr", Failing(error))
    with terminal.ignoring_stdout_errors():  # nor does it matter that nobody hears of it
        print("four")


def test_a_character_that_the_terminal_lacks_is_replaced(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with terminal.ignoring_stdout_errors():
        print("1.0 ± 0.5")
    assert stream.buffer.getvalue() == b"1.0 ? 0.5\n"


@pytest.fixture(scope="module")
def without_home(tmp_path_factory):
    """Runs the command without a home directory, with a reader that quits after the first line."""
    path = tmp_path_factory.mktemp("without_home")
    code = """
import pwd, sys
def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
from jaxrl.cli.main import main
main(sys.argv[1:])
"""
    hidden = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "JAX_COMPILATION_CACHE_DIR",
              "MPLCONFIGDIR")  # fmt: skip
    words = ["train", "reinforce", "jaxrl/corridor", *TINY, "--run-dir", str(path / "run")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={k: x for k, x in os.environ.items() if k not in hidden} | quick.environment(),
        text=True,
    ) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    return path / "run", process.returncode, err.splitlines()


def test_a_run_outlives_its_reader(without_home):
    path, status, err = without_home
    assert status == 0
    assert "jaxrl: standard output is gone (Broken pipe): the run continues without it" in err
    assert [row["step"] for row in read_metrics(path)] == [32, 64]
    assert (path / "summary.json").exists()
    assert Checkpoints(path / "checkpoints").steps() == [64]


def test_no_home_directory_is_a_note(without_home):
    _, status, err = without_home
    assert status == 0
    assert len(err) == 2
    assert err[0] == (
        "note: compiled programs are not cached (Could not determine home directory): set "
        "XDG_CACHE_HOME to a writable directory"
    )


def test_where_compiled_programs_are_kept(tmp_path):
    """A writable directory is used, and the user's settings take precedence."""
    (tmp_path / "file").touch()
    code = """
import os, sys
from jaxrl.cli import session
folder, name = sys.argv[1], "JAX_COMPILATION_CACHE_DIR"
for cache in (folder + "/file", folder + "/home"):
    os.environ["XDG_CACHE_HOME"] = cache
    session.keep_compiled_programs()
    print(os.environ.get(name))
os.environ |= {name: "mine", "XDG_CACHE_HOME": folder + "/file"}
session.keep_compiled_programs()
print(os.environ[name])
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True,
        env={k: x for k, x in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
    )  # fmt: skip
    assert run.stdout.splitlines() == ["None", str(tmp_path / "home" / "jaxrl" / "xla"), "mine"]
    (line,) = run.stderr.splitlines()
    assert line.startswith("note: compiled programs are not cached ([Errno 20] Not a directory: ")


SHELL = {
    "closed": (">&-", 0),
    "full": (">/dev/full", 0),
    "both closed": (">&- 2>&-", 0),
    "both full": (">/dev/full 2>/dev/full", 0),
}


@pytest.mark.parametrize("name", SHELL)
def test_the_process_ends_as_if_it_had_been_heard(tmp_path, name):
    """Python would exit with 120 if it cannot flush standard output."""
    redirection, status = SHELL[name]
    code = (
        "from jaxrl.cli import listing, main, terminal; import os\n"
        "def told(options):\n"
        "    with terminal.ignoring_stdout_errors():\n"
        "        print('a' * 100_000); print('b')\n"
        "    with open('file', 'w') as file:\n"
        "        os.write(1, b'from C')\n"
        "listing.list_all = told\n"
        "main.main(['list'])\n"
    )
    run = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, code], cwd=tmp_path
    )
    assert run.returncode == status
    assert (tmp_path / "file").read_text() == ""  # which did not become standard output


# Signals ------------------------------------------------------------------------------------------


@pytest.fixture
def not_under_nohup():
    """Under `nohup`, the tests would inherit that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("not_under_nohup")
def test_a_closed_terminal_saves_however_often_it_is_told(tmp_path):
    def hang_up(event):
        if isinstance(event, Progress):
            for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
                signal.raise_signal(number)  # in this order, unlike os.kill in a busy process

    with pytest.raises(Interrupted) as caught:
        fit(Idle(), Counter(), jax.random.key(0), total_steps=100, run_dir=tmp_path / "run",
            num_eval_episodes=2, tensorboard=False, callbacks=[hang_up])  # fmt: skip
    assert caught.value.signal == signal.SIGHUP
    assert len(Checkpoints(tmp_path / "run" / "checkpoints").steps()) == 1


def test_signals_are_noted_and_handed_back():
    def mine(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGHUP, mine)
    try:
        with deferred_signals() as asked:
            assert asked() == 0
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert asked() == signal.SIGTERM
            with pytest.raises(KeyboardInterrupt):  # no patience
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGHUP) is mine
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        with deferred_signals() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_commands_end_with_their_reader(monkeypatch):
    """Without a message if the pipe is closed, but with an error if the disk is full."""
    for error, status, message in (
        (ERRORS["its reader left"], 0, []),
        (ERRORS["its disk is full"], 1, ["jaxrl: error: standard output: No space left on device"]),
    ):

        def told(options, error=error):
            raise error

        monkeypatch.setattr(listing, "list_all", told)
        assert run_in_process("list") == (status, [], message)
