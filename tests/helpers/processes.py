"""Scripts in processes of their own, for settings that jax reads when it starts."""

import json
import os
import subprocess
import sys
import textwrap

from helpers.paths import ROOT, TESTS


def json_of(code, *arguments, devices, cache):
    """What a script prints last, as JSON.

    Args:
      code: the script; it finds jaxrl, jaxrl_envs and the helpers.
      arguments: its arguments.
      devices: number of CPU devices.
      cache: directory for compiled programs, unless the environment names one.
    """
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "envs"), str(TESTS)]),
    }
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
