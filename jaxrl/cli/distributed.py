"""A run of several processes: its flags, its connection, and how its processes end together.

A process of such a run has a parent that waits for it. JAX's runtime aborts a process from C++ when
another one is lost, so only a parent can then say how to go on. It passes signals on.
"""

import argparse
import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from jaxrl.cli import terminal
from jaxrl.cli.parsing import count, kind
from jaxrl.cli.session import find_own_modules, keep_compiled_programs
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.value_text import whole_number
from jaxrl.xla import deadlock

if TYPE_CHECKING:
    from jaxrl.runs.directory import RunDirectory

T = TypeVar("T")

PARENT = "JAXRL_PARENT"
"""Environment variable with the number of the socket to the parent."""
HEARTBEAT_SECONDS = 30
"""A process that is silent for so long is lost."""
SHUTDOWN_SECONDS = 60
"""So long a process that ends in order waits for the others."""
EXPLICIT = ("coordinator", "num_processes", "process_id")


def add_distributed(parser: Any) -> None:
    """Adds the flags of a run of several processes."""
    group = parser.add_argument_group("several processes, such as hosts")
    group.add_argument(
        "--distributed", action="store_true",
        help="This is one of several processes that train the run together; all are started with "
        "the same arguments. JAX finds the others under Slurm, Open MPI, Kubernetes and on "
        "Cloud TPUs; elsewhere, give the following three",
    )  # fmt: skip
    group.add_argument(
        "--coordinator", type=kind(_address), metavar="HOST:PORT",
        help="Address of process 0, at a free port",
    )  # fmt: skip
    group.add_argument(
        "--num-processes", type=count, metavar="INT", help="Number of processes"
    )  # fmt: skip
    group.add_argument(
        "--process-id", type=kind(whole_number), metavar="INT",
        help="Number of this process, from 0; the first one writes and prints",
    )  # fmt: skip


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InvalidValue(f"{text!r} is no address: write HOST:PORT, such as 10.0.0.1:1234")
    return text


def is_distributed(options: argparse.Namespace) -> bool:
    """Whether the options ask for several processes.

    Raises:
      ValueError: they are incomplete or contradict one another.
    """
    explicit = {name: getattr(options, name, None) for name in EXPLICIT}
    given = [name for name, value in explicit.items() if value is not None]
    if not getattr(options, "distributed", False):
        if given:
            raise InvalidValue(f"{_flag(given[0])} is for several processes: add --distributed")
        return False
    missing = [name for name in EXPLICIT if name not in given]
    if given and missing:
        raise InvalidValue(
            f"--distributed with {_flag(given[0])} also needs {' and '.join(map(_flag, missing))}"
        )
    if given and not 0 <= options.process_id < options.num_processes:
        raise InvalidValue(
            f"--process-id is {options.process_id}: processes are numbered from 0 to "
            f"{options.num_processes - 1}"
        )
    if getattr(options, "dry_run", False):
        raise InvalidValue("--dry-run is for a single process: leave --distributed out")
    return True


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def runs_in_child(options: argparse.Namespace) -> bool:
    """Whether this process should start another one, which does the work."""
    return is_distributed(options) and PARENT not in os.environ


def supervise(argv: Sequence[str]) -> int:
    """Runs the command in a child, and says how to go on if the child is aborted.

    Returns:
      The exit status.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-m", "jaxrl", *argv],
                env={**os.environ, PARENT: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                process_group=0,  # a terminal's signals arrive here, and are passed on once
            )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: child.send_signal(number))
        status = child.wait()
        if status >= 0:
            return status
        ours.settimeout(1.0)
        how = b"".join(iter(lambda: ours.recv(4096), b"")).decode()
    name = signal.Signals(-status).name
    if -status == signal.SIGABRT:
        name = "JAX, probably because another process of this run has ended"
    terminal.say(f"jaxrl: error: this process was ended by {name}{how and f'; {how}'}")
    return 1 if -status == signal.SIGABRT else 128 - status


class Processes:
    """The processes of the command: usually one, which does everything by itself."""

    def claim(self, claim: Callable[[], "RunDirectory"]) -> "RunDirectory":
        """The directory that the first process claims."""
        return claim()

    def read(self, read: Callable[[], T]) -> T:
        """What every process reads for itself; an error in one is raised in all."""
        return read()


class Several(Processes):
    """Connected processes."""

    def __init__(self, parent: socket.socket | None):
        self._parent = parent

    def claim(self, claim: Callable[[], "RunDirectory"]) -> "RunDirectory":
        from jaxrl.devices import hosts
        from jaxrl.runs.directory import RunDirectory

        found: list[RunDirectory] = []

        def path() -> str:
            found.append(claim())
            return str(found[0].path.absolute())

        directory = RunDirectory(hosts.by_first(path))
        if self._parent is not None:
            with contextlib.suppress(OSError):
                self._parent.sendall(f"resume with: {directory.resume_command}".encode())
        return found[0] if found else directory

    def read(self, read: Callable[[], T]) -> T:
        from jaxrl.devices import hosts

        return hosts.everywhere(read)


@contextlib.contextmanager
def connected(options: argparse.Namespace) -> Iterator[Processes]:
    """Within the block, this process is connected to the others; only the first one prints.

    Raises:
      ValueError: there is no connection.
    """
    if not is_distributed(options):
        yield Processes()
        return
    find_own_modules()
    keep_compiled_programs()
    deadlock.protect()  # later is too late
    import jax

    try:
        jax.distributed.initialize(
            options.coordinator,
            options.num_processes,
            options.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        why = str(error).strip().partition("\n")[0]
        if "must be defined" in why or "should be defined" in why:
            why = f"JAX knows no cluster here: give {', '.join(map(_flag, EXPLICIT))}"
        raise InvalidValue(f"--distributed: the processes are not connected: {why}") from error
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # JAX only notes it
    from jaxrl.devices import hosts
    from jaxrl.runs.interrupt import Interrupted
    from jaxrl.runs.loop import DivergenceError

    with contextlib.ExitStack() as stack:
        if not hosts.is_first():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        try:
            yield Several(_parent())
        except (InvalidValue, InvalidType, DivergenceError, Interrupted):
            raise  # in all processes, which end in order
        except BaseException:
            atexit.register(_leave)  # the others wait elsewhere, so there is no order to keep
            raise


def _leave() -> None:
    """Ends this process without waiting for the others, who then notice."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(1)


def _parent() -> socket.socket | None:
    """The socket to the parent; this process gets a SIGTERM if the parent is killed."""
    if PARENT not in os.environ:
        return None
    connection = socket.socket(fileno=int(os.environ.pop(PARENT)))

    def watch() -> None:
        with contextlib.suppress(OSError):
            if not connection.recv(1):
                os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return connection
