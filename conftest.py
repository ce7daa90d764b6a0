"""Strict settings for every test: one CPU device, float32, no implicit rank promotion."""

import gc
import os
import zlib
from pathlib import Path

# One CPU device, unless `JAX_PLATFORMS=cuda pytest -m gpu` asks for another. Tests of several
# devices start their own process.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ["JAX_PLATFORMS"] != "cpu":  # a GPU multiplies in TF32, unless told otherwise
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "float32")
os.environ["JAX_NUM_CPU_DEVICES"] = "1"
os.environ["XLA_FLAGS"] = " ".join(
    flag
    for flag in os.environ.get("XLA_FLAGS", "").split()
    if not flag.startswith("--xla_force_host_platform_device_count")
)
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxrl.devices import machine  # neither imports jax
from jaxrl.xla import deadlock

# Each worker of pytest-xdist gets its share of the cores, and XLA as many threads.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = machine.cores() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("NPROC", str(max(1, share)))

import jax
import pytest
from helpers import quick
from jax._src import compiler

deadlock.protect()  # while jax has not started: tests of brax and of solvers call LAPACK

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_enable_x64", False)

COMPILE_OPTIONS = compiler.get_compile_options
QUICK_OPTIONS = quick.with_switch(COMPILE_OPTIONS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough",
        default="1/1",
        metavar="K/N",
        help="of the thorough tests, the K-th of N parts",
    )
    parser.addoption(
        "--long",
        default="1/1",
        metavar="K/N",
        help="of the tests in folders that take long, the K-th of N parts",
    )


LONG = tuple(
    Path(__file__).parent / "tests" / name
    for name in ("agents", "devices", "engine", "networks", "replay", "xla")
)
"""Folders that take most of the time."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests of other parts; the name of a test determines its part."""

    def is_left_out(item: pytest.Item, option: str) -> bool:
        part, parts = map(int, config.getoption(option).split("/"))
        return zlib.crc32(item.nodeid.encode()) % parts != part - 1

    def takes_long(item: pytest.Item) -> bool:
        return any(item.path.is_relative_to(folder) for folder in LONG)

    left_out = {
        item
        for item in items
        if (item.get_closest_marker("thorough") and is_left_out(item, "--thorough"))
        or (takes_long(item) and is_left_out(item, "--long"))
    }
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Keeps Python from looking for garbage among what was imported, again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips `gpu` tests without an accelerator, and sets how XLA compiles.

    Most tests spend their time compiling, and take a third of it without optimisation. Tests of
    exact bits and long training use the programs that users get.
    """
    if item.get_closest_marker("gpu") and jax.default_backend() == "cpu":
        pytest.skip("needs an accelerator")
    as_shipped = any(item.get_closest_marker(name) for name in ("optimized", "slow", "gpu"))
    jax.config.update("jax_disable_most_optimizations", not as_shipped)
    compiler.get_compile_options = COMPILE_OPTIONS if as_shipped else QUICK_OPTIONS
