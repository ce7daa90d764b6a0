"""Scripts in processes of their own, for settings that jax reads when it starts."""

import json
import os
import socket
import subprocess
import sys
import textwrap

from helpers import quick
from helpers.paths import ROOT, TESTS


def json_of(code, *arguments, devices, cache):
    """What a script prints last, as JSON.

    Args:
      code: the script; it finds jaxrl, jaxrl_envs and the helpers.
      arguments: its arguments.
      devices: number of CPU devices.
      cache: directory for compiled programs, unless the environment names one.
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=environment(devices, cache), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def of_several(code, *arguments, processes, cache):
    """Exit status, output and errors of a script in each of several processes, with a device each.

    Its first arguments are the address of process 0, the number of processes and its own number.
    """
    address = free_address()
    words = [sys.executable, "-c", textwrap.dedent(code)]
    started = [
        subprocess.Popen(
            [*words, address, str(processes), str(i), *map(str, arguments)],
            env=environment(1, cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(processes)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(started, said, strict=True)]


def free_address():
    """The address of a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def environment(devices, cache):
    """Environment variables of such a process."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **os.environ,
        **quick.environment(),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "envs"), str(TESTS)]),
    }
